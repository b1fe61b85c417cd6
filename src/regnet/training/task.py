"""A run as it was asked for, and its result: values."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from regnet.conversion.store import Library
from regnet.inference.classify import Classifier
from regnet.inference.result import readable
from regnet.network.labels import Label, Labels
from regnet.network.spec import Spec
from regnet.pages.notebook import page_frame
from regnet.system.errors import TrainingError
from regnet.system.json_text import plain_fields
from regnet.system.text import percent
from regnet.training.history import EpochRecord, Watch, Watcher
from regnet.training.photos import MEMORY, Unreadable
from regnet.training.recipe import Changes, Recipe

if TYPE_CHECKING:
    from regnet.training.devices import Devices

SHOWN: Final = 50
"""Unreadable photos that the JSON values name."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """The options of a run beside its recipe and network, kept in its checkpoints to resume it.

    `labels` are the classes if they are not the folders', `truth` is a label file for the photos,
    `entry` the network in checkpoint files that hold several. `memory` is in bytes.
    """

    dataset: str | Path
    val: str | Path | None = None
    labels: Labels | None = None
    truth: str | Path | None = None
    name: str | None = None
    accumulate: int = 1
    compile: bool | None = None
    memory: int = MEMORY
    checkpoint_seconds: float = 600.0
    entry: str | None = None
    devices: "Devices"

    def changed(self, **given: Any) -> Self:
        """Return the command with the options that are given, those not None."""
        options = {name: value for name, value in given.items() if value is not None}
        if devices := options.get("devices"):
            options["devices"] = devices.completed(self.devices)
        return replace(self, **options)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, with absolute paths."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {
            "dataset": absolute(self.dataset),
            "val": self.val and absolute(self.val),
            "truth": self.truth and absolute(self.truth),
            "labels": self.labels and [[label.wnid, label.name] for label in self.labels],
            "devices": asdict(self.devices) | {"precision": self.devices.computed_in},
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the command of `to_dict`. Raises `LookupError`, `TypeError` for other values."""
        from regnet.training.devices import Devices

        labels = values["labels"]
        known = {
            "labels": labels and tuple(Label(wnid, name) for wnid, name in labels),
            "devices": Devices(**values["devices"]),
        }
        return cls(**values | known)


def absolute(path: str | Path) -> str:
    """Return a path or pattern that means the same in every folder; a URL stays."""
    return str(path) if "://" in str(path) else str(Path(path).expanduser().absolute())


@dataclass(frozen=True, kw_only=True)
class Task:
    """A run as it was asked for, its options as those of `train`.

    `recalled`: model and weights are not given, so a run to resume goes on with its own network.
    """

    command: Command
    model: str | Path | Spec | None
    weights: str | Path | None
    from_scratch: bool
    small_stem: bool
    recalled: bool
    recipe: Recipe
    folder: str | Path | None
    resume: bool
    changes: Changes
    library: Library
    watcher: Watcher
    watch: Watch
    say: Callable[[str], None]

    @property
    def keeps_start(self) -> bool:
        """Whether the run to resume has its own network: no weights are read again."""
        return self.recalled and not (self.from_scratch or self.small_stem)


@dataclass(frozen=True, kw_only=True, repr=False)
class Training:
    """A run that ended or, if it is not `finished`, was stopped.

    `model` is the converted model (.xml), `weights` the file it was converted from, of `epoch`,
    counted from 1; both are None before the end. `top1` and `top5` in [0, 1] are the model's own on
    the `val_read` readable ones of the `val_photos` validation photos, None without any.
    `calibrated`: whether its probabilities are. `report` is an HTML page, `unreadable` the photos
    left out. `figures` has the evaluation's and the calibration's. `rank` is this process, if there
    are several.
    """

    folder: Path
    finished: bool
    recipe: Recipe
    records: tuple[EpochRecord, ...]
    train_photos: int
    val_photos: int
    val_read: int = 0
    epoch: int = 0
    weights: Path | None = None
    model: Path | None = None
    report: Path | None = None
    top1: float | None = None
    top5: float | None = None
    calibrated: bool = False
    unreadable: tuple[Unreadable, ...] = ()
    remarks: tuple[str, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)
    rank: int = 0
    assumed: tuple[str, ...] = ()

    def __repr__(self) -> str:
        epochs = f"{len(self.records):,} of {self.recipe.schedule.epochs:,} epochs"
        top1 = "" if self.top1 is None else f", validation top-1 {percent(self.top1)}"
        return f"<Training in {self.folder}: {epochs}{top1}>"

    def _repr_html_(self) -> str | None:
        """Return the report for a notebook; None if it was not written."""
        known = self.report is not None and self.report.is_file()
        return page_frame(self.report.read_text("utf-8")) if self.report and known else None

    def classifier(self, **options: Any) -> Classifier:
        """Return the model as `regnet.load` does; raises `TrainingError` before the run's end."""
        if self.model is None:
            raise TrainingError(
                f"the run in {self.folder} is not over, so it has no model yet: go on with it "
                "(resume=True)"
            )
        from regnet.inference.classify import load

        return load(self.model, **options)

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain JSON values, as docs/train.md lists them."""
        values = plain_fields(self)
        del values["rank"], values["figures"]
        photos = self.unreadable[:SHOWN]
        shown = [{"source": readable(p.source), "error": p.error} for p in photos]
        counts = {"unreadable": len(self.unreadable), "unreadable_images": shown}
        return values | counts | self.figures
