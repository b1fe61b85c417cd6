"""One run of a sweep: a network trained from random weights -> its record."""

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

import torch

from regnet.network.complexity import complexity
from regnet.network.spec import Spec
from regnet.space.memory_limit import memory_limit
from regnet.space.records import RunRecord, Setting, run_key
from regnet.space.sweep_photos import SweepPhotos
from regnet.system.errors import RegNetError, SpecError, TrainingError
from regnet.system.files import temporary_folder
from regnet.system.version import TOOL_VERSION
from regnet.training.devices import Devices
from regnet.training.history import EpochRecord, History
from regnet.training.initial_network import Start, begin
from regnet.training.job import Job, Watcher
from regnet.training.loop import Trainer
from regnet.training.malloc import keep_freed_memory
from regnet.training.recipe import Recipe
from regnet.training.resolve import require_size
from regnet.training.watching import Unseen

_HASH_DIGITS: Final = 16
_LONGEST: Final = 300  # characters of a reason


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """A network of a space that is to be trained, and the seed of all that is random in it."""

    space: str
    spec: Spec
    seed: int


@dataclass(frozen=True, kw_only=True)
class Course:
    """How all networks of a sweep are trained: the recipe, the photos, and on what.

    `threads` of the CPU compute a run: other numbers of them round otherwise.
    """

    recipe: Recipe
    photos: SweepPhotos
    precision: str
    accelerator: str = "cpu"
    threads: int = 1

    @property
    def setting(self) -> Setting:
        """What its records share."""
        return Setting(
            data=self.photos.data,
            train_photos=len(self.photos.train),
            val_photos=len(self.photos.validation),
            classes=len(self.photos.labels),
            image_size=self.recipe.input.crop,
            epochs=self.recipe.schedule.epochs,
            recipe=recipe_hash(self.recipe, self.precision),
        )

    def key(self, run: SweepRun) -> str:
        """Return the key of a run's record."""
        return run_key(run.space, self.prepared(run).spec, run.seed, self.setting)

    def prepared(self, run: SweepRun) -> SweepRun:
        """Return the run with its network made for these classes."""
        return replace(run, spec=run.spec.with_classes(len(self.photos.labels)))


def sweep_recipe(recipe: Recipe) -> Recipe:
    """Return a recipe as a sweep follows it: from random weights, to its last epoch.

    Errors are those after each epoch, so statistics made precise after the last would be for
    nothing.
    """
    recipe = recipe.changed("transfer", pretrained=False).changed("schedule", patience=0)
    return replace(recipe.changed("averages", precise_bn=0), seed=0)


def recipe_hash(recipe: Recipe, precision: str) -> str:
    """Return a hash of all that a recipe says but its seed, and of the precision."""
    text = f"{replace(recipe, seed=0).to_toml()}\nprecision = {precision}\n"
    return sha256(text.encode()).hexdigest()[:_HASH_DIGITS]


def train_one(run: SweepRun, course: Course, *, watcher: Watcher | None = None) -> RunRecord:
    """Return the record of a run, also of one that failed: its reason is in it.

    The same run on as many threads gives the same errors. Raises `RegNetError` where the machine,
    and not the network, is at fault.
    """
    run = course.prepared(run)
    started, clock = datetime.now(UTC), time.perf_counter()
    epochs: list[EpochRecord] = []
    failure = None
    try:
        with memory_limit():
            _train(run, course, _Listener(watcher or Unseen(), epochs))
    except (TrainingError, SpecError) as exc:
        failure = str(exc)
    except RegNetError:
        raise
    except Exception as exc:  # torch raises many kinds where memory is short
        failure = _reason(exc)
    return failed_or_done(
        run,
        course.setting,
        epochs,
        seconds=time.perf_counter() - clock,
        machine=machine(course),
        started=started,
        failure=failure,
    )


def failed_or_done(
    run: SweepRun,
    setting: Setting,
    epochs: list[EpochRecord],
    *,
    seconds: float,
    machine: str,
    started: datetime,
    failure: str | None,
) -> RunRecord:
    """Return a run's record; its network is made for the setting's classes."""
    cost = complexity(run.spec, image_size=setting.image_size)
    return RunRecord(
        space=run.space,
        spec=run.spec,
        params=cost.params,
        macs=cost.macs,
        acts=cost.acts,
        setting=setting,
        seed=run.seed,
        errors=tuple(1 - (epoch.val_top1 or 0.0) for epoch in epochs),
        losses=tuple(epoch.loss for epoch in epochs),
        seconds=round(seconds, 3),
        machine=machine,
        started=started.isoformat(timespec="seconds"),
        tool=TOOL_VERSION,
        failure=failure and failure[:_LONGEST],
    )


def machine(course: Course) -> str:
    """Return the machine in words, and how many of its cores a run has."""
    devices = Devices(accelerator=course.accelerator, precision=course.precision)
    return f"{devices.described}, {course.threads} used"


def _train(run: SweepRun, course: Course, watcher: Watcher) -> None:
    recipe = replace(course.recipe, seed=run.seed)
    require_size(run.spec, recipe.input)
    devices = Devices(accelerator=course.accelerator, devices=1, precision=course.precision)
    devices.require_sound(run.spec)
    torch.set_num_threads(course.threads)
    keep_freed_memory()
    network = begin(
        Start(spec=run.spec), course.photos.labels, seed=run.seed, new_head=True, images=lambda: ()
    )
    with temporary_folder() as folder:
        job = Job(
            recipe=recipe,
            photos=course.photos.train,
            validation=course.photos.validation,
            classes=len(course.photos.labels),
            folder=folder,
        )
        history = History(job.folder, tensorboard=False, on_disk=False)
        _Unsaved(job, network, devices.fabric()).run(history, watcher)


class _Unsaved(Trainer):
    """Trains without checkpoints: a run of a sweep is short, and begins anew where it is killed."""

    def save(self, history: History) -> None:
        """Keep nothing."""

    def _diverged(self, what: str) -> str:
        rate = f"at a learning rate of {self._last_rate:.3g}"
        return f"diverged: {what}, in {self._where()}, {rate}"


class _Listener:
    """Keeps the epochs of a run, and passes all on."""

    def __init__(self, watcher: Watcher, epochs: list[EpochRecord]) -> None:
        self._watcher = watcher
        self.news, self.skipped, self.stop = watcher.news, watcher.skipped, watcher.stop
        self._epochs = epochs

    def epoch(self, record: EpochRecord) -> None:
        self._epochs.append(record)
        self._watcher.epoch(record)


def _reason(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [""])[0]
    short = isinstance(error, MemoryError | torch.OutOfMemoryError) or "memory" in line.lower()
    return f"out of memory: {line}" if short else f"{type(error).__name__}: {line}"
