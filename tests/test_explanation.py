"""Class activation maps: exact sums, the right place on the photo, pictures, the command."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_conversion_export import SMALL, SMALL_Y, confident, described
from test_conversion_export import convert as convert_small
from typer.testing import CliRunner, Result

from regnet.calibration.temperature import _set_temperature
from regnet.cli import build_app
from regnet.conversion.graph_preprocess import embed_preprocessing
from regnet.explanation.activation_maps import (
    Explainer,
    Explanation,
    class_named,
    seen_box,
)
from regnet.explanation.linear_head import read_head
from regnet.explanation.overlay import colour_table, explain_sources, heat, overlay_png, seen
from regnet.inference.classify import Classifier
from regnet.inference.result import ClassScore
from regnet.ir.graph import graph_metadata, read_graph, set_graph_metadata
from regnet.network.labels import Label, imagenet_labels
from regnet.pixels.preprocess import rgb_pixels
from regnet.pixels.protocol import OMZ, PYCLS
from regnet.pixels.samples import sample_photos
from regnet.system.errors import ImageError, ModelError, OutputError
from regnet.system.runtime import ov
from regnet.zoo.catalogue import bundled_path, card_by_name

BUNDLED = bundled_path(card_by_name("bundled"))
BUNDLED_INT8 = BUNDLED.with_name("bundled-int8.xml")
CAT, ESPRESSO, HOPPER = sample_photos()


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return Explainer(BUNDLED)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return models whose heads are stored and reached in all the ways there are."""
    folder = tmp_path_factory.mktemp("models")
    convert_small(SMALL, folder / "x.xml")
    convert_small(SMALL_Y, folder / "y.xml", "fp16")
    preprocess = graph_metadata(read_graph(BUNDLED), source="").preprocess
    whole = embed_preprocessing(read_graph(BUNDLED), preprocess)
    return {
        "fp16": BUNDLED,
        "int8": BUNDLED_INT8,
        "fp32": folder / "x.xml",
        "y": folder / "y.xml",
        "calibrated": saved(calibrated(read_graph(BUNDLED)), folder / "c.xml"),
        "calibrated int8": saved(calibrated(read_graph(BUNDLED_INT8)), folder / "c8.xml"),
        "graph": saved(whole, folder / "g.xml", preprocessing="graph"),
        "calibrated graph": saved(calibrated(whole), folder / "cg.xml", preprocessing="graph"),
    }


def calibrated(graph: ov.Model) -> ov.Model:
    copy = graph.clone()
    _set_temperature(copy, 1.7)
    return copy


def saved(graph: ov.Model, path: Path, **changes: str) -> Path:
    set_graph_metadata(graph, replace(graph_metadata(graph, source=""), **changes))
    ov.save_model(graph, path, compress_to_fp16=False)
    return path


NAMES = "fp16", "int8", "fp32", "y", "calibrated", "calibrated int8", "graph", "calibrated graph"


@pytest.mark.parametrize("name", NAMES)
def test_a_map_and_its_bias_are_the_logit(name: str, models: dict[str, Path]) -> None:
    precision = "int8" if "int8" in name else "f32"
    explainer = Explainer(models[name], precision=precision)
    classifier = Classifier(models[name], precision=precision)
    everything = len(explainer.metadata.labels)
    for photo in sample_photos():
        found = explainer.explain(photo, top_k=everything)
        sums = np.array([e.map.mean(dtype=np.float64) + e.bias for e in found])
        logits = np.array([e.logit for e in found])
        terms = np.array([np.abs(e.map).mean() + abs(e.bias) for e in found])
        assert np.all(np.abs(sums - logits) <= 4e-6 * terms)  # 24 bits, and what sums lose
        powers = np.exp(logits - logits.max())
        probabilities = [e.label.probability for e in found]
        assert np.abs(powers / powers.sum() - probabilities).max() < 1e-6
        expected = classifier.classify(photo, top_k=everything).predictions
        assert [e.label.index for e in found] == [score.index for score in expected]
        assert probabilities == pytest.approx([s.probability for s in expected], abs=1e-6)


