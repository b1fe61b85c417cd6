"""timm's weights: cards equal its tables, crops equal its own, sizes are chosen by `NAME:SIZE`."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from local_server import LocalServer
from zoo_weights import TINY

from regnet.checkpoints.weights import write_safetensors
from regnet.conversion.convert import read_request
from regnet.conversion.store import Library
from regnet.conversion.values import Request
from regnet.inference.predictors import parse_choice
from regnet.network.complexity import complexity
from regnet.network.modules import RegNet
from regnet.network.spec import canonical_name
from regnet.pixels.preprocess import crop_pixels
from regnet.pixels.protocol import Preprocess, timm_protocol
from regnet.system.errors import DownloadError, IntegrityError, LicenceError, UnknownModelError
from regnet.zoo.card import Card
from regnet.zoo.catalogue import card_by_name, card_names, find_cards
from regnet.zoo.download import cached_file, download, forget_hash, import_file

GOLDEN = json.loads((Path(__file__).parent / "golden" / "timm_crops.json").read_text("utf-8"))
DATASETS = {"imagenet": "ImageNet-1k val", "real": "ImageNet-ReaL", "v2": "ImageNet-V2"}


@pytest.fixture(scope="module")
def timm(shared: Path) -> dict[str, dict[str, Any]]:
    text = (shared / "reference" / "timm_regnets.json").read_text("utf-8")
    models: dict[str, dict[str, Any]] = json.loads(text)["models"]
    return models


def timm_cards() -> list[Card]:
    return [card for card in find_cards(card_names()) if card.source == "timm"]


def has_network(model: dict[str, Any]) -> bool:
    try:
        return bool(canonical_name(model["architecture"]))
    except UnknownModelError:
        return False


def test_every_classifier_whose_network_is_known_has_its_figures(timm: dict[str, Any]) -> None:
    models = {tag: m for tag, m in timm.items() if m["num_classes"] and has_network(m)}
    assert len(models) == 67  # all but 3 without a head and 2 with EvoNorm
    for tag, model in models.items():
        card = card_by_name(tag)
        assert card_by_name(f"timm/{tag}") is card
        assert card.classes == model["num_classes"]
        cost = complexity(card.build_spec(), image_size=card.preprocess.crop)
        assert {round(cost.params / 1e6, 2)} >= {row["params_M"] for row in model["imagenet"]}, tag
        figures = {
            (a.dataset, a.resize, a.crop, a.interpolation, a.top1, a.top5)
            for a in card.accuracies
            if a.protocol.startswith("timm")
        }
        expected = {
            (
                dataset,
                timm_protocol(row["img_size"], row["crop_pct"]).resize,
                row["img_size"],
                row["interpolation"],
                row["top1"],
                row["top5"],
            )
            for table, dataset in DATASETS.items()
            for row in model[table]
        }
        assert expected <= figures, tag
        if card.source == "timm":
            assert expected == figures


def test_protocols_files_and_licences_are_the_references(timm: dict[str, Any]) -> None:
    for card in timm_cards():
        model = timm[card.aliases[0]]
        first = timm_protocol(
            model["input_size"][1],
            model["crop_pct"],
            name=f"timm-{model['input_size'][1]}",
            mean=tuple(round(255 * v, 4) for v in reversed(model["mean"])),
            scale=tuple(round(255 * v, 4) for v in reversed(model["std"])),
        )
        assert card.preprocess == first
        if test_size := model["test_input_size"]:
            share = model["test_crop_pct"] or model["crop_pct"]
            assert card.sizes[1].crop == test_size[1]
            assert card.sizes[1].resize == timm_protocol(test_size[1], share).resize
        assert card.licence.id.lower().endswith(model["license"].removesuffix("-license"))
        files = [one.file for one in card.by_file if one.file]
        hub = f"https://huggingface.co/{model['hf_hub_id']}/resolve/main/model.safetensors"
        assert files[-1].urls == (hub,)
        if len(files) == 2:
            assert files[0].urls == (model["url"],)
            assert model["url"].endswith(f"-{files[0].sha256_prefix}.pth")
        else:
            assert not model["url"] or model["url"] in card.notes[0]


def test_crops_equal_timms(photos: list[Path]) -> None:
    assert len(photos) == GOLDEN["photos"]
    for key, expected in GOLDEN["crops"].items():
        size, _, share = key.partition("@")
        protocol = timm_protocol(int(size), float(share), channels="RGB")
        digest = hashlib.sha256()
        for photo in photos:
            digest.update(np.ascontiguousarray(crop_pixels(photo, protocol)).tobytes())
        assert digest.hexdigest() == expected, key


def test_every_protocol_of_a_card_is_among_those_crops() -> None:
    def geometry(protocol: Preprocess) -> tuple[int, int, str, str]:
        return protocol.resize, protocol.crop, protocol.interpolation, protocol.offset

    sizes = (key.split("@") for key in GOLDEN["crops"])
    compared = {geometry(timm_protocol(int(size), float(share))) for size, share in sizes}
    protocols = [p for card in timm_cards() for p in (card.preprocess, *card.sizes)]
    assert {geometry(protocol) for protocol in protocols} <= compared


# --- sizes --------------------------------------------------------------------------------------


def test_a_size_chooses_the_protocol_and_its_headline() -> None:
    card, larger = card_by_name("regnety-3.2gf-ra"), card_by_name("RegNetY_032.ra_in1k:288")
    assert (card.title, larger.title) == ("regnety-3.2gf-ra", "regnety-3.2gf-ra:288")
    assert (card.preprocess.resize, larger.preprocess.resize) == (235, 288)
    assert [c.headline and c.headline.top1 for c in (card, larger)] == [81.948, 82.724]
    assert card_by_name("regnety-3.2gf-ra:224") == card
    assert larger.at(288) == larger
    assert len(find_cards(["regnety-3.2gf-ra", "regnety-3.2gf-ra:288"])) == 2
    with pytest.raises(UnknownModelError, match=r"no protocol of 256 pixels .* 224 and 288"):
        card_by_name("regnety-3.2gf-ra:256")
    with pytest.raises(UnknownModelError, match=r"no model is called 'regnety-3\.2gf-ra:big'"):
        card_by_name("regnety-3.2gf-ra:big")


@pytest.mark.parametrize("text", ["m:288:bf16", "m:bf16:288"])
def test_a_number_in_a_choice_is_a_size(text: str) -> None:
    choice = parse_choice(text)
    assert (choice.model, choice.precision, str(choice)) == ("m:288", "bf16", "m:288:ir:bf16")
    with pytest.raises(UnknownModelError, match="names two of size"):
        parse_choice("m:288:224")


def test_conversions_of_two_sizes_are_two_models() -> None:
    small, large = (
        Request(weights=Path("w.pth"), card=card)
        for card in card_by_name("regnety-3.2gf-ra").at_each_size
    )
    assert (small.model_name, large.model_name) == ("regnety-3.2gf-ra", "regnety-3.2gf-ra-288")
    assert small.key_parts() != large.key_parts()


# --- files --------------------------------------------------------------------------------------


@pytest.fixture
def hub_file(tmp_path: Path) -> Path:
    """Return a file such as the hub has: safetensors, called as all of the hub's are."""
    path = tmp_path / "model.safetensors"
    torch.manual_seed(0)
    write_safetensors(path, RegNet(TINY).state_dict(), spec=TINY)
    return path


