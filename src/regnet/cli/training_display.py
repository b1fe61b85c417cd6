"""How a training run shows on a terminal's standard error, and how it is stopped."""

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from regnet.cli.console import clock, say, shows_motion, stderr, track
from regnet.inference.result import readable

if TYPE_CHECKING:
    from rich.progress import Progress

    from regnet.training.history import EpochRecord
    from regnet.training.job import News
    from regnet.training.photos import Unreadable

T = TypeVar("T")

SHOWN: Final = 10
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """Hears Ctrl-C and SIGTERM: the first asks a run under way to stop, any other ends it at once.

    Before the first step and after the last there is nothing to lose: the first ends it at once.
    """

    def __init__(self) -> None:
        self.asked = False
        self.under_way = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen while this is entered."""
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


class Display:
    """Watches a run: a line that moves, and a line an epoch, on a terminal; elsewhere nothing.

    Photos that cannot be read are told of wherever standard error goes.
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
            self._task = self._bar.add_task("", total=news.steps, **_fields(news))
            self._bar.start()
        self._bar.update(
            self._task,
            description=f"epoch {news.epoch:,} of {news.epochs:,}",
            completed=news.step,
            total=news.steps,
            **_fields(news),
        )

    def epoch(self, record: "EpochRecord") -> None:
        """Print a line."""
        if self._bar is not None:
            self._bar.console.print(_line(record), highlight=False)

    def skipped(self, photo: "Unreadable") -> None:
        """Name the first photos that could not be read."""
        self._skipped += 1
        if self._skipped <= SHOWN:
            say(f"skipped {readable(photo.source)}: {photo.error}")
        elif self._skipped == SHOWN + 1:
            say("skipped more; the end says how many")

    def stop(self) -> bool:
        """Return whether the user asked to stop."""
        return self._stopping.asked

    def watch(self, items: Iterable[T], what: str, count: int) -> Iterator[T]:
        """Show how far the work before or after the training is."""
        self._stopping.under_way = False
        self.close()
        return track(items, what, lambda: count, unit="")

    def close(self) -> None:
        """Take the moving line away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _fields(news: "News") -> dict[str, Any]:
    return {
        "loss": f"{news.loss:.3f}",
        "top1": f"{100 * news.top1:.1f}",
        "speed": f"{news.images_per_s:,.0f}",
        "left": clock(news.seconds_left),
    }


def _line(record: "EpochRecord") -> str:
    text = f"epoch {record.epoch:>4,}  loss {record.loss:.3f}  "
    if record.val_top1 is not None:
        text += f"validation top-1 {100 * record.val_top1:.2f} %  "
    return f"{text}{record.images_per_s:,.0f} images/s"


def _bar() -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}  top-1 {task.fields[top1]} %"),
        TextColumn("{task.fields[speed]} images/s  {task.fields[left]} left"),
        console=stderr(),
        transient=True,
    )
