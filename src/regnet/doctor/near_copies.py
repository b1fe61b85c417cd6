"""Nearly the same pictures among many, found without comparing each with every other.

Each small grey picture has a hash: is a block brighter than the one right of it, than the one
below? A copy has nearly the same bits. Two pictures are compared further where a band of 16 bits
is the same in both, after the bits that were decided most narrowly were tried either way.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from regnet.doctor.likeness import detail, likeness

Pairs = NDArray[np.int64]
Half = NDArray[np.float16]
Number = TypeVar("Number", np.uint8, np.int64)

ALIKE: Final = 0.9
"""From this `likeness` on two pictures are nearly the same."""

_BLOCKS: Final = 8  # a side
_BAND: Final = 16  # bits
_BANDS: Final = 7
_NARROW: Final = 4  # bits of a band that are tried either way
_BUCKET: Final = 64  # pictures with the same band that one is compared with
_ROWS: Final = 1 << 16  # pictures looked up at a time
_MOST_BITS: Final = 34  # of 112, that may differ
_LEAST: Final = 0.4  # correlation of the details as they lie
_COARSE: Final = 12  # a side
_BATCH: Final = 256  # pairs or pictures at a time


def near_pairs(
    greys: NDArray[np.uint8], *, advance: Callable[[float], None] = lambda share: None
) -> Pairs:
    """Return the pairs (N, 2) of indices of pictures that are nearly the same, sorted.

    `greys` are (photos, S, S), S a multiple of 24. Of many that are all alike only as many pairs
    are given as connect them. `advance` is called with the share of the work that was done.
    """
    if len(greys) < 2:
        return np.empty((0, 2), np.int64)
    details = _in_parts(_details, greys)
    linked = Links(len(greys))
    found = [np.empty((0, 2), np.int64)]
    for pairs in _candidates(_in_parts(_steps, greys)):
        for batch in _parts(_close(details, pairs)):
            batch = batch[linked.apart(batch)]
            alike = batch[_alike(greys, batch)]
            linked.join(alike)
            found.append(alike)
        advance(1 / _BANDS)
    return np.unique(np.concatenate(found), axis=0)


class Links:
    """Which of so many are connected by pairs (disjoint sets)."""

    def __init__(self, count: int) -> None:
        self._parents = np.arange(count)

    def root(self, index: int) -> int:
        """Return the one that stands for all that are connected to this."""
        parents = self._parents
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = int(parents[index])
        return index

    def join(self, pairs: Pairs) -> None:
        """Connect pairs."""
        for a, b in pairs.tolist():
            low, high = sorted((self.root(a), self.root(b)))
            self._parents[high] = low

    def apart(self, pairs: Pairs) -> NDArray[np.bool_]:
        """Return which pairs are not connected yet."""
        return np.array([self.root(a) != self.root(b) for a, b in pairs.tolist()], bool)


def _in_parts(work: Callable[[NDArray[np.uint8]], Half], greys: NDArray[np.uint8]) -> Half:
    """Return the rows that `work` gives of pictures, in half precision, in little memory."""
    return np.concatenate([work(part) for part in _parts(greys)])


def _steps(greys: NDArray[np.uint8]) -> Half:
    """Return by how much each block is brighter than those right of and below it: (N, 112)."""
    blocks = _block_means(greys)
    across, down = blocks[:, :, 1:] - blocks[:, :, :-1], blocks[:, 1:] - blocks[:, :-1]
    steps = np.concatenate([x.reshape(len(greys), -1) for x in (across, down)], axis=1)
    # Neighbours tend to change together: those of a band are to be far from each other.
    return steps[:, np.random.default_rng(0).permutation(steps.shape[1])].astype(np.float16)


def _block_means(greys: NDArray[np.uint8], blocks: int = _BLOCKS) -> NDArray[np.float32]:
    count, side, _ = greys.shape
    each = side // blocks
    means: NDArray[np.float32] = greys.reshape(count, blocks, each, blocks, each).mean(
        axis=(2, 4), dtype=np.float32
    )
    return means


def _details(greys: NDArray[np.uint8]) -> Half:
    """Return the details of pictures with mean 0 and length 1: (N, 144)."""
    fine = detail(_block_means(greys, _COARSE)).reshape(len(greys), -1)
    fine -= fine.mean(axis=1, keepdims=True)
    fine /= np.linalg.norm(fine, axis=1, keepdims=True) + 1e-3
    return fine.astype(np.float16)


def _close(details: Half, pairs: Pairs) -> Pairs:
    """Return the pairs whose details correlate as they lie."""
    kept = [pairs[:0]]
    for part in _parts(pairs):
        first, second = (details[part[:, i]].astype(np.float32) for i in (0, 1))
        kept.append(part[np.einsum("nk,nk->n", first, second) >= _LEAST])
    return np.concatenate(kept)


def _candidates(steps: Half) -> Iterator[Pairs]:
    """Yield pairs with a band in common and few bits that differ; some come with several bands."""
    packed = np.packbits(np.pad(steps > 0, ((0, 0), (0, 16))), axis=1)
    bits = np.ascontiguousarray(packed).view(np.uint64)
    for start in range(0, _BANDS * _BAND, _BAND):
        found = []
        for pairs in _same_band(steps[:, start : start + _BAND]):
            differing = np.bitwise_count(bits[pairs[:, 0]] ^ bits[pairs[:, 1]]).sum(axis=1)
            close = np.sort(pairs[differing <= _MOST_BITS], axis=1)
            found.append(close[:, 0] * len(steps) + close[:, 1])
        yield np.stack(np.divmod(np.unique(np.concatenate(found)), len(steps)), axis=1)


def _same_band(band: Half) -> Iterator[Pairs]:
    """Yield pairs with the same bits in a band, those decided most narrowly tried either way."""
    keys = (band > 0) @ (1 << np.arange(_BAND))
    order = np.argsort(keys, kind="stable")
    narrow = 1 << np.argsort(np.abs(band), axis=1)[:, :_NARROW]
    for chosen in itertools.product((0, 1), repeat=_NARROW):
        wanted = keys ^ (narrow @ np.array(chosen))
        for start in range(0, len(keys), _ROWS):
            pairs = _same_key(wanted[start : start + _ROWS], keys[order], order)
            pairs[:, 0] += start
            yield pairs[pairs[:, 0] != pairs[:, 1]]


def _same_key(wanted: Pairs, keys: Pairs, order: Pairs) -> Pairs:
    """Return the pairs of a wanted key and an equal one of the sorted `keys`, by index."""
    first = np.searchsorted(keys, wanted, "left")
    count = np.minimum(np.searchsorted(keys, wanted, "right") - first, _BUCKET)
    left = np.repeat(np.arange(len(wanted)), count)
    within = np.arange(len(left)) - np.repeat(np.cumsum(count) - count, count)
    right = order[np.repeat(first, count) + within]
    return np.stack([left, right], axis=1)


def _parts(rows: NDArray[Number]) -> Iterator[NDArray[Number]]:
    """Yield few rows at a time, to be worked on in little memory."""
    for start in range(0, len(rows), _BATCH):
        yield rows[start : start + _BATCH]


def _alike(greys: NDArray[np.uint8], pairs: Pairs) -> NDArray[np.bool_]:
    """Return which pairs are nearly the same: one laid over the other, or the other over it."""
    if not len(pairs):
        return np.zeros(0, bool)
    a, b = greys[pairs[:, 0]], greys[pairs[:, 1]]
    alike = likeness(a, b) >= ALIKE
    rest = ~alike
    if rest.any():
        alike[rest] = likeness(b[rest], a[rest]) >= ALIKE
    return alike
