"""Random draws that are the same for a seed on every machine, many at once.

Numbers come from the raw bits of PCG64, whose stream numpy guarantees, and values from tables; no
library's sampler is asked, for those change.
"""

from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Whole = NDArray[np.int64]
Flags = NDArray[np.bool_]

_TO_UNIT: Final = 2.0**-53
_PARTS: Final = 1 << 14  # of the numbers from 0 to 1; a table says where to begin in each


class Uniforms:
    """Numbers from 0 to below 1, in one order; other ones for another `purpose` of a seed."""

    def __init__(self, seed: int, purpose: str) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence([seed, *purpose.encode()]))

    def draw(self, count: int) -> Reals:
        """Return the next `count` numbers."""
        raw: NDArray[np.uint64] = self._bits.random_raw(count)
        return (raw >> np.uint64(11)).astype(np.float64) * _TO_UNIT


class WeightedValues:
    """Values, each with its share of the draws."""

    def __init__(self, values: Sequence[int], weights: Sequence[float]) -> None:
        self.values = np.asarray(values, np.int64)
        self._edges = np.cumsum(np.asarray(weights, np.float64))
        parts = np.arange(_PARTS) / _PARTS
        self._least = np.searchsorted(self._edges, parts * self._edges[-1], side="right")

    def pick(self, uniforms: Reals) -> Whole:
        """Return a value for each number from 0 to below 1."""
        place = self._least[(uniforms * _PARTS).astype(np.int64)]  # the sought one or one before it
        wanted, last = uniforms * self._edges[-1], len(self.values) - 1
        while (before := (self._edges[place] <= wanted) & (place < last)).any():
            place += before
        picked: Whole = self.values[place]
        return picked

    def pick_rising(self, uniforms: Reals) -> Whole:
        """Return rows (N, S) that never fall, for numbers (N, S).

        Each row is as likely as among rows of independent values, of which the falling ones are
        thrown away; but here none has to be.
        """
        stages = uniforms.shape[1]
        rows = np.empty(uniforms.shape, np.int64)
        least = np.zeros(len(uniforms), np.int64)
        for stage, edges in enumerate(self._rising_edges(stages)):
            below = np.concatenate([[0.0], edges])[least]
            wanted = below + uniforms[:, stage] * (edges[-1] - below)
            least = np.maximum(np.searchsorted(edges, wanted, side="right"), least)
            least = np.minimum(least, len(edges) - 1)
            rows[:, stage] = self.values[least]
        return rows

    def _rising_edges(self, stages: int) -> list[Reals]:
        """Return the summed weights of a stage's values, times the ways to go on from each."""
        weights = np.diff(self._edges, prepend=0.0)
        ways, edges = np.ones_like(weights), []
        for _ in range(stages):
            edges.append(np.cumsum(weights * ways))
            ways = np.cumsum((weights * ways)[::-1])[::-1]
        return edges[::-1]


@cache
def evenly(values: Sequence[int]) -> WeightedValues:
    """Return a table of equally likely values."""
    return WeightedValues(values, [1.0] * len(values))


@cache
def log_uniform(low: int, high: int, *, step: int = 1) -> WeightedValues:
    """Return the multiples of `step` from `low` to `high`, as log-uniform reals round to them.

    Both ends are multiples of `step`, at least that.
    """
    values = range(low, high + 1, step)
    edges = [max(value - step / 2, low) for value in values]
    return WeightedValues(values, np.diff(np.log([*edges, high])).tolist())
