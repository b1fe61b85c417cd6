"""Processes that make, or draw, the crops of a run's steps ahead of a GPU: torch's DataLoader.

Crops come back in memory that all processes share from the start, a slot for each step under way:
nothing is mapped anew, and the process that trains only copies them.
"""

import math
import mmap
import multiprocessing
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from regnet.data.labelled import Unreadable
from regnet.system.errors import RegNetError
from regnet.system.parallel import cores, in_order
from regnet.training.draws import Draws
from regnet.training.microbatch import MicroBatch, Step
from regnet.training.state import Job

_MAX_WORKERS: Final = 16
_MAX_SHARED: Final = 4 << 30  # bytes of all slots
_AHEAD: Final = 2  # steps made ahead by each process
_COPIED: Final = 4  # steps that are copied, or wait for that

Make = Callable[[int, int], Step | RegNetError]
"""Returns a step of an epoch, or an error to raise in the process that trains."""

Place = tuple[int, int, int]
"""An epoch, a step of it, and the slot for its crops."""


class Workers:
    """Makes steps in `count` processes, which have what this one had when they started.

    `size` is the bytes of the largest step's crops in this process.
    """

    def __init__(self, make: Make, count: int, size: int, *, pins: bool) -> None:
        self._make, self._count, self._size, self._pins = make, count, size, pins
        self._places: list[Place] = []
        self._slots = np.zeros((0, size), np.uint8)
        self._loader: DataLoader[Any] | None = None

    def steps(self, epoch: int, chosen: range) -> Iterator[Step]:
        """Yield these steps of an epoch, in order; for a GPU in pinned memory."""
        slots = self._count * _AHEAD + _COPIED
        self._places[:] = [(epoch, step, n % slots) for n, step in enumerate(chosen)]
        if self._loader is None:
            shared = mmap.mmap(-1, slots * self._size)
            self._slots = np.frombuffer(shared, np.uint8).reshape(slots, self._size)
            self._loader = DataLoader(
                _Steps(self._make, self._slots),
                batch_size=None,
                sampler=self._places,
                num_workers=self._count,
                collate_fn=_as_it_is,
                prefetch_factor=_AHEAD,
                persistent_workers=True,
                multiprocessing_context="fork",
                worker_init_fn=_leave_signals,
            )
        with warnings.catch_warnings():  # Python 3.12 warns of threads, which the processes avoid
            warnings.simplefilter("ignore", DeprecationWarning)
            made = iter(self._loader)
        if self._pins:
            yield from in_order(made, lambda n: list(map(self._copied, n)), workers=1, batch_size=1)
        else:
            yield from map(self._copied, made)

    def close(self) -> None:
        """End the processes."""
        self._loader = None
        self._slots = np.zeros((0, self._size), np.uint8)

    def _copied(self, made: "_Sent | RegNetError") -> Step:
        """Return a step with its crops copied out of their slot, which is free then."""
        if isinstance(made, RegNetError):
            raise made
        parts: list[MicroBatch] = []
        at = 0
        for shape, dtype, truths, draws, place in made.parts:
            size = math.prod(shape) * dtype.itemsize
            crops = torch.from_numpy(self._slots[made.slot, at : at + size].view(dtype))
            crops = crops.view(shape)
            part = MicroBatch(crops, torch.from_numpy(truths), draws, place)
            parts.append(part.pin_memory() if self._pins else replace(part, crops=crops.clone()))
            at += size
        return Step(made.number, tuple(parts), made.unreadable)


@dataclass(frozen=True)
class _Sent:
    """A step whose crops are in a slot; parts have shape and type of the crops, and the rest."""

    number: int
    parts: tuple[tuple[Any, np.dtype[Any], NDArray[np.int64], tuple[Draws, ...], int], ...]
    unreadable: tuple[Unreadable, ...]
    slot: int


class _Steps(Dataset[Any]):
    """The step of each place: its crops are written to the slot, the rest is returned."""

    def __init__(self, make: Make, slots: NDArray[np.uint8]) -> None:
        self._make, self._slots = make, slots

    def __getitem__(self, place: Place) -> _Sent | RegNetError:
        epoch, number, slot = place
        step = self._make(epoch, number)
        if isinstance(step, RegNetError):
            return step
        parts: list[Any] = []
        at = 0
        for part in step.parts:
            crops = part.crops.numpy()
            self._slots[slot, at : at + crops.nbytes] = crops.reshape(-1).view(np.uint8)
            at += crops.nbytes
            parts.append((crops.shape, crops.dtype, part.truths.numpy(), part.draws, part.place))
        return _Sent(step.number, tuple(parts), step.unreadable, slot)


def _as_it_is(step: Any) -> Any:
    return step


def _leave_signals(worker: int) -> None:
    """Leave Ctrl-C to the process that trains."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def crop_bytes(job: Job, images: int) -> int:
    """Return the bytes of so many crops of the largest size."""
    size = 4 if job.recipe.input.interpolation == "opencv-linear" else 1
    return images * 3 * size * max(job.recipe.input.crops) ** 2


def useful_workers(
    job: Job, size: int, processes: int, device: torch.device, most: int | None = None
) -> int:
    """Return how many processes should make crops, `most` at most; 0: threads do, as on a CPU.

    `size` is the bytes of a step's crops, `processes` the number of those that train.
    """
    count = job.workers
    if count is None:
        own = max(cores() // min(processes, max(torch.cuda.device_count(), 1)), 1)
        count = min(own, most or _MAX_WORKERS) if device.type == "cuda" else 0
    # threads where processes cannot be forked, or would share a connection
    remote = not job.photos.in_memory and any("://" in item.source for item in job.photos.items[:1])
    if remote or sys.platform == "darwin" or "fork" not in multiprocessing.get_all_start_methods():
        return 0
    return max(min(count, (_MAX_SHARED // size - _COPIED) // _AHEAD), 0)
