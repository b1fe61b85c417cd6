"""Nearly the same pictures among many, found without comparing each with every other.

Each small grey picture has a hash: is a block brighter than the one right of it, than the one
below? A copy has nearly the same bits. Two pictures are compared further where a band of 16 bits
is the same in both, after the bits that were decided most narrowly were tried either way.

A copy that was cropped a little does not lie where its original does. So one picture is stretched
and moved, each axis by itself, until the squared difference is least (Lucas and Kanade, 1981, by
Gauss-Newton, with gain and offset of brightness), and only then compared.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

Pairs = NDArray[np.int64]
Half = NDArray[np.float16]
Float = NDArray[np.float32]
Number = TypeVar("Number", np.uint8, np.int64)

ALIKE: Final = 0.9  # from this `likeness` on two pictures are nearly the same
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

_HOPES: Final = (-1.0, 0.35, 0.5, 0.6, 0.6, 0.6)
"""Steps; one is made for the pairs that are at least so much alike before it."""

_STRETCH: Final = 0.25  # at most, of the side
_SHIFT: Final = 0.15  # at most, of the side
_STEP: Final = 0.06  # at most in one step, of the side
_LEAST_OVERLAP: Final = 0.6  # of the picture


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


def likeness(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> Float:
    """Return how much the pictures (N, S, S) of each pair are alike, -1 to 1: (N,).

    It is the lesser of two correlations over what they share: that of the pictures, and that of
    their detail, without which all landscapes under a bright sky would be alike.
    """
    first, second = a.astype(np.float32), b.astype(np.float32)
    warp = np.zeros((len(a), 2, 2), np.float32)  # of each pair x and y: stretch, shift
    best = _compared(first, second, warp)
    for least in _HOPES:
        go = np.flatnonzero(best >= least)
        warp[go] = _improved(first[go], second[go], warp[go])
        best[go] = np.maximum(best[go], _compared(first[go], second[go], warp[go]))
    return best


def _weights(warp: Float, side: int) -> tuple[Float, Float, Float]:
    """Return the matrices that sample rows and columns (N, S, S), and where they are inside."""
    grid = _grid(side)
    at = grid * (1 + warp[:, :, :1]) + warp[:, :, 1:] * side + (side - 1) / 2  # (N, 2, S)
    inside = ((at > -0.01) & (at < side - 0.99)).astype(np.float32)
    taps = np.clip(at, 0, side - 1)[..., None] - np.arange(side, dtype=np.float32)
    hat: Float = np.maximum(0, 1 - np.abs(taps))
    return hat[:, 1], hat[:, 0], inside[:, 1, :, None] * inside[:, 0, None, :]


def _grid(side: int) -> Float:
    return np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)


def _compared(first: Float, second: Float, warp: Float) -> Float:
    down, across, mask = _weights(warp, first.shape[1])
    moved = np.asarray(down @ second @ across.swapaxes(1, 2), np.float32)
    pictures = _correlation(first, moved, mask)
    details = _correlation(detail(first), detail(moved), mask)
    return np.where(mask.mean(axis=(1, 2)) < _LEAST_OVERLAP, -1, np.minimum(pictures, details))


def _correlation(a: Float, b: Float, mask: Float) -> Float:
    a, b = _standard(a, mask), _standard(b, mask)
    total: Float = (a * b).sum(axis=(1, 2))
    return total


def _standard(x: Float, mask: Float) -> Float:
    """Return pictures with mean 0 and length 1 where the mask is."""
    area = mask.sum(axis=(1, 2), keepdims=True) + 1e-6
    x = (x - (x * mask).sum(axis=(1, 2), keepdims=True) / area) * mask
    standard: Float = x / (np.sqrt((x * x).sum(axis=(1, 2), keepdims=True)) + 1e-3)
    return standard


def detail(x: Float) -> Float:
    """Return pictures less their mean over the 5 x 5 pixels around."""
    return x - _blurred(_blurred(x, 1), 2)


def _blurred(x: Float, axis: int) -> Float:
    pad = [(0, 0)] * 3
    pad[axis] = (2, 2)
    padded, side = np.pad(x, pad, "edge"), x.shape[axis]
    windows = np.stack([np.take(padded, range(k, k + side), axis) for k in range(5)])
    return np.asarray(windows.mean(axis=0))


def _improved(first: Float, second: Float, warp: Float) -> Float:
    """Return the warp after a Gauss-Newton step on the squared difference."""
    pairs, side, _ = first.shape
    down, across, mask = _weights(warp, side)
    slopes = np.gradient(second, axis=(1, 2))  # how much it grows downwards and to the right
    moved, dy, dx = (down @ x @ across.swapaxes(1, 2) for x in (second, *slopes))
    grid = _grid(side) / side
    parts = (dx * grid, dx, dy * grid[:, None], dy, moved, np.ones_like(moved))
    jacobian = (np.stack(parts, axis=-1) * mask[..., None]).reshape(pairs, side * side, 6)
    transposed = jacobian.swapaxes(1, 2)
    target = (first * mask).reshape(pairs, side * side, 1)
    normal = transposed @ jacobian + np.eye(6, dtype=np.float32)
    solved = np.linalg.solve(normal, transposed @ target)[..., 0]
    gain = np.where(np.abs(solved[:, 4:5]) < 0.2, 1, solved[:, 4:5])
    step = np.clip(solved[:, :4] / gain / side, -_STEP, _STEP).reshape(pairs, 2, 2)
    limit = np.array([_STRETCH, _SHIFT], np.float32)
    improved: Float = np.clip(warp + step, -limit, limit).astype(np.float32)
    return improved
