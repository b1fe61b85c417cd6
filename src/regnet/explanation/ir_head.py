"""The head of a converted model, read from its graph: mean over positions, one linear layer.

A logit is linear in the last features, so each position's share of it can be told exactly.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.ir.constants import values
from regnet.system.errors import ModelError
from regnet.system.runtime import ov

Array = NDArray[np.float32]

_POSITIONS: Final = [2, 3]


@dataclass(frozen=True, eq=False)
class LinearHead:
    """What makes logits of features: `weights` (classes, channels) and `bias` (classes,).

    logits = weights @ mean of the features over their positions + bias. The temperature that a
    calibrated model divides by is part of both. `features` is the output of the graph that holds
    the features, (N, channels, h, w).
    """

    weights: Array
    bias: Array
    features: Any

    def maps(self, features: Array, classes: list[int]) -> Array:
        """Return the share of each position of (channels, h, w): (classes, h, w).

        The mean of a map is the class's logit less its bias.
        """
        rows = self.weights[classes].astype(np.float64)
        return np.tensordot(rows, features.astype(np.float64), axes=1).astype(np.float32)


def read_head(graph: ov.Model, *, source: str) -> LinearHead:
    """Return the head of a graph that ends in mean, linear layer and softmax.

    `source` names the model in errors. Raises `ModelError` if the graph ends in anything else.
    """
    try:
        return _read(graph)
    except _OddError as exc:
        raise ModelError(
            f"{source}: cannot be explained: its graph does not end in mean, linear layer and "
            f"softmax ({exc}); convert it again from its checkpoint"
        ) from exc


class _OddError(Exception):
    """The operation or constant found instead of a part of the head."""


def _read(graph: ov.Model) -> LinearHead:
    softmax = _op(graph.output(0).get_node().input_value(0), "Softmax")
    scale, logits = _temperature(softmax.input_value(0))
    product, bias = _op(logits, "Add").input_values()
    try:
        shift = _constant(bias)
    except _OddError:  # the inputs in the other order
        product, shift = bias, _constant(product)
    linear = _op(product, "MatMul")
    weights = _constant(linear.input_value(1))
    if not linear.get_attributes()["transpose_b"]:
        weights = weights.T
    mean = _op(linear.input_value(0), "ReduceMean")
    features = mean.input_value(0)
    axes = sorted(_constant(mean.input_value(1)).ravel().astype(int).tolist())
    if axes != _POSITIONS or len(features.get_partial_shape()) != 4:
        raise _OddError(f"{mean.get_friendly_name()} is no mean over positions")
    return LinearHead(np.ascontiguousarray(weights * scale), shift.ravel() * scale, features)


def _temperature(logits: Any) -> tuple[np.float32, Any]:
    """Return the factor that scales the logits before the softmax, and the unscaled logits."""
    node = logits.get_node()
    kind = node.get_type_name()
    if kind not in ("Divide", "Multiply"):  # OpenVINO makes the one the other
        return np.float32(1), logits
    by = _constant(node.input_value(1))
    if by.size != 1:
        raise _OddError(f"{node.get_friendly_name()} is not the same for each class")
    factor = np.float32(by.item())
    return (1 / factor if kind == "Divide" else factor), node.input_value(0)


def _op(output: Any, kind: str) -> Any:
    """Return the operation that computes an output; raises `_OddError` for another kind."""
    node = output.get_node()
    if node.get_type_name() != kind:
        raise _OddError(f"{node.get_friendly_name()} is no {kind}")
    return node


def _constant(output: Any) -> Array:
    try:
        return values(output)
    except ModelError as exc:
        raise _OddError(str(exc)) from exc
