"""`regnet convert --layout repository`: what OpenVINO Model Server and Triton read."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_conversion_export import SMALL, confident
from test_explanation import saved
from typer.testing import CliRunner, Result

from regnet.cli import build_app
from regnet.conversion import repository
from regnet.conversion.graph_preprocess import embed_preprocessing
from regnet.conversion.repository import add_to_repository, labels_text
from regnet.inference.classify import Classifier
from regnet.ir.graph import graph_metadata, read_graph, set_graph_metadata
from regnet.network.labels import Label
from regnet.pixels.preprocess import crop_pixels, rgb_pixels
from regnet.pixels.samples import sample_photos
from regnet.system.errors import ConversionError, ModelError, OutputError, RegNetError
from regnet.system.runtime import ov
from regnet.zoo.catalogue import bundled_path, card_by_name

BUNDLED = bundled_path(card_by_name("bundled"))
BUNDLED_INT8 = BUNDLED.with_name("bundled-int8.xml")
ESPRESSO = sample_photos()[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model that takes whole photos."""
    graph = read_graph(BUNDLED)
    preprocess = graph_metadata(graph, source="").preprocess
    path = tmp_path_factory.mktemp("whole") / "whole photos.xml"
    return saved(embed_preprocessing(graph, preprocess), path, preprocessing="graph")


def files_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def config_of(folder: Path) -> Any:
    """Return config.pbtxt as Triton's own definition of it reads it."""
    pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    text_format = pytest.importorskip("google.protobuf.text_format")
    return text_format.Parse((folder / "config.pbtxt").read_text("utf-8"), pb2.ModelConfig())


def test_the_folder_is_what_both_servers_look_for(tmp_path: Path) -> None:
    entry = add_to_repository(BUNDLED, tmp_path)
    assert (entry.folder, entry.version, entry.new) == (tmp_path / "bundled-fp16", 1, True)
    names = ["1/model.bin", "1/model.xml", "config.pbtxt", "labels.txt"]
    assert files_in(entry.folder) == sorted(entry.files) == names
    assert (entry.folder / "1" / "model.xml").read_bytes() == BUNDLED.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["bundled-fp16"]
    assert entry.folder.stat().st_mode & 0o005  # the server is another user


def test_the_names_are_those_of_the_folder_and_the_backend(whole: Path, tmp_path: Path) -> None:
    for path, name in ((BUNDLED, "bundled-fp16"), (whole, "whole_photos")):
        entry = add_to_repository(path, tmp_path)
        config = config_of(entry.folder)
        assert config.name == entry.folder.name == name
        assert config.backend == "openvino"
        assert config.max_batch_size == 0
        assert not config.HasField("dynamic_batching")
        (group,) = config.instance_group
        assert group.kind == group.KIND_CPU


@pytest.mark.parametrize(
    ("kind", "taken", "dims", "given"),
    [
        ("crops", "TYPE_FP32", [-1, 3, 128, 128], [-1, 200]),
        ("whole", "TYPE_UINT8", [1, -1, -1, 3], [1, 200]),
    ],
)
def test_tensors_are_those_of_the_graph(
    kind: str, taken: str, dims: list[int], given: list[int], whole: Path, tmp_path: Path
) -> None:
    entry = add_to_repository(whole if kind == "whole" else BUNDLED, tmp_path)
    config = config_of(entry.folder)
    types = type(config).DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_name
    (port,), (result,) = config.input, config.output
    assert (port.data_type, list(port.dims)) == (types[taken].number, dims)
    assert (result.data_type, list(result.dims)) == (types["TYPE_FP32"].number, given)
    assert (result.name, result.label_filename) == ("prob", "labels.txt")
    graph = ov.Core().read_model(entry.folder / "1" / "model.xml")
    assert [p.any_name for p in (*graph.inputs, *graph.outputs)] == [port.name, result.name]
    for found, said in ((graph.input(0), port), (graph.output(0), result)):
        assert found.partial_shape.compatible(ov.PartialShape(list(said.dims)))
        if kind == "whole":
            assert found.partial_shape == ov.PartialShape(list(said.dims))


