"""Tiny training jobs for tests: photos of four colours, a network of two blocks."""

import io
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image

from regnet.data.labelled import LabelledItem, Unreadable
from regnet.network.modules import RegNet
from regnet.network.spec import AnyNetSpec, Stage
from regnet.system.errors import ImageError
from regnet.training.history import EpochRecord, History, News
from regnet.training.loop import Trainer
from regnet.training.photos import CentreCrops, LabelledPhotos
from regnet.training.recipe import Recipe, recipe_from_toml
from regnet.training.run_folder import LAST, read_run
from regnet.training.state import Job

CLASSES = 4
SPEC = AnyNetSpec(
    stages=(Stage(depth=1, width=8, group_width=8), Stage(depth=1, width=16, group_width=8)),
    stem_width=8,
    classes=CLASSES,
)
RECIPE = """
[optimizer]
lr = 0.4
[schedule]
epochs = 3
batch = 32
warmup_epochs = 1
every = "step"
[input]
resize = 24
crop = 24
interpolation = "bilinear"
offset = "round"
[augmentation]
area = [0.4, 1.0]
lighting = 0.1
[averages]
ema = 0.9
precise_bn = 32
"""


def recipe(**parts: dict[str, object]) -> Recipe:
    """Return the small recipe with values of some parts changed."""
    made = recipe_from_toml(RECIPE, source="test")
    for part, values in parts.items():
        made = replace(made, **{part: replace(getattr(made, part), **values)})
    return made


def items(count: int = 96, *, broken: tuple[int, ...] = (), seed: int = 0) -> list[LabelledItem]:
    """Return photos of noise around their class's colour; some cannot be read."""
    return [
        LabelledItem(f"photo-{n}.png", n % CLASSES, partial(_png, n, seed, n in broken))
        for n in range(count)
    ]


def _png(number: int, seed: int, broken: bool) -> bytes:
    if broken:
        raise ImageError("truncated")
    random = np.random.default_rng((seed, number))
    colour = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [150, 150, 60]])[number % 4]
    noise = random.normal(colour, 60, (28, 36, 3)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def job(
    folder: Path, recipe: Recipe, *, photos: list[LabelledItem] | None = None, **values: object
) -> Job:
    """Return a job on the coloured photos."""
    protocol = recipe.input.protocol("test")
    return Job(
        recipe=recipe,
        photos=LabelledPhotos(items() if photos is None else photos, short_side=48),
        validation=CentreCrops(items(33, seed=1), protocol, batch=16),
        classes=CLASSES,
        folder=folder,
        **values,  # type: ignore[arg-type]
    )


class Recorder:
    """A watcher that keeps what it hears, and stops after so many steps."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.heard: list[News] = []
        self.records: list[EpochRecord] = []
        self.lost: list[Unreadable] = []
        self.limits: list[str] = []
        self._stop_after = stop_after

    def news(self, news: News) -> None:
        self.heard.append(news)

    def epoch(self, record: EpochRecord) -> None:
        self.records.append(record)

    def skipped(self, photo: Unreadable) -> None:
        self.lost.append(photo)

    def limit(self, text: str) -> None:
        self.limits.append(text)

    def stop(self) -> bool:
        return self._stop_after is not None and len(self.heard) >= self._stop_after


def trainer(job: Job, fabric: Fabric | None = None) -> Trainer:
    """Return the trainer of a fresh network, the same each time; more threads round otherwise."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    fabric = fabric or Fabric(accelerator="cpu", devices=1, precision="32-true")
    return Trainer(job, RegNet(SPEC), fabric)


def resume(made: Trainer, folder: Path, *, on_disk: bool = True) -> History:
    """Have a trainer take up the checkpoint of a folder; return the history so far."""
    values = read_run(folder / LAST)
    made.load(values)
    records = [EpochRecord.from_dict(record) for record in values["records"]]
    return History(made.job.folder, records, tensorboard=False, on_disk=on_disk)


def run(job: Job, watcher: Recorder | None = None) -> Trainer:
    """Train a job to its end, or until the watcher stops it."""
    made = trainer(job)
    made.run(History(job.folder, tensorboard=False), watcher or Recorder())
    return made
