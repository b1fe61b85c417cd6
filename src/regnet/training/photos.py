"""The photos of a training run: held in memory where they fit, else read again each time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.data.labelled import LabelledItem
from regnet.pixels.decode_limits import DECODE_LIMITS
from regnet.pixels.decoder import decode_within
from regnet.pixels.pillow_resize import resize_crop
from regnet.pixels.preprocess import crop_pixels
from regnet.pixels.protocol import Interpolation, Preprocess
from regnet.system.errors import ImageError
from regnet.system.notices import about
from regnet.system.parallel import cores, in_order
from regnet.training.crops import crop, draws, random_box
from regnet.training.recipe import Augmentation

MEMORY: Final = 4 << 30
"""Bytes of pixels that are held in memory, unless told otherwise."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Unreadable:
    """A photo that was left out, and why."""

    source: str
    error: str


@dataclass(frozen=True)
class Batch:
    """Crops (N, side, side, 3), 0..255 BGR, their classes (N,), and what could not be read.

    There may be none: whoever trains on it leaves such a batch out.
    """

    crops: NDArray[Any]
    truths: NDArray[np.int64]
    unreadable: tuple[Unreadable, ...] = ()


class LabelledPhotos:
    """Labelled photos, by number.

    Each is shrunk so that its short side has at most `short_side` pixels. As many as fit into
    `memory` bytes stay there, from the first on; `watch` shows how far reading them is.
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
    def unreadable(self) -> tuple[Unreadable, ...]:
        """Those held in memory that could not be read."""
        return tuple(photo for photo in self._held if isinstance(photo, Unreadable))

    def is_lost(self, number: int) -> bool:
        """Return whether a photo is held in memory as one that cannot be read."""
        return number < len(self._held) and isinstance(self._held[number], Unreadable)

    def pixels(self, number: int) -> Pixels | Unreadable:
        """Return the pixels (H, W, 3) BGR of a photo, or why there are none. Thread-safe."""
        if number < len(self._held):
            return self._held[number]
        item = self.items[number]
        try:
            with about(item.source):
                return _shrunk(decode_within(item.read(), "BGR", DECODE_LIMITS), self._short_side)
        except ImageError as exc:
            return Unreadable(item.source, str(exc))

    def _hold(self, memory: int, watch: Callable[..., Iterable[Any]]) -> None:
        """Read photos until one does not fit; a few ahead on every core, so as to hold no more."""
        read = partial(_each, self.pixels)
        found = in_order(range(len(self.items)), read, workers=cores())
        for pixels in watch(found, "reading photos", len(self.items)):
            memory -= 0 if isinstance(pixels, Unreadable) else pixels.nbytes
            if memory < 0:
                return
            self._held.append(pixels)


def _each(work: Callable[[int], Any], numbers: list[int]) -> list[Any]:
    return list(map(work, numbers))


def _shrunk(pixels: Pixels, short_side: int) -> Pixels:
    height, width = pixels.shape[:2]
    if min(height, width) <= short_side:
        return np.ascontiguousarray(pixels)
    scale = short_side / min(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return resize_crop(pixels, size=size, box=(0, 0, *size), interpolation="bilinear")


@dataclass(frozen=True)
class Order:
    """The order of an epoch's photos: whole batches of numbers, the same for the same seed.

    `balanced` takes as many photos of every class (one more of some): of large classes a part, of
    small ones all in turns. What does not fill a batch is left to another epoch; a set smaller than
    a batch is one.
    """

    truths: NDArray[np.int64]
    batch: int
    seed: int
    balanced: bool = False

    @property
    def steps(self) -> int:
        """Number of batches."""
        return max(len(self.truths) // self.batch, 1)

    def batches(self, epoch: int) -> NDArray[np.int64]:
        """Return the numbers of the photos of each batch of an epoch: (steps, batch)."""
        random = np.random.default_rng((self.seed, epoch))
        order = self._balanced(random) if self.balanced else random.permutation(len(self.truths))
        batch = min(self.batch, len(order))
        return order[: self.steps * batch].reshape(self.steps, batch)

    def _balanced(self, random: np.random.Generator) -> NDArray[np.int64]:
        _, counts = np.unique(self.truths, return_counts=True)
        classes = np.split(np.argsort(self.truths, kind="stable"), np.cumsum(counts)[:-1])
        share, left = divmod(len(self.truths), len(classes))
        shares = share + (random.permutation(len(classes)) < left)
        drawn = map(partial(_in_turns, random), classes, shares.tolist())
        return random.permutation(np.concatenate(list(drawn)))


def _in_turns(
    random: np.random.Generator, numbers: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Return so many of the numbers: all of them in random order before one comes again."""
    turns = [random.permutation(numbers) for _ in range(-(-count // len(numbers)))]
    return np.concatenate(turns)[:count]


@dataclass(frozen=True, kw_only=True)
class Cropping:
    """How a photo becomes a training crop of `side` pixels."""

    side: int
    augmentation: Augmentation
    interpolation: Interpolation


def training_batch(
    photos: LabelledPhotos,
    numbers: NDArray[np.int64],
    cropping: Cropping,
    random: np.random.Generator,
    *,
    part: slice = slice(None),
    pool: ThreadPoolExecutor,
) -> Batch:
    """Return random crops of the photos of these numbers, or of a part of them.

    Draws are made for all, so that parts on several machines are those of the whole batch. It may
    be empty: where none can be read, and where the part is.
    """
    drawn = draws(random, len(numbers))[part]
    numbers = numbers[part]

    def work(place: int) -> NDArray[Any] | Unreadable:
        pixels = photos.pixels(int(numbers[place]))
        if isinstance(pixels, Unreadable):
            return pixels
        height, width = pixels.shape[:2]
        box = random_box(width, height, cropping.augmentation, drawn[place])
        return crop(pixels, box, side=cropping.side, interpolation=cropping.interpolation)

    return _batch(_spread(work, len(numbers), pool), photos.truths[numbers], cropping.side)


def _spread(work: Callable[[int], Any], count: int, pool: ThreadPoolExecutor) -> list[Any]:
    """Return the work of each place, done by all threads of the pool in equal runs."""
    share = max(-(-count // cores()), 1)
    runs = [range(start, min(start + share, count)) for start in range(0, count, share)]
    return [found for run in pool.map(lambda run: list(map(work, run)), runs) for found in run]


def _batch(found: list[NDArray[Any] | Unreadable], truths: NDArray[np.int64], side: int) -> Batch:
    crops = [crop for crop in found if not isinstance(crop, Unreadable)]
    lost = tuple(crop for crop in found if isinstance(crop, Unreadable))
    good = np.array([not isinstance(crop, Unreadable) for crop in found], bool)
    whole = np.stack(crops) if crops else np.empty((0, side, side, 3), np.uint8)
    return Batch(whole, truths[good], lost)


class CentreCrops:
    """The centre crops of labelled photos by a protocol, in batches; kept where they fit.

    Of several processes each has a `share` of every batch: its number, from 0, and theirs.
    """

    def __init__(
        self,
        items: Sequence[LabelledItem],
        preprocess: Preprocess,
        *,
        batch: int,
        memory: int = MEMORY,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self._items, self._preprocess, self._batch = tuple(items), preprocess, batch
        self._memory, self._own = memory, slice(share[0], None, share[1])
        size = 1 if preprocess.interpolation != "opencv-linear" else 4
        bytes_each = 3 * size * preprocess.crop**2
        fits = len(items) * bytes_each <= memory * share[1]
        self._kept: list[Batch] | None = [] if fits else None

    def shared(self, process: int, processes: int) -> "CentreCrops":
        """Return a process's share of each batch, which is empty where there are too few photos."""
        if processes == 1:
            return self
        return CentreCrops(
            self._items,
            self._preprocess,
            batch=self._batch,
            memory=self._memory,
            share=(process, processes),
        )

    def __len__(self) -> int:
        return len(self._items)

    @property
    def truths(self) -> NDArray[np.int64]:
        """The classes of all photos, also of those that cannot be read."""
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
        found = list(in_order(items, self._crops, workers=cores()))
        truths = np.array([item.truth for item in items], np.int64)
        return _batch(found, truths, self._preprocess.crop)

    def _crops(self, items: list[LabelledItem]) -> list[NDArray[Any] | Unreadable]:
        return [self._crop(item) for item in items]

    def _crop(self, item: LabelledItem) -> NDArray[Any] | Unreadable:
        try:
            with about(item.source):
                return crop_pixels(item.read(), self._preprocess)
        except ImageError as exc:
            return Unreadable(item.source, str(exc))
