"""`regnet space sweep`: train a population of networks, one record per run.

The file of records says which runs are done, so that a killed sweep can continue.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module, resources
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from regnet.network.spec import Spec, spec_from_dict
from regnet.space.networks import Frame
from regnet.space.plans import RECIPE, Budget, Population
from regnet.space.records import RecordFile, RunRecord, Setting
from regnet.space.sampling import Window, sample
from regnet.system.errors import SpaceError, SpecError, reason_of
from regnet.system.parallel import Watch, unwatched
from regnet.training.history import Watcher
from regnet.training.recipe import Changes, Recipe, read_recipe, recipe_from_toml, resolved

if TYPE_CHECKING:
    from regnet.space.sweep_run import Course, SweepRun

_SAMPLED = 100  # networks of a sample, unless told otherwise


@dataclass(frozen=True, kw_only=True)
class Swept:
    """The result of a sweep: all records of its population; `new` are those of this call."""

    path: Path
    space: str
    setting: Setting
    records: tuple[RunRecord, ...]
    new: tuple[RunRecord, ...]

    @property
    def failed(self) -> tuple[RunRecord, ...]:
        """The runs without a result."""
        return tuple(record for record in self.records if record.failure is not None)

    @property
    def best(self) -> RunRecord | None:
        """The run with the least error, if any has one."""
        results = [record for record in self.records if record.error is not None]
        return min(results, key=lambda record: record.error or 0.0, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        return {
            "records": str(self.path),
            "space": self.space,
            "setting": asdict(self.setting),
            "runs": len(self.records),
            "new": len(self.new),
            "failed": [record.to_dict() for record in self.failed],
            "best": self.best and self.best.to_dict(),
        }


class SweepWatcher(Watcher, Protocol):
    """Called during a sweep, and during the runs of this process."""

    def planned(self, space: str, there: Sequence[RunRecord], left: int) -> None:
        """Receive the records that exist and the number of runs left."""
        return

    def finished(self, record: RunRecord) -> None:
        """Receive a run that has ended; its record is on disk."""
        return


class UnseenSweep(SweepWatcher):
    """Ignores everything."""


def sweep(
    population: Population,
    budget: Budget,
    dataset: str | Path,
    output: Path,
    *,
    val: str | Path | None = None,
    retry_failed: bool = False,
    watcher: SweepWatcher | None = None,
    watch: Watch = unwatched,
    say: Callable[[str], None] = lambda message: None,
) -> Swept:
    """Train the networks without a record in `output`, and add a record of each.

    `dataset` and `val` are photos as for `regnet.train`. A run that fails leaves a record with the
    reason; `retry_failed` repeats such runs. Raises `SpaceError`, `UnknownModelError`,
    `RecipeError`, `DatasetError`, `TrainingError`, `OutputError`, `ClusterError`,
    `MissingExtraError`.
    """
    space, watcher = population.name, watcher or UnseenSweep()
    with RecordFile(output) as file:
        course = _course(budget, dataset, val, watch, say)
        setting = course.setting
        _require_setting(file, setting)
        planned = {run.key(setting): run for run in _runs(population, setting)}
        records = {record.key: record for record in file.records}
        done = file.keys(failed=not retry_failed)
        left = [run for key, run in planned.items() if key not in done]
        watcher.planned(space, [records[key] for key in planned if key in done], len(left))
        new = []
        for record in _trained(left, course, budget, watcher):
            file.append(record)
            records[record.key] = record
            new.append(record)
            watcher.finished(record)
    every = tuple(records[key] for key in planned if key in records)
    return Swept(path=output, space=space, setting=setting, records=every, new=tuple(new))


def read_budget_recipe(name_or_path: str | Path) -> Recipe:
    """Return a recipe by name or file, or the sweep's own. Raises `RecipeError`."""
    if str(name_or_path) != RECIPE:
        return read_recipe(name_or_path)
    file = resources.files("regnet.training").joinpath("recipes", f"{RECIPE}.toml")
    return recipe_from_toml(file.read_text("utf-8"), source=f"recipe {RECIPE}")


