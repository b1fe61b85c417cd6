"""Every card: valid, true to the published figures, found by every name it goes by."""

import importlib.util
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from regnet.network.complexity import complexity
from regnet.network.spec import PUBLISHED_NAMES, SPEC_NAMES, spec_aliases, spec_by_name
from regnet.pixels.protocol import Preprocess
from regnet.system.errors import CardError, UnknownModelError
from regnet.zoo.card import Card, WeightsFile, parse_card
from regnet.zoo.catalogue import bundled_path, card_by_name, card_names, find_cards
from regnet.zoo.download import cached_file

ROOT = Path(__file__).parent.parent
CARDS = ROOT / "src" / "regnet" / "zoo" / "cards"


@pytest.fixture(scope="module")
def published(shared: Path) -> list[dict[str, Any]]:
    text = (shared / "reference" / "regnet_published.json").read_text("utf-8")
    models: list[dict[str, Any]] = json.loads(text)
    return models


@pytest.fixture(scope="module")
def other(shared: Path) -> dict[str, Any]:
    text = (shared / "reference" / "other_weights.json").read_text("utf-8")
    weights: dict[str, Any] = json.loads(text)
    return weights


def file_of(card: Card) -> WeightsFile:
    assert card.file is not None
    return card.file


@pytest.mark.parametrize("name", card_names())
def test_a_card_builds_its_network_and_protocol(name: str) -> None:
    card = card_by_name(name)
    assert card.name == name
    assert card.build_spec().classes == card.classes
    assert isinstance(card.preprocess, Preprocess)
    if not name.startswith("regnetz"):
        assert card.preprocess.mean == (103.53, 116.28, 123.675)
        assert card.preprocess.scale == (57.375, 57.12, 58.395)
    json.dumps(card.to_dict())


@pytest.mark.parametrize("name", card_names())
def test_the_headline_was_measured_as_images_are_prepared(name: str) -> None:
    for card in card_by_name(name).at_each_size:
        best, protocol = card.headline, card.preprocess
        if best is None:
            assert card.labels == "numbered"
            continue
        assert (best.resize, best.crop, best.interpolation) == (
            protocol.resize,
            protocol.crop,
            protocol.interpolation,
        )


def test_there_is_a_card_for_each_published_set_of_weights() -> None:
    sources = [card_by_name(name).source for name in card_names()]
    assert {s: sources.count(s) for s in set(sources)} == {
        "pycls": 24,
        "torchvision": 34,
        "timm": 23,
        "regnet": 1,
    }
    assert set(PUBLISHED_NAMES) <= set(card_names())


def test_names_aliases_and_files_are_unique() -> None:
    cards = find_cards(card_names())
    names = [n.lower() for card in cards for n in (card.name, *set(map(str.lower, card.aliases)))]
    assert len(names) == len(set(names))
    files = [file_of(card).name for card in cards if card.file]
    assert len(files) == len(cards) - 1
    files += [file.name for card in cards for file in card.other_files]
    assert len(files) == len(set(files))


def test_the_card_that_the_project_is_named_for() -> None:
    card = card_by_name("regnetx-3.2gf")
    assert file_of(card).size == 122_749_825
    assert file_of(card).sha384 == (
        "5757be265470b77fa83a26b256d7ee0f49dea765f97b1e6254e87951a2d77079"
        "f34b750a5bc4df1f156cf658bc07c6fe"
    )
    assert file_of(card).urls == (
        "https://storage.openvinotoolkit.org/repositories/open_model_zoo/public/2022.1/"
        "regnetx-3.2gf/RegNetX-3.2GF_dds_8gpu.pyth",
        "https://dl.fbaipublicfiles.com/pycls/dds_baselines/160906139/RegNetX-3.2GF_dds_8gpu.pyth",
    )
    assert (card.layout, card.channels, card.licence.id) == ("pycls", "BGR", "MIT")
    assert card.preprocess == Preprocess(name="omz")
    figures = {(a.dataset, a.protocol): (a.top1, a.top5) for a in card.accuracies}
    assert figures == {
        ("ImageNet-1k val", "omz"): (78.15, 94.09),
        ("ImageNet-1k val", "timm"): (78.16, 94.088),
        ("ImageNet-1k val", "pycls"): (78.264, 94.138),
        ("ImageNet-ReaL", "timm"): (84.243, 96.251),
        ("ImageNet-V2", "timm"): (67.19, 86.93),
        ("ImageNet-A", "timm"): (4.88, None),
        ("ImageNet-R", "timm"): (38.77, None),
        ("ImageNet-Sketch", "timm"): (26.71, None),
    }
    assert (card.recipe.learning_rate, card.recipe.batch_size, card.recipe.hours) == (
        0.4,
        512,
        15.1,
    )


