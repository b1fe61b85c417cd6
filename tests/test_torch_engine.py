"""Models run by torch: on its CPU here, as they run on a GPU."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run_main
from PIL import Image
from test_conversion_export import TINY, convert
from test_inference_predictors import write_checkpoint
from test_network_variants import SMALL

import regnet
from regnet.calibration.temperature import _set_temperature
from regnet.conversion.store import Library
from regnet.inference.predictors import Choice, open_predictor, parse_choice
from regnet.ir import agreement as agreement_module
from regnet.ir.agreement import device_agreement
from regnet.ir.device_record import DeviceRecord
from regnet.ir.engine import ConvertedModel, Engine, read_model
from regnet.ir.features import with_features
from regnet.pixels.samples import sample_crops, sample_photos
from regnet.system import devices
from regnet.system.errors import ModelError, UnknownModelError
from regnet.zoo.catalogue import bundled_path, card_by_name

torch = pytest.importorskip("torch")

from regnet.ir import torch_engine as engine_module  # noqa: E402
from regnet.ir.torch_engine import best_batch, torch_engine  # noqa: E402

BUNDLED = bundled_path(card_by_name("bundled"))
CROPS = np.stack(sample_crops(read_model(BUNDLED).metadata.preprocess))


@pytest.fixture
def cuda_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a card, whose work torch does on the CPU."""
    monkeypatch.setattr(devices, "_cuda_devices", lambda: (devices.Device("cuda:0", "a card"),))
    monkeypatch.setattr(engine_module, "torch_device", lambda _: torch.device("cpu"))


def calibrated() -> ConvertedModel:
    model = read_model(BUNDLED, logits=True)
    _set_temperature(model.graph, 1.7)
    return model


@pytest.mark.parametrize("made", [lambda: read_model(BUNDLED, logits=True), calibrated])
def test_torch_gives_the_numbers_of_openvino(made: Any) -> None:
    model = with_features(made())
    expected = Engine(model).ports(CROPS, 1, 2)
    given = torch_engine(model, device="cpu", precision="f32").ports(CROPS, 1, 2)
    for one, other, most in zip(expected, given, (1e-5, 1e-4, 1e-5), strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= most
    assert (expected[0].argmax(axis=1) == given[0].argmax(axis=1)).all()


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_every_kind_of_block_runs(kind: str, tmp_path: Path) -> None:
    convert(SMALL[kind], tmp_path / "m.xml")
    model = read_model(tmp_path / "m.xml", logits=True)
    crops = np.stack(sample_crops(model.metadata.preprocess))
    expected = Engine(model).outputs(crops)
    given = torch_engine(model, device="cpu", precision="f32").outputs(crops)
    assert np.abs(expected.probabilities - given.probabilities).max() <= 1e-5
    half = torch_engine(model, device="cpu").infer(crops)
    assert 0 < np.abs(expected.probabilities - half).max() <= 0.1


def test_what_torch_does_not_run_is_a_sentence(tmp_path: Path) -> None:
    int8 = BUNDLED.with_name("bundled-int8.xml")
    with pytest.raises(ModelError, match="is an INT8 model, and cpu runs floating point"):
        torch_engine(read_model(int8), device="cpu")
    model = read_model(BUNDLED)
    model.graph.get_ordered_ops()
    rounded = with_rounding(model)
    with pytest.raises(ModelError, match="torch does not run its operation Round: take a device"):
        torch_engine(rounded, device="cpu")


def with_rounding(model: ConvertedModel) -> ConvertedModel:
    from regnet.system.runtime import ov

    softmax = model.graph.output(0).get_node().input_value(0).get_node()
    rounded = ov.opset15.round(softmax.input_value(0), "half_to_even")
    softmax.input(0).replace_source_output(rounded.output(0))
    return model


def test_batches_grow_while_they_pay() -> None:
    def seconds(batch: int, fits: int = 4096) -> float:
        if batch > fits:
            raise ModelError("too large")
        return max(batch, 100) / 1000

    assert best_batch(seconds) == 128
    assert best_batch(lambda batch: seconds(batch, 64)) == 64
    assert best_batch(lambda batch: 1.0) == engine_module.MAX_BATCH
    assert best_batch(float) == 8


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB", ModelError),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", ModelError),
        ("Unable to find a valid cuDNN algorithm to run convolution", ModelError),
        ("mat1 and mat2 shapes cannot be multiplied", RuntimeError),
    ],
)
def test_a_shortage_of_memory_is_told_from_other_errors(said: str, kind: type[Exception]) -> None:
    class Failing(torch.nn.Module):
        def forward(self, pixels: Any) -> Any:
            raise RuntimeError(said)

    engine = engine_module.TorchEngine(Failing(), read_model(BUNDLED).metadata, device="cpu")
    with pytest.raises(kind, match="images at once" if kind is ModelError else "shapes"):
        engine.infer(CROPS)


