"""Sweeps on Ray: the same records as in one process, also where a worker is killed."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from photo_folders import write_photos

from regnet.cluster.session import connected
from regnet.network.spec import AnyNetSpec, Stage, spec_to_dict
from regnet.space.plans import Budget, Population
from regnet.space.records import RunRecord
from regnet.space.sweep import Swept, sweep
from regnet.system.errors import ClusterError

ray = pytest.importorskip("ray")

SMALL = AnyNetSpec(stem_width=8, stem_stride=1, stages=(Stage(1, 8, 8), Stage(1, 16, 8)))
SPECS = [replace(SMALL, stages=(Stage(1, 8, 8), Stage(n, 16, 8))) for n in (1, 2, 3)]
BUDGET = Budget(epochs=2, resolution=16, batch=16)
TASK = "ray::train_one"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with connected("local"):
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder / "train", 20)
    write_photos(folder / "val", 5, seed=1)
    return folder


def run(photos: Path, output: Path, budget: Budget, *specs: AnyNetSpec) -> Swept:
    source = output.with_suffix(".specs")
    source.write_text("".join(f"{json.dumps(spec_to_dict(spec))}\n" for spec in specs))
    return sweep(Population(source=source, space="s"), budget, photos, output)


def lasting(record: RunRecord) -> dict[str, Any]:
    return {k: v for k, v in record.to_dict().items() if k not in ("seconds", "started")}


def workers() -> set[int]:
    """Return the processes that train at this moment: Ray names them after what they do."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            named = path.read_bytes().startswith(TASK.encode())
        except OSError:  # it has ended meanwhile
            continue
        if named and _is_ours(int(path.parent.name)):
            found.add(int(path.parent.name))
    return found


def _is_ours(pid: int) -> bool:
    """Tell whether a process is of the Ray that this one started."""
    folder = ray._private.worker._global_node.get_session_dir_path()
    while pid > 1:
        if folder.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            return True
        stat = Path(f"/proc/{pid}/stat").read_text()
        pid = int(stat.rpartition(")")[2].split()[1])
    return False


@contextmanager
def one_worker_killed() -> Iterator[None]:
    """Kill the first worker that trains during the block."""
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 300
        while not killed and time.monotonic() < deadline:
            for pid in workers():
                time.sleep(0.1)
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            time.sleep(0.02)

    thread = threading.Thread(target=kill)
    thread.start()
    yield
    thread.join()
    assert len(killed) == 1


def test_records_are_those_of_one_process(tmp_path: Path, photos: Path) -> None:
    here = run(photos, tmp_path / "here.jsonl", BUDGET, *SPECS)
    there = run(photos, tmp_path / "there.jsonl", replace(BUDGET, ray="local"), *SPECS)
    assert list(map(lasting, there.records)) == list(map(lasting, here.records))
    assert len(there.new) == 3


def test_a_run_whose_worker_is_killed_begins_again(tmp_path: Path, photos: Path) -> None:
    long = replace(BUDGET, epochs=60)
    with one_worker_killed():
        there = run(photos, tmp_path / "there.jsonl", replace(long, ray="local"), SMALL)
    here = run(photos, tmp_path / "here.jsonl", long, SMALL)
    assert list(map(lasting, there.records)) == list(map(lasting, here.records))


def test_a_run_that_loses_every_worker_is_a_failure(tmp_path: Path, photos: Path) -> None:
    budget = replace(BUDGET, epochs=60, ray="local", retries=0)
    with one_worker_killed():
        there = run(photos, tmp_path / "there.jsonl", budget, SMALL)
    assert str(there.records[0].failure).startswith("lost its worker 1 times")


def test_more_than_a_node_has_is_an_error_at_once(tmp_path: Path, photos: Path) -> None:
    budget = replace(BUDGET, ray="local", cpus=1000)
    with pytest.raises(ClusterError, match="has 1000 CPUs and 0 GPUs for a run"):
        run(photos, tmp_path / "r.jsonl", budget, SMALL)
