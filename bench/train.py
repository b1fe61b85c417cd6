"""Images a second that the trainer learns from, beside a bare torch loop over the same network.

    python bench/train.py [--model NAME] [--recipe NAME|FILE] [--crops SIDE...] [--photo SIDE]
                          [--batch N] [--accelerator auto|cpu|cuda] [--seconds S] [--steps N]
                          [--cpu-time] [--host] [--workers N]

Both train the same network in the same precision, memory layout and optimizer, both compiled on a
GPU; where the recipe adds noise to its activations, both have that. The trainer does all else of
the recipe, too: random crops of photos in memory, augmentation, clipping, averaged weights,
figures. The bare loop has one normalised batch on the device already. They take turns of `--steps`
steps; ratios are medians of the rounds. The last line is one JSON object. `--host` measures the CPU
time per image of the main process and of its workers instead, with a network that costs nothing,
and one thread of torch (see train_host.py); and how many crops one and two processes make.
"""

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from train_host import CLASSES as FEW
from train_host import FEEDS, SMALL, host_figures, recipes, scaling

from regnet.data.labelled import LabelledItem
from regnet.network.modules import RegNet
from regnet.network.spec import spec_by_name
from regnet.system.parallel import cores
from regnet.system.timing import Contestant, measure, ratio
from regnet.training.devices import keep_freed_memory
from regnet.training.history import History, Unseen
from regnet.training.loop import Trainer
from regnet.training.photos import LabelledPhotos
from regnet.training.recipe import Recipe, read_recipe
from regnet.training.regularisation import ActivationNoise
from regnet.training.state import Job, Position, make_optimizer
from regnet.training.task import Devices

CLASSES = 200
DISTINCT = 256  # photos
MARGIN = 2  # photos are this many times those of the steps of a turn
COMPILE = partial(torch.compile, dynamic=False)

Batches = Callable[[], tuple[Tensor, Tensor]]
"""Returns normalised images (N, 3, S, S) and their classes on a device."""

Compile = Callable[[nn.Module], Any]


class StopAfter(Unseen):
    """A watcher that ends each turn after so many steps."""

    def __init__(self, steps: int) -> None:
        self._steps, self._done = steps, 0

    def stop(self) -> bool:
        """Return whether the turn is over."""
        self._done += 1
        return self._done % self._steps == 0


