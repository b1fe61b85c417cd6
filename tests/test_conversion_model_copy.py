"""Converted models in other forms: written as ONNX and read back, in FP16, calibrated, in INT8."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from regnet.checkpoints.weights import write_safetensors
from regnet.conversion import model_copy
from regnet.conversion.ir_to_onnx import ir_to_onnx
from regnet.conversion.model_copy import Form, write_copy
from regnet.conversion.store import Library
from regnet.ir.engine import Engine, read_model
from regnet.ir.graph import graph_metadata, read_graph, write_ir
from regnet.ir.records import Calibration
from regnet.network.labels import Label
from regnet.network.modules import RegNet
from regnet.network.spec import RegNetSpec
from regnet.pixels.protocol import OMZ
from regnet.pixels.samples import sample_photos
from regnet.system.errors import ConversionError, ModelError, UnknownModelError
from regnet.system.runtime import ov
from regnet.zoo.catalogue import bundled_path, card_by_name

pytest.importorskip("onnxruntime")

SPEC = RegNetSpec(d=3, w0=8, wa=8.0, wm=2.0, g=8, classes=3)
SMALL = replace(OMZ, name="small", resize=40, crop=32)
LABELS = (Label("n1", "cat"), Label("n2", "dog"), Label("n3", "cup"))
INT8 = bundled_path(card_by_name("bundled")).with_name("bundled-int8.xml")


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(folder=tmp_path / "cache", offline=True)


@pytest.fixture
def pets(tmp_path: Path, library: Library) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "pets.safetensors"
    state = RegNet(SPEC).state_dict()
    write_safetensors(path, state, spec=SPEC, labels=LABELS, preprocess=SMALL, name="pets")
    return library.ir(path)


def with_temperature(path: Path, target: Path) -> Path:
    """Write a copy of an IR as `regnet calibrate` does, with a temperature of 1.7."""
    graph = read_graph(path)
    softmax = graph.output(0).get_node().input_value(0).get_node()
    divided = ov.opset13.divide(softmax.input_value(0), np.float32(1.7), name="temperature")
    softmax.input(0).replace_source_output(divided.output(0))
    learnt = Calibration(
        temperature=1.7, coverage=0.9, method="aps", threshold=0.8, photos=9, held_out=9,
        measured_coverage=0.9, mean_size=1.2,
    )  # fmt: skip
    write_ir(graph, replace(graph_metadata(graph, source="x"), calibration=learnt), target)
    return target


def probabilities(path: Path) -> NDArray[np.float32]:
    engine = Engine(read_model(path))
    return np.concatenate([engine.infer([engine.pixels(photo)]) for photo in sample_photos()])


def test_a_model_goes_to_onnx_and_back(pets: Path, library: Library, tmp_path: Path) -> None:
    copy = write_copy(pets, tmp_path / "out", Form(format="onnx"))
    assert copy.path == tmp_path / "out" / "pets.onnx"
    onnx.checker.check_model(str(copy.path), full_check=True)
    back = library.ir(copy.path)
    assert back.suffix == ".xml"
    assert library.ir(copy.path) == back
    assert np.abs(probabilities(back) - probabilities(pets)).max() <= 1e-5
    assert read_model(back).metadata == read_model(pets).metadata


def test_a_calibrated_model_keeps_its_temperature_and_sets(
    pets: Path, library: Library, tmp_path: Path
) -> None:
    source = with_temperature(pets, tmp_path / "pets-calibrated.xml")
    copy = write_copy(source, tmp_path, Form(format="onnx"))
    back = library.ir(copy.path)
    assert np.abs(probabilities(back) - probabilities(source)).max() <= 1e-5
    assert np.abs(probabilities(back) - probabilities(pets)).max() > 1e-3
    assert read_model(back).metadata.calibration == read_model(source).metadata.calibration


@pytest.mark.parametrize("format", ["ir", "onnx"])
def test_a_copy_in_fp16_is_half_as_large(pets: Path, tmp_path: Path, format: str) -> None:
    form = Form(format="onnx" if format == "onnx" else "ir", precision="fp16")
    half = write_copy(pets, tmp_path, form)
    whole = (
        write_copy(half.path, tmp_path, replace(form, precision="fp32")) if format == "ir" else None
    )
    assert half.path.stem == "pets-fp16"
    assert 0 < half.rounding < 1e-2
    if whole:
        assert whole.rounding == 0
        assert np.array_equal(probabilities(whole.path), probabilities(half.path))


def test_int8_is_written_as_onnx_and_read_back(library: Library, tmp_path: Path) -> None:
    copy = write_copy(INT8, tmp_path, Form(format="onnx"))
    model = onnx.load(copy.path)
    kinds = [node.op_type for node in model.graph.node]
    graph = read_graph(INT8)
    expected = sum(op.get_type_name() == "FakeQuantize" for op in graph.get_ops())
    assert kinds.count("QuantizeLinear") == expected
    assert kinds.count("DequantizeLinear") - expected > 50  # layers with weights in INT8
    back = library.ir(copy.path, precision="int8")
    ops = [op.get_type_name() for op in read_graph(back).get_ops()]
    assert ops.count("FakeQuantize") == expected
    assert np.abs(probabilities(back) - probabilities(INT8)).max() <= 1e-2
    assert [node.op_type for node in ir_to_onnx(read_graph(back), "int8").graph.node] == kinds


def test_a_copy_that_differs_is_not_written(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = model_copy.ir_to_onnx

    def wrong(*arguments: object) -> onnx.ModelProto:
        model = real(*arguments)  # type: ignore[arg-type]
        weights = next(t for t in model.graph.initializer if t.name == "head.fc.bias")
        array = onnx.numpy_helper.to_array(weights) + np.float32([0.001, 0, 0])
        weights.CopyFrom(onnx.numpy_helper.from_array(array, weights.name))
        return model

    monkeypatch.setattr(model_copy, "ir_to_onnx", wrong)
    with pytest.raises(ConversionError, match="disagrees with its source"):
        write_copy(pets, tmp_path / "out", Form(format="onnx"))
    assert not list((tmp_path / "out").glob("*"))


def test_a_file_whose_weights_are_not_the_networks_is_refused(
    pets: Path, library: Library, tmp_path: Path
) -> None:
    """A graph that is not what its metadata promises is found by the reference network."""
    copy = write_copy(pets, tmp_path, Form(format="onnx"))
    model = onnx.load(copy.path)
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type = "Sigmoid"
    onnx.save(model, copy.path)
    with pytest.raises(ConversionError, match="disagrees with the network"):
        library.ir(copy.path)


def test_what_is_no_change_or_no_models_of_ours_is_refused(
    pets: Path, library: Library, tmp_path: Path
) -> None:
    with pytest.raises(ConversionError, match="is converted already: choose another form"):
        write_copy(pets, tmp_path, Form())
    with pytest.raises(ConversionError, match="is an INT8 model: leave out --precision"):
        write_copy(INT8, tmp_path, Form(format="onnx", precision="fp16"))
    copy = write_copy(pets, tmp_path, Form(format="onnx"))
    model = onnx.load(copy.path)
    del model.metadata_props[:]
    onnx.save(model, copy.path)
    with pytest.raises(ModelError, match="has no regnet metadata"):
        library.ir(copy.path)
    with pytest.raises(UnknownModelError, match="no such file"):
        library.ir(tmp_path / "none.onnx")
