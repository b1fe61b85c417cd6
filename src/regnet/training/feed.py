"""The feed of a run: the crops of each step, this process's share of them, ahead of a GPU."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regnet.system.errors import TrainingError
from regnet.system.parallel import cores
from regnet.training.command import resuming
from regnet.training.job import Job
from regnet.training.photos import Batch, Cropping, Order, Unreadable, training_batch
from regnet.training.processes import Processes
from regnet.training.run_checkpoint import LAST
from regnet.training.schedule import crop_side

_AHEAD: Final = 2  # steps
_CROPS: Final = 0  # the stream of random numbers of a step; its images' streams follow

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class MicroBatch:
    """Photos that go through the network at once, on the host: crops (N, S, S, 3), classes (N,).

    `place` is that of the first one in the step's batch, the same in any number of processes.
    """

    crops: Tensor
    truths: Tensor
    place: int


@dataclass(frozen=True)
class Step:
    """A step's photos: parts, which go through the network one by one, and what was left out."""

    number: int
    parts: tuple[MicroBatch, ...]
    unreadable: tuple[Unreadable, ...]


class Feed:
    """Makes the crops of each step that are this process's, on all cores."""

    def __init__(self, job: Job, processes: Processes, device: torch.device) -> None:
        schedule, transfer = job.recipe.schedule, job.recipe.transfer
        self.order = Order(
            job.photos.truths, schedule.batch, job.recipe.seed, transfer.balanced_sampling
        )
        self.batch = min(schedule.batch, len(job.photos))
        self._job, self._on_gpu = job, device.type == "cuda"
        self._runs = runs(self.batch, job.accumulate, processes)

    def steps(self, epoch: int, first: int = 0, last: int | None = None) -> Iterator[Step]:
        """Yield the steps of an epoch; on a GPU they are made ahead, while it computes."""
        numbers = self.order.batches(epoch)
        with ThreadPoolExecutor(cores(), "regnet-crops") as pool:
            make = partial(self._step, epoch, numbers, pool)
            chosen = range(len(numbers))[first:last]
            yield from ahead(make, chosen) if self._on_gpu else map(make, chosen)

    def side(self, epoch: int) -> int:
        """Return the side of an epoch's crops in pixels."""
        return crop_side(self._job.recipe.input, self._job.recipe.schedule, epoch)

    def seed(self, epoch: int, step: int, stream: int) -> int:
        """Return the seed of one of a step's streams of random numbers."""
        entropy = (self._job.recipe.seed, epoch, step, stream)
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def _step(
        self, epoch: int, numbers: NDArray[np.int64], pool: ThreadPoolExecutor, step: int
    ) -> Step:
        recipe = self._job.recipe
        cropping = Cropping(
            side=self.side(epoch),
            augmentation=recipe.augmentation,
            interpolation=recipe.input.interpolation,
        )
        parts: list[MicroBatch] = []
        unreadable: list[Unreadable] = []
        for run in self._runs:
            random = np.random.default_rng(self.seed(epoch, step, _CROPS))
            found = training_batch(
                self._job.photos, numbers[step], cropping, random, part=run, pool=pool
            )
            parts.append(
                self._part(_filled(found, run.stop - run.start, self._job.folder), run.start)
            )
            unreadable += found.unreadable
        return Step(step, tuple(parts), tuple(unreadable))

    def _part(self, batch: Batch, place: int) -> MicroBatch:
        crops, truths = torch.from_numpy(batch.crops), torch.from_numpy(batch.truths)
        if self._on_gpu:  # from pinned memory it copies while it computes
            crops, truths = crops.pin_memory(), truths.pin_memory()
        return MicroBatch(crops, truths, place)


def runs(batch: int, parts: int, processes: Processes) -> tuple[slice, ...]:
    """Return this process's run of each part of a batch: all processes' together are the part."""
    if batch < parts * processes.count:
        raise TrainingError(
            f"a batch of {batch} photos is too small for {processes.count} processes that take it "
            f"in {parts} parts each: take a larger batch, fewer processes or a lower accumulate"
        )
    own = [
        np.array_split(part, processes.count)[processes.rank]
        for part in np.array_split(np.arange(batch), parts)
    ]
    return tuple(slice(int(run[0]), int(run[-1]) + 1) for run in own)


def _filled(batch: Batch, count: int, folder: Path) -> Batch:
    """Return `count` photos: those that could be read, some of them again for those that could not.

    So processes and parts count alike. Raises `TrainingError` where none could be read.
    """
    readable = len(batch.truths)
    if readable == count:
        return batch
    if not readable:
        photo = batch.unreadable[0]
        raise TrainingError(
            f"none of {count} photos of a step could be read, such as {photo.source}: "
            f"{photo.error}. {_mended(folder)}"
        )
    chosen = np.arange(count) % readable
    return Batch(batch.crops[chosen], batch.truths[chosen], batch.unreadable)


def _mended(folder: Path) -> str:
    """Return how a run in a folder continues once its photos are readable."""
    if (folder / LAST).exists():  # without them it would be a run on other photos
        return f"Make them readable, then: {resuming(folder)}"
    return "Make them readable or remove them, and start again"


def ahead(make: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """Yield what is made of each item, in order; a thread makes the next ones meanwhile."""
    maker = ThreadPoolExecutor(1, "regnet-feed")
    pending: deque[Future[U]] = deque()
    try:
        for item in items:
            pending.append(maker.submit(make, item))
            if len(pending) > _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        maker.shutdown(cancel_futures=True)
