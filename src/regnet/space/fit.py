"""How near a network's widths are to a RegNet's quantised line: e_fit.

Source: Radosavovic et al., Designing Network Design Spaces (arXiv 2003.13678), section 3.3: d is
the network's depth, and a grid of w0, wa and wm is searched for the least mean absolute log-ratio
of the line's widths, block by block, to the network's.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from regnet.space.draws import Reals
from regnet.spec import Spec

_QUANTUM: Final = 8
_WM: Final = np.arange(60, 121) / 40  # 1.5 to 3 in steps of 0.025
_SLOPES: Final = np.concatenate([[0.0], np.geomspace(0.01, 16, 96)])  # wa over w0


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
    """Return the line nearest to the widths of blocks.

    Of a grid of slopes and wm, each with the two w0 next to what would be best were widths not
    rounded to multiples of 8, which is a median.
    """
    wanted = np.log(np.asarray(widths, np.float64))
    rises = _steps(len(widths)) * np.log(_WM)[:, None, None]  # (wm, slopes, blocks)
    middle = np.exp(np.median(wanted - rises, axis=2)) / _QUANTUM
    best = LineFit(float("inf"), len(widths), 0, 0.0, 0.0)
    for multiples in (np.floor(middle), np.ceil(middle)):
        w0 = _QUANTUM * np.maximum(multiples, 1.0)
        lines = _QUANTUM * np.rint(w0[..., None] * np.exp(rises) / _QUANTUM)
        errors = np.abs(np.log(lines) - wanted).mean(axis=2)
        at = np.unravel_index(int(errors.argmin()), errors.shape)
        if errors[at] < best.error:
            first = int(w0[at])
            slope, wm = _SLOPES[at[1]], _WM[at[0]]
            best = LineFit(float(errors[at]), best.d, first, float(slope * first), float(wm))
    return best


@cache
def _steps(blocks: int) -> Reals:
    """Return the steps of wm that each block is above the first, (wm, slopes, blocks)."""
    rise = np.log1p(_SLOPES[:, None] * np.arange(blocks))
    steps: Reals = np.rint(rise / np.log(_WM)[:, None, None])
    return steps
