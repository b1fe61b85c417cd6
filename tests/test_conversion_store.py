"""From a model's name to its IR: what is converted, when, and what the cache survives."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from regnet.checkpoints.weights import write_safetensors
from regnet.conversion.convert import read_request
from regnet.conversion.store import Library
from regnet.conversion.values import Request, read_conversion
from regnet.inference.classify import Classifier
from regnet.ir.assumptions import AssumptionWarning
from regnet.ir.metadata import CONVERSION_FILE, InferencePrecision
from regnet.network.labels import Label
from regnet.network.modules import RegNet
from regnet.network.spec import RegNetSpec
from regnet.pixels.protocol import KERAS, OMZ, Preprocess
from regnet.pixels.samples import sample_photos
from regnet.system.errors import (
    ConversionError,
    MismatchError,
    UnknownModelError,
    WeightsError,
)
from regnet.zoo.catalogue import bundled_path, card_by_name

SPEC = RegNetSpec(d=3, w0=8, wa=8.0, wm=2.0, g=8, classes=3)
SMALL = replace(OMZ, name="small", resize=40, crop=32)
LABELS = (Label("n1", "cat"), Label("n2", "dog"), Label("n3", "cup"))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "pets.safetensors"
    torch.manual_seed(0)
    state = RegNet(SPEC).state_dict()
    write_safetensors(path, state, spec=SPEC, labels=LABELS, preprocess=SMALL, name="pets")
    return path


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def library(tmp_path: Path, said: list[str]) -> Library:
    return Library(folder=tmp_path / "cache", offline=True, say=said.append)


def test_a_file_brings_its_labels_and_protocol(library: Library, weights: Path) -> None:
    metadata = Classifier(library.ir(weights)).metadata
    assert (metadata.labels, metadata.preprocess, metadata.spec) == (LABELS, SMALL, SPEC)


def test_the_same_content_is_converted_once(
    library: Library, weights: Path, said: list[str]
) -> None:
    first = library.ir(weights)
    assert len(said) == 1
    copy = weights.with_name("elsewhere") / weights.name
    copy.parent.mkdir()
    copy.write_bytes(weights.read_bytes())
    assert library.ir(str(copy)) == first
    assert len(said) == 1


def test_other_content_or_options_are_converted_anew(library: Library, weights: Path) -> None:
    request = library.request(weights)
    others = [
        request,
        replace(request, precision="fp16"),
        replace(request, format="onnx"),
        replace(request, name="mine"),
        replace(request, labels=LABELS[::-1]),
        replace(request, protocol={"resize": 36}),
        replace(request, channels="RGB"),
    ]
    paths = {library.convert(other).path for other in others}
    assert len(paths) == len(others)
    state = {k: v * 2 for k, v in RegNet(SPEC).state_dict().items()}
    write_safetensors(weights, state, spec=SPEC, labels=LABELS, preprocess=SMALL)
    assert library.convert(request).path not in paths


@pytest.mark.parametrize(
    "damage", ["record", "missing bin", "empty record", "short bin", "other bytes"]
)
def test_a_damaged_cache_is_made_anew(
    library: Library, weights: Path, said: list[str], damage: str
) -> None:
    path = library.ir(weights)
    if damage == "record":
        (path.parent / CONVERSION_FILE).unlink()
    elif damage == "empty record":
        (path.parent / CONVERSION_FILE).write_text("")
    elif damage == "missing bin":
        path.with_suffix(".bin").unlink()
    elif damage == "short bin":
        path.with_suffix(".bin").write_bytes(path.with_suffix(".bin").read_bytes()[:-100])
    else:
        path.with_suffix(".bin").write_bytes(bytes(path.with_suffix(".bin").stat().st_size))
    assert Classifier(library.ir(weights)).classify(sample_photos()[0]).error is None
    assert len(said) == 2


def test_a_failed_conversion_leaves_nothing(library: Library, weights: Path) -> None:
    request = replace(library.request(weights), spec="regnetx-200mf")
    with pytest.raises(MismatchError, match="regnetx-200mf"):
        library.convert(request)
    assert not list(library.folder.rglob("*.xml"))


def test_what_a_name_can_be(library: Library, weights: Path, tmp_path: Path) -> None:
    assert library.ir("bundled") == bundled_path(card_by_name("bundled"))
    assert library.ir("some/model.xml") == Path("some/model.xml")
    with pytest.raises(UnknownModelError, match=r"none\.pth: no such file"):
        library.ir("none.pth")
    with pytest.raises(UnknownModelError, match="no model is called 'pets'"):
        library.ir("pets")
    (tmp_path / "odd").write_bytes(b"odd")
    with pytest.raises(WeightsError, match="odd"):
        library.ir(tmp_path / "odd")


def test_published_files_are_known_by_name_and_hash(library: Library, tmp_path: Path) -> None:
    card = card_by_name("regnetx-3.2gf")
    assert card.file is not None
    impostor = tmp_path / card.file.name
    impostor.write_bytes(b"something else")
    assert library.request(impostor).card is None


def test_what_is_not_known_is_assumed_and_said(library: Library, tmp_path: Path) -> None:
    torch.save(RegNet(SPEC).state_dict(), tmp_path / "bare.pth")
    conversion = library.convert(Request(weights=tmp_path / "bare.pth"))
    assert conversion.assumed[0] == "names: its classes are numbered"
    assert conversion.assumed[1].startswith("protocol: omz (short side 256, crop 224, ")
    assert read_conversion(conversion.path.parent) == conversion
    with pytest.warns(AssumptionWarning, match="names: its classes are numbered; protocol: omz"):
        labels = Classifier(conversion.path).metadata.labels
    assert [label.name for label in labels] == ["class 0", "class 1", "class 2"]


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    library = Library(folder=tmp_path / "file" / "cache")
    assert library.compiled is None
    assert Classifier(library.ir("bundled"), compiled_cache=library.compiled)


def test_a_change_to_the_protocol_keeps_the_rest_of_the_files_own(
    library: Library, weights: Path
) -> None:
    """Only what is asked for changes; the rest is not silently another protocol's."""
    conversion = library.convert(replace(library.request(weights), protocol={"crop": 24}))
    found = Classifier(conversion.path).metadata.preprocess
    assert found == replace(SMALL, name="custom", crop=24)
    assert conversion.assumed == ()


