"""How trainings and sweeps of them show on standard error, and how one is stopped."""

import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from regnet.cli.console import say, shows_motion, stderr
from regnet.cli.progress import track
from regnet.data.labelled import Unreadable
from regnet.inference.result import readable
from regnet.system.text import percent
from regnet.training.history import EpochRecord, News, Watcher

if TYPE_CHECKING:
    from rich.live import Live
    from rich.progress import Progress
    from rich.table import Table

    from regnet.space.records import RunRecord

T = TypeVar("T")

SHOWN: Final = 10
"""Unreadable photos that are named."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds, with hours if there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Stopping:
    """Takes Ctrl-C and SIGTERM: the first asks a run to stop after its step, the next ends it.

    Before the first step and after the last there is nothing to lose: the first ends the run.
    """

    def __init__(self) -> None:
        self.asked = False
        self.under_way = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals while this is entered."""
        before = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked or not self.under_way:
            raise KeyboardInterrupt
        self.asked = True
        say("regnet: stopping after this step; once more stops at once")


class TrainingDisplay(Watcher):
    """Watches a run: on a terminal a line that moves, and one line per epoch; elsewhere nothing.

    Photos that cannot be read are named wherever standard error goes.
    """

    def __init__(self, stopping: Stopping) -> None:
        self._stopping = stopping
        self._skipped = 0
        self._bar: Progress | None = None
        self._task: Any = None
        self._shown = shows_motion()

    def news(self, news: "News") -> None:
        """Move the line on."""
        self._stopping.under_way = True
        if not self._shown:
            return
        if self._bar is None:
            self._bar = _bar()
            self._task = self._bar.add_task("", epoch="")
            self._bar.start()
        self._bar.update(
            self._task,
            completed=news.step,
            total=news.steps,
            epoch=f"epoch {news.epoch:,} of {news.epochs:,}",
            description=f"loss {news.loss:.3f}  top-1 {100 * news.top1:.1f} %  "
            f"{news.images_per_s:,.0f} images/s  {clock(news.seconds_left)} left",
        )

    def epoch(self, record: "EpochRecord") -> None:
        """Print a line."""
        if self._bar is not None:
            text = f"epoch {record.epoch:>4,}  loss {record.loss:.3f}  "
            if record.val_top1 is not None:
                text += f"validation top-1 {100 * record.val_top1:.2f} %  "
            self._bar.console.print(f"{text}{record.images_per_s:,.0f} images/s", highlight=False)

    def skipped(self, photo: "Unreadable") -> None:
        """Name the first photos that could not be read."""
        self._skipped += 1
        if self._skipped <= SHOWN:
            say(f"skipped {readable(photo.source)}: {photo.error}")
        elif self._skipped == SHOWN + 1:
            say("skipped more; the end says how many")

    def limit(self, text: str) -> None:
        """Say what limits the speed."""
        say(f"regnet: {text}")

    def stop(self) -> bool:
        """Return whether the user asked to stop."""
        return self._stopping.asked

    def watch(self, items: Iterable[T], what: str, count: int) -> Iterator[T]:
        """Show the progress of the work before or after the training."""
        self._stopping.under_way = False
        self.close()
        return track(items, what, count)

    def close(self) -> None:
        """Remove the moving line."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _bar() -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.fields[epoch]}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        console=stderr(),
        transient=True,
    )


class SweepDisplay(Watcher):
    """Watches a sweep and the run of this process: a table on a terminal, elsewhere lines."""

    def __init__(self) -> None:
        self._space, self._records, self._left, self._new = "", list[Any](), 0, 0
        self._start = time.monotonic()
        self._now = ""
        self._error: float | None = None
        self._live: Live | None = None
        self._shown = shows_motion()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._live is not None:
            self._live.stop()

    def planned(self, space: str, there: "Sequence[RunRecord]", left: int) -> None:
        """Begin to show."""
        self._space, self._records, self._left = space, list(there), left
        self._start = time.monotonic()
        if not self._shown:
            say(f"{space}: {len(there):,} runs there, {left:,} left")
            return
        from rich.live import Live

        self._live = Live(console=stderr(), get_renderable=self._table, transient=True)
        self._live.start()

    def finished(self, record: "RunRecord") -> None:
        """Show a run that ended."""
        self._records.append(record)
        self._left -= 1
        self._new += 1
        self._now = ""
        if not self._shown:
            say(self._line(record))

    def news(self, news: "News") -> None:
        """Show the progress of the run of this process."""
        share = ((news.epoch - 1) * news.steps + news.step) / (news.epochs * news.steps)
        if news.epoch == 1:
            self._error = None
        error = "" if self._error is None else f", error {percent(self._error)}"
        self._now = (
            f"epoch {news.epoch} of {news.epochs} ({share:.0%}), loss {news.loss:.2f}{error}"
        )

    def epoch(self, record: "EpochRecord") -> None:
        """Keep the error of an epoch."""
        self._error = None if record.val_top1 is None else 1 - record.val_top1

    def _time_left(self) -> str:
        """Return the time left at the pace so far; "" before the first run has ended."""
        if not self._new:
            return ""
        return clock((time.monotonic() - self._start) / self._new * self._left)

    def _line(self, record: "RunRecord") -> str:
        done = len(self._records)
        place = f"{record.space} {done:,}/{done + self._left:,}"
        if record.failure is not None:
            return f"{place}  failed: {record.failure}  left {self._time_left()}"
        return (
            f"{place}  error {percent(record.error)}  {record.macs / 1e6:.1f} MMACs  "
            f"{record.seconds:.0f} s  best {percent(min(errors_of(self._records)))}  "
            f"left {self._time_left()}"
        )

    def _table(self) -> "Table":
        from rich.table import Table

        errors = errors_of(self._records)
        values = {
            "space": self._space,
            "done": f"{len(self._records):,}",
            "failed": f"{len(self._records) - len(errors):,}",
            "left": f"{self._left:,}",
            "best": percent(min(errors, default=None)),
            "median": percent(median(errors) if errors else None),
            "last": percent(self._records[-1].error if self._records else None),
            "time left": self._time_left(),
        }
        made = Table(box=None, pad_edge=False, caption=self._now or None)
        for name in values:  # the space's name shrinks before a figure does
            made.add_column(name, justify="left" if name == "space" else "right")
            made.columns[-1].no_wrap = name != "space"
        made.add_row(*values.values())
        return made


def errors_of(records: "Sequence[RunRecord]") -> list[float]:
    """Return the errors of the runs that have one."""
    return [record.error for record in records if record.error is not None]
