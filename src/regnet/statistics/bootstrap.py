"""Statistics of errors: distribution functions, and intervals by resampling.

Intervals are 95 % percentile intervals of the bootstrap; draws come from raw bits (`Uniforms`), so
they are the same on every machine. Source: Radosavovic et al., Designing Network Design Spaces
(arXiv 2003.13678), section 3.1, and of best values their appendix.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from regnet.statistics.draws import Reals, Uniforms, Whole
from regnet.system.json_text import ToDict

DRAWS: Final = 10_000
SHARE: Final = 0.25  # of the networks, in each draw for a best value
FEWEST: Final = 8  # networks, below which a bootstrap says little
_QUANTILES: Final = (0.025, 0.975)
_AT_ONCE: Final = 1 << 21  # numbers


@dataclass(frozen=True)
class Interval(ToDict):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Tell whether a value is within."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Edf:
    """Shares of networks, (E,), whose error is at most each of `errors`, (E,), with a band."""

    errors: Reals
    share: Reals
    low: Reals
    high: Reals


def resamples(
    count: int, *, seed: int, purpose: str, size: int | None = None, draws: int = DRAWS
) -> Iterator[Whole]:
    """Yield blocks (.., size) of places from 0 to below `count`, drawn with replacement.

    Together they have `draws` rows; `size` None is `count`.
    """
    size = count if size is None else size
    uniforms = Uniforms(seed, purpose)
    rows = max(1, _AT_ONCE // size)
    for start in range(0, draws, rows):
        block = min(rows, draws - start)
        yield (uniforms.draw(block * size).reshape(block, size) * count).astype(np.int64)


def resampled_means(values: Reals, *, seed: int, purpose: str, draws: int = DRAWS) -> Reals:
    """Return the means (draws,) of resamples of values (N,); for one purpose the same resamples."""
    blocks = resamples(len(values), seed=seed, purpose=purpose, draws=draws)
    return np.concatenate([values[block].mean(axis=1) for block in blocks])


def interval(value: float, resampled: Reals) -> Interval:
    """Return a value with the percentile interval of what resamples gave, (draws,)."""
    low, high = np.quantile(resampled, _QUANTILES)
    return Interval(float(value), float(low), float(high))


def edf(errors: Reals, *, seed: int, purpose: str) -> Edf:
    """Return the distribution function of errors (N,), with the bootstrap's band at each step."""
    steps, place = np.unique(errors, return_inverse=True)
    count = len(errors)
    shares = []
    for block in resamples(count, seed=seed, purpose=purpose):
        cells = place[block] + np.arange(len(block))[:, None] * len(steps)
        hits = np.bincount(cells.ravel(), minlength=len(block) * len(steps))
        shares.append(hits.reshape(len(block), -1).cumsum(axis=1).astype(np.int32))
    low, high = np.quantile(np.concatenate(shares), _QUANTILES, axis=0) / count
    share = np.bincount(place).cumsum() / count
    return Edf(steps, share, low, high)


def heights(errors: Reals, low: float, high: float) -> Reals:
    """Return what each error (N,) adds to the mean height of the EDF between two errors.

    Their mean is the area under the EDF from `low` to `high`, divided by `high - low`: in [0, 1],
    more is better.
    """
    if high <= low:
        return (errors <= high).astype(np.float64)
    return np.clip((high - errors) / (high - low), 0.0, 1.0)


def ranks(values: Reals) -> Reals:
    """Return the ranks (N,) of values, from 0; equal values share their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts + 1) / 2)[place]


def rank_correlation(a: Reals, b: Reals, *, seed: int, purpose: str) -> Interval | None:
    """Return Spearman's correlation of values (N,) and (N,); None where either never changes.

    The interval is of the correlation of resampled ranks.
    """
    x, y = ranks(a), ranks(b)
    if len(a) < 3 or not x.std() or not y.std():
        return None
    blocks = resamples(len(a), seed=seed, purpose=purpose)
    found = np.concatenate([_correlations(x[block], y[block]) for block in blocks])
    return interval(_correlations(x[None], y[None])[0], found)


def _correlations(a: Reals, b: Reals) -> Reals:
    """Return the correlation of each row, 0 where a row never changes."""
    a, b = (v - v.mean(axis=1, keepdims=True) for v in (a, b))
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    products: Reals = (a * b).sum(axis=1)
    found: Reals = np.divide(products, scale, out=np.zeros(len(a)), where=scale > 0)
    return found


def winners(errors: Reals, *, seed: int, purpose: str) -> Whole:
    """Return the place (draws,) of the least error in each draw of a quarter of the errors (N,).

    The empirical bootstrap of the paper: what the winners have is what is best, and how surely.
    """
    size = math.ceil(SHARE * len(errors))
    blocks = resamples(len(errors), seed=seed, purpose=purpose, size=size)
    rows = [block[np.arange(len(block)), errors[block].argmin(axis=1)] for block in blocks]
    return np.concatenate(rows)


def best_value(values: Reals, won: Whole) -> Interval:
    """Return the median of the winners' values, and the interval of 95 % of them.

    `values` (N,): the parameter of every network; `won` indexes the winners.
    """
    quantiles = (0.5, *_QUANTILES)
    return Interval(*np.quantile(values[won], quantiles, method="inverted_cdf").tolist())


def power_law(x: Reals, y: Reals, *, seed: int, purpose: str) -> Interval:
    """Return the exponent k of the line y = c x^k, by least squares of logarithms."""
    u, v = np.log(x), np.log(y)
    blocks = resamples(len(x), seed=seed, purpose=purpose)
    found = np.concatenate([_slopes(u[block], v[block]) for block in blocks])
    return interval(_slopes(u[None], v[None])[0], found)


def _slopes(u: Reals, v: Reals) -> Reals:
    """Return the slope of each row's line of least squares, 0 where u never changes."""
    u = u - u.mean(axis=1, keepdims=True)
    spread = (u**2).sum(axis=1)
    found: Reals = np.divide((u * v).sum(axis=1), spread, out=np.zeros(len(u)), where=spread > 0)
    return found
