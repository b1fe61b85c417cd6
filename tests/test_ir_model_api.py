"""What OpenVINO Model API reads of a converted model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from test_conversion_export import SMALL, convert

from regnet.ir.graph import CROPS, graph_metadata, read_graph, write_ir
from regnet.ir.graph_cost import PREPROCESSING
from regnet.ir.metadata import ModelMetadata
from regnet.ir.model_api import label_words, model_info
from regnet.network.labels import Label, imagenet_labels
from regnet.pixels.preprocess import crop_pixels, rgb_pixels
from regnet.pixels.samples import sample_photos
from regnet.system.runtime import core
from regnet.zoo.catalogue import bundled_path, card_by_name

BUNDLED = bundled_path(card_by_name("bundled"))


def bundled() -> ModelMetadata:
    return graph_metadata(read_graph(BUNDLED), source="m")


def written_info(path: Path) -> dict[str, str]:
    model = core.read_model(path)
    keys = model.get_rt_info(["model_info"]).value
    return {key: model.get_rt_info(["model_info", key]).astype(str) for key in keys}


@pytest.mark.parametrize("name", ["bundled-fp16.xml", "bundled-int8.xml"])
def test_the_bundled_models_carry_it(name: str) -> None:
    found = written_info(BUNDLED.with_name(name))
    assert found == model_info(bundled())
    assert found["model_type"] == "Classification"
    assert (found["resize_type"], found["reverse_input_channels"]) == ("crop", "False")
    words = found["labels"].split()
    assert len(words) == 200
    assert {"Egyptian_cat", "espresso", "European_fire_salamander"} <= set(words)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_the_bundled_models_take_whole_photos_too(precision: str) -> None:
    """Model API passes photos on as they are where the size of `data` is not fixed."""
    model = core.read_model(BUNDLED)
    assert str(model.input("data").partial_shape) == "[?,3,?,?]"
    crops = next(op for op in model.get_ops() if op.get_friendly_name() == CROPS)
    front = ov.Model([crops.output(0)], model.get_parameters(), "front")
    resize = core.compile_model(front, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    preprocess = bundled().preprocess
    for photo in sample_photos():
        image = rgb_pixels(photo)
        expected = crop_pixels(image, preprocess).astype(np.float32)
        found = resize(image[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32))[0][0]
        off = np.abs(found.transpose(1, 2, 0) - expected)
        assert off.max() <= 1
        assert (off > 0).mean() < 0.03
        crop = np.stack([expected.transpose(2, 0, 1)] * 2)
        np.testing.assert_array_equal(resize(crop)[0], crop)


def test_what_regnet_reads_takes_crops_alone() -> None:
    for name in ("bundled-fp16.xml", "bundled-int8.xml"):
        graph = read_graph(BUNDLED.with_name(name))
        assert str(graph.input("data").partial_shape) == "[?,3,128,128]"
        assert not any(op.get_friendly_name().startswith(PREPROCESSING) for op in graph.get_ops())


def test_models_that_take_rgb_have_the_channels_reversed() -> None:
    """Model API's photos are BGR."""
    rgb = replace(bundled(), preprocess=replace(bundled().preprocess, channels="RGB"))
    assert model_info(rgb)["reverse_input_channels"] == "True"


def test_whole_photos_are_rgb_whatever_the_network_takes() -> None:
    whole = replace(bundled(), preprocessing="graph")
    assert whole.preprocess.channels == "BGR"
    assert model_info(whole)["reverse_input_channels"] == "True"
    assert model_info(whole)["embedded_processing"] == "False"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["tench, Tinca tinca", "great white shark"], ["tench", "great_white_shark"]),
        (["maillot", "maillot, tank suit"], ["maillot", "maillot,_tank_suit"]),
        (["crane", "crane"], ["crane", "crane"]),
        (["a\u00a0b\u2028c\td", "e", ""], ["a_b_c_d", "e", "_"]),
        ([", x", ", y"], [",_x", ",_y"]),
    ],
)
def test_each_class_is_one_word(names: list[str], words: list[str]) -> None:
    found = label_words(tuple(Label("", name) for name in names))
    assert found == words
    assert " ".join(found).split() == found


def test_imagenets_classes_are_a_thousand_words() -> None:
    words = " ".join(label_words(imagenet_labels())).split()
    assert len(words) == 1000
    assert len(set(words)) >= 998  # two cranes
    assert words[:2] == ["tench", "goldfish"]


def test_writing_replaces_what_was_there(tmp_path: Path) -> None:
    graph = read_graph(BUNDLED)
    graph.set_rt_info("Segmentation", ["model_info", "model_type"])
    graph.set_rt_info("0.5", ["model_info", "confidence_threshold"])
    write_ir(graph, bundled(), tmp_path / "m.xml")
    assert written_info(tmp_path / "m.xml") == model_info(bundled())


def test_onnx_files_carry_it_in_their_properties(tmp_path: Path) -> None:
    import onnx

    convert(SMALL, tmp_path / "m.onnx")
    props = {p.key: p.value for p in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert props["model_info model_type"] == "Classification"
    assert props["model_info labels"].split()[:2] == ["thing_0", "thing_1"]
    convert(SMALL, tmp_path / "m.xml")
    assert written_info(tmp_path / "m.xml") == {
        key.removeprefix("model_info "): value
        for key, value in props.items()
        if key.startswith("model_info ")
    }
    assert b"<framework" not in (tmp_path / "m.xml").read_bytes()
