"""What a GPU does with this project, beside plain torch loops over the same networks.

    python bench/gpu.py [--device auto|cuda|cpu] [--quick] [--seconds S]

Rows in images a second: a network's inference and training alone, with and without compilation; the
project's trainer, and a plain loop whose photos, crops and mixing are on the device, at several
sizes of crops; and JPEG files to labels by `regnet classify --device`, beside decoding on all cores
alone and the engine alone. What is compared takes turns; figures are medians. Photos and weights
are made here: the speed does not depend on them.

All takes `--seconds` (280) at most: rows for which too little time is left are skipped and counted,
the ones that matter least last. `--quick` runs a tiny version of each row, on a CPU too, and judges
nothing. The last line is one JSON object; the exit status is 1 where a bar is missed.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from on_device_loop import OnDevicePhotos
from torch import nn
from train import (
    CLASSES,
    COMPILE,
    Compile,
    bare,
    one_batch,
    photos_of,
    synchronise,
    trained,
    trainer,
    with_crop,
)

from regnet.conversion.store import Library
from regnet.ir.assumptions import AssumptionWarning
from regnet.network.modules import RegNet, fold_batch_norm
from regnet.network.spec import spec_by_name
from regnet.system.errors import RegNetError
from regnet.system.timing import Contestant, Timing, measure, ratio
from regnet.training.devices import keep_freed_memory
from regnet.training.recipe import Recipe, read_recipe
from regnet.training.task import Devices

ROUNDS = 3
PLAIN_PHOTOS = 4096  # of the plain loop, at most


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sizes of all rows. `images` are those of a turn, by size of crops, for the large network."""

    large: str = "regnetx-3.2gf"
    small: str = "regnetx-600mf"
    inference_batch: int = 256
    batch: int = 512  # of the large network; the small one has twice as many
    images: dict[int, int]
    photo_sides: tuple[int, int]  # of photos for smaller crops, and for the largest
    files: int
    compiler: Compile = COMPILE

    @property
    def largest(self) -> int:
        """The largest side of crops, of inference too."""
        return max(self.images)


FULL = Plan(
    images={64: 20480, 96: 20480, 128: 15360, 224: 5120}, photo_sides=(64, 256), files=16384
)
QUICK = Plan(
    large="regnetx-400mf",
    small="regnetx-200mf",
    inference_batch=2,
    batch=4,
    images={32: 8, 48: 8, 64: 8},
    photo_sides=(32, 64),
    files=70,
    compiler=partial(torch.compile, dynamic=False, backend="eager"),
)

BARS = (  # row, at least
    ("trainer over plain, {large} {side}", 0.85),
    ("trainer over plain, {small} {side}", 0.85),
    ("training, {large} {largest}, compiled", 4000.0),
    ("inference, {large} {largest}, compiled", 12000.0),
    ("files to labels over the lesser of its parts, bundled", 0.85),
    ("files to labels over the lesser of its parts, {large}", 0.85),
)


@dataclass
class Rows:
    """Figures by name, the rows that were skipped or failed, and the time that is left."""

    seconds: float
    figures: dict[str, float] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)
    _longest: float = 0.0

    @contextmanager
    def row(self, name: str) -> Iterator[None]:
        """Take down why a row could not be measured; free its memory."""
        start = time.monotonic()
        try:
            yield
        except (RuntimeError, OSError, RegNetError) as exc:
            self.failed[name] = str(exc).strip().splitlines()[0][:200]
            print(f"{name}: failed: {self.failed[name]}", flush=True)
        torch.compiler.reset()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._longest = max(self._longest, time.monotonic() - start)

    @property
    def spent(self) -> float:
        """Seconds since the first row began."""
        return time.monotonic() - self._began

    def has_time(self, name: str) -> bool:
        """Return whether a row may begin: the longest one so far still fits."""
        fits = self.spent + self._longest < self.seconds
        if not fits:
            self.skipped.append(name)
        return fits

    def add(self, contestants: list[Contestant]) -> list[Timing]:
        """Measure contestants in turns; their first calls, which compile, by themselves."""
        for each in contestants:
            self.first[each.name] = round(seconds(each.run), 1)
        timings = measure(contestants, rounds=ROUNDS)
        for name, timing in timings.items():
            self.figures[name] = round(timing.rate, 1)
            print(f"{name}: {timing.rate:,.0f}, first call {self.first[name]} s", flush=True)
        return list(timings.values())

    def add_ratio(self, name: str, value: float) -> None:
        """Add a figure that is made of others."""
        self.figures[name] = round(value, 3)
        print(f"{name}: {value:.3f}", flush=True)