def test_another_makers_protocol_is_that_of_the_converted_order(
    library: Library, tmp_path: Path
) -> None:
    torch.save(RegNet(SPEC).state_dict(), tmp_path / "bare.pth")
    request = Request(weights=tmp_path / "bare.pth", channels="RGB")

    def protocol(**given: Any) -> Preprocess:
        return read_request(replace(request, protocol=given))[1].preprocess

    numbers = protocol(mean=(1.0, 2.0, 3.0), scale=(4.0, 5.0, 6.0))
    assert (numbers.mean, numbers.scale) == ((3.0, 2.0, 1.0), (6.0, 5.0, 4.0))
    assert protocol(named=KERAS.to_dict()) == KERAS.in_order("BGR")
    assert protocol(fit="stretch").resize == 224


def test_a_card_whose_conversion_is_here_needs_neither_weights_nor_network(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from regnet.network.spec import spec_by_name
    from regnet.zoo.download import import_file

    card = card_by_name("regnetx-200mf")
    assert card.file is not None
    torch.save({"model_state": RegNet(spec_by_name(card.spec)).state_dict()}, tmp_path / "w.pyth")
    kept = import_file(card, tmp_path / "w.pyth", cache_dir=library.folder)
    first = library.ir("regnetx-200mf")
    kept.unlink()
    assert library.ir("regnetx_002") == first


def test_files_of_another_kind_are_named_for_what_they_are(
    library: Library, tmp_path: Path
) -> None:
    with pytest.raises(UnknownModelError, match="is a converted model"):
        library.request(bundled_path(card_by_name("bundled")))
    with pytest.raises(UnknownModelError, match="is not a file"):
        library.request(tmp_path)
    with pytest.raises(UnknownModelError):
        library.ir("x" * 5000)


def test_a_cache_that_cannot_be_written_is_an_error_that_names_it(
    weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConversionError, match=r"cannot write to the cache.*--cache-dir"):
        Library(folder=tmp_path / "file" / "cache").ir(weights)


def test_cards_say_the_channel_order_of_their_layout() -> None:
    from regnet.checkpoints.layouts import LAYOUTS
    from regnet.zoo.catalogue import card_names

    orders = {layout.name: layout.channels for layout in LAYOUTS}
    for card in map(card_by_name, card_names()):
        assert card.channels == orders.get(card.layout, "BGR"), card.name


@pytest.mark.parametrize("precision", ["f32", "int8"])
def test_the_bundled_model_is_what_its_card_says(
    precision: InferencePrecision, library: Library, shared: Path
) -> None:
    from regnet.network.labels import read_labels

    card = card_by_name("bundled")
    metadata = Classifier(library.ir("bundled", precision=precision)).metadata
    assert (metadata.spec, metadata.preprocess) == (card.build_spec(), card.preprocess)
    assert (metadata.name, metadata.card, metadata.licence) == (
        "bundled",
        "bundled",
        card.licence.id,
    )
    assert metadata.labels == read_labels(shared / "data" / "tiny-imagenet-200.classes.tsv")
