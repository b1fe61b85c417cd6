"""Predict how long a network takes on a machine, from networks measured there.

The latency is a sum over layers. Each term is work that the machine does at its own speed
(products, values read and written, layers begun); the fit finds the milliseconds per unit, at least
0. 3x3 convolutions are split by whether they have groups and how wide those are: engines have a
kernel for each, and fill vectors of 16 whatever the group width.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from regnet.network.layers import Layer, layers
from regnet.network.spec import Spec
from regnet.statistics.draws import Reals

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


def features(spec: Spec, *, image_size: int = 224) -> Reals:
    """Return the inputs of the prediction, one value >= 0 for each of `FEATURES`."""
    row = dict.fromkeys(FEATURES, 0.0) | {"constant": 1.0}
    size = image_size
    for layer in layers(spec, image_size=image_size, distinct=True):
        size = layer.size if layer.kind == "conv" else size
        for name, value in _work(layer, size).items():
            row[name] += layer.times * value
    return np.array(list(row.values()))


def _work(layer: Layer, size: int) -> dict[str, float]:
    """Return the features of one layer; `size` is the side of the last convolution's output."""
    width_in, width_out, pixels = layer.width_in, layer.width_out, size**2 / _MILLION
    weights = layer.weights / _MILLION
    if layer.kind == "linear":
        return {"weights": weights}
    if layer.kind == "squeeze-excite":
        work = {"weights squeeze": weights}
        first = layer.name.endswith(".0")
        return work | {"layers squeeze": 1, "values squeeze": width_in * pixels} if first else work
    if layer.name == "stem.conv":
        return {"values 1x1": width_in * layer.size_in**2 / _MILLION + width_out * pixels}
    if layer.kernel == 1:
        return {
            "layers": 1,
            "products 1x1": layer.weights * pixels,
            "products 1x1, filled": _filled(width_in) * _filled(width_out) * pixels,
            "values 1x1": (width_in + width_out) * pixels,
            "values strided": width_in * pixels if layer.stride > 1 else 0,
            "weights": weights,
        }
    group = width_in // layer.groups
    kind = "dense 3x3" if layer.groups == 1 else "narrow 3x3" if group <= _VECTOR else "wide 3x3"
    return {
        f"layers {kind}": 1,
        f"products {kind}": layer.weights * pixels,
        f"products filled {kind}": 9 * _filled(group) ** 2 * layer.groups * pixels,
        f"rows {kind}": size * layer.groups / 1e3,
        "values 3x3": width_in * (layer.size_in**2 + size**2) / _MILLION,
        "values 3x3, unfilled": width_in * pixels if group % _VECTOR else 0,
        "weights": weights,
    }


def _filled(width: int) -> int:
    return math.ceil(width / _VECTOR) * _VECTOR


@dataclass(frozen=True)
class LatencyModel:
    """Milliseconds per unit of each feature, and the errors of predictions.

    `spread` is the deviation of log(measured / predicted), `median_error` the median of
    |predicted / measured - 1|, both cross-validated (10 folds). `measured` networks were fitted.
    """

    weights: Reals
    spread: float
    median_error: float
    measured: int

    def predict(self, rows: Reals) -> Reals:
        """Return milliseconds (N,) for features (N, F)."""
        milliseconds: Reals = rows @ self.weights
        return milliseconds

    def chance_within(self, rows: Reals, budget: float) -> Reals:
        """Return the probability that each network takes at most `budget` milliseconds, (N,)."""
        beyond = np.log(self.predict(rows) / budget) / max(self.spread, 1e-3)
        return np.array([0.5 * math.erfc(value / math.sqrt(2)) for value in beyond])

    @property
    def parts(self) -> dict[str, float]:
        """Milliseconds per unit of each feature that counts at all."""
        return {n: float(w) for n, w in zip(FEATURES, self.weights, strict=True) if w > 0}


def fit(rows: Reals, milliseconds: Reals) -> LatencyModel:
    """Fit the model to N >= 2 networks with features (N, F) and milliseconds (N,)."""
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
    """Return the weights of least relative error; a small ridge splits correlated features."""
    relative = rows / milliseconds[:, None]
    scale = np.sqrt((relative**2).mean(axis=0))
    scale[scale == 0] = np.inf  # avoids dividing by zero for features absent from every network
    columns = relative / scale
    ridge = math.sqrt(_RIDGE * len(rows)) * np.eye(columns.shape[1])
    target = np.concatenate([np.ones(len(rows)), np.zeros(len(ridge))])
    weights: Reals = nonnegative(np.concatenate([columns, ridge]), target) / scale
    return weights


def nonnegative(a: Reals, b: Reals) -> Reals:
    """Return the x >= 0 (F,) that minimises |a x - b|, for `a` (N, F) of full rank.

    Source: Lawson and Hanson, Solving Least Squares Problems (1974), chapter 23.
    """
    x = np.zeros(a.shape[1])
    passive = np.zeros(len(x), bool)
    for _ in range(_STEPS):
        gradient = np.where(passive, -np.inf, a.T @ (b - a @ x))
        if gradient.max(initial=-np.inf) <= 1e-9:
            break
        passive[gradient.argmax()] = True
        while True:
            trial = np.zeros_like(x)
            trial[passive] = np.linalg.lstsq(a[:, passive], b, rcond=None)[0]
            infeasible = passive & (trial <= 0)
            if not infeasible.any():
                break
            step = (x[infeasible] / (x[infeasible] - trial[infeasible])).min()
            x += step * (trial - x)
            passive &= x > 1e-12
            x[~passive] = 0
        x = trial
    return x
