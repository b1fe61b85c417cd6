"""Predict a network's accuracy from the 24 published ones, trained with the same recipe.

The logarithm of the top-1 error is a cubic in log MACs, separate for networks with squeeze-excite,
and shifts with activations, parameters and depth relative to those usual for the MACs. Costs are
those at 224 pixels; errors are on ImageNet-1k with pycls's protocol.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np

from regnet.network.complexity import Complexity, complexity
from regnet.network.spec import RegNetSpec
from regnet.space.published import Published
from regnet.statistics.draws import Flags, Reals

_MACS, _ACTS, _PARAMS, _DEPTH, _GROUP, _SE = range(6)
_BESIDE: Final = (_ACTS, _PARAMS, _DEPTH)
_RIDGE: Final = 1.0  # on the shifts: a network as unusual as the published ones counts 1
_BASE: Final = 6
_FAR: Final = math.log(1.1)
_MARGIN: Final = 0.1  # how far beyond the published range a network is trusted


def traits(spec: RegNetSpec, cost: Complexity | None = None) -> Reals:
    """Return the inputs of the prediction, (6,); `cost` is that at 224 pixels, if known."""
    cost = cost or complexity(spec)
    group_width = min(spec.g, spec.block_widths[-1])  # of all stages but narrow ones
    logs = map(math.log, (*_counts(cost), spec.d, group_width))
    return np.array([*logs, float(spec.se_ratio is not None)])


_known_traits = cache(traits)  # of the published networks: leaving one out needs each 24 times


def _counts(cost: Complexity) -> tuple[float, float, float]:
    return cost.macs / 1e9, cost.acts / 1e6, cost.params / 1e6


@dataclass(frozen=True)
class LeaveOneOut:
    """Errors of predicting each published network from the others, in points of top-1 error."""

    mean: float
    rms: float
    largest: float


@dataclass(frozen=True)
class AccuracyModel:
    """A prediction of top-1 errors.

    `usual` has lines over log MACs (2, 4) of activations, parameters, depth and group width,
    `spread` and `limits` (2, 4) the published networks' distances from them, and `ends` the range
    of their log MACs.
    """

    coefficients: Reals
    usual: Reals
    spread: Reals
    limits: Reals
    ends: tuple[float, float]

    def predict(self, rows: Reals) -> Reals:
        """Return top-1 errors in percent, (N,), for traits (N, 6).

        Beyond the published MACs the curve continues as a straight line in the logarithms.
        """
        inside = rows.copy()
        inside[:, _MACS] = rows[:, _MACS].clip(*self.ends)
        step = np.where(rows[:, _MACS] < inside[:, _MACS], 1e-4, -1e-4)
        near = inside.copy()
        near[:, _MACS] += step
        beside = _beside(rows, self.usual) / np.append(self.spread, 1)
        here, there = (_columns(part, beside) @ self.coefficients for part in (inside, near))
        beyond = rows[:, _MACS] - inside[:, _MACS]
        errors: Reals = np.exp(here + beyond * (there - here) / step)
        return errors

    def trusted(self, rows: Reals) -> Flags:
        """Return which networks resemble the published ones, (N,).

        Their activations, parameters, depth and group width are in the published range for their
        MACs. Of other networks nothing is known.
        """
        beside = _beside(rows, self.usual)
        flags: Flags = ((beside >= self.limits[0]) & (beside <= self.limits[1])).all(axis=1)
        return flags

    def plausible(self, cost: Complexity) -> bool:
        """Return whether activations and parameters alone let a network be trusted."""
        macs, *others = map(math.log, _counts(cost))
        return all(
            low <= other - line[0] - line[1] * macs <= high
            for other, line, low, high in zip(others, self.usual.T, *self.limits, strict=False)
        )

    def extrapolates(self, rows: Reals) -> Flags:
        """Return which networks have far fewer or more MACs than all published ones, (N,)."""
        low, high = self.ends[0] - _FAR, self.ends[1] + _FAR
        flags: Flags = (rows[:, _MACS] < low) | (rows[:, _MACS] > high)
        return flags


def fit(known: Sequence[Published]) -> AccuracyModel:
    """Return the model of these networks' errors."""
    rows = np.stack([_known_traits(one.spec) for one in known])
    macs, depth = rows[:, _MACS], _BESIDE.index(_DEPTH)
    logs = np.stack([np.ones(len(rows)), macs], axis=1)
    lines: Any = np.linalg.lstsq(logs, rows[:, [*_BESIDE, _GROUP]], rcond=None)[0]
    lines[:, depth] = rows[:, _DEPTH].mean(), 0  # the same in every regime: paper, section 4
    apart = _beside(rows, lines)
    spread = apart[:, : len(_BESIDE)].std(axis=0)
    columns = _columns(rows, apart / np.append(spread, 1))
    ridge = np.diag([1e-9] * _BASE + [_RIDGE] * len(_BESIDE))
    errors = np.log([one.percent for one in known])
    coefficients: Any = np.linalg.solve(columns.T @ columns + ridge, columns.T @ errors)
    low, high = apart.min(axis=0), apart.max(axis=0)
    margin = _MARGIN * (high - low)
    limits = np.stack([low - margin, high + margin])
    ends = (float(macs.min()), float(macs.max()))
    return AccuracyModel(coefficients, lines, spread, limits, ends)


def leave_one_out(known: Sequence[Published]) -> LeaveOneOut:
    """Return how well each network is predicted by a model of the others."""
    predicted = [
        float(fit([*known[:i], *known[i + 1 :]]).predict(_known_traits(one.spec)[None])[0])
        for i, one in enumerate(known)
    ]
    apart = np.abs(np.subtract(predicted, [one.percent for one in known]))
    return LeaveOneOut(float(apart.mean()), float(np.sqrt((apart**2).mean())), float(apart.max()))


def _columns(rows: Reals, beside: Reals) -> Reals:
    """Return the terms that the logarithm of the error is a sum of, (N, 9)."""
    macs, se = rows[:, _MACS], rows[:, _SE]
    base = np.stack([np.ones(len(rows)), macs, macs**2, macs**3, se, se * macs], axis=1)
    return np.concatenate([base, beside[:, : len(_BESIDE)]], axis=1)


def _beside(rows: Reals, usual: Reals) -> Reals:
    """Return log activations, parameters, depth and group width minus the usual, (N, 4)."""
    apart: Reals = rows[:, [*_BESIDE, _GROUP]] - usual[0] - np.outer(rows[:, _MACS], usual[1])
    return apart