def test_measured_values_are_kept_by_model_device_and_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = read_model(BUNDLED), tmp_path / "compiled"

    def agreed(precision: Any) -> Any:
        engine = torch_engine(model, device="cpu", precision=precision)
        return device_agreement(
            model, engine, device="cpu", precision=precision, compiled_cache=folder
        )

    exact, half = agreed("f32"), agreed("bf16")
    assert (exact.flips, exact.photos) == (0, 42)
    assert exact.max_delta <= 1e-5 < half.max_delta <= 0.1
    assert "0 of 42 sample crops change class" in str(exact)
    files = sorted((tmp_path / "devices").iterdir())
    assert len(files) == 2
    with monkeypatch.context() as patch:
        patch.setattr(agreement_module, "Engine", None)  # nothing is measured again
        assert (agreed("f32"), agreed("bf16")) == (exact, half)
    for damaged in (b"", b"[]", b'{"agreement": {"photos": 1}}', b"\xff", b"{" * 9999):
        for file in files:
            file.write_bytes(damaged)
        assert agreed("f32") == exact


def test_a_batch_size_is_kept_and_a_wrong_one_measured_again(tmp_path: Path) -> None:
    record = DeviceRecord(tmp_path / "one.json")
    valid = lambda value: type(value) is int  # noqa: E731
    assert record.kept("batch", lambda: 64, valid) == 64
    assert record.kept("batch", lambda: 128, valid) == 64
    record.kept("other", lambda: "x", bool)
    (tmp_path / "one.json").write_text(json.dumps({"batch": True, "other": "x"}))
    assert record.kept("batch", lambda: 256, valid) == 256
    assert json.loads((tmp_path / "one.json").read_text()) == {"batch": 256, "other": "x"}


def test_cuda_is_bf16_unless_asked_otherwise() -> None:
    assert parse_choice("bundled:cuda") == Choice(model="bundled", device="cuda", precision="bf16")
    assert str(parse_choice("bundled:cuda:f32")) == "bundled:ir:cuda:f32"
    assert parse_choice("m.xml", device="CUDA:1", precision=None).device == "cuda:1"


