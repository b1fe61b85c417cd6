"""A run that was stopped: what its checkpoint says of it, and whether it can go on as asked."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from regnet.system.errors import TrainingError
from regnet.training.command import Command, resuming
from regnet.training.provenance import About, differences
from regnet.training.recipe import Recipe, recipe_from_toml
from regnet.training.run_checkpoint import LAST, read_run
from regnet.training.run_folder import RECIPE, WEIGHTS
from regnet.training.schedule import learning_rate

_MAY_CHANGE: Final = (
    "optimizer.lr",
    "optimizer.clip_norm",
    "schedule.epochs",
    "schedule.patience",
)
_EPOCHS, _BATCH, _WARMUP = "schedule.epochs", "schedule.batch", "schedule.warmup_epochs"


@dataclass(frozen=True, kw_only=True)
class Past:
    """A run up to its last checkpoint.

    `epoch` epochs are done and `step` steps of the next; `best` is the best epoch, 0 without one.
    `notes` say in words what was changed when it was resumed before.
    """

    folder: Path
    recipe: Recipe
    about: About
    command: Command
    notes: tuple[str, ...]
    epoch: int
    step: int
    best: int

    def continued(
        self, wanted: Recipe, now: About, *, epochs_given: bool = False
    ) -> tuple[Recipe, str]:
        """Return the recipe to resume with, and what it changes in words, "" for nothing.

        `wanted` may have another learning rate, clip_norm, patience, and number of epochs; `now`
        another precision and accumulate. With `epochs_given`, a warm-up that has the recipe's share
        of the epochs is no difference. Raises `TrainingError` that names all other differences,
        and for a change that would have no effect.
        """
        changed = self._changed(wanted, epochs_given=epochs_given)
        self._require_same([key for key in changed if key not in _MAY_CHANGE], wanted, now)
        recipe = replace(self.recipe, teachers=wanted.teachers)
        for part, _, key in (name.partition(".") for name in changed):
            recipe = recipe.changed(part, **{key: getattr(getattr(wanted, part), key)})
        self._require_effect(changed, recipe)
        return recipe, self._told(changed, recipe, now)

    def _changed(self, wanted: Recipe, *, epochs_given: bool) -> list[str]:
        """Return the names of the recipe's values that differ.

        The warm-up of a run that gets more epochs stays as it was, as does a batch chosen for it.
        """
        was, now = _flat(self.recipe), _flat(wanted)
        changed = [name for name in was if was[name] != now[name]]
        kept = [_WARMUP] if epochs_given or _EPOCHS in changed else []
        kept += [] if wanted.schedule.batch else [_BATCH]
        return [name for name in changed if name not in kept]

    def _require_same(self, fixed: list[str], wanted: Recipe, now: About) -> None:
        reasons = list(differences(self.about, now))
        if fixed:
            was, became = _flat(self.recipe), _flat(wanted)
            values = "; ".join(f"{name} {was[name]}, now {became[name]}" for name in fixed)
            reasons.insert(0, f"with another recipe ({values})")
        if reasons:
            raise TrainingError(
                f"{self.folder / LAST}: that run was started {', '.join(reasons)}. To resume it as "
                f"it was: {resuming(self.folder)}. {self._instead()}"
            )

    def _instead(self) -> str:
        weights = self.folder / WEIGHTS
        first = "" if weights.exists() else "let it end, then "
        return (
            f"For a run with these values, name a new folder; to begin it with this run's "
            f"weights, {first}give --weights {weights} instead of --model"
        )

    def _require_effect(self, changed: list[str], recipe: Recipe) -> None:
        """Raise `TrainingError` if the run would end at once, or has passed its end."""
        schedule, at_least = recipe.schedule, self.epoch + (self.step > 0)
        if schedule.epochs < at_least:
            raise TrainingError(
                f"{self.folder}: epoch {at_least} was reached, so --epochs must be at least "
                f"{at_least}"
            )
        idle = [name for name in changed if name != _EPOCHS]
        if schedule.epochs == self.epoch and idle:
            raise TrainingError(
                f"{self.folder}: {' and '.join(idle)} would change nothing, as all {self.epoch} "
                f"epochs are done. Add epochs, such as --epochs {self.epoch + 10}"
            )
        ended = schedule.patience and self.best and self.epoch - self.best >= schedule.patience
        if changed and ended and schedule.epochs > self.epoch:
            raise TrainingError(
                f"{self.folder}: the run ended after epoch {self.epoch}, with {schedule.patience} "
                "epochs without a better validation. To train on, raise patience in a copy of "
                f"{self.folder / RECIPE} and give it with --recipe"
            )

    def _told(self, changed: list[str], recipe: Recipe, now: About) -> str:
        """Return in words what changes for the epochs to come."""
        if recipe.schedule.epochs == self.epoch:
            return ""
        was, became = _flat(self.recipe), _flat(recipe)
        values = [f"{name} {was[name]} -> {became[name]}" for name in changed]
        for name in ("accumulate", "precision"):
            before, after = getattr(self.about, name), getattr(now, name)
            values += [f"{name} {before} -> {after}"] if before != after else []
        if not values:
            return ""
        rates = (learning_rate(each, self.epoch) for each in (self.recipe, recipe))
        old, new = (f"{rate:.3g}" for rate in rates)
        rate = "" if old == new else f"; the learning rate there is {new}, was {old}"
        return f"From epoch {self.epoch + 1} on: {', '.join(values)}{rate}."


def read_past(folder: Path) -> Past:
    """Return the run whose checkpoint is in a folder. Raises `TrainingError`."""
    values = read_run(folder / LAST)
    try:
        return Past(
            folder=folder,
            recipe=recipe_from_toml(values["recipe"], source=str(folder / LAST)),
            about=About.from_dict(values["about"]),
            command=Command.from_dict(values["command"]),
            notes=tuple(values["notes"]),
            epoch=values["position"]["epoch"],
            step=values["position"]["step"],
            best=values["best"]["epoch"],
        )
    except (LookupError, TypeError) as exc:
        raise TrainingError(
            f"{folder / LAST}: was written by another version ({exc!r}). Resume with that version, "
            "or start the run again in another folder"
        ) from exc


def _flat(recipe: Recipe) -> dict[str, Any]:
    """Return the values of a recipe by `part.name`, without its teachers: `About` has these."""
    return dict(_pairs(asdict(replace(recipe, teachers=()))))


def _pairs(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{name}", each) for name, each in value.items())
        elif key != "teachers":
            yield key, value
