"""Measure `regnet classify --ray`: a cluster of two nodes against two independent processes.

    python bench/cluster.py [--photos FOLDER] [--images N] [--partition N] [--rounds N]

Both are on this machine and do the same images with the same engine, one thread each; they take
turns. The rates are steady: of the time in which both workers, or both processes, were at work
after their first partition; start-up is stated apart. Figures are medians; the last line is one
JSON object; the exit status is 1 where the cluster does less than 0.9 of the processes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from classify import SHARED
from ray_cluster import two_nodes

from regnet.cluster.batch import classify_batch
from regnet.cluster.plan import partitions
from regnet.cluster.session import Cluster, connected
from regnet.cluster.worker import BatchJob, LocalWorker, read_model_files
from regnet.conversion.store import Library
from regnet.ir.engine import read_model
from regnet.pixels.samples import sample_photos

BAR = 0.9


@dataclass(frozen=True)
class Span:
    """A partition's images, who made them, in which seconds, and the most bytes it held."""

    worker: str
    images: int
    started: float
    ended: float
    memory: int
    cpu: float


def steady_rate(spans: list[Span]) -> float:
    """Return images a second while all workers were at work, after the first partition of each."""
    workers: dict[str, list[Span]] = {}
    for span in sorted(spans, key=lambda span: span.ended):
        workers.setdefault(span.worker, []).append(span)
    assert len(workers) == 2, sorted(workers)
    begin = max(done[0].ended for done in workers.values())
    end = min(done[-1].ended for done in workers.values())
    assert end > begin, "too few partitions: give more --images"
    shares = (
        span.images * max(0.0, min(span.ended, end) - max(span.started, begin))
        / (span.ended - span.started)
        for span in spans
    )  # fmt: skip
    return sum(shares) / (end - begin)


def on_ray(batch: BatchJob, cluster: Cluster, folder: Path) -> tuple[float, list[Span]]:
    """Return the seconds until the first image was begun, and the spans."""
    began = time.time()
    summary = classify_batch(
        batch, str(folder), cluster=cluster, metadata=read_model(batch.model).metadata
    )
    spans = [Span(d.worker, d.part.rows, d.started, d.ended, d.memory, d.cpu) for d in summary.done]
    return min(span.started for span in spans) - began, spans


def alone(batch: BatchJob, count: int) -> tuple[float, list[Span]]:
    """Return the same of independent processes, each with every second partition."""
    began = time.time()
    own = {"model": str(batch.model), "sources": batch.sources, "size": batch.partition_images}
    command = [sys.executable, __file__, "--alone"]
    running = [
        subprocess.Popen(
            [*command, json.dumps({**own, "number": n, "of": count})], stdout=subprocess.PIPE
        )
        for n in range(count)
    ]
    spans = []
    for process in running:
        out, _ = process.communicate()
        assert process.returncode == 0
        spans += [Span(**json.loads(line)) for line in out.splitlines()]
    return min(span.started for span in spans) - began, spans


def work_alone(task: dict[str, str | int]) -> Iterator[Span]:
    """Classify one process's share."""
    job = BatchJob(model=Path(str(task["model"])), sources=())
    worker = LocalWorker(read_model_files(job.model), job)
    for partition in partitions(tuple(task["sources"]), int(task["size"])):  # type: ignore[arg-type]
        if partition.number % int(task["of"]) == task["number"]:
            made = worker.partition(partition.packed)
            own = {name: made[name] for name in ("worker", "started", "ended", "memory", "cpu")}
            yield Span(images=made["rows"], **own)


def cpu_an_image(spans: list[Span]) -> float:
    """Return the seconds of CPU that an image took, without the first partition of each worker."""
    begun: set[str] = set()
    later = []
    for span in sorted(spans, key=lambda span: span.ended):
        if span.worker in begun:
            later.append(span)
        begun.add(span.worker)
    return sum(span.cpu for span in later) / sum(span.images for span in later)


def growth(spans: list[Span]) -> float:
    """Return the most memory that a worker held at its end, over that after its first partition."""
    first: dict[str, int] = {}
    for span in sorted(spans, key=lambda span: span.ended):
        first.setdefault(span.worker, span.memory)
    return max(span.memory / first[span.worker] for span in spans)


def main() -> None:
    """Measure, print the table, and end in one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=SHARED, help="folder of photos")
    parser.add_argument("--images", type=int, default=2000, help="in a turn")
    parser.add_argument("--partition", type=int, default=100, help="images of a partition")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        for span in work_alone(json.loads(options.alone)):
            print(json.dumps(vars(span)), flush=True)
        return
    photos = options.photos if options.photos.is_dir() else sample_photos()[0].parent
    count = sum(part.images for part in partitions((str(photos),), 10**6))
    sources = (str(photos),) * -(-options.images // count)
    rates: dict[str, list[float]] = {"ray": [], "processes": []}
    starts: dict[str, list[float]] = {"ray": [], "processes": []}
    cpu: dict[str, list[float]] = {"ray": [], "processes": []}
    spans: list[Span] = []
    began = time.time()
    with tempfile.TemporaryDirectory() as scratch, two_nodes() as address:
        model = Library(folder=Path(scratch) / "cache", offline=True).ir("bundled")
        batch = BatchJob(model=model, sources=sources, partition_images=options.partition)
        with connected(address) as cluster:
            up = time.time() - began
            print(f"{cluster.described}, up in {up:.1f} s; {count * len(sources)} images a turn")
            for turn in range(options.rounds):
                ray = on_ray(batch, cluster, Path(scratch) / str(turn))
                processes = alone(batch, 2)
                for name, (start, found) in (("ray", ray), ("processes", processes)):
                    rates[name].append(steady_rate(found))
                    cpu[name].append(cpu_an_image(found))
                    starts[name].append(start)
                spans += ray[1]
                a, b = rates["ray"][-1], rates["processes"][-1]
                print(f"ray {a:.1f} images/s, two processes {b:.1f}: {a / b:.3f}", flush=True)
    shares = [a / b for a, b in zip(rates["ray"], rates["processes"], strict=True)]
    figures = {
        "share": statistics.median(shares),
        "shares": shares,
        "images_per_second": {name: statistics.median(r) for name, r in rates.items()},
        "start_up_seconds": {name: statistics.median(s) for name, s in starts.items()},
        "cpu_seconds_an_image": {name: statistics.median(c) for name, c in cpu.items()},
        "cluster_up_seconds": up,
        "worker_mib": max(span.memory for span in spans) / 2**20,
        "worker_memory_growth": growth(spans),
    }
    print(
        f"\nshare of two processes: {figures['share']:.3f} (bar {BAR})\n"
        f"until the first image: ray {statistics.median(starts['ray']):.1f} s, processes "
        f"{statistics.median(starts['processes']):.1f} s\n"
        f"CPU an image: ray's workers {1e3 * statistics.median(cpu['ray']):.2f} ms, processes "
        f"{1e3 * statistics.median(cpu['processes']):.2f} ms\n"
        f"a worker held at most {figures['worker_mib']:.0f} MiB, "
        f"{figures['worker_memory_growth']:.2f} times what it held after its first partition"
    )
    print(json.dumps(figures))
    sys.exit(figures["share"] < BAR)


if __name__ == "__main__":
    main()
