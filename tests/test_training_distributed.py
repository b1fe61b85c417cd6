"""Several processes train as one would, and notice when one of them is lost."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training_runs import Recorder, job, resume, run, trainer
from training_worker import endless, jobs

from regnet.training.run_folder import LAST, read_run
from regnet.training.state import Position

WORKER = Path(__file__).with_name("training_worker.py")
TRAININGS = ("mixed", "parts", "uneven")
BOUND = 120  # seconds in which processes start and are done, on a busy machine


def environment(**more: str) -> dict[str, str]:
    paths = [str(WORKER.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)} | more


def launch(*command: object) -> None:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def results(folder: Path, name: str) -> list[Any]:
    return [torch.load(folder / f"{name}-{rank}.pt") for rank in range(2)]


def begin(folder: Path) -> None:
    """Leave what the processes take up: a batch to normalise, and a checkpoint of one process."""
    torch.manual_seed(0)
    norm = nn.Sequential(nn.BatchNorm2d(3))
    for tensor in norm.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape) * 2 + 0.5)
    images = (torch.randn(8, 3, 5, 4) * 3 + 7).contiguous(memory_format=torch.channels_last)
    torch.save(norm.state_dict(), folder / "norm.pt")
    torch.save(images, folder / "images.pt")
    torch.save(torch.randn(8, 3, 5, 4), folder / "gradient.pt")
    made = jobs(folder)["mixed"]
    run(replace(made, folder=folder / "begun"), Recorder(stop_after=3))


@pytest.fixture(scope="module")
def torchrun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which two processes have done all there is to do together."""
    folder = tmp_path_factory.mktemp("torchrun")
    begin(folder)
    command = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    launch(*command, WORKER, folder, "torchrun", "batch_norm", *TRAININGS, "stopped", "resumed")
    return folder


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which two processes, started by Fabric, have shared a network."""
    folder = tmp_path_factory.mktemp("fsdp")
    begin(folder)
    launch(WORKER, folder, "2:fsdp", *TRAININGS, "stopped", "resumed")
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what one process gets, by name."""
    found = {}
    for name, values in jobs(tmp_path_factory.mktemp("alone")).items():
        watcher = Recorder()
        made = run(values, watcher)
        found[name] = {
            "losses": [record.loss for record in watcher.records],
            "skipped": [record.skipped for record in watcher.records],
            "val_losses": [record.val_loss for record in watcher.records],
            "weights": made.weights,
        }
    return found


def assert_close(found: Any, expected: Any, **tolerance: float) -> None:
    torch.testing.assert_close(found, expected, **(tolerance or {"rtol": 1e-4, "atol": 2e-4}))


def test_batch_norm_is_that_of_the_whole_batch(torchrun: Path) -> None:
    norm = nn.Sequential(nn.BatchNorm2d(3))
    norm.load_state_dict(torch.load(torchrun / "norm.pt"))
    images = torch.load(torchrun / "images.pt").requires_grad_()
    normalised = norm(images)
    normalised.backward(torch.load(torchrun / "gradient.pt"))
    parts = results(torchrun, "batch_norm")
    exact = {"rtol": 1e-5, "atol": 1e-5}
    assert_close(torch.cat([part["normalised"] for part in parts]), normalised.detach(), **exact)
    assert_close(torch.cat([part["gradient"] for part in parts]), images.grad, **exact)
    for part in parts:
        assert_close(part["parameters"], [p.grad for p in norm.parameters()], **exact)
        assert_close(part["state"], norm.state_dict(), **exact)


@pytest.fixture(params=["torchrun", "sharded"])
def together(request: pytest.FixtureRequest) -> Path:
    """Return the folder of two processes: each with a whole network, or with half of one."""
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("name", ["mixed", "parts"])
def test_two_processes_have_the_loss_curve_of_one(
    together: Path, alone: dict[str, Any], name: str
) -> None:
    for found in results(together, name):
        for key in ("losses", "val_losses", "weights"):
            assert_close(found[key], alone[name][key])


def test_shares_may_be_uneven_and_photos_unreadable(together: Path, alone: dict[str, Any]) -> None:
    first, second = results(together, "uneven")
    assert_close(first["weights"], second["weights"], rtol=0.0, atol=0.0)
    assert first["skipped"] == second["skipped"] == alone["uneven"]["skipped"]
    assert max(first["skipped"]) > 0


def test_one_process_that_is_asked_stops_all(together: Path) -> None:
    for found in results(together, "stopped"):
        assert found["position"] == {"epoch": 1, "step": 1}


def test_a_checkpoint_is_gone_on_from_by_another_number_of_processes(
    together: Path, alone: dict[str, Any], tmp_path: Path
) -> None:
    made, watcher = trainer(jobs(tmp_path)["mixed"]), Recorder()
    made.run(resume(made, together / "stopped"), watcher)
    by_one = {"losses": [record.loss for record in watcher.records], "weights": made.weights}
    for found in (by_one, *results(together, "resumed")):
        assert_close(found["losses"], alone["mixed"]["losses"][1:])
        assert_close(found["weights"], alone["mixed"]["weights"])


@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_process_ends_the_run_and_leaves_a_checkpoint(tmp_path: Path, victim: int) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = str(server.getsockname()[1])
    processes = [start(tmp_path, rank, port) for rank in range(2)]
    wait_for(tmp_path / LAST)
    os.kill(processes[victim].pid, signal.SIGKILL)
    _, message = processes[1 - victim].communicate(timeout=BOUND)
    processes[victim].communicate()
    assert processes[1 - victim].returncode == 1
    said = rf"TrainingError: process {1 - victim} of 2 has lost another one, in epoch \d+, step"
    assert re.search(said, message), message
    assert "start all again with --resume" in message
    values = read_run(tmp_path / LAST)
    made = trainer(job(tmp_path, endless()))
    made.run(resume(made, tmp_path), Recorder(stop_after=1))
    assert made.state.position != Position(**values["position"])


def start(folder: Path, rank: int, port: str) -> "subprocess.Popen[str]":
    """Start one of two processes as torchrun does, but without its watching them."""
    given = {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    return subprocess.Popen(
        [sys.executable, str(WORKER), str(folder), "torchrun", "endless"],
        env=environment(**given, **{name: str(number) for name, number in numbers.items()}),
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + BOUND
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.exists()