def test_a_temperature_divides_the_whole_map(models: dict[str, Path]) -> None:
    cold, warm = (
        Explainer(models[name]).explain(CAT, classes=[30])[0] for name in ("fp16", "calibrated")
    )
    assert warm.map == pytest.approx(cold.map / 1.7, rel=1e-5)
    assert warm.bias == pytest.approx(cold.bias / 1.7, rel=1e-5)
    assert warm.logit == pytest.approx(cold.logit / 1.7, rel=1e-5)


def test_the_map_follows_what_is_seen(explainer: Explainer) -> None:
    cup = Image.open(ESPRESSO).convert("RGB").crop((180, 0, 430, 250)).resize((128, 128))
    espresso = explainer.class_index("espresso")
    for left, top in ((0, 0), (128, 0), (0, 128), (128, 128)):
        photo = Image.new("RGB", (256, 256), "gray")
        photo.paste(cup, (left, top))
        (found,) = explainer.explain(photo, classes=[espresso])
        quarters = heat(found).reshape(2, 128, 2, 128).mean(axis=(1, 3))
        assert np.unravel_index(quarters.argmax(), (2, 2)) == (top // 128, left // 128)


def test_a_turned_photo_is_the_same_upright(explainer: Explainer, tmp_path: Path) -> None:
    upright = Image.open(ESPRESSO).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    stored.save(tmp_path / "turned.png", exif=exif)
    (expected,), (found,) = (explainer.explain(p) for p in (upright, tmp_path / "turned.png"))
    assert stored.size == (400, 600)
    assert found.size == expected.size == (600, 400)
    assert np.array_equal(found.map, expected.map)
    assert found.box == expected.box == (100, 0, 400, 400)
    assert overlay_png(tmp_path / "turned.png", found) == overlay_png(upright, expected)


@pytest.mark.parametrize(
    ("preprocess", "size", "box"),
    [
        (OMZ, (256, 256), (16, 16, 224, 224)),
        (OMZ, (512, 256), (144, 16, 224, 224)),
        (OMZ, (500, 1000), (31.25, 281.25, 437.5, 437.5)),
        (PYCLS, (257, 256), (17, 16, 224, 224)),  # 16.5 is rounded up
        (OMZ, (257, 256), (16, 16, 224, 224)),  # and here to the even neighbour
    ],
)
def test_the_box_is_the_crop_on_the_photo(preprocess, size, box) -> None:
    assert seen_box(preprocess, size) == pytest.approx(box)


def explanation(
    values: np.ndarray, *, size: tuple[int, int], box: tuple[float, ...]
) -> Explanation:
    label = ClassScore(0, "", "thing", 1.0)
    return Explanation(label, 0.0, 0.0, values.astype(np.float32), float(values.max()), size, box)


def test_colours_lie_where_the_cell_is() -> None:
    values = np.zeros((4, 4))
    values[1, 2] = 5
    found = explanation(values, size=(300, 200), box=(60.0, 10.0, 160.0, 160.0))
    assert seen(found) == (60, 10, 220, 170)
    photo = np.full((200, 300, 3), 200, np.uint8)
    shown = rgb_pixels(overlay_png(photo, found, opacity=1)).astype(int)
    assert np.all(shown[:10] == 90)  # dim where the network does not look
    assert np.all(shown[:, :60] == 90)
    assert np.all(shown[170:] == 90)
    assert np.all(shown[:, 220:] == 90)
    lightest = shown.sum(axis=2) * (np.abs(shown - 90).max(axis=2) > 0)
    y, x = np.unravel_index(lightest.argmax(), lightest.shape)
    assert (x, y) == pytest.approx((60 + 2.5 * 40, 10 + 1.5 * 40), abs=1)
    assert tuple(shown[y, x]) == tuple(colour_table()[255])
    assert tuple(shown[160, 70]) == tuple(colour_table()[0])


def test_opacity_goes_from_the_photo_to_the_colours() -> None:
    values = np.arange(16).reshape(4, 4)
    found = explanation(values, size=(40, 40), box=(0.0, 0.0, 40.0, 40.0))
    photo = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    none, half, all_of_it = (
        rgb_pixels(overlay_png(photo, found, opacity=o)).astype(int) for o in (0, 0.5, 1)
    )
    assert np.array_equal(none, photo)
    assert np.array_equal(all_of_it, colour_table()[np.round(heat(found) * 255).astype(np.uint8)])
    assert np.abs(half - (none + all_of_it) / 2).max() <= 1


def test_what_speaks_against_a_class_has_no_colour() -> None:
    found = explanation(np.full((2, 2), -3), size=(20, 20), box=(0.0, 0.0, 20.0, 20.0))
    assert np.all(heat(found) == 0)


def test_maps_of_one_photo_share_a_scale(explainer: Explainer) -> None:
    best, _, third = explainer.explain(CAT, top_k=3)
    (tie,) = explainer.explain(CAT, classes=[explainer.class_index("bow tie")])
    assert tie.scale == third.scale == best.scale == best.map.max()
    assert heat(best).max() > 0.99
    assert heat(tie).max() < 0.3  # of what is not there nothing is light
    uniform, _, tie = explainer.explain(HOPPER, top_k=3)
    assert tie.scale == tie.map.max() > uniform.scale == uniform.map.max()


def test_a_crop_thinner_than_a_pixel_has_one(explainer: Explainer) -> None:
    photo = np.zeros((2, 3000, 3), np.uint8)
    (found,) = explainer.explain(photo)
    left, top, right, bottom = seen(found)
    assert (right - left, bottom - top) == (2, 2)
    assert rgb_pixels(overlay_png(photo, found)).shape == photo.shape


def test_an_overlay_is_of_the_photo_that_was_explained(explainer: Explainer) -> None:
    (found,) = explainer.explain(CAT)
    with pytest.raises(ValueError, match=r"451.*600|600.*451"):
        overlay_png(ESPRESSO, found)
    with pytest.raises(ValueError, match="opacity"):
        overlay_png(CAT, found, opacity=1.5)


def test_colours_are_even_for_the_eye() -> None:
    table = colour_table() / 255
    linear = np.where(table <= 0.04045, table / 12.92, ((table + 0.055) / 1.055) ** 2.4)
    y = linear @ [0.2126, 0.7152, 0.0722]
    lightness = np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)  # CIE L*, not OKLab's
    assert lightness[0] < 15
    assert lightness[-1] > 90
    steps = np.diff(lightness[::5])
    assert steps.min() > 0.5 * steps.mean()
    assert steps.max() < 1.5 * steps.mean()


