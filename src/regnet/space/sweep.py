"""`regnet space sweep`: trains a population of networks, one record a run.

The file of records says what is done: the same sweep goes on where it was killed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from regnet.space.population import draw_specs, open_population, read_specs
from regnet.space.records import RecordFile, RunRecord, Setting
from regnet.space.sampling import Window
from regnet.system.errors import SpaceError
from regnet.training.photos import MEMORY
from regnet.training.recipe import Recipe, read_recipe, recipe_from_toml
from regnet.training.resolve import resolved
from regnet.training.task import Changes

if TYPE_CHECKING:
    from regnet.space.sweep_photos import SweepPhotos
    from regnet.space.sweep_run import Course, SweepRun
    from regnet.training.job import Watcher
    from regnet.training.watching import Watch

RECIPE: Final = "sweep"
"""The paper's low-budget setting."""


@dataclass(frozen=True, kw_only=True)
class Population:
    """Which networks: a space or a file of specs, the first `count`, and the seed of all runs.

    The seed draws the sample, too. `space` names that of a file; its stem is the default.
    """

    source: str | Path
    space: str | None = None
    count: int | None = None
    seed: int = 0
    window: Window = field(default_factory=Window)
    small_stem: bool = False


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How each network is trained: a recipe and what is to be different from it.

    A run has `cpus` threads and `gpus` of a GPU. With an address of a Ray cluster they run there,
    and one that lost its worker begins again, `retries` times.
    """

    epochs: int
    recipe: str | Path | Recipe = RECIPE
    resolution: int | None = None
    batch: int | None = None
    lr: float | None = None
    cpus: int = 1
    gpus: float = 0.0
    ray: str | None = None
    retries: int = 2
    memory: int = MEMORY


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What a sweep has come to: all records of its population, those of earlier turns included.

    `new` are those of this turn.
    """

    path: Path
    space: str
    setting: Setting
    records: tuple[RunRecord, ...]
    new: tuple[RunRecord, ...]

    @property
    def failed(self) -> tuple[RunRecord, ...]:
        """The runs that have no result."""
        return tuple(record for record in self.records if record.failure is not None)

    @property
    def best(self) -> RunRecord | None:
        """The run of the least error."""
        return best_of(self.records)

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain JSON values."""
        return {
            "records": str(self.path),
            "space": self.space,
            "setting": asdict(self.setting),
            "runs": len(self.records),
            "new": len(self.new),
            "failed": [record.to_dict() for record in self.failed],
            "best": self.best and self.best.to_dict(),
        }


class SweepWatcher(Protocol):
    """Whoever watches a sweep."""

    def planned(self, space: str, there: Sequence[RunRecord], left: int) -> None:
        """Hear of what is in the file already, and how many runs are left."""

    def finished(self, record: RunRecord) -> None:
        """Hear of a run that has ended; its record is on disk."""


class Unwatched:
    """A watcher that looks away."""

    def planned(self, space: str, there: Sequence[RunRecord], left: int) -> None:
        """Ignore the plan."""

    def finished(self, record: RunRecord) -> None:
        """Ignore a run."""


def sweep(
    population: Population,
    budget: Budget,
    dataset: str | Path,
    output: Path,
    *,
    val: str | Path | None = None,
    retry_failed: bool = False,
    watcher: SweepWatcher | None = None,
    runs: "Watcher | None" = None,
    watch: "Watch | None" = None,
    say: Callable[[str], None] = lambda message: None,
) -> Swept:
    """Train the networks that `output` has no record of, and add a record of each.

    `dataset` and `val` are photos as for `regnet.train`. A run that fails is a record with its
    reason; with `retry_failed` such are run again. `runs` watches those of this process. Raises
    `SpaceError`, `UnknownModelError`, `RecipeError`, `DatasetError`, `TrainingError`,
    `OutputError`, `ClusterError`, `MissingExtraError`.
    """
    source = open_population(population.source)
    with RecordFile(output) as file:
        course = _course(budget, dataset, val, watch, say)
        _require_setting(file, course.setting)
        space = population.space or (source.stem if isinstance(source, Path) else source.name)
        planned = _planned(population, space, course)
        known = {record.key: record for record in file.records}
        done = file.keys(failed=not retry_failed)
        left = [run for key, run in planned.items() if key not in done]
        watcher = watcher or Unwatched()
        watcher.planned(space, [known[key] for key in planned if key in done], len(left))
        new = []
        for record in _trained(left, course, budget, runs):
            file.append(record)
            known[record.key] = record
            new.append(record)
            watcher.finished(record)
        found = tuple(known[key] for key in planned if key in known)
    return Swept(path=output, space=space, setting=course.setting, records=found, new=tuple(new))


def best_of(records: Sequence[RunRecord]) -> RunRecord | None:
    """Return the record of the least error, if any has one."""
    return min(
        (record for record in records if record.error is not None),
        key=lambda record: record.error or 0.0,
        default=None,
    )


def read_budget_recipe(name_or_path: str | Path) -> Recipe:
    """Return a recipe by name or file; the sweep's own is one more. Raises `RecipeError`."""
    if str(name_or_path) != RECIPE:
        return read_recipe(name_or_path)
    file = resources.files("regnet.training").joinpath("recipes", f"{RECIPE}.toml")
    return recipe_from_toml(file.read_text("utf-8"), source=f"recipe {RECIPE}")


