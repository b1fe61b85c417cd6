"""Resuming a run: what its checkpoint says of it, and whether it can go on as asked."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from hashlib import sha384
from pathlib import Path
from typing import Any, Final

from regnet.conversion.store import Library
from regnet.inference.predictors import parse_choice
from regnet.ir.metadata import InferencePrecision
from regnet.network.spec import Spec, network_title, spec_to_dict
from regnet.system.checked import Checked
from regnet.system.errors import TrainingError, reason_of
from regnet.system.files import sha384_of
from regnet.training.initial_network import Start, converted
from regnet.training.photo_sets import PhotoSets
from regnet.training.recipe import Recipe, recipe_from_toml
from regnet.training.run_folder import LAST, RECIPE, WEIGHTS, read_run, resuming
from regnet.training.task import Command

_EPOCHS, _BATCH, _WARMUP = "schedule.epochs", "schedule.batch", "schedule.warmup_epochs"
_MAY_CHANGE: Final = ("optimizer.lr", "optimizer.clip_norm", _EPOCHS, "schedule.patience")


@dataclass(frozen=True, kw_only=True)
class Source(Checked, error=TrainingError):
    """A model that a run uses: its `name`, and its `content` as a hash of its files."""

    name: str
    content: str


@dataclass(frozen=True, kw_only=True)
class About(Checked, error=TrainingError):
    """What a run's weights depend on besides its recipe, as its checkpoints keep it.

    `photos` is the fingerprint of the data set, `described` the same in words. `labels` are pairs
    of wnid and name. `start` is None for random weights.
    """

    photos: str
    described: str
    labels: tuple[tuple[str, str], ...]
    network: Spec
    start: Source | None
    teachers: tuple[Source, ...]
    accumulate: int
    precision: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return super().to_dict() | {"network": spec_to_dict(self.network)}


def about(
    start: Start,
    sets: PhotoSets,
    teachers: Iterable[str],
    *,
    accumulate: int,
    precision: str,
    library: Library,
) -> About:
    """Return what a run depends on; the files of all models are read to hash them."""
    validating = 0 if sets.validation is None else sets.validation.count
    own = None
    if start.state is not None:
        own = Source(name=start.source, content=_content(start.source, library, "f32"))
    return About(
        photos=sets.fingerprint,
        described=f"{len(sets.train):,} of {sets.path} and {validating:,} to validate with",
        labels=tuple((label.wnid, label.name) for label in sets.labels),
        network=start.spec.with_classes(len(sets.labels)),
        start=own,
        teachers=tuple(_teacher(teacher, library) for teacher in teachers),
        accumulate=accumulate,
        precision=precision,
    )


def _teacher(text: str, library: Library) -> Source:
    """Return a teacher; its engine and precision are part of its content."""
    choice = parse_choice(text)
    content = _content(choice.model, library, choice.precision)
    return Source(name=text, content=f"{content} {choice.runs_on} {choice.precision}")


def _content(model: str, library: Library, precision: InferencePrecision) -> str:
    """Return a hash of a model's files, and of the entry chosen among several networks in them.

    The files are an IR with its .bin, a card's weights, a file, or a folder's.
    """
    path = Path(model)
    if converted(model, library):
        path = library.ir(model, precision=precision)
        paths = [path, path.with_suffix(".bin")]
    elif path.is_dir():
        paths = sorted(p for p in path.rglob("*") if p.is_file())
    else:
        paths = [path if path.exists() else library.request(model).weights]
    digest = sha384((library.entry or "").encode())
    try:
        for path in paths:
            digest.update(bytes.fromhex(sha384_of(path)))
    except OSError as exc:
        raise TrainingError(f"cannot read {exc.filename}: {reason_of(exc)}") from exc
    return digest.hexdigest()


def differences(before: About, now: About) -> Iterator[str]:
    """Yield how a run differs from the one that was started, in words."""
    if before.photos != now.photos:
        yield f"on other photos ({before.described}; now {now.described})"
    if before.labels != now.labels:
        yield f"with other classes ({_labels(before, now)})"
    if before.network != now.network:
        yield f"with another network ({_networks(before.network, now.network)})"
    if _contents(before.start) != _contents(now.start):
        yield f"from other weights ({_names(before.start)}; now {_names(now.start)})"
    if _contents(*before.teachers) != _contents(*now.teachers):
        yield f"with other teachers ({_names(*before.teachers)}; now {_names(*now.teachers)})"


def _contents(*sources: Source | None) -> list[str]:
    return [source.content for source in sources if source]


def _names(*sources: Source | None) -> str:
    """Return the names of models, each with the first digits of its hash: a file may change."""
    named = [f"{source.name} [{source.content[:8]}]" for source in sources if source]
    return ", ".join(named) or "none"


def _labels(before: About, now: About) -> str:
    if len(before.labels) != len(now.labels):
        return f"{len(before.labels):,}; now {len(now.labels):,}"
    pairs = zip(before.labels, now.labels, strict=True)
    place, (was, became) = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
    return f"class {place} was {' '.join(was).strip()!r}, now {' '.join(became).strip()!r}"


def _networks(before: Spec, now: Spec) -> str:
    """Return both networks; if they have one name, the first value in which they differ."""
    names = network_title(before), network_title(now)
    if names[0] != names[1]:
        return f"{names[0]}; now {names[1]}"
    was, became = spec_to_dict(before), spec_to_dict(now)
    key = next((key for key in was | became if was.get(key) != became.get(key)), "spec")
    return f"{key} {was.get(key)}; now {became.get(key)}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run as its checkpoints keep it.

    `notes` are sentences on what was changed each time that it was resumed.
    """

    recipe: Recipe
    about: About
    command: Command
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        parts = {"about": self.about.to_dict(), "command": self.command.to_dict()}
        return parts | {"recipe": self.recipe.to_toml(), "notes": list(self.notes)}