def test_classes_are_found_by_what_they_are_called(explainer: Explainer) -> None:
    assert explainer.class_index("Egyptian cat") == explainer.class_index("n02124075")
    assert explainer.class_index("TABBY") == explainer.class_index("tabby, tabby cat") == 30
    assert explainer.class_index("30") == 30
    with pytest.raises(ModelError, match="'tabyy'; did you mean tabby"):
        explainer.class_index("tabyy")
    with pytest.raises(ModelError, match="no class 200; they are 0 to 199"):
        explainer.class_index("200")
    with pytest.raises(ModelError, match="no class -1"):
        explainer.explain(CAT, classes=[-1])


def test_a_name_of_two_classes_is_none() -> None:
    with pytest.raises(ModelError, match="'crane' matches classes 134 and 517"):
        class_named(imagenet_labels(), "crane", source="m")
    assert class_named((Label("", "a"), Label("", "b")), "B", source="m") == 1


def test_classes_that_are_asked_for_come_in_that_order(explainer: Explainer) -> None:
    found = explainer.explain(CAT, classes=[193, 30, 193])
    assert [e.label.index for e in found] == [193, 30, 193]
    values = json.loads(json.dumps(found[1].to_dict()))
    assert list(values) == [
        "index", "wnid", "label", "probability", "logit", "bias", "map", "scale", "size", "box",
    ]  # fmt: skip
    assert np.mean(values["map"]) + values["bias"] == pytest.approx(values["logit"], abs=1e-5)


