"""Kills of runs that write, and damage to what they left: the same command must go on.

    python bench/kills.py [FLOW ...] [--most 200] [--seed 1] [--ray]

A flow is a command in a process of its own (forked, so that it begins at once). Its steps are the
calls that change the disk: before, after and, of a write, in the middle of each the process kills
itself, by SIGKILL and by SIGTERM. Then the same command runs again, and what it leaves is compared
with what a run leaves that nothing killed. After more kills a file that the next run goes on from
is cut, emptied or filled with zeros: the command goes on, or names the file and says in one line
what to do. `--most` takes that many kills of each flow at random, those in fsync first; 0 all. The
cluster's partitions are computed in the driver itself, whose death is the question; with --ray on
two nodes. The last line is one JSON object; the exit status is 1 where something was lost.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

SIGNALS = (signal.SIGKILL, signal.SIGTERM)
CALLS = ("fsync", "replace", "rename", "mkdir", "rmdir", "unlink", "remove", "ftruncate")
SEED = 3


@dataclass(frozen=True, kw_only=True)
class Flow:
    """A command: how it is run in a folder, its status, and what is the same each time it is.

    `result` gives JSON values; `volatile` are patterns of files of which there may be more, `state`
    those of files that a run goes on from.
    """

    work: Callable[[Path], None]
    result: Callable[[Path], Any]
    status: int = 0
    volatile: tuple[str, ...] = ()
    state: tuple[str, ...] = ()


class Steps:
    """Numbers the calls that change the disk by their kinds; kills this process at one of them."""

    def __init__(self, log: Path, kill_at: str, number: int) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._kill_at, self._number = kill_at, number
        self._process, self._lock = os.getpid(), threading.RLock()
        self._done: Counter[str] = Counter()
        self._write = os.write

    def patch(self) -> None:
        """Let the system's calls tell."""
        for name in CALLS:
            setattr(os, name, self._told(name, getattr(os, name)))
        os.write = self._torn

    def _told(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def told(*arguments: Any, **options: Any) -> Any:
            self._step(f"before {name}")
            result = call(*arguments, **options)
            self._step(f"after {name}")
            return result

        return told

    def _torn(self, descriptor: int, data: Any) -> int:
        if descriptor <= 2 or not os.path.isfile(f"/proc/self/fd/{descriptor}"):
            return self._write(descriptor, data)
        self._step("before write")
        data = memoryview(data)
        done = self._write(descriptor, data[: len(data) // 2])
        self._step("amid write")
        done += self._write(descriptor, data[done:])
        self._step("after write")
        return done

    def _step(self, name: str) -> None:
        if os.getpid() != self._process:
            return
        with self._lock:
            self._done[name] += 1
            step = f"{name} {self._done[name]}"
            self._write(self._log, f"{step}\n".encode())
            last = step == self._kill_at
        if last:
            os.kill(self._process, self._number)


def forked(flow: Flow, folder: Path, kill_at: str = "", number: int = 0) -> tuple[int, str]:
    """Run a flow in a process; return its status (of a killed one, less than 0) and messages."""
    folder.mkdir(exist_ok=True)
    (folder / "tmp").mkdir(exist_ok=True)
    log = folder.with_suffix(".steps")
    said = folder.with_suffix(".said")
    process = os.fork()
    if not process:
        status = 99
        try:
            _standard(said)
            os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")
            os.chdir(folder)
            Steps(log, kill_at, number).patch()
            try:
                flow.work(folder)
            finally:
                folder.with_suffix(".modules").write_text("\n".join(sys.modules))
            status = 0
        except SystemExit as exc:
            status = exc.code if isinstance(exc.code, int) else 98
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, ended = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(ended), said.read_text("utf-8", "replace")


def _standard(path: Path) -> None:
    """Write standard output and error to a file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = os.fdopen(os.dup(1), "w")
    sys.stderr = os.fdopen(os.dup(2), "w")


def files(flow: Flow, folder: Path) -> set[str]:
    """Return the names of the files and folders in a folder that are always the same."""
    names = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return {n for n in names if not any(re.search(pattern, n) for pattern in flow.volatile)}


def killed(name: str, flow: Flow, place: Path, most: int, chance: random.Random) -> dict[str, Any]:
    """Kill a flow again and again; return what came of it."""
    status, said = forked(flow, place / "first")
    if status != flow.status:
        raise SystemExit(f"{name}: ended with {status}:\n{said}")
    for module in (place / "first.modules").read_text().splitlines():
        with suppress(Exception):
            import_module(module)  # once here, for all that are forked
    whole = place / "whole"
    forked(flow, whole)
    expected, there = flow.result(whole), files(flow, whole)
    steps = whole.with_suffix(".steps").read_text().splitlines()
    count = max(2, (most or len(steps)) // 10)
    damage = damaged(name, flow, place, steps[len(steps) // 3 :], count, chance)
    kills = [(step, number) for step in steps for number in SIGNALS]
    if most:
        chance.shuffle(kills)
        kills.sort(key=lambda kill: "fsync" not in kill[0])
        kills = kills[:most]
    found = {s.name: {"kills": 0, "identical": 0, "leftovers": 0} for s in SIGNALS}
    for step, number in kills:
        folder = place / f"{step} {number.name}"
        counts = found[number.name]
        first, heard = forked(flow, folder, step, number)
        again, said = forked(flow, folder)
        left = files(flow, folder) - there if again == flow.status else {"?"}
        same = again == flow.status and flow.result(folder) == expected
        counts["kills"] += first != flow.status
        counts["identical"] += same and first != flow.status
        counts["leftovers"] += len(left)
        ends = (130 if number == signal.SIGTERM else -number, flow.status)  # some come too late
        if first not in ends or not same or left:
            print(f"{name}: {number.name} {step}: {first}, then {again}, {left}")
            print(heard, said, sep="\n--- again:\n")
            counts["wrong"] = counts.get("wrong", 0) + 1
        shutil.rmtree(folder)
    return {
        "steps": len(steps),
        "fsyncs": sum("before fsync" in step for step in steps),
        **found,
        "damage": damage,
    }


def damaged(
    name: str, flow: Flow, place: Path, steps: list[str], count: int, chance: random.Random
) -> dict[str, int]:
    """Damage what killed runs left; return how often the command went on, said why not, neither."""
    expected = flow.result(place / "whole")
    found = {"files": 0, "identical": 0, "told": 0, "wrong": 0}
    for number in range(count if flow.state else 0):
        folder = place / f"damaged-{number}"
        forked(flow, folder, chance.choice(steps), signal.SIGKILL)
        there = sorted(path for pattern in flow.state for path in folder.glob(pattern))
        if there := [path for path in there if path.is_file()]:
            path = chance.choice(there)
            data = path.read_bytes()
            kept = chance.randrange(len(data) + 1)
            path.write_bytes(chance.choice([b"", data[:kept], data[:kept].ljust(len(data), b"\0")]))
            status, said = forked(flow, folder)
            told = status == 2 and len(said.splitlines()) <= 2 and path.name in said
            same = status == flow.status and flow.result(folder) == expected
            found["files"] += 1
            found["identical" if same else "told" if told else "wrong"] += 1
            if not same and not told:
                print(f"{name}: {path.name}, {kept} of {len(data)}: {status}: {said}")
        shutil.rmtree(folder)
    return found


def command(*words: object) -> Callable[[Path], None]:
    """Return what runs a command of regnet."""

    def work(folder: Path) -> None:
        from regnet.cli import main

        sys.argv = ["regnet", *map(str, words)]
        main()

    return work


def digests(*names: str) -> Callable[[Path], list[str]]:
    """Return what gives the names and hashes of a folder's files."""

    def result(folder: Path) -> list[str]:
        found = sorted(path for name in names for path in folder.glob(name))
        return [f"{p.name} {hashlib.sha256(p.read_bytes()).hexdigest()}" for p in found]

    return result


def download_flow(place: Path, stack: ExitStack) -> Flow:
    """Fetch two files from a server of this process; the hash of one was published."""
    from io import BytesIO

    import torch
    from local_server import LocalServer

    from regnet.network.modules import RegNet
    from regnet.zoo.card import WeightsFile
    from regnet.zoo.catalogue import card_by_name
    from regnet.zoo.download import download

    server = stack.enter_context(LocalServer())
    server._server.handle_error = lambda *lost: None  # clients that were killed
    card, file = card_by_name("regnetx-200mf"), BytesIO()
    torch.manual_seed(SEED)
    torch.save({"model_state": RegNet(card.build_spec()).state_dict()}, file)
    server.files |= {"a.pyth": random.Random(SEED).randbytes(300_000), "b.pyth": file.getvalue()}
    sha384 = hashlib.sha384(server.files["a.pyth"]).hexdigest()
    published = WeightsFile(name="a.pyth", urls=(server.url("a.pyth"),), sha384=sha384)
    other = WeightsFile(name="b.pyth", urls=(server.url("b.pyth"),))

    def work(folder: Path) -> None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command does
        try:
            for file in (published, other):
                download(replace(card, file=file), cache_dir=folder / "cache")
        except KeyboardInterrupt:
            sys.exit(130)

    state = ("cache/weights/*/?.pyth.*", "cache/weights/*.json")
    return Flow(work=work, result=digests("cache/weights/*/?.pyth"), state=state)


def evaluation_flow(place: Path, stack: ExitStack) -> Flow:
    """Evaluate the bundled model on photos, with every prediction and a report."""
    from labelled_photos import write_labelled_photos

    write_labelled_photos(place / "photos", each=24)
    (place / "photos" / "n02124075" / "broken.png").write_bytes(b"no photo")
    words = ("bundled", place / "photos", "--subset", "--cache-dir", "cache", "--json")
    outputs = ("--predictions", "rows.jsonl", "--html", "report.html")

    def result(folder: Path) -> list[str]:
        said = folder.with_suffix(".said").read_text().splitlines()
        values = json.loads(next(line for line in said if line.startswith("{")))
        values.pop("speed")
        return [*digests("rows.jsonl")(folder), json.dumps(values)]

    state = ("cache/evaluations/*.journal",)
    return Flow(work=command("evaluate", *words, *outputs), result=result, status=1, state=state)


def sweep_flow(place: Path, stack: ExitStack) -> Flow:
    """Train three networks of a sweep, the last of which fails."""
    from photo_folders import write_photos

    from regnet.network.spec import AnyNetSpec, Stage, spec_to_dict

    write_photos(place / "photos", 12)
    small = AnyNetSpec(stem_width=8, stem_stride=1, stages=(Stage(1, 8, 8), Stage(1, 16, 8)))
    wide = replace(small, stem_width=16)
    deep = replace(small, stages=tuple(Stage(1, 8, 8) for _ in range(8)))
    specs = (json.dumps(spec_to_dict(spec)) + "\n" for spec in (small, wide, deep))
    (place / "specs.jsonl").write_text("".join(specs))

    def result(folder: Path) -> list[dict[str, Any]]:
        lines = (folder / "records.jsonl").read_text().splitlines()
        return [json.loads(line) | {"seconds": 0, "started": ""} for line in lines]

    words = (place / "specs.jsonl", "--data", place / "photos", "--epochs", 1, "--batch", 16)
    output = ("--resolution", 16, "-o", "records.jsonl")
    sweep = command("space", "sweep", *words, *output)
    return Flow(work=sweep, result=result, status=1, state=("records.jsonl",))


def training_flow(place: Path, stack: ExitStack) -> Flow:
    """Train a small network for two epochs, as a supervisor asks: with --resume from the first."""
    from photo_folders import write_photos

    from regnet.network.spec import AnyNetSpec, Stage, spec_to_dict

    write_photos(place / "photos", 12)
    small = AnyNetSpec(stem_width=16, stem_stride=1, stages=(Stage(1, 8, 8), Stage(1, 16, 8)))
    (place / "spec.json").write_text(json.dumps(spec_to_dict(small)))
    words = (place / "photos", "--model", place / "spec.json", "--crop", 16, "--batch", 16)
    others = ("--epochs", 2, "--precision", "32-true", "--resume", "-o", "run")
    whole = digests("run/weights.safetensors", "run/*.xml", "run/*.bin", "run/recipe.toml")

    def result(folder: Path) -> list[str]:
        rows = (folder / "run" / "metrics.csv").read_text().splitlines()
        timed = {i for i, name in enumerate(rows[0].split(",")) if re.search("second|_per_s", name)}
        cells = ([c for i, c in enumerate(row.split(",")) if i not in timed] for row in rows)
        return [*whole(folder), *map(",".join, cells)]

    return Flow(
        work=command("train", *words, *others),
        result=result,
        volatile=(r"tensorboard/\w+/",),
        state=("run/last.ckpt", "run/metrics.csv", "run/recipe.toml"),
    )


def cluster_flow(place: Path, stack: ExitStack, *, address: str | None = None) -> Flow:
    """Classify photos in four partitions: at an address of a Ray, else in the driver itself."""
    import ray
    import ray.data

    from regnet.cluster import batch, session
    from regnet.cluster.session import Cluster
    from regnet.cluster.worker import LocalWorker
    from regnet.pixels.samples import sample_photos

    photos = [*sample_photos(), *sample_photos(), place / "missing"]
    words = (*photos, "-m", "bundled", "--partition-images", 2, "-o", "out")
    classify = command("classify", *words, "--ray", address or "local")

    @contextmanager
    def no_cluster(address: str) -> Iterator[Cluster]:
        yield Cluster(address, 1, 1, 0)

    def rows(todo: Any, model: Any, job: Any, workers: int) -> Iterator[dict[str, Any]]:
        worker = LocalWorker(model, job)
        for table in todo.refs:
            (row,) = table.to_pylist()
            yield {"number": row["number"], **worker.partition(row["packed"])}

    def alone(folder: Path) -> None:
        session.connected, batch._rows = no_cluster, rows
        ray.put = lambda value: value
        classify(folder)

    return Flow(
        work=classify if address else alone,
        result=digests("out/*.parquet", "out/*.json"),
        status=1,
        state=("out/_*.json", "out/_finished/*.json"),
    )


@contextmanager
def elsewhere() -> Iterator[str]:
    """Give the address of two nodes of another process: one that talks to Ray must not fork."""
    code = "from ray_cluster import two_nodes\nwith two_nodes() as a: print(a, flush=True), input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, text=True, cwd=ROOT / "tests", **pipes) as process:
        yield next(line for line in process.stdout if ":" in line).strip()
        process.communicate("\n")


def conversion_flow(place: Path, stack: ExitStack) -> Flow:
    """Classify with a checkpoint, which is converted into the cache."""
    import torch

    from regnet.checkpoints.weights import write_safetensors
    from regnet.network.modules import RegNet
    from regnet.network.spec import AnyNetSpec, Stage
    from regnet.pixels.samples import sample_photos

    torch.manual_seed(SEED)
    spec = AnyNetSpec(stem_width=16, stages=(Stage(1, 8, 8), Stage(1, 16, 8)), classes=5)
    write_safetensors(place / "w.safetensors", RegNet(spec).state_dict(), spec=spec)
    words = (*sample_photos(), "-m", place / "w.safetensors", "--cache-dir", "cache")
    result = digests("rows.jsonl", "cache/converted/*/*.xml", "cache/converted/*/*.bin")
    state = ("cache/converted/*/*.*",)
    classify = command("classify", *words, "-o", "rows.jsonl")
    return Flow(work=classify, result=result, state=state, volatile=("cache/compiled/",))


FLOWS = {
    "cluster": cluster_flow,
    "sweep": sweep_flow,
    "training": training_flow,
    "evaluation": evaluation_flow,
    "conversion": conversion_flow,
    "download": download_flow,
}


def main() -> int:
    """Run and print; return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("flows", nargs="*", metavar="FLOW", help=", ".join(FLOWS))
    parser.add_argument("--most", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ray", action="store_true")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    found = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for name in options.flows or FLOWS:
            place = Path(folder, name)
            place.mkdir()
            more = {}
            if options.ray and name == "cluster":
                more = {"address": stack.enter_context(elsewhere())}
            flow = FLOWS[name](place, stack, **more)
            chance = random.Random(options.seed)
            found[name] = killed(name, flow, place, options.most, chance)
            print(name, json.dumps(found[name]), flush=True)
    damage = [flow["damage"] for flow in found.values()]
    kinds = [flow[number.name] for flow in found.values() for number in SIGNALS]
    total = {key: sum(kind[key] for kind in kinds) for key in ("kills", "identical", "leftovers")}
    print(json.dumps({**found, "total": total}))
    good = total["kills"] == total["identical"] and not total["leftovers"]
    good = good and not any(one["wrong"] for one in damage)
    return 0 if good and not any("wrong" in kind for kind in kinds) else 1


if __name__ == "__main__":
    sys.exit(main())
