"""The bars that speed must clear, measured on this machine.

    python bench/bars.py [--photos FOLDER] [--seconds S] [--rounds N]

Start-up of `regnet classify`, then engines and files to labels in f32, bf16 and INT8 for two
models: the bundled one, and a network of regnetx-3.2gf's size with random weights, converted and
quantized in a temporary folder. All that is compared takes turns; figures are medians. The last
line is one JSON object; the exit status is 1 where a bar is missed.

Each run of the whole adds a line to bench/figures.jsonl: commit, machine and the ratios. The ratios
of the last line of an equal machine are printed beside the new ones.
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ceiling import gemm
from classify import SHARED, start_up
from grid import grid
from PIL import Image
from plain_loops import (
    PLAIN_OPENVINO,
    PLAIN_TORCH,
    PlainLoop,
    openvino_loop,
    plain_pixels,
    torch_loop,
)
from rivals import ONNX, TORCH, Competitors, find_competitors

from regnet.benchmarking.benchmark import Plan, engine_calls, example_image, find_paths
from regnet.benchmarking.end_to_end import EndToEnd, EndToEndSetup, find_jpegs, prepare, whole_name
from regnet.benchmarking.report import machine_text
from regnet.conversion.store import Library, int8_beside
from regnet.ir.engine import read_model
from regnet.ir.graph import read_graph
from regnet.ir.graph_cost import graph_cost
from regnet.pixels.preprocess import crop_pixels
from regnet.pixels.protocol import OMZ
from regnet.pixels.samples import sample_photos
from regnet.quantization.quantize import quantize
from regnet.system.errors import UnknownModelError
from regnet.system.machine import this_machine, watch_others
from regnet.system.parallel import BATCH_SIZE, cores
from regnet.system.timing import Contestant, measure, ratio

LARGE = "regnetx-3.2gf"
FIGURES = Path(__file__).with_name("figures.jsonl")


@dataclass(frozen=True)
class Bar:
    """One bar: what was measured and what is wanted, at least or (`at_most`) at most."""

    model: str
    what: str
    measured: float
    wanted: float
    at_most: bool = False

    @property
    def name(self) -> str:
        """The model and what was measured of it."""
        return f"{self.model}: {self.what}"

    @property
    def cleared(self) -> bool:
        """Whether the bar is cleared."""
        return self.measured <= self.wanted if self.at_most else self.measured >= self.wanted

    def row(self) -> tuple[str, ...]:
        """Return the bar as cells of text."""
        sign = "<=" if self.at_most else ">="
        verdict = "yes" if self.cleared else "NO"
        return (
            self.name,
            f"{self.measured:.3g}",
            f"{sign} {self.wanted:g}",
            verdict,
        )


@dataclass(frozen=True)
class Engines:
    """Engines in turns: images a second of each, its share of the ceiling, latency in ms.

    `int8_over_bf16` is None where one of the two is not there.
    """

    rows: list[tuple[str, float, float, float]]
    int8_over_bf16: float | None


@dataclass(frozen=True)
class Files:
    """From files to labels: our precisions, and how many times faster INT8 is than each loop.

    `identical` counts the photos with Pillow's pixels, `flips` the top-1 of each loop that differ
    from f32; None where its weights are random ones.
    """

    whole: EndToEnd
    times: dict[str, float]
    identical: int
    flips: dict[str, int | None]


def engines(plan: Plan, library: Library, rivals: Competitors) -> Engines:
    """Measure all precisions, other engines and the ceilings in the same rounds."""
    paths = find_paths(plan, library=library, machine=this_machine())
    models = {p: read_model(path) for p, path in paths.items()}
    crop = example_image(models["f32"].metadata)
    ours = {
        p: engine_calls(model, p, crop, plan=plan, library=library) for p, model in models.items()
    }
    size = plan.batch_size or BATCH_SIZE
    theirs = {rival.name: rival.calls(crop, size) for rival in rivals.present}
    ceilings = {p: gemm(p, workers=cores()).contestant for p in models}
    everything = [c for row in ours.values() for c in row.contestants]
    everything += [*(c for calls in theirs.values() for c in calls), *ceilings.values()]
    timings = measure(everything, rounds=plan.rounds, seconds=plan.seconds)
    flops = graph_cost(read_graph(paths["f32"])).flops
    best = {f"CPU {p}": (row.best(timings), row.latency, p) for p, row in ours.items()}
    for name, calls in theirs.items():
        fastest = max((timings[c.name] for c in calls), key=lambda timing: timing.rate)
        best[name] = (fastest, calls[0], "f32")
    rows = [
        (
            name,
            timing.rate,
            ratio(timing, timings[ceilings[precision].name]) * flops,
            1e3 * timings[latency.name].percentile(50),
        )
        for name, (timing, latency, precision) in best.items()
    ]
    both = [best.get(f"CPU {p}") for p in ("int8", "bf16")]
    return Engines(rows, ratio(both[0][0], both[1][0]) if both[0] and both[1] else None)


def files(plan: Plan, library: Library, rivals: Competitors) -> Files:
    """Measure files to labels in each precision, and plain loops in the same rounds."""
    paths = find_paths(plan, library=library, machine=this_machine())
    setup = EndToEndSetup(paths=paths, photos=plan.photos, compiled_cache=library.compiled)
    prepared = prepare(setup)
    metadata = read_model(paths["f32"]).metadata
    loops = [openvino_loop(paths["f32"], prepared.photos, metadata)]
    if torch := rivals.get(TORCH):
        options = {"batch_size": plan.batch_size or BATCH_SIZE, "comparable": rivals.own_weights}
        loops.append(torch_loop(torch, prepared.photos, metadata, **options))

    def kept(loop: PlainLoop) -> None:
        prepared.answers[loop.name] = loop.run()

    extra = [Contestant(one.name, partial(kept, one), len(prepared.photos)) for one in loops]
    timings = measure([*prepared.contestants, *extra], rounds=plan.rounds, seconds=plan.seconds)
    return Files(
        whole=prepared.figures(timings),
        times={one.name: ratio(timings[whole_name("int8")], timings[one.name]) for one in loops},
        identical=sum(
            np.array_equal(crop_pixels(photo, metadata.preprocess), plain_pixels(photo, metadata))
            for photo in prepared.photos
        ),
        flips={
            one.name: prepared.flips(one.name) if one.comparable else None
            for one in loops
            if one.precision == "f32"
        },
    )


def bars(name: str, speeds: Engines, found: Files) -> Iterator[Bar]:
    """Yield the bars of one model."""
    by_precision = {row.precision: row for row in found.whole.wholes}
    yield Bar(name, "INT8, share of what decode and engine allow", by_precision["int8"].share, 0.90)
    if PLAIN_TORCH in found.times:
        yield Bar(name, f"INT8 over {PLAIN_TORCH}", found.times[PLAIN_TORCH], 3.0)
    yield Bar(name, f"INT8 over {PLAIN_OPENVINO}", found.times[PLAIN_OPENVINO], 1.6)
    if speeds.int8_over_bf16:
        yield Bar(name, "INT8 engine over bf16 engine", speeds.int8_over_bf16, 1.6)
    yield Bar(name, "photos with Pillow's pixels", found.identical, found.whole.photos)
    flips = [by_precision["f32"].flips, *found.flips.values()]
    yield Bar(name, "f32 top-1 flips", sum(flip or 0 for flip in flips), 0, at_most=True)


def tables(name: str, speeds: Engines, found: Files) -> str:
    """Return what was measured of one model as text."""
    head = ("engine", "images/s", "of ceiling", "p50 ms")
    rows = [(n, f"{rate:.1f}", f"{100 * s:.0f} %", f"{ms:.2f}") for n, rate, s, ms in speeds.rows]
    whole = [
        (w.precision, f"{w.images_per_second:.1f}", f"{w.allowed:.1f}", f"{100 * w.share:.1f} %")
        for w in found.whole.wholes
    ]
    times = [(f"INT8 over {loop}", f"{times:.2f}") for loop, times in found.times.items()]
    parts = [
        grid([head, *rows]),
        grid([("files to labels", "photos/s", "allowed", "share"), *whole]),
        grid([("", "times"), *times]),
    ]
    return "\n\n".join([name, *parts])


@contextmanager
def jpegs(folder: Path) -> Iterator[Path]:
    """Give a folder of JPEGs: the one named or, where it is not here, one made of the samples."""
    if folder.is_dir():
        yield folder
        return
    with tempfile.TemporaryDirectory() as made:
        images = [Image.open(photo).convert("RGB") for photo in sample_photos()]
        for number in range(160):
            size = (500 - number, 375) if number % 3 else (375, 500 - number)
            file = Path(made) / f"{number:03}.JPEG"
            images[number % len(images)].resize(size).save(file, quality=95)
        yield Path(made)


def bundled(library: Library, photos: Path) -> str:
    """Return the bundled model; one quantized here where it has no INT8 in the package."""
    path = library.ir("bundled")
    try:
        int8_beside(path)
    except UnknownModelError:
        copy = library.folder / "bundled.xml"
        for suffix in (".bin", ".xml"):
            shutil.copyfile(path.with_suffix(suffix), copy.with_suffix(suffix))
        _quantize(copy, photos)
        return str(copy)
    return "bundled"


def large(library: Library, photos: Path) -> str:
    """Return a checkpoint of a large network with random weights; its INT8 model is made too."""
    import torch

    from regnet.checkpoints.weights import write_safetensors
    from regnet.network.modules import RegNet
    from regnet.network.spec import spec_by_name

    torch.manual_seed(0)
    spec = spec_by_name(LARGE)
    path = library.folder / "random-3.2gf.safetensors"
    write_safetensors(path, RegNet(spec).state_dict(), spec=spec, preprocess=OMZ)
    _quantize(library.ir(path), photos)
    return str(path)


def _quantize(path: Path, photos: Path) -> None:
    """Write the INT8 model beside an IR; speed does not depend on how well it agrees."""
    quantize(
        path, photos, samples=24, checks=100, min_agreement=0.0, folder=path.parent, seconds=0.1
    )
    assert read_model(int8_beside(path)).metadata.precision == "int8"


def last_ratios(machine: dict[str, Any]) -> dict[str, float]:
    """Return the ratios of the last line of `FIGURES` that was measured on an equal machine."""
    lines = FIGURES.read_text().splitlines() if FIGURES.exists() else []
    same = (line for line in map(json.loads, reversed(lines)) if line["machine"] == machine)
    return next((line["ratios"] for line in same), {})


def record_ratios(machine: dict[str, Any], ratios: dict[str, float]) -> None:
    """Add a line to `FIGURES`."""
    git = ["git", "-C", str(FIGURES.parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    line = {"commit": commit, "machine": machine, "ratios": ratios}
    with FIGURES.open("a") as file:
        file.write(json.dumps(line) + "\n")


def main() -> None:
    """Measure, print the tables, and end in one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=SHARED, help="folder of JPEGs")
    parser.add_argument("--seconds", type=float, default=30.0, help="for each part of a model")
    parser.add_argument("--rounds", type=int, help="turns of each, instead of --seconds")
    options = parser.parse_args()
    one_jpeg = next(photo for photo in sample_photos() if photo.suffix == ".jpg")
    figures: dict[str, Any] = {"start_up": start_up(one_jpeg, 5)}
    print(f"start-up of regnet classify, whole process: {figures['start_up']}\n", flush=True)
    print(machine_text(this_machine()) + "\n", flush=True)
    rows: list[Bar] = []
    figures["models"] = {}
    with tempfile.TemporaryDirectory() as folder, jpegs(options.photos) as photos:
        library = Library(folder=Path(folder), offline=True)
        for name, make, most in (("bundled", bundled, 200), (LARGE, large, 100)):
            plan = Plan(
                model=make(library, photos),
                rounds=options.rounds,
                seconds=options.seconds,
                photos=tuple(find_jpegs(photos, most=most)),
            )
            metadata = read_model(library.ir(plan.model)).metadata
            rivals = find_competitors(plan.model, metadata, library=library, names=(TORCH, ONNX))
            others = watch_others()
            speeds, found = engines(plan, library, rivals), files(plan, library, rivals)
            print(tables(name, speeds, found) + "\n", flush=True)
            figures["models"][name] = asdict(speeds) | asdict(found) | {"other_work": others()}
            rows += bars(name, speeds, found)
    machine = {name: getattr(this_machine(), name) for name in ("cpu", "cores", "openvino")}
    before = last_ratios(machine)
    cells = [(*bar.row(), f"{before.get(bar.name, math.nan):.3g}") for bar in rows]
    print(grid([("bar", "measured", "wanted", "cleared", "before"), *cells]) + "\n")
    record_ratios(machine, {bar.name: round(bar.measured, 4) for bar in rows})
    figures["bars"] = [vars(bar) | {"cleared": bar.cleared} for bar in rows]
    print(json.dumps(figures))
    sys.exit(any(not bar.cleared for bar in rows))


if __name__ == "__main__":
    main()