@pytest.mark.parametrize("kind", ["crops", "whole"])
def test_a_server_gives_the_same_probabilities(kind: str, whole: Path, tmp_path: Path) -> None:
    """Do with the folder what the backend does: by file name, tensors by config.pbtxt's names."""
    from openvino.preprocess import PrePostProcessor

    path = whole if kind == "whole" else BUNDLED
    entry = add_to_repository(path, tmp_path)
    config = config_of(entry.folder)
    core = ov.Core()
    processor = PrePostProcessor(core.read_model(entry.folder / "1" / "model.xml"))
    kinds = {"TYPE_FP32": ov.Type.f32, "TYPE_UINT8": ov.Type.u8}
    types = type(config).DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_number
    wanted = kinds[types[config.input[0].data_type].name]
    processor.input(config.input[0].name).tensor().set_element_type(wanted)
    processor.output(config.output[0].name).tensor().set_element_type(ov.Type.f32)
    run = core.compile_model(processor.build(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    classifier = Classifier(path)
    if kind == "whole":
        given = rgb_pixels(ESPRESSO)[None]
    else:
        crop = crop_pixels(ESPRESSO, classifier.metadata.preprocess)
        given = np.stack([crop.transpose(2, 0, 1)] * 3).astype(np.float32)
    rows = run({config.input[0].name: given})[config.output[0].name]
    top = classifier.classify(ESPRESSO).top
    labels = (entry.folder / "labels.txt").read_text("utf-8").split("\n")
    for row in rows:
        assert labels[int(row.argmax())] == top.label == "espresso"
        assert row.max() == pytest.approx(top.probability, abs=1e-5)


def test_labels_are_a_class_a_line() -> None:
    names = labels_text((Label("n1", "a, b"), Label("", "two\nlines"), Label("", "über")))
    assert names == "a, b\ntwo lines\nüber\n"


def test_the_same_model_is_added_once(tmp_path: Path) -> None:
    first, second = (add_to_repository(BUNDLED, tmp_path) for _ in range(2))
    assert second == replace(first, new=False)
    assert [p.name for p in first.folder.iterdir() if p.is_dir()] == ["1"]


def test_another_model_of_the_name_is_the_next_version(tmp_path: Path) -> None:
    add_to_repository(BUNDLED, tmp_path, name="m")
    entry = add_to_repository(BUNDLED_INT8, tmp_path, name="m")
    assert (entry.version, entry.new) == (2, True)
    assert (entry.folder / "2" / "model.xml").read_bytes() == BUNDLED_INT8.read_bytes()
    assert (entry.folder / "1" / "model.xml").read_bytes() == BUNDLED.read_bytes()
    assert add_to_repository(BUNDLED, tmp_path, name="m").version == 3


def test_a_model_of_other_tensors_or_classes_is_refused(whole: Path, tmp_path: Path) -> None:
    add_to_repository(BUNDLED, tmp_path, name="m")
    before = files_in(tmp_path)
    with pytest.raises(OutputError, match=r"its config\.pbtxt is not.*--name"):
        add_to_repository(whole, tmp_path, name="m")
    graph = read_graph(BUNDLED)
    metadata = graph_metadata(graph, source="")
    swapped = (*metadata.labels[1::-1], *metadata.labels[2:])
    set_graph_metadata(graph, replace(metadata, labels=swapped))
    ov.save_model(graph, tmp_path / "other.xml", compress_to_fp16=False)
    with pytest.raises(OutputError, match=r"its labels\.txt is not.*--name"):
        add_to_repository(tmp_path / "other.xml", tmp_path, name="m")
    (tmp_path / "other.xml").unlink()
    (tmp_path / "other.bin").unlink()
    assert files_in(tmp_path) == before


def test_what_others_put_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "notes").write_text("mine")
    with pytest.raises(OutputError, match="holds another model"):
        add_to_repository(BUNDLED, tmp_path, name="m")
    assert files_in(tmp_path) == ["m/notes"]
    (tmp_path / "empty").mkdir()
    assert add_to_repository(BUNDLED, tmp_path, name="empty").version == 1


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(repository.shutil, "copyfile", full)
    with pytest.raises(OutputError, match="No space left"):
        add_to_repository(BUNDLED, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_ir_from_elsewhere_is_refused(tmp_path: Path) -> None:
    from openvino import opset13 as opset

    parameter = opset.parameter([1, 3, 8, 8], np.float32)
    ov.save_model(ov.Model([opset.relu(parameter)], [parameter]), tmp_path / "m.xml")
    with pytest.raises(ModelError, match="no regnet metadata"):
        add_to_repository(tmp_path / "m.xml", tmp_path / "models")
    assert not (tmp_path / "models").exists()


def run(*arguments: object) -> Result:
    app = build_app(["convert", "info"])
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


def test_the_command_lays_out_what_is_converted_already(tmp_path: Path) -> None:
    done = run("bundled", "--layout", "repository", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    folder = tmp_path / "bundled-fp16"
    assert re.sub(r"\s+", " ", done.stdout) == (
        f"{folder}: version 1 config.pbtxt labels.txt 1/model.bin 1/model.xml "
    )
    text = run(BUNDLED_INT8, "--layout", "repository", "--name", "n", "-o", tmp_path, "--json")
    found = json.loads(text.stdout)
    assert (found["path"], found["version"], found["new"]) == (str(tmp_path / "n"), 1, True)
    assert all(Path(name).is_file() for name in found["files"])


def test_the_command_converts_what_is_not(tmp_path: Path) -> None:
    torch.save({"model_state": confident(SMALL).state_dict()}, tmp_path / "small.pyth")
    done = run(
        tmp_path / "small.pyth", "--layout", "repository", "--resize", 72, "--crop", 64,
        "--precision", "fp16", "-o", tmp_path / "models", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, (done.output, done.exception)
    found = json.loads(done.stdout)
    assert Path(found["path"]).name == "small-fp16"
    assert found["max_delta"] <= 1e-5
    assert list(config_of(Path(found["path"])).input[0].dims) == [-1, 3, 64, 64]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--format", "onnx"], "leave out --format onnx"),
        (["--precision", "fp16", "--crop", "64"], r"leave out.*\(protocol, precision\)"),
    ],
)
def test_what_a_repository_cannot_be_is_refused(
    options: list[str], reason: str, tmp_path: Path
) -> None:
    done = run("bundled", "--layout", "repository", *options, "-o", tmp_path)
    assert isinstance(done.exception, ConversionError)
    assert isinstance(done.exception, RegNetError)
    assert re.search(reason, str(done.exception))
    assert list(tmp_path.iterdir()) == []
