"""Pooled features, or embeddings: the input of a classifier's last linear layer.

The layer is looked up in the graph, so that models of any maker work.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.ir.engine import Batch, ConvertedModel, InferenceEngine
from regnet.system.errors import ModelError
from regnet.system.runtime import ov

ROOT: Final = "head.root"
"""The op that takes the roots of features, before a head of `regnet teach`."""

_LINEAR: Final = ("MatMul", "Convolution", "GroupConvolution")


@dataclass(frozen=True, eq=False)
class LastLayer:
    """The last linear layer of a graph: `op`, a MatMul or a convolution of a single position.

    `features` is the output of the graph that it takes, of `width` values per image: (N, width),
    perhaps with axes of length 1.
    """

    op: Any
    features: Any
    width: int


def last_layer(graph: ov.Model, *, source: str) -> LastLayer:
    """Return the last linear layer before the probabilities.

    `source` names the model in errors. Raises `ModelError` if the graph has no such layer: only
    operations with one computed input may follow it.
    """
    varying = _varying(graph)
    output = graph.output(0)
    while True:
        node = output.get_node()
        inputs = [v for v in node.input_values() if v.get_node().get_name() in varying]
        if len(inputs) != 1:
            raise _no_layer(source)
        (output,) = inputs
        if node.get_type_name() in _LINEAR:
            break
    output, _ = unrooted(output)
    while output.get_node().get_type_name() == "FakeQuantize":  # of INT8 models
        output = output.get_node().input_value(0)
    shape = output.get_partial_shape()
    sizes = [] if shape.rank.is_dynamic else [d.get_max_length() for d in shape][1:]
    width = max(sizes, default=0)
    first = node.input_value(0).get_node().get_name() in varying
    if not first or width < 1 or math.prod(sizes) != width:
        raise _no_layer(source)
    return LastLayer(node, output, width)


def unrooted(output: Any) -> tuple[Any, bool]:
    """Return the features that `regnet teach` takes roots of; others as they are, with False."""
    node = output.get_node()
    if node.get_friendly_name() != ROOT:
        return output, False
    while node.get_friendly_name().startswith(ROOT):
        output = node.input_value(0)
        node = output.get_node()
    return output, True


def with_features(model: ConvertedModel) -> ConvertedModel:
    """Return a copy of the model whose last output is its features, (N, width).

    Raises `ModelError` as `last_layer`.
    """
    graph = model.graph.clone()
    layer = last_layer(graph, source=str(model.path))
    shape = ov.opset15.constant(np.array([0, layer.width]))  # 0: as it is
    flat = ov.opset15.reshape(layer.features, shape, special_zero=True)
    graph.add_outputs([flat.output(0)])
    return replace(model, graph=graph)


def features_of(engine: InferenceEngine, pixels: Batch) -> NDArray[np.float32]:
    """Return the features (N, width) of N images' `pixels`; the engine's model is `with_features`.

    It was read without logits: features are its second output.
    """
    return engine.ports(pixels, 1)[1]


def _varying(graph: ov.Model) -> set[str]:
    """Return the names of the operations that depend on an image's pixels, not only its size."""
    varying: set[str] = set()
    for op in graph.get_ordered_ops():
        kind = op.get_type_name()
        inputs = (value.get_node().get_name() for value in op.input_values())
        if kind == "Parameter" or (kind != "ShapeOf" and not varying.isdisjoint(inputs)):
            varying.add(op.get_name())
    return varying


def _no_layer(source: str) -> ModelError:
    return ModelError(
        f"{source}: has no pooled features: its graph does not end in one linear layer"
    )