def card_at(server: LocalServer) -> Card:
    """Return a card of two files, of which a server may have either."""
    card = replace(card_by_name("regnety-3.2gf-ra"), spec=TINY)
    first, second = (
        replace(one.file, urls=(server.url(one.file.name),), size_at_least=None)
        for one in card.by_file
        if one.file
    )
    return replace(card, file=first, other_files=(second,))


def test_the_hubs_file_does_where_the_publishers_cannot_be_had(
    hub_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalServer() as server:
        card = card_at(server)
        monkeypatch.setattr("regnet.conversion.store.card_by_name", lambda name: card)
        with pytest.raises(DownloadError, match=r"_ra-7f2439f9\.pth.*ra_in1k\.safetensors"):
            download(card, cache_dir=tmp_path)
        server.files[card.other_files[0].name] = hub_file.read_bytes()
        model = Library(folder=tmp_path).ir(card.name)
    weights = cached_file(card, cache_dir=tmp_path)
    assert weights is not None
    assert weights.name == "regnety_032.ra_in1k.safetensors"
    weights.unlink()
    assert Library(folder=tmp_path, offline=True).ir(card.name) == model
    assert forget_hash(card, cache_dir=tmp_path)
    assert not forget_hash(card, cache_dir=tmp_path)


def test_a_file_is_imported_as_the_one_it_looks_like(hub_file: Path, tmp_path: Path) -> None:
    with LocalServer() as server:
        card = card_at(server)
    path = import_file(card, hub_file, cache_dir=tmp_path)
    assert path.name == "regnety_032.ra_in1k.safetensors"
    assert cached_file(card, cache_dir=tmp_path) == path
    with pytest.raises(IntegrityError, match="sha256"):
        import_file(card, hub_file.rename(tmp_path / "weights.pth"), cache_dir=tmp_path)


def test_weights_of_unnamed_classes_say_so() -> None:
    card = card_by_name("regnety_160.sw_in12k")
    assert (card.classes, card.labels, card.headline) == (11821, "numbered", None)
    assert "regnet numbers them" in card.notes[0]


def test_seers_licence_is_shown_before_anything_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(LicenceError, match=r"non-commercial research only.*--accept-licence"):
        download(card_by_name("regnety_320.seer_ft_in1k"), cache_dir=tmp_path)


def test_a_conversion_of_unnamed_classes_numbers_them_and_warns(tmp_path: Path) -> None:
    spec = TINY.with_classes(7)
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, RegNet(spec).state_dict(), spec=spec)
    card = replace(card_by_name("regnety_160.sw_in12k"), spec=TINY, classes=7)
    _, metadata = read_request(Request(weights=path, card=card))
    assert [label.name for label in metadata.labels[:2]] == ["class 0", "class 1"]
    assert metadata.assumed == ("names: its classes are numbered",)
