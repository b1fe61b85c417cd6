"""Devices by name: OpenVINO's as they are here, `cuda` by a fake of torch's."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import run_main

import regnet
from regnet.inference.predictors import parse_choice, parse_ir_choice
from regnet.ir.engine import Engine, read_model
from regnet.pixels.samples import sample_crops, sample_photos
from regnet.system import devices as module
from regnet.system.devices import Device, canonical_device, devices, require_device
from regnet.system.errors import ModelError, UnknownModelError
from regnet.zoo.catalogue import bundled_path, card_by_name

MODEL = read_model(bundled_path(card_by_name("bundled")))
HERE = (Device("CPU", "a CPU"), Device("GPU.0", "a GPU"), Device("GPU.1", "another"))


@pytest.fixture
def three_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_openvino_devices", lambda: HERE)
    monkeypatch.setattr(module, "_cuda_devices", lambda: (Device("cuda:0", "a card"),))


@pytest.mark.usefixtures("three_devices")
@pytest.mark.parametrize(
    "name",
    ["CPU", "cpu", "GPU", "GPU.1", "AUTO", "AUTO:GPU.1,CPU", "multi:gpu,cpu", "cuda", "CUDA:0"],
)
def test_a_device_that_is_here_is_taken(name: str) -> None:
    require_device(name)


@pytest.mark.usefixtures("three_devices")
@pytest.mark.parametrize(
    ("name", "absent"),
    [("NPU", "NPU"), ("GPU.2", "GPU.2"), ("AUTO:NPU,CPU", "NPU"), ("cuda:1", "cuda:1"), ("", "''")],
)
def test_a_device_that_is_not_here_is_refused_with_a_list(name: str, absent: str) -> None:
    with pytest.raises(ModelError) as refused:
        require_device(name)
    listing = "CPU (a CPU), GPU.0 (a GPU), GPU.1 (another), cuda:0 (a card)"
    assert str(refused.value).startswith(
        f"device {absent}: not on this machine, which has {listing}"
    )


def test_names_are_written_as_their_makers_do() -> None:
    assert [canonical_device(n) for n in ("gpu.1", "Cuda:1", "auto:gpu,cpu")] == [
        "GPU.1",
        "cuda:1",
        "AUTO:GPU,CPU",
    ]


def test_torch_is_asked_for_its_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = pytest.importorskip("torch").cuda
    monkeypatch.setattr(module, "_cuda_devices", module._cuda_devices.__wrapped__)
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "device_count", lambda: 2)
    monkeypatch.setattr(cuda, "get_device_name", lambda number: f"card {number}")
    assert devices()[-2:] == (Device("cuda:0", "card 0"), Device("cuda:1", "card 1"))


@pytest.mark.parametrize("name", ["AUTO", "AUTO:CPU", "MULTI:CPU"])
def test_groups_give_the_numbers_of_the_cpu(name: str, tmp_path: Path) -> None:
    crops = np.stack(sample_crops(MODEL.metadata.preprocess))
    expected = Engine(MODEL).infer(crops)
    for streams in (1, 2):
        engine = Engine(MODEL, device=name, streams=streams, compiled_cache=tmp_path)
        assert np.abs(engine.infer(crops) - expected).max() <= 1e-6


def test_a_precision_that_a_device_has_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from regnet.ir import engine

    class Core:
        def get_property(self, *_: str) -> list[str]:
            return ["FP16", "INT8"]

    monkeypatch.setattr(engine, "core", Core())
    assert not engine._computes_in("NPU", "f32")
    with pytest.raises(ModelError, match="NPU: has no bf16, but FP16, INT8; leave out --precision"):
        engine._computes_in("NPU", "bf16")


def test_a_device_is_part_of_a_choice() -> None:
    choice = parse_choice("bundled:GPU")
    assert (choice.device, str(choice)) == ("GPU", "bundled:ir:GPU:f32")
    assert parse_choice("bundled", device="auto:cpu").device == "AUTO:CPU"
    with pytest.raises(UnknownModelError, match="contradicts --device CPU"):
        parse_choice("bundled:GPU", device="CPU")
    with pytest.raises(UnknownModelError, match="takes no device but CPU: leave out GPU"):
        parse_ir_choice("bundled:GPU", "teach")


def test_classify_and_load_take_a_device() -> None:
    photos = list(map(str, sample_photos()))
    plain, auto = (
        run_main("classify", "--model", "bundled", *photos, "-f", "json", *more).stdout
        for more in ([], ["--device", "auto"])
    )
    assert json.loads(plain) == json.loads(auto)
    result = run_main("classify", "--model", "bundled", "--device", "NPU.7", *photos)
    assert result.returncode == 2
    assert b"device NPU.7: not on this machine, which has CPU (" in result.stderr
    with pytest.raises(ModelError, match=r"device NPU\.7: not on this machine"):
        regnet.load("bundled", device="npu.7")


def test_compare_runs_the_sides_that_name_no_device_elsewhere() -> None:
    photo = str(sample_photos()[0])
    result = run_main("compare", "bundled:CPU", "bundled", photo, "--device", "auto", "--json")
    values = json.loads(result.stdout)
    assert [values[side]["device"] for side in "ab"] == ["CPU", "AUTO"]
    assert values["flipped"] == 0


@pytest.mark.parametrize("command", ["explain", "evaluate", "serve", "embed", "search"])
def test_other_commands_refuse_a_device_that_is_not_here(command: str) -> None:
    photo, more = str(sample_photos()[0]), {"search": ["--in", "."], "embed": ["-o", "x.npy"]}
    arguments = [] if command == "serve" else [photo]
    result = run_main(
        command, "--model", "bundled", "--device", "NPU.7", *arguments, *more.get(command, [])
    )
    assert (result.returncode, b"NPU.7: not on this" in result.stderr) == (2, True)
