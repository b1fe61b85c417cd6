"""A run as it was asked for, and what comes out of it: values."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from regnet.conversion.store import Library
from regnet.inference.classify import Classifier
from regnet.inference.result import readable
from regnet.network.spec import Spec
from regnet.system.errors import TrainingError
from regnet.training.command import Command
from regnet.training.history import EpochRecord
from regnet.training.photos import Unreadable
from regnet.training.recipe import Recipe

if TYPE_CHECKING:
    from regnet.training.job import Watcher
    from regnet.training.watching import Watch


SHOWN: Final = 50
"""Unreadable photos that the JSON values name."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What is to be different from the recipe; None, or no teachers, leaves it as it is.

    `lr` is for `per` images a step, as in the recipe; the warm-up keeps its share of the `epochs`.
    """

    epochs: int | None = None
    batch: int | None = None
    lr: float | None = None
    seed: int | None = None
    crop: int | None = None
    freeze: int | None = None
    teachers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Origin:
    """The network to begin with, as the options of `train` name it.

    `recalled` says that they leave it to the run to resume, whose network goes on.
    """

    model: str | Path | Spec | None
    weights: str | Path | None
    from_scratch: bool
    small_stem: bool
    recalled: bool


@dataclass(frozen=True, kw_only=True)
class Task:
    """A run as it was asked for, its options as those of `train`."""

    command: Command
    origin: Origin
    recipe: Recipe
    folder: str | Path | None
    resume: bool
    changes: Changes
    library: Library
    watcher: "Watcher"
    watch: "Watch"
    say: Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Training:
    """A run that is over or, where it is not `finished`, was stopped.

    `model` is the converted model (.xml), `weights` the file it was converted from, of `epoch`,
    counted from 1; both are None before the end. `top1` and `top5` in [0, 1] are the model's own on
    the `val_read` of the `val_photos` validation photos that could be read, None without any.
    `calibrated` says whether its probabilities are. `report` is an HTML page, `unreadable` the
    photos left out. `figures` has the evaluation's and the calibration's. `rank` is the process, of
    several, that returns this.
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
        paths = {name: vars(self)[name] for name in ("folder", "model", "weights", "report")}
        return {
            **{name: path and str(path) for name, path in paths.items()},
            "finished": self.finished,
            "epoch": self.epoch,
            "top1": self.top1,
            "top5": self.top5,
            "calibrated": self.calibrated,
            "train_photos": self.train_photos,
            "val_photos": self.val_photos,
            "val_read": self.val_read,
            "assumed": list(self.assumed),
            "unreadable": len(self.unreadable),
            "unreadable_images": [
                {"source": readable(photo.source), "error": photo.error}
                for photo in self.unreadable[:SHOWN]
            ],
            "remarks": list(self.remarks),
            "records": [record.to_dict() for record in self.records],
            "recipe": asdict(self.recipe),
            **self.figures,
        }
