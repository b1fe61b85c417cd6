"""`bench/train.py --host`: CPU time of the main process and of its workers per image.

The network costs nothing, and the device next to nothing: crops of the real size are made and
copied once (as into pinned memory), then augmented as images of a few pixels. What is left is what
a GPU waits for: random numbers, crops, calls of kernels, and Python. Crops by the device itself are
of a few pixels from the start, as it is the device that pays for their size.
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regnet.network.modules import RegNet
from regnet.training.history import History
from regnet.training.loop import Trainer
from regnet.training.photos import LabelledPhotos
from regnet.training.recipe import Recipe
from regnet.training.state import Position
from regnet.training.validation import Normalise

PIXELS = 4  # side of the images that the device gets
SMALL = 8  # side of photos, and of their crops, that the device makes
FEEDS = ("processes", "device")


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
    classes: int,
    make: Callable[[Recipe, RegNet, Any, LabelledPhotos, Path], Trainer],
    watcher: Any,
    steps: int,
    rounds: int = 3,
) -> dict[str, float]:
    """Return microseconds per image of the main process and of its workers, and images a second."""
    network: Any = Nothing(classes)
    with tempfile.TemporaryDirectory() as folder:
        made = make(recipe, network, fabric, photos, Path(folder))
        made._augment.whole = True  # as on a GPU
        made._normalise = Shrunk(recipe.input.protocol(recipe.name), fabric.device)
        history = History(Path(folder), tensorboard=False)
        found = []
        for _ in range(rounds + 1):
            made.state.position = Position()
            before = time.process_time(), _workers(), time.perf_counter()
            made.run_epoch(history, watcher)
            after = time.process_time(), _workers(), time.perf_counter()
            found.append([b - a for a, b in zip(before, after, strict=True)])
        made.feed.close()
    images = steps * recipe.schedule.batch
    main, workers, wall = torch.tensor(found[1:]).median(0).values.tolist()
    return {
        "main_us": round(1e6 * main / images, 1),
        "workers_us": round(1e6 * workers / images, 1),
        "images_per_s": round(images / wall),
    }


def _workers() -> float:
    """Return the CPU seconds of all living child processes, where /proc knows them."""
    ticks = 0
    for child in multiprocessing.active_children():
        values = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(values[11]) + int(values[12])
    return ticks / os.sysconf("SC_CLK_TCK")
