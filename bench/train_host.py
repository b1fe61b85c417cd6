"""`bench/train.py --host`: CPU time of the main process and of its workers per image.

The network costs nothing, and the device next to nothing: crops of the real size are made and
copied once (as into pinned memory), then augmented as images of a few pixels, of few classes. What
is left is what a GPU waits for: crops, calls of kernels, and Python. Crops by the device itself are
of a few pixels from the start, as it is the device that pays for their size.

torch computes with one thread: those of a pool spin while they wait, which counts as CPU time, and
a GPU waits for one thread. Figures are medians of the rounds; the least is what the work takes
where nothing else runs.
"""

import multiprocessing
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regnet.network.modules import RegNet
from regnet.training.devices import Processes
from regnet.training.feed import Feed
from regnet.training.history import History
from regnet.training.loop import Trainer
from regnet.training.photos import LabelledPhotos
from regnet.training.recipe import Recipe
from regnet.training.state import Job, Position
from regnet.training.validation import Normalise

PIXELS = 4  # side of the images that the device gets
SMALL = 4  # side of photos, and of their crops, that the device makes
CLASSES = 10
FEEDS = ("processes", "device")
ROUNDS = 7


class Nothing(nn.Module):
    """A network that looks at one pixel."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, classes) of images (N, 3, H, W)."""
        logits: Tensor = self.head(images[:, :, 0, 0])
        return logits


class Shrunk(Normalise):
    """Passes on a corner of the crops."""

    def moved(self, crops: Tensor, truths: Tensor) -> tuple[Tensor, Tensor]:
        """Return a corner of the crops as float32 (N, 3, 4, 4), and the classes."""
        return super().moved(crops[:, :PIXELS, :PIXELS].contiguous(), truths)


def recipes(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """Yield the recipe, and the same with TrivialAugment switched, by name."""
    trivial = recipe.augmentation.trivial_augment
    for on in (trivial, not trivial):
        name = f"{recipe.name} {'with' if on else 'without'} TrivialAugment"
        yield name, recipe.changed("augmentation", trivial_augment=on)


def host_figures(
    recipe: Recipe,
    photos: LabelledPhotos,
    fabric: Any,
    *,
    make: Callable[[Recipe, RegNet, Any, LabelledPhotos, Path], Trainer],
    watcher: Any,
    steps: int,
) -> dict[str, float]:
    """Return microseconds per image of the main process and of its workers, and images a second."""
    network: Any = Nothing(CLASSES)
    with tempfile.TemporaryDirectory() as folder:
        made = make(recipe, network, fabric, photos, Path(folder))
        made._augment.whole = True  # as on a GPU
        made._normalise = Shrunk(recipe.input.protocol(recipe.name), fabric.device)
        history = History(Path(folder), tensorboard=False)

        def turn() -> None:
            made.state.position = Position()
            made.run_epoch(history, watcher)

        found = [_times(turn) for _ in range(ROUNDS + 1)][1:]
        made.feed.close()
    images = steps * recipe.schedule.batch
    main, workers, wall = torch.tensor(found).median(0).values.tolist()
    return {
        "main_us": round(1e6 * main / images, 1),
        "main_us_least": round(1e6 * min(found)[0] / images, 1),
        "workers_us": round(1e6 * workers / images, 1),
        "images_per_s": round(images / wall),
    }


def scaling(
    recipe: Recipe, photos: LabelledPhotos, fabric: Any, *, job: Callable[..., Job], steps: int
) -> dict[str, float]:
    """Return crops a second of one process and of two, whose steps are received and dropped.

    One and two take turns; `scaling` is the median ratio. The receiving process copies the crops,
    which takes a part of a core. `scaling_alone` is by the CPU time of the workers per image: what
    two cores of their own would give.
    """
    feeds = {
        count: Feed(job(recipe, photos, workers=count), Processes(fabric), fabric.device)
        for count in (1, 2)
    }
    times: dict[int, list[list[float]]] = {count: [] for count in feeds}
    for _ in range(ROUNDS + 1):
        for count, feed in feeds.items():
            turn = partial(deque, feed.steps(0, last=steps), maxlen=0)
            times[count].append(_times(turn))
    for feed in feeds.values():
        feed.close()
    images = steps * recipe.schedule.batch
    one, two = (np.array(rounds[1:]) for rounds in times.values())
    return {
        "one_per_s": round(images / float(np.median(one[:, 2]))),
        "two_per_s": round(images / float(np.median(two[:, 2]))),
        "scaling": round(float(np.median(one[:, 2] / two[:, 2])), 2),
        "scaling_alone": round(2 * float(np.median(one[:, 1] / two[:, 1])), 2),
    }


def _times(turn: Callable[[], object]) -> list[float]:
    """Return seconds of a call: CPU time of this process and of its workers, and on the wall."""
    before = time.process_time(), _workers(), time.perf_counter()
    turn()
    after = time.process_time(), _workers(), time.perf_counter()
    return [b - a for a, b in zip(before, after, strict=True)]


def _workers() -> float:
    """Return the CPU seconds of all living child processes, where /proc knows them."""
    ticks = 0
    for child in multiprocessing.active_children():
        values = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(values[11]) + int(values[12])
    return ticks / os.sysconf("SC_CLK_TCK")