def seconds(run: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def network(name: str) -> RegNet:
    """Return a network with random weights."""
    return RegNet(spec_by_name(name).with_classes(CLASSES))


def inference(plan: Plan, device: torch.device, compiler: Compile) -> Callable[[], None]:
    """Return a call that runs one batch through the large network: folded, bf16 on a GPU."""
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    folded = fold_batch_norm(network(plan.large)).to(device, kind)
    folded = folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = compiler(folded)
    shape = plan.inference_batch, 3, plan.largest, plan.largest
    images = torch.randn(shape, device=device, dtype=kind)
    images = images.to(memory_format=torch.channels_last)

    def turn() -> None:
        with torch.inference_mode():
            run(images)
        synchronise(device)

    return turn


def alone(rows: Rows, plan: Plan, recipe: Recipe, fabric: Any, *, compiled: bool) -> None:
    """Measure inference and training of the large network alone."""
    compiler = plan.compiler if compiled else _as_it_is
    what = f"{plan.large} {plan.largest}, {'compiled' if compiled else 'eager'}"
    run = inference(plan, fabric.device, compiler)
    rows.add([Contestant(f"inference, {what}", run, plan.inference_batch)])
    recipe = with_crop(recipe.changed("schedule", batch=plan.batch), plan.largest)
    steps = plan.images[plan.largest] // plan.batch
    batches = one_batch(plan.batch, plan.largest, fabric.device)
    train = bare(recipe, network(plan.large), fabric, batches, steps, compiler=compiler)
    rows.add([Contestant(f"training, {what}", train, steps * plan.batch)])


def _as_it_is(network: nn.Module) -> nn.Module:
    return network


def in_training(
    rows: Rows, plan: Plan, recipe: Recipe, fabric: Any, *, name: str, side: int, feed: str
) -> None:
    """Measure the trainer, whose crops the device makes or processes, beside a plain loop.

    The device's are compared; for the smallest crops and for processes the trainer is alone.
    """
    times = 1 if name == plan.large else 2
    recipe = with_crop(recipe.changed("schedule", batch=times * plan.batch), side)
    batch, images = recipe.schedule.batch, times * plan.images[side]
    photos = photos_of(images, plan.photo_sides[side == plan.largest], side)
    options = {"memory_device": photos.held_bytes} if feed == "device" else {}
    with tempfile.TemporaryDirectory() as folder:
        made = trainer(recipe, network(name), fabric, photos, Path(folder), **options)
        own = trained(made, images // batch, Path(folder))
        found = [Contestant(f"trainer, {name} {side}, crops by {made.feed.kind}", own, images)]
        compared = feed == "device" and side > min(plan.images)
        if compared:
            held = [photos.pixels(number) for number in range(min(PLAIN_PHOTOS, images))]
            pixels = torch.from_numpy(np.stack(held)).to(fabric.device).permute(0, 3, 1, 2)
            truths = torch.from_numpy(photos.truths[: len(held)]).to(fabric.device)
            batches = OnDevicePhotos(pixels, truths, batch=batch, side=side, classes=CLASSES)
            plain = bare(recipe, network(name), fabric, batches, images // batch)
            found.append(Contestant(f"plain, {name} {side}", plain, images))
        try:
            timings = rows.add(found)
            if compared:
                rows.add_ratio(f"trainer over plain, {name} {side}", ratio(*timings))
        finally:
            made.feed.close()


def files(rows: Rows, plan: Plan, recipe: Recipe, fabric: Any, *, model: str) -> None:
    """Measure JPEG files to labels, and its two parts; this needs OpenVINO, which reads models."""
    from gpu_files import PARTS, files_to_labels, make_photos, random_model, share

    cuda = fabric.device.type == "cuda"
    with tempfile.TemporaryDirectory() as folder:
        library = Library(folder=Path(folder) / "models", offline=True)
        library.folder.mkdir()
        path = library.ir(model) if model == "bundled" else random_model(library, model)
        photos = make_photos(Path(folder), plan.files)
        parts = files_to_labels(
            path,
            photos,
            device="cuda" if cuda else "CPU",
            precision="bf16" if cuda else "f32",
            cache=library.folder / "compiled",
        )
        with parts as contestants:
            named = [replace(each, name=f"{each.name}, {model}") for each in contestants]
            timings = rows.add(named)
    rows.add_ratio(f"{PARTS[0]} over the lesser of its parts, {model}", share(*timings))


def all_rows(plan: Plan) -> Iterator[tuple[str, Callable[..., None]]]:
    """Yield the rows by name, those that matter most first."""
    yield "compiled", partial(alone, compiled=True)
    *smaller, second, largest = sorted(plan.images)
    order = [(plan.large, largest), (plan.small, second), (plan.large, second)]
    order += [(plan.small, side) for side in (*smaller[:0:-1], largest)]
    order += [(plan.large, side) for side in smaller[::-1]] + [(plan.small, smaller[0])]
    for name, side in order[:2]:
        yield f"{name} {side}", partial(in_training, name=name, side=side, feed="device")
    for model in ("bundled", plan.large):
        yield f"files to labels, {model}", partial(files, model=model)
    yield "eager", partial(alone, compiled=False)
    processes = partial(in_training, name=plan.small, side=second, feed="processes")
    yield f"{plan.small} {second}, processes", processes
    for name, side in order[2:]:
        yield f"{name} {side}", partial(in_training, name=name, side=side, feed="device")


def verdicts(plan: Plan, figures: dict[str, float]) -> dict[str, bool]:
    """Return which bars are cleared, of those that were measured."""
    found: dict[str, bool] = {}
    for name, wanted in BARS:
        for side in sorted(plan.images)[1:]:
            row = name.format(side=side, largest=plan.largest, large=plan.large, small=plan.small)
            if row in figures:
                found[f"{row}: at least {wanted:g}"] = figures[row] >= wanted
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto", help="auto, cuda or cpu")
    parser.add_argument("--quick", action="store_true", help="a tiny version of each row")
    parser.add_argument("--seconds", type=float, default=280.0, help="for all")
    options = parser.parse_args()
    devices = Devices(accelerator=options.device)
    fabric, plan = devices.fabric(), QUICK if options.quick else FULL
    keep_freed_memory()
    warnings.simplefilter("ignore", AssumptionWarning)  # a random network's classes
    recipe = read_recipe("modern").changed("schedule", warmup_epochs=0.0)
    rows = Rows(options.seconds)
    for name, measured in all_rows(plan):
        if rows.has_time(name):
            with rows.row(name):
                measured(rows, plan, recipe, fabric)
    passed = {} if options.quick else verdicts(plan, rows.figures)
    values = {
        "machine": devices.described,
        "torch": torch.__version__,
        "precision": devices.computed_in,
        "quick": options.quick,
        "images_per_s": rows.figures,
        "first_call_s": rows.first,
        "bars": passed,
        "skipped": rows.skipped,
        "failed": rows.failed,
        "seconds": round(rows.spent),
    }
    print(json.dumps(values))
    sys.exit(0 if all(passed.values()) and not rows.failed else 1)


if __name__ == "__main__":
    main()
