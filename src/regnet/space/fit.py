"""e_fit: how near a network's widths are to a RegNet's quantised line.

Source: Radosavovic et al., Designing Network Design Spaces (arXiv 2003.13678), section 3.3: of a
grid of w0, wa and wm the line with the least mean absolute log-ratio to the network's widths, block
by block.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from regnet.network.spec import Spec
from regnet.statistics.draws import Reals

_QUANTUM: Final = 8
_WM: Final = np.arange(60, 121) / 40  # 1.5 to 3
_WM_STEP: Final = 1 / 40
_SLOPES: Final = np.concatenate([[0.0], np.geomspace(0.01, 16, 96)])  # wa over w0
_SLOPE_STEP: Final = 1600 ** (1 / 95)  # times
_FINER: Final = 33  # values of each, around the best of the grid


@dataclass(frozen=True)
class LineFit:
    """The quantised line nearest to a network: `error` is the mean |log(width / line's)|, >= 0."""

    error: float
    d: int
    w0: int
    wa: float
    wm: float


def fit_line(spec: Spec) -> LineFit:
    """Return the quantised line nearest to a network's widths."""
    return _fit(tuple(width for s in spec.stages for width in [s.width] * s.depth))


@cache
def _fit(widths: tuple[int, ...]) -> LineFit:
    """Return the line nearest to the widths of blocks: of a grid, then of a finer one around it."""
    logs = np.log(np.asarray(widths, np.float64))
    best = _nearest(logs, _grid_steps(len(widths)), _WM, _SLOPES)
    wm = np.clip(best.wm + np.linspace(-_WM_STEP, _WM_STEP, _FINER), _WM[0], _WM[-1])
    slopes = best.wa / best.w0 * np.geomspace(1 / _SLOPE_STEP, _SLOPE_STEP, _FINER)
    finer = _nearest(logs, _steps(len(widths), wm, slopes), wm, slopes)
    return min(best, finer, key=lambda fit: fit.error)


def _nearest(logs: Reals, steps: Reals, wms: Reals, slopes: Reals) -> LineFit:
    """Return the line of a grid nearest to the logarithms of widths (blocks,).

    For unrounded widths the best w0 is a median; the multiples of 8 on both sides are tried.
    """
    rises = steps * np.log(wms)[:, None, None]  # (wm, slopes, blocks)
    middle = np.exp(np.median(logs - rises, axis=2)) / _QUANTUM
    best = LineFit(float("inf"), len(logs), 0, 0.0, 0.0)
    for multiples in (np.floor(middle), np.ceil(middle)):
        w0 = _QUANTUM * np.maximum(multiples, 1.0)
        lines = _QUANTUM * np.rint(w0[..., None] * np.exp(rises) / _QUANTUM)
        errors = np.abs(np.log(lines) - logs).mean(axis=2)
        at = np.unravel_index(int(errors.argmin()), errors.shape)
        if errors[at] < best.error:
            first, slope, wm = int(w0[at]), slopes[at[1]], wms[at[0]]
            best = LineFit(float(errors[at]), best.d, first, float(slope * first), float(wm))
    return best


@cache
def _grid_steps(blocks: int) -> Reals:
    return _steps(blocks, _WM, _SLOPES)


def _steps(blocks: int, wms: Reals, slopes: Reals) -> Reals:
    """Return the steps of wm that each block is above the first, (wm, slopes, blocks)."""
    rise = np.log1p(slopes[:, None] * np.arange(blocks))
    steps: Reals = np.rint(rise / np.log(wms)[:, None, None])
    return steps
