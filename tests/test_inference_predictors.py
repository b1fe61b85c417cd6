"""One face for OpenVINO, ONNX Runtime and torch: the same numbers, the same errors."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_conversion_export import SMALL, TINY, confident, convert

from regnet.checkpoints.weights import write_safetensors
from regnet.conversion.store import Library
from regnet.inference.predictors import Choice, open_predictor, parse_choice
from regnet.ir.constants import ops_by_name, set_values
from regnet.ir.constants import values as values_of
from regnet.ir.engine import Outputs
from regnet.ir.graph import graph_metadata, read_graph, set_graph_metadata
from regnet.pixels.samples import sample_photos
from regnet.system.errors import ModelError, UnknownModelError
from regnet.system.machine import this_machine
from regnet.system.runtime import ov


def write_checkpoint(path: Path, interpolation: str = "bicubic") -> Path:
    preprocess = replace(TINY, interpolation=interpolation)
    write_safetensors(path, confident(SMALL).state_dict(), spec=SMALL, preprocess=preprocess)
    return path


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(folder=tmp_path_factory.mktemp("cache"), offline=True)


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("bundled", Choice(model="bundled")),
        ("bundled:bf16", Choice(model="bundled", precision="bf16")),
        ("m.xml:pycls:int8", Choice(model="m.xml", precision="int8", protocol="pycls")),
        ("a:b.pyth:torch", Choice(model="a:b.pyth", engine="torch")),
        ("http://127.0.0.1:80/v2", Choice(model="http://127.0.0.1:80/v2")),
        (":bf16", Choice(model=":bf16")),
    ],
)
def test_a_choice_is_read(text: str, choice: Choice) -> None:
    assert parse_choice(text) == choice


def test_a_file_whose_name_ends_like_a_choice_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine:torch").touch()
    assert parse_choice("mine:torch") == Choice(model="mine:torch")
    assert parse_choice("mine:torch:bf16") == Choice(model="mine:torch", precision="bf16")


def test_a_choice_is_shown_whole() -> None:
    assert str(parse_choice("m.onnx:pycls")) == "m.onnx:onnx:f32:pycls"
    assert str(parse_choice("bundled")) == "bundled:ir:f32"


def test_two_of_a_kind_are_refused() -> None:
    with pytest.raises(UnknownModelError, match="names two of precision"):
        parse_choice("bundled:bf16:f32")


def test_an_unknown_part_of_a_known_model_is_named(tmp_path: Path) -> None:
    file = tmp_path / "m.xml"
    file.touch()
    for model in ("bundled", "regnetx_032", str(file)):
        with pytest.raises(UnknownModelError, match=f"^{model}:bf17: unknown part 'bf17'; known"):
            parse_choice(f"{model}:bf17")


def _run(text: str, library: Library) -> Outputs:
    predictor = open_predictor(parse_choice(text), library=library)
    return predictor.outputs([predictor.pixels(photo) for photo in sample_photos()])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights") / "small.safetensors")


def test_all_engines_agree(checkpoint: Path, library: Library) -> None:
    torch, ir, onnx = (_run(f"{checkpoint}:{e}", library) for e in ("torch", "ir", "onnx"))
    for found in (ir, onnx):
        assert np.abs(found.probabilities - torch.probabilities).max() < 1e-5
        assert np.abs(found.logits - torch.logits).max() < 1e-3
    scaled = np.exp(ir.logits - ir.logits.max(axis=1, keepdims=True))
    assert np.allclose(scaled / scaled.sum(axis=1, keepdims=True), ir.probabilities, atol=1e-6)


def test_bf16_and_another_protocol_give_other_numbers(checkpoint: Path, library: Library) -> None:
    base = _run(str(checkpoint), library).logits
    changes = ("bf16", "pycls", "torch:bf16")  # without bf16 in the CPU, OpenVINO computes in f32
    for change in changes[not this_machine().has_bf16 :]:
        other = _run(f"{checkpoint}:{change}", library).logits
        assert np.abs(other - base).max() > 0
        assert np.corrcoef(other.ravel(), base.ravel())[0, 1] > 0.8


def test_what_cannot_be_run_is_said(checkpoint: Path, library: Library, tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="the engine onnx runs f32 only"):
        _run(f"{checkpoint}:onnx:bf16", library)
    with pytest.raises(UnknownModelError, match="no INT8 model of it yet"):
        _run(f"{checkpoint}:int8", library)
    with pytest.raises(UnknownModelError, match=r"converted already.*name a checkpoint"):
        _run("bundled:torch", library)
    with pytest.raises(UnknownModelError, match=r"small-int8\.xml.*regnet quantize"):
        _run(f"{convert(SMALL, tmp_path / 'small.xml').path}:int8", library)
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match=r"bad\.onnx: not a model that ONNX Runtime can run"):
        _run(str(tmp_path / "bad.onnx"), library)
    with pytest.raises(ModelError, match="no such file"):
        _run(str(tmp_path / "none.onnx"), library)


def test_any_model_takes_the_rules_that_are_asked_for(tmp_path: Path, library: Library) -> None:
    path = write_checkpoint(tmp_path / "b.safetensors", interpolation="bilinear")
    predictor = open_predictor(parse_choice(f"{path}:pycls"), library=library)
    assert predictor.metadata.preprocess.interpolation == "opencv-linear"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_onnx_file_whose_weights_are_not_numbers_is_a_sentence(
    bad: float, tmp_path: Path, library: Library
) -> None:
    import onnx

    path = tmp_path / "m.onnx"
    convert(SMALL, path)
    model = onnx.load(path)
    weight = next(t for t in model.graph.initializer if t.name == "s2.b1.f.b.weight")
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[7] = bad
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"m\.onnx: its weights hold NaN or infinity.*convert it"):
        _run(str(path), library)


def test_an_ir_of_another_version_whose_weights_are_nan_is_refused(
    tmp_path: Path, library: Library
) -> None:
    """Its outputs would be numbers: OpenVINO's ReLU makes 0 of NaN."""
    path = tmp_path / "m.xml"
    convert(SMALL, path)
    graph = read_graph(path)
    op = ops_by_name(graph)["s2.b1.f.b.conv"]
    weight = values_of(op.input_value(1)).copy()
    weight.flat[7] = np.nan
    set_values(op, 1, weight)
    set_graph_metadata(graph, graph_metadata(graph, source="m"))
    ov.save_model(graph, tmp_path / "old.xml", compress_to_fp16=False)
    with pytest.raises(ModelError, match="its weights hold NaN or infinity"):
        _run(str(tmp_path / "old.xml"), library)