@cache
def photo(side: int, number: int) -> bytes:
    """Return a JPEG of smooth noise."""
    noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    big = np.kron(noise, np.ones((-(-side // 8), -(-side // 8), 1), np.uint8))[:side, :side]
    return simplejpeg.encode_jpeg(np.ascontiguousarray(big), colorspace="BGR")


def job(recipe: Recipe, photos: LabelledPhotos, folder: Path = Path(), **options: Any) -> Job:
    """Return a job that has nothing to validate with."""
    return Job(
        **{"classes": CLASSES, "checkpoint_seconds": float("inf")} | options,
        recipe=recipe,
        photos=photos,
        validation=None,
        folder=folder,
    )


def trainer(
    recipe: Recipe,
    network: RegNet,
    fabric: Any,
    photos: LabelledPhotos,
    folder: Path,
    **options: Any,
) -> Trainer:
    """Return the trainer of such a job."""
    return Trainer(job(recipe, photos, folder, **options), network, fabric)


def trained(made: Trainer, steps: int, folder: Path) -> Callable[[], None]:
    """Return a call that does so many steps of the trainer's own loop."""
    history, watcher = History(folder, tensorboard=False), StopAfter(steps)

    def turn() -> None:
        made.state.position = Position()
        made.run_epoch(history, watcher)
        synchronise(made.fabric.device)

    return turn


def bare(
    recipe: Recipe,
    network: RegNet,
    fabric: Any,
    batches: Batches,
    steps: int,
    *,
    compiler: Compile | None = None,
) -> Callable[[], None]:
    """Return a call that does so many steps of a plain loop on batches in the device's memory."""
    device = fabric.device
    network.to(device, memory_format=torch.channels_last)
    if bits := recipe.augmentation.noise_bits:
        ActivationNoise(network, bits)
    optimizer = make_optimizer(network, recipe, fused=device.type == "cuda")
    network.train()
    if compiler is None and device.type == "cuda" and not bits:
        compiler = COMPILE
    run = compiler(network) if compiler else network
    scaler = getattr(fabric.strategy.precision, "scaler", None)

    def turn() -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            images, targets = batches()
            with fabric.autocast():
                loss = F.cross_entropy(run(images).float(), targets)
            (scaler.scale(loss) if scaler else loss).backward()
            optimizer.step()
        synchronise(device)

    return turn


def one_batch(count: int, side: int, device: torch.device) -> Batches:
    """Return a call that gives the same batch of noise each time."""
    images = torch.randn(count, 3, side, side, device=device)
    images = images.to(memory_format=torch.channels_last)
    targets = torch.randint(CLASSES, (count,), device=device)
    return lambda: (images, targets)


def synchronise(device: torch.device) -> None:
    """Wait until a device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def with_crop(recipe: Recipe, side: int) -> Recipe:
    """Return the recipe with crops of one size."""
    recipe = recipe.changed("input", resize=side, crop=side)
    return replace(recipe, input=replace(recipe.input, progressive=()))


def photos_of(count: int, side: int, crop: int, classes: int = CLASSES) -> LabelledPhotos:
    """Return photos in memory, some of them often."""
    items = [
        LabelledItem(f"{n}.jpg", n % classes, partial(photo, side, n % DISTINCT))
        for n in range(count)
    ]
    return LabelledPhotos(items, short_side=2 * crop)


def host(side: int, recipe: Recipe, options: Any, fabric: Any) -> dict[str, dict[str, float]]:
    """Return the host's microseconds per image at one size of crops, by recipe and feed."""
    torch.set_num_threads(1)
    steps = options.steps
    count = recipe.schedule.batch * steps  # processes make no step in vain
    values: dict[str, dict[str, float]] = {}
    for feed in FEEDS:
        sides = (options.photo, side) if feed == "processes" else (SMALL, SMALL)
        photos = photos_of(count, *sides, classes=FEW)
        made = {"classes": FEW, "workers": options.workers}
        if feed == "device":
            made["memory_device"] = photos.held_bytes
        for name, each in recipes(with_crop(recipe, sides[1])):
            values[f"{name}, {feed}"] = host_figures(
                each,
                photos,
                fabric,
                make=partial(trainer, **made),
                watcher=StopAfter(steps),
                steps=steps,
            )
        if feed == "processes":
            values["workers"] = scaling(
                with_crop(recipe, side), photos, fabric, job=job, steps=steps
            )
    return values


def figures(side: int, recipe: Recipe, options: Any, fabric: Any) -> dict[str, float]:
    """Return images a second of both at one size of crops, and their ratio."""
    recipe = with_crop(recipe, side)
    photos = photos_of(recipe.schedule.batch * options.steps * MARGIN, options.photo, side)
    network = RegNet(spec_by_name(options.model).with_classes(CLASSES))
    batches = one_batch(recipe.schedule.batch, side, fabric.device)
    plain = bare(recipe, copy.deepcopy(network), fabric, batches, options.steps)
    images = recipe.schedule.batch * options.steps
    with tempfile.TemporaryDirectory() as folder:
        made = trainer(recipe, network, fabric, photos, Path(folder))
        turn = trained(made, options.steps, Path(folder))
        found = measure(
            [Contestant("trainer", turn, images), Contestant("bare", plain, images)],
            seconds=options.seconds,
            clock=time.process_time if options.cpu_time else time.perf_counter,
        )
    timing, other = found["trainer"], found["bare"]
    return {
        "trainer": round(timing.rate, 1),
        "bare": round(other.rate, 1),
        "ratio": round(ratio(timing, other), 3),
        "rounds": len(timing.rounds),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="regnetx-400mf")
    parser.add_argument("--recipe", default="modern", help="a name or a file")
    parser.add_argument("--crops", type=int, nargs="+", default=[64, 96, 128])
    parser.add_argument("--photo", type=int, default=64, help="side of the photos in memory")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each size")
    parser.add_argument("--steps", type=int, help="of a turn [1; --host: 10]; 20 or more on a GPU")
    parser.add_argument("--noise-bits", type=float, help="instead of the recipe's")
    parser.add_argument(
        "--cpu-time", action="store_true", help="count CPU seconds: where others use the cores, too"
    )
    parser.add_argument("--host", action="store_true", help="the host's CPU time per image")
    parser.add_argument("--workers", type=int, default=cores(), help="processes of --host")
    options = parser.parse_args()
    options.steps = options.steps or (10 if options.host else 1)
    devices = Devices(accelerator=options.accelerator, precision=options.precision)
    fabric = devices.fabric()
    keep_freed_memory()
    recipe = read_recipe(options.recipe).changed("schedule", batch=options.batch, warmup_epochs=0.0)
    recipe = recipe.changed("augmentation", noise_bits=options.noise_bits)
    values: dict[str, Any] = {
        "machine": devices.described,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "precision": str(getattr(fabric.strategy.precision, "precision", "32-true")),
        "model": options.model,
        "recipe": recipe.name,
        "batch": options.batch,
        "photo": options.photo,
        "noise_bits": recipe.augmentation.noise_bits,
        "clock": "CPU time" if options.cpu_time else "wall",
    }
    for side in options.crops:
        measured = host if options.host else figures
        found: Any = measured(side, recipe, options, fabric)
        values[str(side)] = found
        print(f"{side} px: {found}", flush=True)
    print(json.dumps(values))


if __name__ == "__main__":
    main()