def _course(
    budget: Budget,
    dataset: str | Path,
    val: str | Path | None,
    watch: Watch,
    say: Callable[[str], None],
) -> "Course":
    """Return how all networks are trained, with the photos in memory."""
    import_module("regnet.training.devices")  # names the missing extra, before others do
    from regnet.space.sweep_run import Course, open_sweep_photos, sweep_recipe
    from regnet.training.devices import batch_by_photos

    given = budget.recipe
    recipe = given if isinstance(given, Recipe) else read_budget_recipe(given)
    changes = Changes(
        epochs=budget.epochs, crop=budget.resolution, batch=budget.batch, lr=budget.lr
    )
    recipe = sweep_recipe(resolved(recipe, changes, None))
    photos = open_sweep_photos(dataset, val, recipe, memory=budget.memory, watch=watch)
    if lost := photos.unreadable:
        say(
            f"{len(lost):,} photos cannot be read and are left out, such as {lost[0].source}: "
            f"{lost[0].error}"
        )
    batch = recipe.schedule.batch or batch_by_photos(len(photos.train), gpu=False)
    gpu = budget.gpus > 0
    return Course(
        recipe=recipe.changed("schedule", batch=batch),
        photos=photos,
        accelerator="cuda" if gpu else "cpu",
        precision="bf16-mixed" if gpu else "32-true",
        threads=budget.cpus,
    )


def _require_setting(file: RecordFile, setting: Setting) -> None:
    """Raise `SpaceError` if the file has runs of another setting."""
    for record in file.records:
        if record.setting != setting:
            old, new = asdict(record.setting), asdict(setting)
            name = next(name for name in old if old[name] != new[name])
            raise SpaceError(
                f"{file.path} has runs of another setting ({name} {old[name]!r}, not "
                f"{new[name]!r}), which cannot be compared: name another file"
            )


def _runs(population: Population, setting: Setting) -> "Iterator[SweepRun]":
    """Yield the runs of a population; the costs of a sample are those at the setting's size."""
    from regnet.space.sweep_run import SweepRun

    source = population.open()
    if isinstance(source, Path):
        if population.window != Window():
            raise SpaceError(f"ranges choose what is drawn from a space; {source} is a file")
        specs = _read_specs(source, population.count)
        if population.small_stem:
            specs = [spec.with_small_stem() for spec in specs]
    else:
        frame = Frame(image_size=setting.image_size, classes=setting.classes)
        frame = frame.with_small_stem() if population.small_stem else frame
        count, seed = population.count or _SAMPLED, population.seed
        drawn = sample(source, count, seed=seed, window=population.window, frame=frame)
        specs = [one.spec for one in drawn]
    for spec in specs:
        spec = spec.with_classes(setting.classes)
        yield SweepRun(space=population.name, spec=spec, seed=population.seed)


def _read_specs(path: Path, count: int | None) -> list[Spec]:
    """Return the first `count` specs of a file of JSON lines; raises `SpaceError`."""
    specs: list[Spec] = []
    try:
        with path.open(encoding="utf-8") as file:
            numbered = ((n, line) for n, line in enumerate(file, start=1) if line.strip())
            for number, line in islice(numbered, count):
                try:
                    if not isinstance(values := json.loads(line), dict):
                        raise ValueError("not a JSON object")
                    specs.append(spec_from_dict(values))
                except (ValueError, RecursionError, SpecError) as exc:
                    raise SpaceError(
                        f"{path}, line {number}: not a network of `regnet space sample`: {exc}"
                    ) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise SpaceError(f"cannot read the specs {path}: {reason_of(exc)}") from exc
    if not specs:
        raise SpaceError(f"{path}: contains no spec")
    return specs


def _trained(
    runs: "Sequence[SweepRun]", course: "Course", budget: Budget, watcher: SweepWatcher
) -> Iterator[RunRecord]:
    """Yield the records of runs as they end, in this process or on a cluster."""
    from regnet.space.sweep_run import train_one, train_spread

    if budget.ray is not None and runs:
        return train_spread(
            runs, course, address=budget.ray, gpus=budget.gpus, retries=budget.retries
        )
    return (train_one(run, course, watcher=watcher) for run in runs)
