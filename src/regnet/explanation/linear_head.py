"""The head of a network that ends in the mean over positions and one linear layer.

It is read from the graph, so networks of any maker that end so will do.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.ir.constants import source_of, values
from regnet.ir.features import last_layer, unrooted
from regnet.system.errors import ModelError
from regnet.system.runtime import ov

Array = NDArray[np.float32]

_SHAPES: Final = ("Reshape", "Squeeze", "Unsqueeze", "Convert", "FakeQuantize")


@dataclass(frozen=True, eq=False)
class LinearHead:
    """What makes logits of features: `weights` (classes, channels) and `bias` (classes,).

    logits = weights @ mean of the features over their positions + bias. The temperature that a
    calibrated model divides by is part of both. `features` is the output of the graph that holds
    the features, (N, channels, h, w). A `rooted` head takes the roots of the means m instead,
    sign(m) sqrt(|m|), which are m / sqrt(|m|).
    """

    weights: Array
    bias: Array
    features: Any
    rooted: bool = False

    def maps(self, features: Array, classes: list[int]) -> Array:
        """Return the share of each position of (channels, h, w): (classes, h, w).

        The mean of a map is the class's logit less its bias.
        """
        rows = self.weights[classes].astype(np.float64)
        if self.rooted:
            roots = np.sqrt(np.abs(features.mean(axis=(1, 2), dtype=np.float64)))
            rows = np.divide(rows, roots, out=np.zeros_like(rows), where=roots > 0)
        return np.tensordot(rows, features.astype(np.float64), axes=1).astype(np.float32)


def read_head(graph: ov.Model, *, source: str) -> LinearHead:
    """Return the head of a graph that ends in mean, linear layer and softmax.

    `source` names the model in errors. Raises `ModelError` if the graph ends in anything else.
    """
    try:
        return _read(graph)
    except ModelError as exc:
        raise ModelError(
            f"{source}: cannot be explained: its network does not end in mean, linear layer and "
            f"softmax ({exc})"
        ) from exc


def _read(graph: ov.Model) -> LinearHead:
    layer = last_layer(graph, source="the graph")
    weights = values(layer.op.input_value(1))
    if layer.op.get_type_name() == "MatMul" and not layer.op.get_attributes()["transpose_b"]:
        weights = weights.T
    weights = weights.reshape(-1, layer.width)
    classes = graph.output(0).get_partial_shape()[1].get_length()
    scale: Array = np.ones(1, np.float32)
    bias: Array = np.zeros(1, np.float32)
    for node in _after(layer.op, graph):
        kind = node.get_type_name()
        constant = (
            _constant(node) if kind in ("Add", "Divide", "Multiply") else np.zeros(0, np.float32)
        )
        if kind == "Add":
            bias = bias + constant
        elif constant.size in (1, classes):  # a temperature, or one number for both of 2 classes
            by = np.float32(1) / constant if kind == "Divide" else constant
            scale, bias = scale * by, bias * by
        else:
            raise ModelError(f"{node.get_friendly_name()} is neither bias nor temperature")
    every = np.broadcast_to(bias, classes).astype(np.float32)
    _, rooted = unrooted(layer.op.input_value(0))
    weights = np.ascontiguousarray(weights * scale[:, None])
    return LinearHead(weights, every, _pooled(layer.features), rooted)


def _after(product: Any, graph: ov.Model) -> list[Any]:
    """Return the operations from the last layer to the softmax that change values, in order."""
    path: list[Any] = []
    node = graph.output(0).get_node().input_value(0).get_node()
    if node.get_type_name() != "Softmax":
        raise ModelError(f"{node.get_friendly_name()} is not a Softmax")
    while True:
        inputs = [v.get_node() for v in node.input_values()]
        node = next(n for n in inputs if n.get_type_name() not in ("Constant", "Convert"))
        if node.get_name() == product.get_name():
            return path[::-1]
        if node.get_type_name() not in _SHAPES:
            path.append(node)


def _constant(node: Any) -> Array:
    """Return the constant that an operation adds or multiplies with; raises `ModelError`."""
    for output in node.input_values()[::-1]:
        try:
            return values(output).ravel()
        except ModelError:
            continue
    raise ModelError(f"{node.get_friendly_name()} takes no constant")


def _pooled(output: Any) -> Any:
    """Return the features (N, channels, h, w) whose mean over positions an output is."""
    node = source_of(output, *_SHAPES)
    name, kind = node.get_friendly_name(), node.get_type_name()
    features = node.input_value(0) if node.inputs() else output
    shape = features.get_partial_shape()
    if kind == "ReduceMean" and len(shape) == 4:
        axes = sorted(int(axis) % 4 for axis in values(node.input_value(1)).ravel())
        if axes == [2, 3]:
            return features
        if axes == [1, 2]:  # channels are last
            order = ov.opset15.constant(np.array([0, 3, 1, 2]))
            return ov.opset15.transpose(features, order).output(0)
    if kind == "AvgPool" and list(node.get_attributes()["kernel"]) == _sides(shape):
        return features
    raise ModelError(f"{name} is not a mean over positions")


def _sides(shape: Any) -> list[int]:
    return [side.get_length() if side.is_static else 0 for side in list(shape)[2:]]
