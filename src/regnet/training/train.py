"""A data set and a recipe -> a trained, converted model in a folder of its own."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from lightning_fabric import Fabric

from regnet.benchmarking.machine import this_machine
from regnet.checkpoints.weights import read_checkpoint, write_safetensors
from regnet.conversion import Request
from regnet.convert import convert
from regnet.data.class_folders import folder_labels, splits
from regnet.data.dataset import open_dataset
from regnet.data.labelled import Dataset, LabelledItem
from regnet.errors import OutputError, TrainingError
from regnet.labels import Labels
from regnet.library import Library
from regnet.network import RegNet
from regnet.spec import Spec, spec_by_name
from regnet.training.history import EpochRecord, History
from regnet.training.job import Job, News, Watcher
from regnet.training.loop import Trainer
from regnet.training.malloc import keep_freed_memory
from regnet.training.photos import MEMORY, CentreCrops, Photos, Unreadable
from regnet.training.recipe import Recipe, read_recipe, write_recipe
from regnet.training.run_checkpoint import LAST, read_run
from regnet.training.teacher import open_teacher

WEIGHTS: Final = "weights.safetensors"
RECIPE: Final = "recipe.toml"
HOLDOUT: Final = 0.1

Watch = Callable[[Iterable[Any], str, int], Iterable[Any]]


def unwatched(items: Iterable[Any], what: str, count: int) -> Iterable[Any]:
    """Watch nothing."""
    return items


class Unseen:
    """A watcher that looks away."""

    def news(self, news: News) -> None:
        """Ignore a step."""

    def epoch(self, record: EpochRecord) -> None:
        """Ignore an epoch."""

    def skipped(self, photo: Unreadable) -> None:
        """Ignore a photo that could not be read."""

    def stop(self) -> bool:
        """Never stop."""
        return False


@dataclass(frozen=True, kw_only=True)
class Training:
    """A finished run, or one that was stopped: `finished` says which.

    `model` is the converted model (.xml), `weights` the file it was converted from; `epoch` is the
    one they are of, counted from 1. Shares are in [0, 1].
    """

    folder: Path
    finished: bool
    weights: Path | None
    model: Path | None
    epoch: int
    records: tuple[EpochRecord, ...]
    val_top1: float | None
    val_top5: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain JSON values."""
        paths = {name: str(p) for name in ("folder", "weights", "model") if (p := vars(self)[name])}
        return asdict(self) | paths | {"records": [asdict(record) for record in self.records]}


@dataclass(frozen=True, kw_only=True)
class Devices:
    """Where to train: as Lightning Fabric names them. "auto" takes what is there."""

    accelerator: str = "auto"
    devices: int | str = "auto"
    nodes: int = 1
    strategy: str = "auto"
    precision: str = "auto"

    def fabric(self) -> Fabric:
        """Return Fabric on these devices."""
        precision: Any = self.precision
        if precision == "auto":
            fast = torch.cuda.is_available() or this_machine().has_bf16
            precision = "bf16-mixed" if fast else "32-true"
        on_cpu = self.accelerator == "cpu" or not torch.cuda.is_available()
        devices = 1 if self.devices == "auto" and on_cpu else self.devices
        return Fabric(
            accelerator=self.accelerator,
            devices=devices,
            num_nodes=self.nodes,
            strategy=self.strategy,
            precision=precision,
        )


