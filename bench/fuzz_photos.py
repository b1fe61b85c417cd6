"""Photos made to do harm and broken copies of good ones: time and memory that `classify` takes.

    python bench/fuzz_photos.py [--broken 3000] [--seed 1] [--kind EXIF]

The former each by a command of its own, the latter one after the other in this process and then all
by one command. It prints the worst of each kind; the last line is one JSON object. Time is that of
the processors, which a busy machine does not change; memory is the most that the command and its
decoder held, added. The exit status is 1 where a file took over 10 s or 1,200 MB or has no row, or
where something was written on standard error.
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from hostile_photos import broken_files, hostile_files

from regnet.inference.classify import Classifier
from regnet.zoo.catalogue import bundled_path, card_by_name

SECONDS, MEGABYTES = 10, 1200
COMMAND = [sys.executable, "-m", "regnet", "classify", "--model", "bundled", "--format", "jsonl"]


def main() -> int:
    """Run and print; return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--broken", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", nargs="*", default=[])
    options = parser.parse_args()
    worst: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, name, data in hostile_files(*options.kind):
            path = Path(folder, "photo")
            path.write_bytes(data)
            seconds, memory, fault = alone(path)
            worst[kind].append((seconds, memory, name))
            if fault or seconds > SECONDS or memory > MEGABYTES:
                wrong.append(f"{kind}: {name}: {seconds:.1f} s, {memory:.0f} MB {fault}")
                print(f"  {wrong[-1]}", flush=True)
            path.unlink()
        files = itertools.islice(broken_files(options.seed), options.broken)
        for kind, name, seconds, memory in one_by_one(files, Path(folder)):
            worst[kind].append((seconds, memory, name))
            if seconds > SECONDS or memory > MEGABYTES:
                wrong.append(f"{name}: {seconds:.1f} s, {memory:.0f} MB")
        wrong += together(Path(folder), options.broken) if options.broken else []
    for kind, found in worst.items():
        slowest, largest = max(found), max(found, key=lambda one: one[1])
        print(
            f"{kind:20} {len(found):5} files  {slowest[0]:5.2f} s ({slowest[2]})"
            f"  {largest[1]:5.0f} MB ({largest[2]})"
        )
    every = [one for found in worst.values() for one in found]
    figures = {"files": len(every), "seconds": max(every)[0], "mb": max(m for _, m, _ in every)}
    print(json.dumps(figures | {"wrong": wrong}))
    return 1 if wrong else 0


def alone(path: Path) -> tuple[float, float, str]:
    """Return the seconds and MB of a command for one file, and what was wrong with its answer."""
    start, memory = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]), 0.0
    with subprocess.Popen(
        [*COMMAND, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None:
            memory = max(memory, sum(map(peak, family(process.pid))))
            time.sleep(0.005)
        rows, said = process.communicate()
    seconds = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - start
    return seconds, memory, faults(process.returncode, rows, said, 1)


def faults(status: int, rows: str, said: str, count: int) -> str:
    """Return what is wrong with the answer to a command for so many files, "" if nothing."""
    errors = [json.loads(row)["error"] for row in rows.splitlines()]
    if len(errors) != count or status != int(any(errors)):
        return f"status {status}, {len(errors)} rows"
    noise = [line for line in said.splitlines() if "16-bit values end" not in line]
    return f"standard error: {noise}" if noise else ""


def one_by_one(
    files: Iterator[tuple[str, bytes]], folder: Path
) -> Iterator[tuple[str, str, float, float]]:
    """Write files to a folder; yield kind, name, seconds and MB of each in this process."""
    classifier = Classifier(bundled_path(card_by_name("bundled")))
    for number, (kind, data) in enumerate(files):
        path = folder / f"{number:05}.jpg"
        path.write_bytes(data)
        for each in family():
            Path(f"/proc/{each}/clear_refs").write_text("5")  # its peak begins anew
        start = processor_time()
        classifier.classify(path)
        seconds = processor_time() - start
        yield kind, f"{kind} {number}", seconds, sum(map(peak, family()))


def together(folder: Path, count: int) -> list[str]:
    """Return what is wrong with the answer to one command for all files of a folder."""
    done = subprocess.run([*COMMAND, folder], capture_output=True, text=True, check=False)
    found = faults(done.returncode, done.stdout, done.stderr, count)
    return [f"all broken files: {found}"] if found else []


def family(process: Any = "self") -> list[Any]:
    """Return a process and those that it has started."""
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        children = [each for task in tasks for each in (task / "children").read_text().split()]
    except OSError:
        return []
    return [process, *(each for child in children for each in family(child))]


def processor_time() -> float:
    """Return the seconds of this process and of those that it has started."""
    spent = [Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in family()]
    ended = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    return ended + sum(int(one[11]) + int(one[12]) for one in spent) / os.sysconf("SC_CLK_TCK")


def peak(process: Any) -> float:
    """Return the most memory that a process has held, in MB."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    return int((status.partition("VmHWM:")[2].split() or ["0"])[0]) / 1000


if __name__ == "__main__":
    sys.exit(main())
