"""The bars of `regnet serve`, measured over loopback, the load generator on the same cores.

    python bench/serve.py [--model MODEL] [--precision P] [--photos FOLDER] [--rounds N]
                          [--seconds S] [--overload S] [--only PART...]

Throughput of 32 clients takes turns with `regnet classify` on the same photos, single requests,
20 ms apart, with decoding and inference alone; figures are medians of the rounds. Then come 70 % of
that load at random moments, three times that load, and SIGTERM under load. The last line is one
JSON object; the exit status is 1 where a bar is missed.
"""

import argparse
import http.client
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bars import Bar, jpegs
from classify import SHARED
from grid import grid

from regnet.conversion.store import Library
from regnet.ir.metadata import InferencePrecision

CLIENTS = 32
_REST = 0.02  # seconds before a single request
PARTS = ("throughput", "single", "steady", "overload", "stop")
LOAD = Path(__file__).with_name("load.py")


class Server:
    """A `regnet serve` of its own, on a free port."""

    def __init__(self, model: str, folder: Path, *, precision: str = "f32") -> None:
        self.log = folder / "log.jsonl"
        command = [sys.executable, "-m", "regnet", "serve", model, "--precision", precision]
        command += ["--port", "0", "--offline"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.log.open("ab"), text=True
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        if "http://" not in said:
            raise SystemExit(f"regnet serve did not start: {self.log.read_text()[-2000:]}")
        self.url = said[said.index("http://") :].strip()

    def memory(self) -> float:
        """Return the resident memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def cpu(self) -> float:
        """Return the seconds of the cores it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> int:
        """Stop it and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


class Bench:
    """What all parts use: the server, photos, and the processes that are measured against it."""

    def __init__(self, server: Server, photos: Path, alone: ProcessPoolExecutor) -> None:
        self.server, self.photos, self.alone = server, photos, alone

    def start_load(self, **order: Any) -> "subprocess.Popen[str]":
        """Start a load generator."""
        order |= {"url": self.server.url, "photos": str(self.photos)}
        command = [sys.executable, str(LOAD), json.dumps(order)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def load(self, **order: Any) -> dict[str, Any]:
        """Return what a load generator found, with the seconds of cores the server used."""
        before = self.server.cpu()
        found = result(self.start_load(**order))
        return found | {"server_cpu_s": self.server.cpu() - before}

    def turn(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Return what is measured without a server, in a process of its own."""
        return self.alone.submit(work, *arguments).result()


def result(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Return what a load generator printed."""
    said, _ = process.communicate(timeout=600)
    if process.returncode:
        raise SystemExit("the load generator failed")
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


# In the process that is measured against the server.

_alone: dict[str, Any] = {}


def prepare(model: str, precision: InferencePrecision, photos: Path) -> None:
    """Load what the other functions here use."""
    from regnet.inference.classify import Classifier
    from regnet.ir.engine import Engine, read_model

    path = Library(offline=True).ir(model, precision=precision)
    _alone["files"] = sorted(file for file in photos.iterdir() if file.is_file())
    _alone["classifier"] = Classifier(path, precision=precision)
    _alone["model"] = read_model(path)
    _alone["engine"] = Engine(_alone["model"], precision=precision, streams=1)


def classify_rate(seconds: float) -> tuple[float, float]:
    """Return images and CPU seconds a second and an image of `regnet classify`, as it writes."""
    import io

    from regnet.inference.writers import open_writer

    files = itertools.cycle(_alone["files"])
    stream = _alone["classifier"].stream(_endless(files))
    with open_writer(io.StringIO(), "jsonl") as write:
        for prediction in itertools.islice(stream, 40):
            write(prediction)
        start, cpu, done = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - start < seconds:
            write(next(stream))
            done += 1
        took = time.perf_counter() - start
        cpu = (time.process_time() - cpu) / done
    stream.close()
    return done / took, cpu


def _endless(files: Iterator[Path]) -> Iterator[Path]:
    yield from files


def alone_seconds(count: int, pause: float) -> float:
    """Return the median seconds of decoding and inferring one photo with nothing around it."""
    from regnet.pixels.preprocess import crop_pixels

    engine, protocol = _alone["engine"], _alone["model"].metadata.preprocess
    photos = [file.read_bytes() for file in _alone["files"]]
    took = []
    for number in range(-10, count):
        time.sleep(pause)
        start = time.perf_counter()
        engine.infer(crop_pixels(photos[number % len(photos)], protocol)[None])
        took.append(time.perf_counter() - start)
    return statistics.median(took[10:])


def predictions() -> list[dict[str, Any]]:
    """Return what `Classifier.classify` says of each photo."""
    photos = [file.read_bytes() for file in _alone["files"]]
    return [found.to_dict() for found in _alone["classifier"].classify(photos)]


# The parts, each of which returns its bars and its figures.

Part = tuple[list[Bar], dict[str, Any]]


def throughput(bench: Bench, rounds: int, seconds: float) -> Part:
    """Measure 32 clients against `regnet classify`, and whether all answers are right."""
    right = bench.turn(predictions)
    served, classified, ratios, cpu, bad = [], [], [], [], 0
    for _ in range(rounds):
        rate, cpu_classify = bench.turn(classify_rate, seconds)
        found = bench.load(clients=CLIENTS, seconds=seconds + 1, skip=1.0)
        served.append(found["rate"])
        classified.append(rate)
        ratios.append(found["rate"] / rate)
        cpu.append(
            {
                "classify": 1e3 * cpu_classify,
                "server": 1e3 * found["server_cpu_s"] / found["answered"],
                "generator": 1e3 * found["cpu_s"] / found["answered"],
            }
        )
        bad += found["lost"] + found["wrong"] + found["unanswered"]
        bad += found["answered"] - found["statuses"].get("200", 0)
        bad += sum(
            answer["predictions"] != right[number]["predictions"]
            for number, answer in found["kept"]
        )
    figures = {
        "served_per_s": statistics.median(served),
        "classify_per_s": statistics.median(classified),
        "ratios": ratios,
        "cpu_ms_per_photo": {name: statistics.median(row[name] for row in cpu) for name in cpu[0]},
    }
    share = statistics.median(ratios)
    return [
        Bar("32 clients", "throughput over `regnet classify`", share, 0.90),
        Bar("32 clients", "lost, doubled or wrong answers", bad, 0, at_most=True),
    ], figures


def single(bench: Bench, rounds: int, count: int) -> Part:
    """Measure one request after the other against decoding and inference alone.

    The bar is for an idle server, so both rest before each photo; without a rest, a request also
    waits for what the server does after the answer before, which the figures have beside it.
    """
    idle, busy = (_single(bench, rounds, count, pause) for pause in (_REST, 0.0))
    share = statistics.median(idle["ratios"])
    return [
        Bar("one client", "latency over decode + inference", share, 1.25, at_most=True)
    ], idle | {"without_rest": busy}


def _single(bench: Bench, rounds: int, count: int, pause: float) -> dict[str, Any]:
    """Return the figures of single requests with a pause before each."""
    alone, served = [], []
    for _ in range(rounds):
        alone.append(bench.turn(alone_seconds, count, pause))
        seconds = count * (alone[-1] * 1.5 + pause)
        found = bench.load(clients=1, seconds=seconds, skip=0.2, pause=pause)
        served.append(found["good"]["p50"])
    return {
        "alone_ms": 1e3 * statistics.median(alone),
        "served_ms": 1e3 * statistics.median(served),
        "ratios": [answer / bare for answer, bare in zip(served, alone, strict=True)],
    }


def steady(bench: Bench, rounds: int, seconds: float, capacity: float) -> Part:
    """Measure latency under 70 % of the load, at random moments."""
    founds = [bench.load(rate=0.7 * capacity, seconds=seconds + 1, skip=1.0) for _ in range(rounds)]
    ratio = statistics.median(found["good"]["p99"] / found["good"]["p50"] for found in founds)
    bad = sum(found["sent"] - found["statuses"].get("200", 0) for found in founds)
    figures = {
        "rate": statistics.median(found["rate"] for found in founds),
        "p50_ms": [1e3 * found["good"]["p50"] for found in founds],
        "p99_ms": [1e3 * found["good"]["p99"] for found in founds],
    }
    return [
        Bar("70 % load", "p99 over p50 of latency", ratio, 4.0, at_most=True),
        Bar("70 % load", "requests without a result", bad, 0, at_most=True),
    ], figures


def overload(bench: Bench, seconds: float, capacity: float, idle: float) -> Part:
    """Measure three times the load: what gets through, how soon the rest hears, and memory."""
    before, memory = bench.server.memory(), []
    process = bench.start_load(rate=3 * capacity, seconds=seconds, skip=min(2.0, seconds / 4))
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        time.sleep(0.25)
        memory.append(bench.server.memory())
    recovery = recovered(bench, idle, process)
    found = result(process)
    others = sum(n for status, n in found["statuses"].items() if status not in ("200", "429"))
    growth = max(memory) - before
    figures = {name: value for name, value in found.items() if name != "kept"} | {
        "memory_mb": {"before": before, "most": max(memory), "end": memory[-1]},
    }
    at_once = found["refused"].get("p50", 0.0)
    return [
        Bar("3 x load", "goodput over capacity", found["rate"] / capacity, 0.80),
        Bar("3 x load", "other than 200 and 429", others + found["unanswered"], 0, at_most=True),
        Bar("3 x load", "seconds until a 429, median", at_once, 0.1, at_most=True),
        Bar("3 x load", "memory that it takes at most, MB", growth, 256, at_most=True),
        Bar("3 x load", "seconds until it is as quick again", recovery, 1.0, at_most=True),
    ], figures


def recovered(bench: Bench, idle: float, process: "subprocess.Popen[str]") -> float:
    """Return the seconds from the end of the load until a request takes 2 x its idle time."""
    address = urlsplit(bench.server.url)
    photo = sorted(file for file in bench.photos.iterdir())[0].read_bytes()
    start = time.perf_counter()
    while time.perf_counter() - start < 30:
        sent = time.perf_counter()
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        connection.request("POST", "/v1/classify", photo, {"Content-Type": "image/jpeg"})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        now = time.perf_counter()
        if answer.status == 200 and now - sent <= 2 * idle + 0.002:
            return now - start
        time.sleep(0.01)
    return float("inf")


def stop(bench: Bench) -> Part:
    """Stop the server under the load of 32 clients."""
    process = bench.start_load(clients=CLIENTS, seconds=4.0)
    time.sleep(2.5)
    start = time.perf_counter()
    status = bench.server.stop()
    took = time.perf_counter() - start
    found = result(process)
    figures = {"seconds": took, "sent": found["sent"], "statuses": found["statuses"]}
    return [
        Bar("SIGTERM", "accepted, not answered", found["unanswered"], 0, at_most=True),
        Bar("SIGTERM", "exit status", status, 0, at_most=True),
    ], figures


@contextmanager
def opened(options: argparse.Namespace) -> Iterator[Bench]:
    """Give a server, and a process to measure against."""
    with tempfile.TemporaryDirectory() as folder, jpegs(options.photos) as photos:
        server = Server(options.model, Path(folder), precision=options.precision)
        alone = ProcessPoolExecutor(
            1,
            get_context("spawn"),
            initializer=prepare,
            initargs=(options.model, options.precision, photos),
        )
        try:
            with alone:
                yield Bench(server, photos, alone)
        finally:
            if server.process.poll() is None:
                server.stop()


def measure(bench: Bench, options: argparse.Namespace) -> tuple[list[Bar], dict[str, Any]]:
    """Return all bars and figures; parts that later ones build on are always measured."""
    bars: list[Bar] = []
    figures: dict[str, Any] = {
        "model": options.model,
        "precision": options.precision,
        "photos": len(list(bench.photos.iterdir())),
    }

    def take(name: str, part: Part) -> dict[str, Any]:
        bars.extend(part[0])
        figures[name] = part[1]
        print(f"{name}: {json.dumps(part[1])}", flush=True)
        return part[1]

    found = take("throughput", throughput(bench, options.rounds, options.seconds))
    capacity = found["served_per_s"]
    idle = take("single", single(bench, options.rounds, 200))["served_ms"] / 1e3
    if "steady" in options.only:
        take("steady", steady(bench, options.rounds, options.seconds, capacity))
    if "overload" in options.only:
        take("overload", overload(bench, options.overload, capacity, idle))
    if "stop" in options.only:
        take("stop", stop(bench))
    return bars, figures


def main() -> None:
    """Measure, print the table, and end in one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="bundled", help="card name, `bundled` or an IR")
    parser.add_argument("--precision", choices=("f32", "bf16", "int8"), default="f32")
    parser.add_argument("--photos", type=Path, default=SHARED, help="folder of JPEGs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each turn")
    parser.add_argument(
        "--overload", type=float, default=60.0, help="seconds of three times the load"
    )
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    with opened(options) as bench:
        bars, figures = measure(bench, options)
    print(grid([("bar", "measured", "wanted", "cleared"), *(bar.row() for bar in bars)]) + "\n")
    figures["bars"] = [vars(bar) | {"cleared": bar.cleared} for bar in bars]
    print(json.dumps(figures))
    sys.exit(any(not bar.cleared for bar in bars))


if __name__ == "__main__":
    main()