@dataclass(frozen=True, kw_only=True)
class Past(Plan):
    """A run up to its last checkpoint.

    `epoch` epochs are done and `step` steps of the next; `best` is the best epoch, 0 without one.
    """

    folder: Path
    epoch: int
    step: int
    best: int

    def continued(self, wanted: Recipe, now: About, *, epochs_given: bool) -> tuple[Recipe, str]:
        """Return the recipe to resume with, and a sentence on what it changes, "" for nothing.

        `wanted` may have another learning rate, clip_norm, patience, and number of epochs; `now`
        another precision and accumulate. With `epochs_given`, a warm-up with the recipe's share
        of the epochs is no difference. Raises `TrainingError` that names all other differences,
        and for a change without effect.
        """
        was, became = _flat(self.recipe), _flat(wanted)
        # the warm-up of a run that gets more epochs stays as it was, as does a batch chosen for it
        ignored = [_WARMUP] if epochs_given or was[_EPOCHS] != became[_EPOCHS] else []
        ignored += [] if wanted.schedule.batch else [_BATCH]
        changed = [name for name in was if was[name] != became[name] and name not in ignored]
        reasons = list(differences(self.about, now))
        if fixed := [name for name in changed if name not in _MAY_CHANGE]:
            values = "; ".join(f"{name} {was[name]}, now {became[name]}" for name in fixed)
            reasons.insert(0, f"with another recipe ({values})")
        if reasons:
            weights = self.folder / WEIGHTS
            first = "" if weights.exists() else "let it end, then "
            raise TrainingError(
                f"{self.folder / LAST}: that run was started {', '.join(reasons)}. To resume it as "
                f"it was: {resuming(self.folder)}. For a run with these values, name a new folder; "
                f"to begin it with this run's weights, {first}give --weights {weights} instead of "
                "--model"
            )
        recipe = replace(self.recipe, teachers=wanted.teachers)
        for part, _, key in (name.partition(".") for name in changed):
            recipe = recipe.changed(part, **{key: getattr(getattr(wanted, part), key)})
        self._require_effect(changed, recipe)
        return recipe, self._note(changed, recipe, now)

    def _require_effect(self, changed: list[str], recipe: Recipe) -> None:
        """Raise `TrainingError` if the run would end at once, or has passed its end."""
        schedule, reached = recipe.schedule, self.epoch + (self.step > 0)
        if schedule.epochs < reached:
            raise TrainingError(
                f"{self.folder}: epoch {reached} was reached, so --epochs must be at least "
                f"{reached}"
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

    def _note(self, changed: list[str], recipe: Recipe, now: About) -> str:
        """Return a sentence on what changes for the epochs to come."""
        if recipe.schedule.epochs == self.epoch:
            return ""
        was, became = _flat(self.recipe), _flat(recipe)
        values = [f"{name} {was[name]} -> {became[name]}" for name in changed]
        for name in ("accumulate", "precision"):
            before, after = getattr(self.about, name), getattr(now, name)
            values += [f"{name} {before} -> {after}"] if before != after else []
        if not values:
            return ""
        old, new = (f"{r.lr_at(self.epoch):.3g}" for r in (self.recipe, recipe))
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
    except (LookupError, TypeError, TrainingError) as exc:
        raise TrainingError(
            f"{folder / LAST}: was written by another version ({exc!r}). Resume with that version, "
            "or start the run again in another folder"
        ) from exc


def _flat(recipe: Recipe) -> dict[str, Any]:
    """Return the values of a recipe by `part.name`, without its teachers: `About` has these."""
    flat: dict[str, Any] = {}
    for key, value in asdict(recipe).items():
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": each for name, each in value.items()}
        elif key != "teachers":
            flat[key] = value
    return flat
