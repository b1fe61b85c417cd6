"""The runs of a sweep: photos are read once, and each network is trained to a record."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NoReturn

import torch

from regnet.cluster.session import Cluster, connected
from regnet.data.labelled import LabelledItem, Unreadable
from regnet.network.complexity import complexity
from regnet.network.labels import Labels
from regnet.network.spec import Spec
from regnet.pixels.protocol import Preprocess
from regnet.space.records import RunRecord, Setting, run_key
from regnet.system.errors import ClusterError, RegNetError, SpecError, TrainingError
from regnet.system.files import temporary_folder
from regnet.system.parallel import Watch, unwatched
from regnet.system.version import TOOL_VERSION
from regnet.training.devices import is_shortage, keep_freed_memory
from regnet.training.history import EpochRecord, History, Unseen, Watcher
from regnet.training.initial_network import Start, begin, require_size
from regnet.training.loop import Trainer
from regnet.training.photo_sets import PhotoSets, open_photo_sets
from regnet.training.photos import MEMORY, Batch, CentreCrops, LabelledPhotos, Pixels
from regnet.training.recipe import Input, Recipe
from regnet.training.state import Job
from regnet.training.task import Devices

_BATCH: Final = 256  # validation photos per batch
_DIGITS: Final = 12  # of the photos' fingerprint
_HASH_DIGITS: Final = 16  # of the recipe's
_SEED: Final = 0  # of the held-out photos: the same ones validate all runs
_LONGEST: Final = 300  # characters of a reason
_GROUP: Final = Path("/sys/fs/cgroup")


class HeldPhotos(LabelledPhotos):
    """Photos whose pixels are in memory, so that they can be sent to other processes."""

    def __init__(self, photos: LabelledPhotos) -> None:
        super().__init__(_closed(photos.items), short_side=1, memory=0)
        self._held: list[Pixels | Unreadable] = [photos.pixels(n) for n in range(len(photos))]


class HeldCrops(CentreCrops):
    """Batches of centre crops in memory, likewise."""

    def __init__(self, crops: CentreCrops, items: Sequence[LabelledItem], rule: Preprocess) -> None:
        super().__init__(_closed(items), rule, batch=_BATCH)
        self._kept: list[Batch] | None = list(crops.batches())

    def shared(self, process: int, processes: int) -> CentreCrops:
        """Return all of them: a run of a sweep is one process."""
        return self


@dataclass(frozen=True, kw_only=True)
class SweepPhotos:
    """The training and validation photos of a sweep; `data` is their name and fingerprint."""

    data: str
    labels: Labels
    train: HeldPhotos
    validation: HeldCrops

    @property
    def unreadable(self) -> tuple[Unreadable, ...]:
        """The photos that cannot be read and are left out."""
        lost = [photo for batch in self.validation.batches() for photo in batch.unreadable]
        return (*self.train.unreadable, *lost)


def open_sweep_photos(
    dataset: str | Path,
    val: str | Path | None,
    recipe: Recipe,
    *,
    memory: int = MEMORY,
    watch: Watch = unwatched,
) -> SweepPhotos:
    """Read a data set's photos at the size that the recipe needs.

    As in `regnet.train`, its splits or `val` validate, else a tenth of each class. Raises
    `DatasetError`, and `TrainingError` if photos are missing or do not fit into `memory` bytes.
    """
    sets = open_photo_sets(dataset, val, None, seed=_SEED)
    largest = max([recipe.input.crop, *(size for _, size in recipe.input.progressive)])
    photos = LabelledPhotos(sets.train, short_side=2 * largest, memory=memory, watch=watch)
    if not photos.in_memory:
        raise TrainingError(
            f"the {len(photos):,} photos of {sets.path} do not fit into {memory / 2**30:.1f} GiB "
            "at this size, and each run would read them again: take smaller crops, fewer photos, "
            "or allow more (--memory)"
        )
    if len(photos.unreadable) == len(photos):
        first = photos.unreadable[0]
        raise TrainingError(f"no photo can be read, such as {first.source}: {first.error}")
    fingerprint = sha256(sets.fingerprint.encode()).hexdigest()[:_DIGITS]
    return SweepPhotos(
        data=f"{Path(dataset).resolve().name}@{fingerprint}",
        labels=sets.labels,
        train=HeldPhotos(photos),
        validation=_validation(sets, recipe.input),
    )


def _validation(sets: PhotoSets, size: Input) -> HeldCrops:
    if sets.validation is None or not sets.validation.count:
        raise TrainingError(
            f"{sets.path}: there are no photos to validate with: put some into a folder of their "
            "own (--val), or ten or more into each class"
        )
    items, rule = tuple(sets.validation.items()), size.protocol("sweep")
    held = HeldCrops(CentreCrops(items, rule, batch=_BATCH), items, rule)
    if not any(len(batch.truths) for batch in held.batches()):
        raise TrainingError(f"none of the {len(items):,} validation photos can be read")
    return held


def _closed(items: Sequence[LabelledItem]) -> tuple[LabelledItem, ...]:
    """Return items with their class alone, which can be pickled."""
    return tuple(replace(item, read=_not_here) for item in items)


def _not_here() -> NoReturn:
    raise TrainingError("this photo is held in memory alone")


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """A network of a space to train, and the seed of the run."""

    space: str
    spec: Spec
    seed: int

    def key(self, setting: Setting) -> str:
        """Return the key of its record."""
        return run_key(self.space, self.spec, self.seed, setting)


@dataclass(frozen=True, kw_only=True)
class Course:
    """How all networks of a sweep are trained: the recipe, the photos and the device.

    The number of CPU `threads` of a run changes rounding.
    """

    recipe: Recipe
    photos: SweepPhotos
    precision: str
    accelerator: str = "cpu"
    threads: int = 1

    @property
    def setting(self) -> Setting:
        """The setting of its records."""
        return Setting(
            data=self.photos.data,
            train_photos=len(self.photos.train),
            val_photos=len(self.photos.validation),
            classes=len(self.photos.labels),
            image_size=self.recipe.input.crop,
            epochs=self.recipe.schedule.epochs,
            recipe=recipe_hash(self.recipe, self.precision),
        )


def sweep_recipe(recipe: Recipe) -> Recipe:
    """Return a recipe as a sweep follows it: from random weights, to the last epoch.

    Errors are those after each epoch, so precise statistics after the last would change nothing.
    """
    recipe = recipe.changed("transfer", pretrained=False).changed("schedule", patience=0)
    return replace(recipe.changed("averages", precise_bn=0), seed=0)


def recipe_hash(recipe: Recipe, precision: str) -> str:
    """Return a hash of a recipe without its seed, and of the precision."""
    text = f"{replace(recipe, seed=0).to_toml()}\nprecision = {precision}\n"
    return sha256(text.encode()).hexdigest()[:_HASH_DIGITS]


def train_one(run: SweepRun, course: Course, *, watcher: Watcher | None = None) -> RunRecord:
    """Train a network and return its record; if that fails, the record has the reason.

    With the same number of threads a run gives the same errors. Raises `RegNetError` if the machine
    is at fault, not the network.
    """
    start = datetime.now(UTC), time.perf_counter()
    history = History(Path(), tensorboard=False, on_disk=False)
    failure = None
    try:
        with memory_limit():
            _train(run, course, history, watcher or Unseen())
    except (TrainingError, SpecError) as exc:
        failure = str(exc)
    except RegNetError:
        raise
    except Exception as exc:  # torch raises many kinds if memory is short
        failure = _reason(exc)
    devices = Devices(accelerator=course.accelerator, precision=course.precision)
    machine = f"{devices.described}, {course.threads} used"
    return _record(run, course, history.records, machine, start, failure)


def _record(
    run: SweepRun,
    course: Course,
    epochs: Sequence[EpochRecord],
    machine: str,
    start: tuple[datetime, float],
    failure: str | None,
) -> RunRecord:
    """Return the record of a run; `start` is its time and clock."""
    setting = course.setting
    return RunRecord(
        space=run.space,
        spec=run.spec,
        **vars(complexity(run.spec, image_size=setting.image_size)),
        setting=setting,
        seed=run.seed,
        errors=tuple(1 - (epoch.val_top1 or 0.0) for epoch in epochs),
        losses=tuple(epoch.loss for epoch in epochs),
        seconds=round(time.perf_counter() - start[1], 3),
        machine=machine,
        started=start[0].isoformat(timespec="seconds"),
        tool=TOOL_VERSION,
        failure=failure and failure[:_LONGEST],
    )


def _train(run: SweepRun, course: Course, history: History, watcher: Watcher) -> None:
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
        _Unsaved(job, network, devices.fabric()).run(history, watcher)


class _Unsaved(Trainer):
    """Trains without checkpoints: a run of a sweep is short, and is restarted if it is killed."""

    def save(self, history: History) -> None:
        """Keep nothing."""

    def _diverged(self, what: str) -> str:
        rate = f"at a learning rate of {self._last_rate:.3g}"
        return f"diverged: {what}, in {self._where()}, {rate}"


def _reason(error: Exception) -> str:
    what = "out of memory" if is_shortage(error) else type(error).__name__
    return f"{what}: {_line(error)}"


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]


@contextmanager
def memory_limit() -> Iterator[None]:
    """Let allocations beyond the memory now free fail, so that the system need not kill us.

    Does nothing if the system does not say what is free, as on all but Linux.
    """
    try:
        import resource

        free, used = free_memory(), _kilobytes("/proc/self/status", "VmData")
    except (ImportError, OSError):
        free = used = None
    if free is None or used is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [n for n in (used + free, soft, hard) if n != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def free_memory() -> int | None:
    """Return the bytes that this process may still allocate, also within a container."""
    free = _kilobytes("/proc/meminfo", "MemAvailable")
    with suppress(OSError, ValueError):
        most, used = (int((_GROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        rows = (line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        cached = int(dict(rows).get("inactive_file", 0))
        left = most - (used - cached)
        free = left if free is None else min(free, left)
    return free


def _kilobytes(path: str, name: str) -> int | None:
    """Return the value of a line such as "MemFree: 12 kB", in bytes."""
    for line in Path(path).read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def train_spread(
    runs: Sequence[SweepRun], course: Course, *, address: str, gpus: float, retries: int
) -> Iterator[RunRecord]:
    """Yield the records of runs on a Ray cluster as they end; the photos go to each node once.

    A run has `course.threads` CPUs and a share of the GPUs. If its worker is lost, it is restarted
    up to `retries` times and then fails. Raises `ClusterError` if no node is large enough.
    """
    with connected(address) as cluster:
        import ray

        _require_room(ray, cluster, course.threads, gpus)
        task = ray.remote(num_cpus=course.threads, num_gpus=gpus, max_retries=retries)(train_one)
        shared = ray.put(course)
        waiting = {task.remote(run, shared): run for run in runs}
        start = datetime.now(UTC), time.perf_counter()
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            run = waiting.pop(done)
            try:
                yield ray.get(done)
            except ray.exceptions.RayTaskError as exc:
                if isinstance(exc.cause, RegNetError):
                    raise exc.cause from exc
                raise ClusterError(f"a run failed: {exc.cause!r}") from exc
            except ray.exceptions.RayError as exc:
                reason = _line(exc) or type(exc).__name__
                failure = f"lost its worker {retries + 1} times: {reason}"
                yield _record(run, course, (), "a worker that was lost", start, failure)


def _require_room(ray: Any, cluster: Cluster, cpus: int, gpus: float) -> None:
    """Raise `ClusterError` if a run would wait for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(n.get("CPU", 0) >= cpus and n.get("GPU", 0) >= gpus for n in nodes):
        raise ClusterError(
            f"no node of {cluster.described} has {cpus} CPUs and {gpus:g} GPUs for a run: ask for "
            "less (--cpus-per-run, --gpus-per-run)"
        )