@pytest.mark.usefixtures("cuda_on_cpu")
def test_commands_run_on_cuda(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff but no photo")
    photos = [*map(str, sample_photos()), str(tmp_path / "bad.jpg")]
    options = ["classify", "--model", "bundled", "-f", "json", *photos]
    plain, cuda, exact = (
        run_main(*options, *more)
        for more in ([], ["--device", "cuda"], ["--device", "cuda", "--precision", "f32"])
    )
    assert b"cuda (a card), bf16: 0 of 42 sample crops change class" in cuda.stderr
    rows, half, other = (json.loads(result.stdout) for result in (plain, cuda, exact))
    assert [result.returncode for result in (plain, cuda, exact)] == [1, 1, 1]
    for row, one, two in zip(rows, half, other, strict=True):
        assert (row["source"], row["error"]) == (one["source"], one["error"])
        for mine, theirs, most in ((row, one, 0.05), (row, two, 1e-5)):
            for a, b in zip(mine["predictions"][:1], theirs["predictions"][:1], strict=True):
                assert a["index"] == b["index"]
                assert abs(a["probability"] - b["probability"]) <= most
    compared = run_main("compare", "bundled", "bundled:cuda:f32", *photos[:1], "--json")
    assert json.loads(compared.stdout)["b"]["device"] == "cuda"
    explained = run_main("explain", "--model", "bundled:cuda", photos[0], "--json")
    assert explained.returncode == 0


@pytest.mark.usefixtures("cuda_on_cpu")
def test_a_checkpoint_runs_on_cuda_too(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "m.safetensors")
    library = Library(folder=tmp_path / "cache")
    crops = np.stack(sample_crops(TINY))
    choices = (f"{tmp_path}/m.safetensors:torch:{more}f32" for more in ("", "cuda:"))
    a, b = (open_predictor(parse_choice(each), library=library).outputs(crops) for each in choices)
    assert np.array_equal(a.probabilities, b.probabilities)
    with pytest.raises(UnknownModelError, match="the engine torch does not run on GPU"):
        open_predictor(parse_choice("m.safetensors:torch:GPU"), library=library)


@pytest.mark.usefixtures("cuda_on_cpu")
def test_python_loads_a_model_on_cuda(tmp_path: Path) -> None:
    classifier = regnet.load("bundled", device="cuda", cache_dir=tmp_path)
    photos = list(sample_photos()) * 5
    names = [prediction.source for prediction in classifier.stream(photos)]
    assert names == list(map(str, photos))
    assert classifier.embed(list(photos[:2])).shape == (2, classifier.width)


def test_classify_on_the_cpu_does_not_import_torch() -> None:
    command = ["-m", "regnet", "classify", "--model", "bundled", str(sample_photos()[0])]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command], capture_output=True, check=False
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}
    assert "numpy" in imported
    assert not imported & {"torch", "regnet.ir.torch_engine", "regnet.ir.agreement"}


@pytest.mark.usefixtures("cuda_on_cpu")
def test_benchmark_prints_the_agreement(tmp_path: Path) -> None:
    arguments = ["benchmark", "bundled", "--device", "cuda", "--rounds", "1", "--batch-size", "2"]
    Image.open(sample_photos()[0]).convert("RGB").save(tmp_path / "cat.jpg")
    result = run_main(*arguments, "--end-to-end", str(tmp_path))
    assert b"cuda (a card), bf16: 0 of 42 sample crops change class" in result.stdout
    values = json.loads(result.stdout.splitlines()[-1])
    assert values["device"] == "cuda"
    assert [row["precision"] for row in values["engines"]] == ["f32", "bf16"]
    exact, half = values["agreement"]
    assert (exact["precision"], half["precision"], exact["flips"]) == ("f32", "bf16", 0)
    assert exact["max_delta"] <= 1e-5
    assert [row["flips"] for row in values["end_to_end"]["wholes"]] == [0, 0]
    refused = run_main("benchmark", "bundled", "--device", "cuda", "--precision", "int8")
    assert (refused.returncode, b"is an INT8 model" in refused.stderr) == (2, True)


@pytest.mark.usefixtures("cuda_on_cpu")
def test_many_photos_go_through_processes_and_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module.TorchEngine, "outruns_decoding", True)
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff but no photo")
    for number in range(70):
        (tmp_path / f"{number}.png").write_bytes(sample_photos()[number % 2].read_bytes())
    options = ["classify", "--model", "bundled", str(tmp_path), "-f", "csv", "-k", "1"]
    plain, cuda = (
        run_main(*options, *more) for more in ([], ["--device", "cuda", "--precision", "f32"])
    )
    rows, others = (list(csv.DictReader(r.stdout.decode().splitlines())) for r in (plain, cuda))
    assert (len(rows), plain.returncode, cuda.returncode) == (71, 1, 1)
    for row, other in zip(rows, others, strict=True):
        a, b = (float(each.pop("probability") or 0) for each in (row, other))
        assert row == other
        assert abs(a - b) <= 1e-5
