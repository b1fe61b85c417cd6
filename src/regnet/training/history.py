"""The epochs of a training run: who watches them, metrics.csv, TensorBoard's event files."""

import csv
import io
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol

from regnet.data.labelled import Unreadable
from regnet.system.checked import Checked
from regnet.system.errors import TrainingError
from regnet.system.files import write_whole
from regnet.system.output_file import naming

CSV_NAME: Final = "metrics.csv"
TENSORBOARD_NAME: Final = "tensorboard"

_EVENTS: Final = "events.out.tfevents"
_TAGS: Final = {
    "loss": "loss/train",
    "val_loss": "loss/val",
    "train_top1": "top1/train",
    "val_top1": "top1/val",
    "val_top5": "top5/val",
    "lr": "epoch/lr",
    "crop": "epoch/crop",
    "images_per_s": "epoch/images_per_s",
    "skipped": "epoch/skipped",
}


@dataclass(frozen=True, kw_only=True)
class EpochRecord(Checked, error=TrainingError):
    """One finished epoch, counted from 1.

    `lr` at its end, `crop` the side of the training images in pixels, `loss` and `train_top1` their
    means over the augmented images, `val_*` those of the weights to deploy (None: not measured).
    Shares are in [0, 1]. `images_per_s` and `seconds` of training alone; `skipped` photos were
    unreadable.
    """

    epoch: int
    lr: float
    crop: int
    loss: float
    train_top1: float | None
    val_loss: float | None
    val_top1: float | None
    val_top5: float | None
    images_per_s: float
    seconds: float
    skipped: int


def best_record(records: Iterable[EpochRecord]) -> EpochRecord | None:
    """Return the epoch of the highest validation top-1; among ties, of the lowest validation loss.

    Without validation: the epoch of the lowest training loss. The first of equal ones.
    """

    def badness(record: EpochRecord) -> tuple[float, float]:
        if record.val_top1 is None:
            return 0.0, record.loss
        return -record.val_top1, math.inf if record.val_loss is None else record.val_loss

    records = list(records)
    validated = [record for record in records if record.val_top1 is not None]
    return min(validated or records, key=badness, default=None)


class History:
    """The records of a run, written to its folder as they come.

    A resumed run gives the `records` of its checkpoint and its `next_step`: what a killed run wrote
    from there on is dropped. `tensorboard`: whether to write event files, if that package is
    installed. `on_disk` False writes nothing: only one process of a run does. Raises `OutputError`
    at any write that fails.
    """

    def __init__(
        self,
        folder: Path,
        records: Iterable[EpochRecord] = (),
        *,
        next_step: int = 0,
        tensorboard: bool = True,
        on_disk: bool = True,
    ) -> None:
        self._records = list(records)
        self._csv = folder / CSV_NAME if on_disk else None
        self._epochs = self._steps = None
        self._write_csv()
        if on_disk and tensorboard and find_spec("tensorboard"):
            board = folder / TENSORBOARD_NAME
            self._epochs = _Events(board / "epochs", len(self._records) + 1)
            self._steps = _Events(board / "steps", next_step)

    @property
    def records(self) -> tuple[EpochRecord, ...]:
        """The finished epochs."""
        return tuple(self._records)

    def add(self, record: EpochRecord) -> None:
        """Record the next epoch, on disk when this returns."""
        if record.epoch != len(self._records) + 1:
            raise ValueError(f"epoch {record.epoch} after {len(self._records)} epochs")
        self._records.append(record)
        self._write_csv()
        if self._epochs:
            values = {tag: getattr(record, name) for name, tag in _TAGS.items()}
            self._epochs.add(record.epoch, {tag: v for tag, v in values.items() if v is not None})

    def step(self, step: int, loss: float, lr: float) -> None:
        """Write a step's loss and learning rate for TensorBoard."""
        if self._steps:
            self._steps.add(step, {"step/loss": loss, "step/lr": lr})

    def _write_csv(self) -> None:
        if self._csv is not None:
            with naming(self._csv):
                write_whole(self._csv, csv_text(self._records).encode())


def csv_text(records: Iterable[EpochRecord]) -> str:
    """Return the records as CSV: one line per epoch, empty fields where nothing was measured."""
    buffer = io.StringIO()
    names = [f.name for f in fields(EpochRecord)]
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(record.to_dict() for record in records)
    return buffer.getvalue()


class _Events:
    """A file of TensorBoard events; from `first` on they replace those of earlier files.

    Each event is on disk at once. Torch's SummaryWriter has a thread, which a fork would lose, and
    reports a full disk later. Epochs and steps have a folder each, as their numbers overlap.
    """

    def __init__(self, folder: Path, first: int) -> None:
        with naming(folder):
            folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads a folder's files in the order of their names.
        taken = [path.suffix[1:] for path in folder.glob(f"{_EVENTS}.*")]
        number = max((int(text) for text in taken if text.isdecimal()), default=0) + 1
        self._path = folder / f"{_EVENTS}.{number:06}"
        self._append(file_version="brain.Event:2")
        self._append(step=first, session_log={"status": "START"})

    def add(self, step: int, scalars: dict[str, float]) -> None:
        values = [{"tag": tag, "simple_value": value} for tag, value in scalars.items()]
        self._append(step=step, summary={"value": values})

    def _append(self, **values: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

        event = Event(wall_time=time.time(), **values)
        with naming(self._path), self._path.open("ab") as stream:
            RecordWriter(stream).write(event.SerializeToString())


@dataclass(frozen=True, kw_only=True)
class News:
    """Progress of a run; `loss` and `top1` (0..1) are means of the epoch so far, of one process."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    top1: float
    lr: float
    images_per_s: float
    seconds_left: float


class Watcher(Protocol):
    """Called during a run."""

    def news(self, news: News) -> None:
        """Receive the step just done."""
        return

    def epoch(self, record: EpochRecord) -> None:
        """Receive the epoch just done."""
        return

    def skipped(self, photo: Unreadable) -> None:
        """Receive an unreadable photo."""
        return

    def limit(self, text: str) -> None:
        """Receive what limits the speed, before the second epoch."""
        return

    def stop(self) -> bool:
        """Return, after each step, whether to write a checkpoint and stop."""
        return False


class Unseen(Watcher):
    """Ignores everything and never stops."""


class FirstSpeaks:
    """Passes on the first process's events; every process may be asked to stop.

    `unreadable` are the unreadable photos, each once, by name: they are tried again every epoch.
    """

    def __init__(self, watcher: Watcher, *, first: bool) -> None:
        self._watcher: Watcher = watcher if first else Unseen()
        self.news, self.epoch = self._watcher.news, self._watcher.epoch
        self.limit = self._watcher.limit
        self.stop = watcher.stop
        self.unreadable: dict[str, Unreadable] = {}

    def skipped(self, photo: Unreadable) -> None:
        """Pass on a photo that is new."""
        if photo.source not in self.unreadable:
            self.unreadable[photo.source] = photo
            self._watcher.skipped(photo)