def train(
    dataset: str | Path,
    *,
    model: str | Spec = "regnetx-400mf",
    recipe: str | Path | Recipe = "modern",
    val: str | Path | None = None,
    labels: Labels | None = None,
    weights: str | Path | None = None,
    teacher: str | None = None,
    folder: str | Path = "run",
    name: str | None = None,
    resume: bool = False,
    accumulate: int = 1,
    devices: Devices | None = None,
    memory: int = MEMORY,
    checkpoint_seconds: float = 600.0,
    watcher: Watcher | None = None,
    watch: Watch = unwatched,
    library: Library | None = None,
) -> Training:
    """Train a network on labelled photos by a recipe; convert what comes out.

    `dataset` is a folder, archive or pattern as for `regnet.evaluate`; with splits in it, or `val`,
    those are for validation, else a tenth of the photos of each class. `model` is a spec or its
    name; `weights` a checkpoint to start from, whose head is replaced where classes differ.
    `folder` gets recipe.toml, last.ckpt, metrics.csv, weights.safetensors and the IR; `resume` goes
    on from its last.ckpt. Raises `TrainingError`, `RecipeError`, `DatasetError`, `OutputError`.
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    folder, watcher = Path(folder), watcher or Unseen()
    library = library or Library()
    _require_new(folder, resume)
    fabric = (devices or Devices()).fabric()
    keep_freed_memory()
    fabric.launch()
    data = _open(dataset, val, labels, seed=recipe.seed)
    network = _network(model, weights, data.labels, recipe, library)
    job = Job(
        recipe=recipe,
        photos=Photos(data.train, short_side=2 * _largest(recipe), memory=memory // 2, watch=watch),
        validation=_validation(data.val, recipe, memory // 2),
        classes=len(data.labels),
        folder=folder,
        fingerprint=data.fingerprint,
        teacher=open_teacher(teacher, data.labels, library=library, device=fabric.device)
        if teacher
        else None,
        accumulate=accumulate,
        checkpoint_seconds=checkpoint_seconds,
    )
    trainer = Trainer(job, network, fabric)
    records = _resumed(trainer, folder) if resume else ()
    write_recipe(folder / RECIPE, recipe)
    done = trainer.position.epoch * trainer.order.steps + trainer.position.step
    history = History(folder, records, next_step=done)
    trainer.run(history, watcher)
    return _ended(trainer, history, data.labels, name or folder.resolve().name)


@dataclass(frozen=True)
class _Data:
    train: Sequence[LabelledItem]
    val: Sequence[LabelledItem]
    labels: Labels
    fingerprint: str


def _open(
    dataset: str | Path, val: str | Path | None, labels: Labels | None, *, seed: int
) -> _Data:
    """Return the photos to train and to validate with."""
    path, own_val = splits(dataset) if val is None else (str(dataset), str(val))
    labels = labels or folder_labels(path)
    if len(labels) < 2:
        raise TrainingError(f"{path} has one class; a classifier needs two or more")
    opened = open_dataset(path, labels)
    items = list(opened.items())
    if own_val is None:
        train, held = _held_out(items, seed)
        return _Data(train, held, labels, opened.fingerprint)
    other: Dataset = open_dataset(own_val, labels, subset=True)
    return _Data(items, list(other.items()), labels, opened.fingerprint + other.fingerprint)


def _held_out(
    items: Sequence[LabelledItem], seed: int
) -> tuple[list[LabelledItem], list[LabelledItem]]:
    """Return the items without a tenth of each class, and that tenth."""
    truths = np.array([item.truth for item in items])
    random = np.random.default_rng(seed)
    held: set[int] = set()
    for truth in np.unique(truths):
        places = random.permutation(np.flatnonzero(truths == truth))
        held |= set(places[: int(HOLDOUT * len(places) + 0.5)].tolist())
    kept = [item for place, item in enumerate(items) if place not in held]
    return kept, [items[place] for place in sorted(held)]


def _network(
    model: str | Spec, weights: str | Path | None, labels: Labels, recipe: Recipe, library: Library
) -> RegNet:
    """Return the network to begin with."""
    torch.manual_seed(recipe.seed)
    spec = spec_by_name(model) if isinstance(model, str) else model
    network = RegNet(spec.with_classes(len(labels)))
    if weights is not None:
        found = read_checkpoint(weights)
        same = found.classes == len(labels) and found.labels in (None, labels)
        if not same:
            found = read_checkpoint(weights, new_head=len(labels), seed=recipe.seed)
        network.load_state_dict(network.state_dict() | found.state)
    return network


def _largest(recipe: Recipe) -> int:
    return max([recipe.input.crop, *(size for _, size in recipe.input.progressive)])


def _validation(items: Sequence[LabelledItem], recipe: Recipe, memory: int) -> CentreCrops | None:
    if not items:
        return None
    return CentreCrops(items, recipe.input.protocol(recipe.name), batch=256, memory=memory)


def _require_new(folder: Path, resume: bool) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(f"cannot write to {folder}: {exc.strerror or exc}") from exc
    if not resume and (folder / LAST).exists():
        raise TrainingError(
            f"{folder} holds a run already: go on with it (--resume), or name another folder"
        )


def _resumed(trainer: Trainer, folder: Path) -> tuple[EpochRecord, ...]:
    values = read_run(folder / LAST)
    trainer.load(values)
    return tuple(EpochRecord.from_dict(record) for record in values["records"])


def _ended(trainer: Trainer, history: History, labels: Labels, name: str) -> Training:
    """Write the weights to deploy, convert them, and return the run."""
    recipe, folder, records = trainer.job.recipe, trainer.job.folder, history.records
    finished = trainer.position.step == 0
    stopped_early = bool(recipe.schedule.patience) and trainer.best.epoch > 0
    epoch = trainer.best.epoch if stopped_early else len(records)
    record = records[epoch - 1] if epoch else None
    weights = model = None
    if finished and epoch:
        weights, model = folder / WEIGHTS, folder / f"{name}.xml"
        write_safetensors(
            weights,
            trainer.best.weights if stopped_early else trainer.weights,
            spec=trainer.bare.spec,
            labels=labels,
            preprocess=recipe.input.protocol(recipe.name),
            name=name,
            extra={"epochs": epoch, "recipe": recipe.to_toml()},
        )
        convert(Request(weights=weights, name=name), folder)
    return Training(
        folder=folder,
        finished=finished,
        weights=weights,
        model=model,
        epoch=epoch,
        records=records,
        val_top1=record.val_top1 if record else None,
        val_top5=record.val_top5 if record else None,
    )
