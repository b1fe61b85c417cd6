"""The photos of a training run: kept in memory if they fit, else read again each time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.data.labelled import LabelledItem, Unreadable
from regnet.pixels.decode_limits import DECODE_LIMITS
from regnet.pixels.decoder import decode_within
from regnet.pixels.pillow_resize import resize_crop
from regnet.pixels.preprocess import crop_pixels
from regnet.pixels.protocol import Preprocess
from regnet.system.errors import ImageError
from regnet.system.notices import about
from regnet.system.parallel import cores, in_order

MEMORY: Final = 4 << 30
"""Default bytes of pixels to keep in memory."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Batch:
    """Crops (N, side, side, 3), 0..255 BGR, their classes (N,), and the unreadable photos.

    N may be 0.
    """

    crops: NDArray[Any]
    truths: NDArray[np.int64]
    unreadable: tuple[Unreadable, ...] = ()


def as_batch(crops: list[NDArray[Any] | Unreadable], truths: NDArray[np.int64], side: int) -> Batch:
    """Return a batch of the crops that could be read."""
    good = np.array([not isinstance(crop, Unreadable) for crop in crops], bool)
    read = [crop for crop in crops if not isinstance(crop, Unreadable)]
    return Batch(
        np.stack(read) if read else np.empty((0, side, side, 3), np.uint8),
        truths[good],
        tuple(crop for crop in crops if isinstance(crop, Unreadable)),
    )


def _pixels(item: LabelledItem, work: Callable[[bytes], NDArray[Any]]) -> NDArray[Any] | Unreadable:
    """Return what `work` makes of a photo's bytes, or why it is unreadable."""
    try:
        with about(item.source):
            return work(item.read())
    except ImageError as exc:
        return Unreadable(item.source, str(exc))


class LabelledPhotos:
    """Labelled photos, by number.

    Each is shrunk to a short side of at most `short_side` pixels. As many as fit into `memory`
    bytes stay there, from the first on; `watch` shows the progress of reading them.
    """

    def __init__(
        self,
        items: Sequence[LabelledItem],
        *,
        short_side: int,
        memory: int = MEMORY,
        watch: Callable[[Iterable[Any], str, int], Iterable[Any]] = lambda items, *_: items,
    ) -> None:
        self.items = tuple(items)
        self.truths = np.array([item.truth for item in self.items], np.int64)
        self._short_side = short_side
        self._held: list[Pixels | Unreadable] = []
        if memory > 0:
            self._hold(memory, watch)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def in_memory(self) -> bool:
        """Whether all of them are in memory."""
        return len(self._held) == len(self.items)

    @property
    def held_bytes(self) -> int:
        """The bytes of those in memory."""
        return sum(photo.nbytes for photo in self._held if not isinstance(photo, Unreadable))

    @property
    def unreadable(self) -> tuple[Unreadable, ...]:
        """The unreadable ones among those in memory."""
        return tuple(photo for photo in self._held if isinstance(photo, Unreadable))

    def is_lost(self, number: int) -> bool:
        """Return whether a photo is known to be unreadable."""
        return number < len(self._held) and isinstance(self._held[number], Unreadable)

    def pixels(self, number: int) -> Pixels | Unreadable:
        """Return the pixels (H, W, 3) BGR of a photo, or why there are none. Thread-safe."""
        if number < len(self._held):
            return self._held[number]
        return _pixels(self.items[number], self._decoded)

    def _hold(self, memory: int, watch: Callable[..., Iterable[Any]]) -> None:
        """Read photos until one does not fit; only a few ahead on every core, to hold no more."""
        read = in_order(
            range(len(self.items)), lambda part: list(map(self.pixels, part)), workers=cores()
        )
        for pixels in watch(read, "reading photos", len(self.items)):
            memory -= 0 if isinstance(pixels, Unreadable) else pixels.nbytes
            if memory < 0:
                return
            self._held.append(pixels)

    def _decoded(self, data: bytes) -> Pixels:
        pixels = decode_within(data, "BGR", DECODE_LIMITS)
        height, width = pixels.shape[:2]
        if min(height, width) <= self._short_side:
            return np.ascontiguousarray(pixels)
        scale = self._short_side / min(height, width)
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        return resize_crop(pixels, size=size, box=(0, 0, *size), interpolation="bilinear")


class CentreCrops:
    """The centre crops of labelled photos by a protocol, in batches; kept if they fit in memory."""

    def __init__(
        self,
        items: Sequence[LabelledItem],
        preprocess: Preprocess,
        *,
        batch: int,
        memory: int = MEMORY,
    ) -> None:
        self._items, self._preprocess, self._batch = tuple(items), preprocess, batch
        size = 1 if preprocess.interpolation != "opencv-linear" else 4
        self._bytes, self._memory = len(items) * 3 * size * preprocess.crop**2, memory
        self._own = slice(None)
        self._kept: list[Batch] | None = [] if self._bytes <= memory else None

    def shared(self, process: int, processes: int) -> "CentreCrops":
        """Return a process's share of each batch, which may be empty."""
        if processes == 1:
            return self
        share = copy(self)
        share._own = slice(process, None, processes)
        share._kept = [] if self._bytes <= self._memory * processes else None
        return share

    def __len__(self) -> int:
        return len(self._items)

    @property
    def truths(self) -> NDArray[np.int64]:
        """The classes of all photos, including the unreadable ones."""
        return np.array([item.truth for item in self._items], np.int64)

    @property
    def in_memory(self) -> bool:
        """Whether the crops stay in memory once they were read."""
        return self._kept is not None

    @property
    def count(self) -> int:
        """Number of batches."""
        return -(-len(self._items) // self._batch)

    def batches(self) -> Iterator[Batch]:
        """Yield the batches, in the photos' order."""
        if self._kept:
            yield from self._kept
            return
        made: list[Batch] = []
        for start in range(0, len(self._items), self._batch):
            batch = self._read(self._items[start : start + self._batch][self._own])
            if self._kept is not None:
                made.append(batch)
            yield batch
        if self._kept is not None:
            self._kept = made

    def _read(self, items: tuple[LabelledItem, ...]) -> Batch:
        def crop(data: bytes) -> NDArray[Any]:
            return crop_pixels(data, self._preprocess)

        crops = in_order(items, lambda part: [_pixels(i, crop) for i in part], workers=cores())
        truths = np.array([item.truth for item in items], np.int64)
        return as_batch(list(crops), truths, self._preprocess.crop)
