"""How much two small grey pictures are alike once one is laid over the other.

A copy that was cropped a little does not lie where its original does. So one picture is stretched
and moved, each axis by itself, until the squared difference is least (Lucas and Kanade, 1981, by
Gauss-Newton, with gain and offset of brightness), and only then compared.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

_HOPES: Final = (-1.0, 0.35, 0.5, 0.6, 0.6, 0.6)
"""Steps; one is made for the pairs that are at least so much alike before it."""

_STRETCH: Final = 0.25  # at most, of the side
_SHIFT: Final = 0.15  # at most, of the side
_STEP: Final = 0.06  # at most in one step, of the side
_LEAST_OVERLAP: Final = 0.6  # of the picture


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


def _with_slopes(x: Float) -> tuple[Float, Float, Float]:
    """Return pictures, and by how much they grow downwards and to the right."""
    down, across = np.gradient(x, axis=(1, 2))
    return x, np.asarray(down), np.asarray(across)


def _improved(first: Float, second: Float, warp: Float) -> Float:
    """Return the warp after a Gauss-Newton step on the squared difference."""
    pairs, side, _ = first.shape
    down, across, mask = _weights(warp, side)
    moved, dy, dx = (down @ x @ across.swapaxes(1, 2) for x in _with_slopes(second))
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