def test_pycls_cards_equal_the_published_figures(published: list[dict[str, Any]]) -> None:
    for model in published:
        card = card_by_name(model["name"])
        cost = complexity(card.build_spec())
        assert (cost.params, cost.macs) == (model["params"], model["flops_mac"])
        assert file_of(card).urls[-1] == model["zoo"]["url"]
        assert (card.layout, card.channels, card.licence.id) == ("pycls", "BGR", "MIT")
        figures = {a.protocol: (a.top1, a.top5) for a in reversed(card.accuracies)}
        pillow, pycls = model["published_pillow_bicubic"], model["published"]
        assert figures["timm"] == (pillow["top1"], pillow["top5"])
        errors = pycls["pycls_protocol_top1_error"], pycls["pycls_protocol_top5_error"]
        assert figures["pycls"] == tuple(pytest.approx(100 - e, abs=1e-9) for e in errors)
        assert card.recipe.learning_rate == model["base_lr"]
        assert card.recipe.batch_size == model["batch_size"]
        assert card.recipe.hours == float(model["zoo"]["train_hr_8v100"])


def test_torchvision_cards_equal_the_published_figures(other: dict[str, Any]) -> None:
    for model in other["torchvision"]["models"]:
        for weights in model["weights"]:
            enum = f"RegNet_{model['name'][7:].upper()}_Weights.{weights['weights']}"
            card = card_by_name(enum)
            assert card_by_name(f"{model['name']}.{weights['weights']}") is card
            assert file_of(card).urls == (weights["url"],)
            assert f"-{file_of(card).sha256_prefix}.pth" in weights["url"]
            best = card.headline
            assert best is not None
            assert (best.top1, best.top5) == (weights["acc@1"], weights["acc@5"])
            assert (best.resize, best.crop) == (weights["resize_size"], weights["crop_size"])
            assert best.interpolation == weights["interpolation"]
            assert card.licence.non_commercial == (weights["licence"] == "CC-BY-NC-4.0")
            assert (card.layout, card.channels) == ("torchvision", "RGB")
            cost = complexity(card.build_spec(), image_size=weights["crop_size"])
            assert cost.params == model["num_params"]
            assert cost.macs / 1e9 == pytest.approx(weights["gflops"], rel=0.005)


def test_timms_figures_of_the_same_weights_are_there(other: dict[str, Any]) -> None:
    rows = other["timm"]["results"] + other["timm"]["results_other_tags"]
    names = [row["name"] for row in rows if row["name"].endswith(("tv2_in1k", "pycls_in1k"))]
    names += [row["name"] for row in rows if ".swag_" in row["name"]]
    assert len(names) == 38 + 6
    for row in (row for row in rows if row["name"] in names):
        found = [a for a in card_by_name(row["name"]).accuracies if a.protocol == "timm"]
        assert (found[0].top1, found[0].top5) == (row["top1"], row["top5"])
        assert found[0].crop == row["img_size"]
        assert found[0].crop / found[0].resize == pytest.approx(row["crop_pct"], abs=0.002)


def test_weights_of_others_are_not_given_for_pyclss(other: dict[str, Any]) -> None:
    for model in other["transformers"]["models"]:
        if model["weights_origin"] == "pycls":
            assert card_by_name(model["model_id"]).name == model["pycls"]
        else:
            with pytest.raises(UnknownModelError):
                card_by_name(model["model_id"])