def _course(
    budget: Budget,
    dataset: str | Path,
    val: str | Path | None,
    watch: "Watch | None",
    say: Callable[[str], None],
) -> "Course":
    """Return how all networks are trained, with the photos in memory."""
    import_module("regnet.training.devices")  # says which extra is missing, before others do
    from regnet.space.sweep_photos import open_sweep_photos
    from regnet.space.sweep_run import Course, sweep_recipe
    from regnet.training.watching import unwatched

    given = budget.recipe
    recipe = given if isinstance(given, Recipe) else read_budget_recipe(given)
    changes = Changes(
        epochs=budget.epochs, crop=budget.resolution, batch=budget.batch, lr=budget.lr
    )
    recipe = sweep_recipe(resolved(recipe, changes, None))
    photos = open_sweep_photos(dataset, val, recipe, memory=budget.memory, watch=watch or unwatched)
    _tell_unreadable(photos, say)
    gpu = budget.gpus > 0
    return Course(
        recipe=_with_batch(recipe, len(photos.train)),
        photos=photos,
        accelerator="cuda" if gpu else "cpu",
        precision="bf16-mixed" if gpu else "32-true",
        threads=budget.cpus,
    )


def _with_batch(recipe: Recipe, photos: int) -> Recipe:
    from regnet.training.batch_size import batch_by_photos

    if recipe.schedule.batch:
        return recipe
    return recipe.changed("schedule", batch=batch_by_photos(photos, gpu=False))


def _tell_unreadable(photos: "SweepPhotos", say: Callable[[str], None]) -> None:
    if lost := photos.unreadable:
        say(
            f"{len(lost):,} photos cannot be read and are left out, such as {lost[0].source}: "
            f"{lost[0].error}"
        )


def _require_setting(file: RecordFile, setting: Setting) -> None:
    """Raise `SpaceError` where the file has runs that were trained otherwise."""
    for record in file.records:
        if record.setting != setting:
            old, new = asdict(record.setting), asdict(setting)
            name = next(name for name in old if old[name] != new[name])
            raise SpaceError(
                f"{file.path} has runs of another setting ({name} {old[name]!r}, not "
                f"{new[name]!r}), which cannot be compared: name another file"
            )


def _planned(population: Population, space: str, course: "Course") -> "dict[str, SweepRun]":
    """Return the runs by their keys."""
    from regnet.space.sweep_run import SweepRun

    found = (
        SweepRun(space=space, spec=s, seed=population.seed) for s in _specs(population, course)
    )
    return {course.key(run): course.prepared(run) for run in found}


def _specs(population: Population, course: "Course") -> Any:
    source = open_population(population.source)
    if isinstance(source, Path):
        if population.window != Window():
            raise SpaceError(f"ranges choose what is drawn from a space; {source} is a file")
        specs = read_specs(source, population.count)
        return [spec.with_small_stem() for spec in specs] if population.small_stem else specs
    return draw_specs(
        source,
        population.count,
        seed=population.seed,
        window=population.window,
        image_size=course.setting.image_size,
        classes=course.setting.classes,
        small_stem=population.small_stem,
    )


def _trained(
    runs: "Sequence[SweepRun]", course: "Course", budget: Budget, watcher: "Watcher | None"
) -> Iterator[RunRecord]:
    """Yield the records of runs as they end: here, or on a cluster."""
    if budget.ray is not None and runs:
        from regnet.space.sweep_ray import train_spread

        yield from train_spread(
            runs, course, address=budget.ray, gpus=budget.gpus, retries=budget.retries
        )
        return
    from regnet.space.sweep_run import train_one

    for run in runs:
        yield train_one(run, course, watcher=watcher)