def test_a_photo_that_cannot_be_read_is_an_error(explainer: Explainer) -> None:
    with pytest.raises(ImageError, match="empty"):
        explainer.explain(b"")


def test_a_graph_with_another_head_is_refused(tmp_path: Path) -> None:
    from openvino import opset13 as opset

    graph = read_graph(BUNDLED)
    softmax = graph.output(0).get_node().input_value(0).get_node()
    softmax.input(0).replace_source_output(opset.relu(softmax.input_value(0)).output(0))
    path = saved(graph, tmp_path / "odd.xml")
    with pytest.raises(ModelError, match=r"odd\.xml: cannot be explained.*is neither bias"):
        Explainer(path)
    assert Classifier(path).classify(CAT).error is None


def test_the_head_is_that_of_the_checkpoint(models: dict[str, Path]) -> None:
    fc = confident(SMALL).head.fc
    head = read_head(read_graph(models["fp32"]), source="m")
    assert head.weights == pytest.approx(fc.weight.detach().numpy())
    assert head.bias == pytest.approx(fc.bias.detach().numpy())
    assert described(SMALL).spec.classes == len(head.bias)


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def run(*arguments: object, code: int = 0) -> Result:
    app = build_app(["explain", "info"])
    done = CliRunner().invoke(app, ["explain", "-m", "bundled", *map(str, arguments)])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def test_the_command_writes_overlays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(CAT, tmp_path)
    text = run("cat.png", "--top-k", 2).stdout
    assert "logit 7.825 = 7.689 (mean of the map) +0.136 (bias)  cat-egyptian-cat.png" in text
    assert size_of(tmp_path / "cat-egyptian-cat.png") == size_of(CAT)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "cat-egyptian-cat.png", "cat-tabby.png", "cat.png",
    ]  # fmt: skip


def test_the_command_prints_the_maps(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no photo")
    arguments = CAT, tmp_path / "bad.png", "-c", "tabby", "-c", 193, "--json"
    cat, bad = json.loads(run(*arguments, code=1).stdout)
    assert [e["index"] for e in cat["explanations"]] == [30, 193]
    assert [e["overlay"] for e in cat["explanations"]] == [None, None]
    assert cat["error"] is None
    assert bad["explanations"] == []
    assert bad["error"].startswith("not an image")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.png"]
    (again,) = json.loads(run(CAT, "--json", "-o", tmp_path / "out").stdout)
    (one,) = again["explanations"]
    assert Path(one["overlay"]).is_file()


def test_photos_of_one_name_do_not_overwrite_each_other(
    explainer: Explainer, tmp_path: Path
) -> None:
    for folder, photo in (("a", CAT), ("b", ESPRESSO)):
        (tmp_path / folder).mkdir()
        shutil.copy(photo, tmp_path / folder / "photo.png")
    found = explain_sources(explainer, [str(tmp_path)], classes=[193], folder=tmp_path / "out")
    names = [photo.overlays[0].name for photo in found]
    assert names == ["photo-espresso.png", "photo-espresso-2.png"]
    sizes = [size_of(tmp_path / "out" / name) for name in names]
    assert sizes == [size_of(photo) for photo in (CAT, ESPRESSO)]


def test_a_folder_that_cannot_be_written_to_is_an_error(
    explainer: Explainer, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        list(explain_sources(explainer, [str(CAT)], folder=tmp_path / "file"))


def test_a_class_that_is_none_ends_the_command() -> None:
    done = run(CAT, "--class", "catt", code=1)
    assert isinstance(done.exception, ModelError)


def test_overlays_are_pictures_of_their_own(explainer: Explainer) -> None:
    (found,) = explainer.explain(HOPPER)
    shown = Image.open(io.BytesIO(overlay_png(HOPPER, found)))
    assert (shown.format, shown.mode, shown.size) == ("PNG", "RGB", (512, 600))