def test_the_committed_cards_are_the_generators(shared: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_cards", ROOT / "tools" / "make_cards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.make_cards(shared / "reference")
    committed = {path.stem: path.read_text("utf-8") for path in CARDS.glob("*.toml")}
    del committed["bundled"]
    assert made == committed


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("regnetx-3.2gf", "regnetx-3.2gf"),
        ("RegNetX-3.2GF", "regnetx-3.2gf"),
        ("regnetx_032", "regnetx-3.2gf"),
        ("regnetx_032.pycls_in1k", "regnetx-3.2gf"),
        ("timm/regnetx_032.tv2_in1k", "regnetx-3.2gf-tv2"),
        ("regnet_x_3_2gf", "regnetx-3.2gf-tv2"),
        ("RegNet_X_3_2GF_Weights.IMAGENET1K_V1", "regnetx-3.2gf-tv1"),
        ("regnet_x_3_2gf.imagenet1k_v2", "regnetx-3.2gf-tv2"),
        ("facebook/regnet-x-032", "regnetx-3.2gf"),
        ("regnet_x_400mf", "regnetx-400mf-tv2"),
        ("regnetx_004", "regnetx-400mf"),
        ("regnetx_004_tv", "regnetx-400mf-tv2"),
        ("regnetx-400mf-tv", "regnetx-400mf-tv2"),
        ("regnety-128gf", "regnety-128gf-swag"),
        ("regnety_160.swag_lc_in1k", "regnety-16gf-swag-linear"),
    ],
)
def test_a_card_is_found_by_any_name(name: str, card: str) -> None:
    assert card_by_name(name).name == card


def test_every_name_of_a_network_names_a_card() -> None:
    for name in SPEC_NAMES:
        if name == "regnetz-500mf":  # nobody published weights of it
            continue
        for alias in (name, *spec_aliases(name)):
            assert card_by_name(alias).spec == name or alias.startswith("regnet_")
            assert card_by_name(alias).build_spec().stages


def test_an_unknown_name_suggests_close_ones() -> None:
    with pytest.raises(UnknownModelError, match=r"did you mean .*regnetx-3\.2gf.*regnet models"):
        card_by_name("regnetx-3.2fg")
    with pytest.raises(UnknownModelError, match="no model is called 'vgg'; `regnet models`"):
        card_by_name("vgg")
    with pytest.raises(UnknownModelError):
        card_by_name("../cards/bundled")


def test_globs_find_names_then_aliases_each_once_in_order() -> None:
    found = [card.name for card in find_cards(["regnetx-3.2gf-tv1", "RegNetX-3.2gf*"])]
    assert found == ["regnetx-3.2gf-tv1", "regnetx-3.2gf", "regnetx-3.2gf-tv2"]
    assert [card.name for card in find_cards(["regnetx_032.*"])] == found[1:]
    assert len(find_cards(["*"])) == len(card_names())
    with pytest.raises(UnknownModelError, match="no model fits 'resnet-\\*'"):
        find_cards(["regnetx-*", "resnet-*"])


def test_cards_are_listed_by_family_and_size() -> None:
    names = [name for name in card_names() if name in PUBLISHED_NAMES]
    assert names == list(PUBLISHED_NAMES)


# --- what a card may hold ---------------------------------------------------------------------


