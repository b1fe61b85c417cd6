"""How long a network takes on a machine: a sum over its layers, fitted to networks measured there.

Each part of the sum is work that a machine does at some speed of its own (products, values read and
written, layers begun), and the fit finds the milliseconds that a unit of each takes, none less than
0. 3x3 convolutions are apart by whether they have groups, and how wide: engines have other kernels
for each, and fill vectors of 16 whatever a group's width is.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from regnet.network.spec import Spec, Stage

Reals = NDArray[np.float64]

FEATURES: Final = (
    "constant",
    "layers",  # 1x1 convolutions
    "products 1x1",  # millions
    "products 1x1, filled",  # ... of channels in whole vectors
    "values 1x1",  # read and written
    "values strided",  # read by the first blocks' shortcuts
    "weights",
    *(
        f"{what} {kind}"
        for kind in ("dense 3x3", "narrow 3x3", "wide 3x3")
        for what in ("layers", "products", "products filled", "rows")
    ),
    "values 3x3",
    "values 3x3, unfilled",  # where groups do not fill vectors
    "layers squeeze",
    "values squeeze",
    "weights squeeze",
)

_VECTOR: Final = 16
_MILLION: Final = 1e6
_RIDGE: Final = 1e-3
_FOLDS: Final = 10
_STEPS: Final = 1000


class _Row(dict[str, float]):
    """The features of one network as they are counted; each is 0 at first."""

    def add(self, name: str, value: float) -> None:
        self[name] = self.get(name, 0.0) + value


def features(spec: Spec, *, image_size: int = 224) -> Reals:
    """Return what a latency is predicted from, one value for each of `FEATURES`, at least 0."""
    row = _Row(constant=1.0)
    size = _halved(image_size) if spec.stem_stride == 2 else image_size
    row.add("values 1x1", (3 * image_size**2 + spec.stem_width * size**2) / _MILLION)
    width = spec.stem_width
    for stage in spec.stages:
        before, size = size, _halved(size)
        _add_pointwise(row, width, stage.width, size, 1)
        row.add("values strided", width * size**2 / _MILLION)
        _add_blocks(row, spec, stage, width, before, size, 1)
        _add_blocks(row, spec, stage, stage.width, size, size, stage.depth - 1)
        width = stage.width
    row.add("weights", width * spec.classes / _MILLION)
    return np.array([row.get(name, 0.0) for name in FEATURES])


def _add_blocks(
    row: _Row, spec: Spec, stage: Stage, width: int, before: int, size: int, times: int
) -> None:
    """Add blocks with `width` input channels of `before` x `before` pixels."""
    if not times:
        return
    inner = stage.inner_width
    _add_pointwise(row, width, inner, before, times)
    _add_pointwise(row, inner, stage.width, size, times)
    _add_grouped(row, stage, before, size, times)
    if (squeeze := spec.se_width(width)) is not None:
        row.add("layers squeeze", times)
        row.add("values squeeze", inner * size**2 * times / _MILLION)
        row.add("weights squeeze", 2 * inner * squeeze * times / _MILLION)


def _add_pointwise(row: _Row, width_in: int, width: int, size: int, times: int) -> None:
    pixels = size**2 * times / _MILLION
    row.add("layers", times)
    row.add("products 1x1", width_in * width * pixels)
    row.add("products 1x1, filled", _filled(width_in) * _filled(width) * pixels)
    row.add("values 1x1", (width_in + width) * pixels)
    row.add("weights", width_in * width * times / _MILLION)


def _add_grouped(row: _Row, stage: Stage, before: int, size: int, times: int) -> None:
    inner, group = stage.inner_width, stage.group_width
    kind = "wide 3x3" if group > _VECTOR else "narrow 3x3"
    kind = "dense 3x3" if group == inner else kind
    pixels = size**2 * times / _MILLION
    row.add(f"layers {kind}", times)
    row.add(f"products {kind}", 9 * group * inner * pixels)
    row.add(f"products filled {kind}", 9 * _filled(group) ** 2 * (inner // group) * pixels)
    row.add(f"rows {kind}", size * (inner // group) * times / 1e3)
    row.add("values 3x3", inner * (before**2 + size**2) * times / _MILLION)
    row.add("weights", 9 * group * inner * times / _MILLION)
    if group % _VECTOR:
        row.add("values 3x3, unfilled", inner * pixels)


def _filled(width: int) -> int:
    return math.ceil(width / _VECTOR) * _VECTOR


def _halved(size: int) -> int:
    return (size - 1) // 2 + 1


@dataclass(frozen=True)
class LatencyModel:
    """Milliseconds a unit of each feature, and how far off predictions are.

    `spread` is the deviation of log(measured / predicted), `median_error` the median of
    |predicted / measured - 1|, both of networks that were held out (in turn, a tenth of those
    measured). `measured` is how many it was fitted to.
    """

    weights: Reals
    spread: float
    median_error: float
    measured: int

    def predict(self, rows: Reals) -> Reals:
        """Return milliseconds (N,) for features (N, F)."""
        found: Reals = rows @ self.weights
        return found

    def chance_within(self, rows: Reals, budget: float) -> Reals:
        """Return how likely each network takes at most `budget` milliseconds, (N,)."""
        beyond = np.log(self.predict(rows) / budget) / max(self.spread, 1e-3)
        return np.array([0.5 * math.erfc(value / math.sqrt(2)) for value in beyond])

    @property
    def parts(self) -> dict[str, float]:
        """Milliseconds a unit of each feature that counts at all."""
        return {n: float(w) for n, w in zip(FEATURES, self.weights, strict=True) if w > 0}


def fit(rows: Reals, milliseconds: Reals) -> LatencyModel:
    """Return the model of networks with features (N, F), N at least 2, that took so long (N,)."""
    held_out = np.empty(len(rows))
    folds = min(_FOLDS, len(rows))
    for fold in range(folds):
        out = np.arange(len(rows)) % folds == fold
        held_out[out] = rows[out] @ _weights(rows[~out], milliseconds[~out])
    ratios = np.maximum(held_out, 1e-9) / milliseconds
    return LatencyModel(
        weights=_weights(rows, milliseconds),
        spread=float(np.sqrt(np.mean(np.log(ratios) ** 2))),
        median_error=float(np.median(np.abs(ratios - 1))),
        measured=len(rows),
    )


def _weights(rows: Reals, milliseconds: Reals) -> Reals:
    """Return the weights of least relative error; a small ridge shares among what goes together."""
    relative = rows / milliseconds[:, None]
    scale = np.sqrt((relative**2).mean(axis=0))
    scale[scale == 0] = np.inf  # what no network has costs nothing that is known
    columns = relative / scale
    ridge = math.sqrt(_RIDGE * len(rows)) * np.eye(columns.shape[1])
    wanted = np.concatenate([np.ones(len(rows)), np.zeros(len(ridge))])
    weights: Reals = nonnegative(np.concatenate([columns, ridge]), wanted) / scale
    return weights


def nonnegative(columns: Reals, wanted: Reals) -> Reals:
    """Return x >= 0 (F,) that makes |columns x - wanted| least, for columns (N, F) of full rank.

    Source: Lawson and Hanson, Solving Least Squares Problems (1974), chapter 23.
    """
    found = np.zeros(columns.shape[1])
    free = np.zeros(len(found), bool)
    for _ in range(_STEPS):
        gain = columns.T @ (wanted - columns @ found)
        gain[free] = -np.inf
        if gain.max(initial=-np.inf) <= 1e-9:
            break
        free[gain.argmax()] = True
        while True:
            trial = np.zeros_like(found)
            trial[free] = np.linalg.lstsq(columns[:, free], wanted, rcond=None)[0]
            below = free & (trial <= 0)
            if not below.any():
                break
            step = (found[below] / (found[below] - trial[below])).min()
            found += step * (trial - found)
            free &= found > 1e-12
            found[~free] = 0
        found = trial
    return found
