"""Who watches a run, and what it hears."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from regnet.training.history import EpochRecord
from regnet.training.photos import Unreadable

Watch = Callable[[Iterable[Any], str, int], Iterable[Any]]
"""Shows the progress of some work: its items, what is done with them, and their number."""


def unwatched(items: Iterable[Any], what: str, count: int) -> Iterable[Any]:
    """Show nothing."""
    return items


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
    """Called during a run; `stop` after each step, whether to write a checkpoint and stop."""

    def news(self, news: News) -> None:
        """Receive the step just done."""
        return

    def epoch(self, record: EpochRecord) -> None:
        """Receive the epoch just done."""
        return

    def skipped(self, photo: Unreadable) -> None:
        """Receive an unreadable photo."""
        return

    def stop(self) -> bool:
        """Return whether to stop."""
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
        self.stop = watcher.stop
        self.unreadable: dict[str, Unreadable] = {}

    def skipped(self, photo: Unreadable) -> None:
        """Pass on a photo that is new."""
        if photo.source not in self.unreadable:
            self.unreadable[photo.source] = photo
            self._watcher.skipped(photo)