def card_text(name: str = "regnetx-3.2gf") -> str:
    return (CARDS / f"{name}.toml").read_text("utf-8")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('source = "pycls"', 'sauce = "pycls"', "unknown field 'sauce'; known: name, spec"),
        ('source = "pycls"\n', "", "the field 'source' is missing"),
        ("size = 122749825", "bytes = 122749825", "file: unknown field 'bytes'"),
        ("size = 122749825", "size = -1", "file: size must be a whole number of at least 1"),
        (
            "size = 122749825",
            'size = "122749825"',
            "file: size must be a whole number of at least 1",
        ),
        ('sha384 = "5757', 'sha384 = "57', "sha384 must be a text of 96 lower-case hex digits"),
        ('name = "RegNetX', 'name = "../RegNetX', "a plain file name"),
        ('"https://dl.', '"file://dl.', "an http or https address"),
        ("top1 = 78.15", "top1 = 178.15", "top1 must be a finite number from 0 to 100"),
        ("top5 = 94.09\n", "top5 = 4.09\n", "at least top1"),
        ("top1 = 78.15", "error = 21.85", "accuracies: unknown field 'error'"),
        ('channels = "BGR"\nnotes', 'channels = "GBR"\nnotes', "channels must be 'BGR' or 'RGB'"),
        (
            '"bicubic"\nchannels = "BGR"',
            '"bicubic"\nchannels = "RGB"',
            "preprocess must be for channels in BGR",
        ),
        ('spec = "regnetx-3.2gf"', 'spec = "regnetx-3.3gf"', "no RegNet is called"),
        ('spec = "regnetx-3.2gf"', 'spec = "regnetx_032"', "canonical"),
        (
            'spec = "regnetx-3.2gf"',
            "spec = {d = 0, w0 = 8, wa = 1, wm = 2, g = 8}",
            "spec: d must be",
        ),
        (
            'spec = "regnetx-3.2gf"',
            "spec = {stages = [[1, 8, 8, 1]]}",
            "spec: unknown field 'stages'; known: .*w0",
        ),
        ('layout = "pycls"', 'layout = "mxnet"', "layout"),
        ('labels = "imagenet-1k"', 'labels = "imagenet-22k"', "labels"),
        ("classes = 1000", "classes = 0", "classes must be a whole number of at least 1"),
        ("[preprocess]\n", "[preprocess]\nsize = 3\n", "size"),
        (
            '[preprocess]\nname = "omz"\n',
            "[preprocess]\n",
            "preprocess: the field 'name' is missing",
        ),
        ("epochs = 100", "epoch = 100", "recipe: unknown field 'epoch'"),
        ("[licence]", 'bundled = "x"\n[licence]', "unknown field 'bundled'"),
        ("name = ", "name : ", "is not TOML"),
    ],
)
def test_a_wrong_card_is_refused(old: str, new: str, problem: str) -> None:
    text = card_text()
    assert old in text
    with pytest.raises(CardError, match=problem) as error:
        parse_card(text.replace(old, new, 1), where="the card x.toml")
    assert "the card x.toml" in str(error.value)


def test_a_card_may_give_the_network_itself() -> None:
    text = card_text().replace(
        '"regnetx-3.2gf"\nclasses = 1000',
        "{d = 25, w0 = 88, wa = 26.31, wm = 2.25, g = 48}\nclasses = 10",
    )
    assert parse_card(text, where="x").build_spec() == spec_by_name("regnetx-3.2gf", classes=10)


def test_a_card_has_a_file_or_a_bundled_model_and_not_both() -> None:
    bundled = 'bundled = "bundled/x.xml"\n'
    with pytest.raises(CardError, match="not both"):
        parse_card(bundled + card_text(), where="x")
    without = tomllib.loads(card_text("bundled"))
    assert "file" not in without
    with pytest.raises(CardError, match="set, or"):
        parse_card(card_text("bundled").replace("bundled =", "# bundled =", 1), where="x")


def test_a_non_commercial_licence_has_a_notice() -> None:
    text = card_text("regnety-16gf-swag")
    lines = [line for line in text.splitlines() if not line.startswith("notice")]
    with pytest.raises(CardError, match="licence: notice must be a text"):
        parse_card("\n".join(lines), where="x")


def test_the_bundled_card_is_honest() -> None:
    card = card_by_name("bundled")
    assert (card.classes, card.labels) == (200, "in the model")
    path = cached_file(card)
    assert path is not None
    assert path.suffix == ".xml"
    assert (card.headline.top1, card.headline.top5) == (56.47, 79.88)
    assert "10,000" in card.headline.dataset


def test_a_bundled_model_is_a_file_of_the_package() -> None:
    path = bundled_path(card_by_name("bundled"))
    assert path.suffix == ".xml"
    assert path.is_file()
    with pytest.raises(UnknownModelError, match="regnetx-200mf is not inside the package"):
        bundled_path(card_by_name("regnetx-200mf"))
