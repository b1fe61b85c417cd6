"""`regnet classify --ray` on a cluster of two nodes: the answers of one machine, whatever dies."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from regnet.pixels.samples import sample_photos

pytest.importorskip("ray")
pytest.importorskip("ray.data")
if sys.platform != "linux":
    pytest.skip("looks for workers in /proc", allow_module_level=True)

from ray_cluster import two_nodes

PHOTOS = sample_photos()


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with two_nodes() as address:
        yield address


def classify(*arguments: object, code: int | None = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "regnet", "classify", "-m", "bundled", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert code is None or done.returncode == code, done.stderr
    return done


def table(*paths: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pa.concat_tables([pq.read_table(path) for path in paths])


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "_manifest.json").read_text())
    return found


def zipped(path: Path, count: int) -> Path:
    """Write an archive of so many photos, one of which is broken."""
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            photo = PHOTOS[number % len(PHOTOS)]
            data = b"broken" if number == 7 else photo.read_bytes()
            archive.writestr(f"{number:05}{photo.suffix}", data)
    return path


def test_the_rows_are_those_of_one_machine(cluster: str, tmp_path: Path) -> None:
    sources = [zipped(tmp_path / "z.zip", 16), *PHOTOS, tmp_path / "missing"]
    alone = classify(*sources, "-k", 3, "-o", tmp_path / "alone.parquet", code=1)
    options = ["-k", 3, "--partition-images", 6, "--price", 0.5, "-o", tmp_path / "out"]
    done = classify(*sources, "--ray", cluster, *options, code=1)
    assert alone.stderr.endswith("20 images, 2 failed\n")
    said = done.stderr.splitlines()
    assert said[0] == f"{tmp_path / 'out'}: 20 images, 2 failed, 4 partitions"
    assert " images a second; a million in " in said[1]
    assert said[1].endswith(" at 0.5 an hour")
    assert len(said) == 2
    parts = sorted((tmp_path / "out").glob("part-*.parquet"))
    assert table(*parts).equals(table(tmp_path / "alone.parquet"))
    assert table(tmp_path / "out").equals(table(tmp_path / "alone.parquet"))  # as a data set
    known = manifest(tmp_path / "out")
    assert known["complete"] is True
    assert [p["rows"] for p in known["partitions"]] == [6, 6, 6, 2]
    for path, partition in zip(parts, known["partitions"], strict=True):
        assert partition["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert partition["bytes"] == path.stat().st_size

    again = classify(*sources, "--ray", cluster, *options, code=1)
    assert again.stderr.splitlines() == [said[0] + ", 4 of them from before"]
    assert manifest(tmp_path / "out") == known

    other = classify(*sources, "--ray", cluster, *options, "-k", 4, code=2)
    assert "holds a run with another options" in other.stderr
    zipped(tmp_path / "z.zip", 17)
    changed = classify(*sources, "--ray", cluster, *options, code=2)
    assert "they have changed since" in changed.stderr
    assert manifest(tmp_path / "out") == known


def test_parquet_at_an_address_to_an_address(cluster: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    photos = [photo.read_bytes() for photo in PHOTOS]
    pq.write_table(pa.table({"image": photos * 3}), tmp_path / "in.parquet", row_group_size=2)
    address = (tmp_path / "in.parquet").as_uri()
    out = (tmp_path / "out").as_uri()
    classify(address, "--ray", cluster, "--partition-images", 4, "-o", out)
    classify(*PHOTOS, "-o", tmp_path / "alone.parquet")
    found = table(*sorted((tmp_path / "out").glob("*.parquet")))
    assert found["source"].to_pylist() == [f"{address}#{row}" for row in range(9)]
    expected = table(*[tmp_path / "alone.parquet"] * 3)
    assert found.drop(["source"]).equals(expected.drop(["source"]))


def test_what_cannot_run_says_why(cluster: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "name it with -o" in classify(PHOTOS[0], "--ray", cluster, code=2).stderr
    done = classify(PHOTOS[0], "--ray", cluster, "-o", out, "-f", "csv", code=2)
    assert "leave out --format" in done.stderr
    done = classify(PHOTOS[0], "--ray", cluster, "-o", out, "--sets", code=2)
    assert "is not calibrated" in done.stderr
    done = classify(PHOTOS[0], "--ray", cluster, "-o", out, "--cpus-per-worker", 9, code=2)
    assert "no room for a worker of 9 CPUs" in done.stderr
    assert not list(out.glob("part-*"))


def descendants(pid: int) -> list[int]:
    """Return the processes below one, read from /proc."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found, todo = [], [pid]
    while todo:
        found += (below := children.get(todo.pop(), []))
        todo += below
    return found


def workers() -> list[int]:
    """Return the processes of the cluster's engines, which are below this one."""
    found = []
    for pid in descendants(os.getpid()):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if command.startswith(b"ray::") and b"Worker" in command:
            found.append(pid)
    return found


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 200) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}")


def test_a_killed_worker_and_a_killed_driver_lose_nothing(cluster: str, tmp_path: Path) -> None:
    photos = zipped(tmp_path / "photos.zip", 600)
    out = tmp_path / "out"
    options = [photos, "--ray", cluster, "--partition-images", 10, "-o", out]
    command = [sys.executable, "-m", "regnet", "classify", "-m", "bundled", *map(str, options)]

    def parts() -> list[Path]:
        return sorted(out.glob("part-*.parquet"))

    def ended(how: signal.Signals, before: int) -> tuple[int, str, str]:
        """Run until four more partitions are there, end it; return status and what it said."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, text=True, **pipes) as driver:
            if not before:
                wait_for(lambda: len(parts()) >= 2, "the first partitions")
                os.kill(wait_for(workers, "a worker")[0], signal.SIGKILL)
            wait_for(lambda: len(parts()) >= before + 6, "more partitions")
            driver.send_signal(how)
            return driver.wait(60), *driver.communicate()

    assert ended(signal.SIGTERM, 0) == (130, "", "regnet: interrupted\n")
    wait_for(lambda: not workers(), "the workers of the ended driver to end")
    # What is lost and done again is no news.
    assert ended(signal.SIGKILL, len(parts())) == (-signal.SIGKILL, "", "")
    wait_for(lambda: not workers(), "the workers of the killed driver to end")
    records = {path.stem for path in (out / "_finished").glob("*.json")}
    there = {path.name: path.stat().st_mtime_ns for path in parts() if path.stem in records}
    assert 11 <= len(there) < 60
    assert manifest(out)["complete"] is False

    done = classify(*options, code=1)
    assert f"60 partitions, {len(there)} of them from before" in done.stderr
    assert {n: t for n in there if (t := (out / n).stat().st_mtime_ns)} == there
    classify(photos, "-o", tmp_path / "alone.parquet", code=1)
    assert table(*parts()).equals(table(tmp_path / "alone.parquet"))
