"""Who watches a run: nobody, or whoever asked to."""

from collections.abc import Callable, Iterable
from typing import Any

from regnet.training.history import EpochRecord
from regnet.training.job import News, Watcher
from regnet.training.photos import Unreadable

Watch = Callable[[Iterable[Any], str, int], Iterable[Any]]
"""Shows how far some work is: items, what is done with them, and how many they are."""


def unwatched(items: Iterable[Any], what: str, count: int) -> Iterable[Any]:
    """Watch nothing."""
    return items


class Unseen:
    """A watcher that looks away."""

    def news(self, news: News) -> None:
        """Ignore a step."""

    def epoch(self, record: EpochRecord) -> None:
        """Ignore an epoch."""

    def skipped(self, photo: Unreadable) -> None:
        """Ignore a photo that could not be read."""

    def stop(self) -> bool:
        """Never stop."""
        return False


class FirstSpeaks:
    """Passes on what the first process of a run has to tell; each may be asked to stop.

    `unreadable` are the photos that could not be read, each once, by name.
    """

    def __init__(self, watcher: Watcher, *, first: bool) -> None:
        self._watcher: Watcher = watcher if first else Unseen()
        self._asked = watcher.stop
        self.unreadable: dict[str, Unreadable] = {}

    def news(self, news: News) -> None:
        """Pass on."""
        self._watcher.news(news)

    def epoch(self, record: EpochRecord) -> None:
        """Pass on."""
        self._watcher.epoch(record)

    def skipped(self, photo: Unreadable) -> None:
        """Pass on what is new: a photo is tried again in every epoch."""
        if photo.source not in self.unreadable:
            self.unreadable[photo.source] = photo
            self._watcher.skipped(photo)

    def stop(self) -> bool:
        """Return whether this process was asked to stop."""
        return self._asked()
