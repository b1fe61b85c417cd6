"""Who watches a run: nobody, whoever asked to, and all processes of it together."""

from collections.abc import Callable, Iterable
from typing import Any, Final

import torch

from regnet.training.history import EpochRecord
from regnet.training.job import News, Watcher
from regnet.training.photos import Unreadable

Watch = Callable[[Iterable[Any], str, int], Iterable[Any]]
"""Shows how far some work is: items, what is done with them, and how many they are."""

_AGREE_EVERY: Final = 10  # steps: to hear of the other processes makes each wait


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


class Together:
    """Passes on what the first process has to tell, and stops all processes at the same step.

    `unreadable` are the photos that could not be read, each once, by name.
    """

    def __init__(self, watcher: Watcher, fabric: Any) -> None:
        self._watcher: Watcher = watcher if fabric.is_global_zero else Unseen()
        self._asked = watcher.stop
        self._fabric, self._steps = fabric, 0
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
        """Return whether any process was asked to stop."""
        if self._fabric.world_size == 1:
            return self._asked()
        self._steps += 1
        if self._steps % _AGREE_EVERY:
            return False
        asked = torch.tensor(float(self._asked()), device=self._fabric.device)
        return bool(self._fabric.all_reduce(asked, reduce_op="sum") > 0)
