"""Layers of another maker's network, given the names and the form of regnet's own.

A layer of a graph that regnet wrote is a product called `<layer>.conv` and the sum with its bias,
called `<layer>`. In INT8 are the products with constant weights at several positions of a photo;
those at a single one, as in the head and in squeeze-excite, are small and stay in floating point.
"""

import math
from contextlib import suppress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.ir.constants import WEIGHTED, ops_by_name, values
from regnet.system.errors import ModelError
from regnet.system.runtime import ov

_IN_FLOAT: Final = frozenset(
    (
        *WEIGHTED, "Add", "Subtract", "Multiply", "Divide", "ReduceMean", "ReduceMax", "ReduceSum",
        "AvgPool", "MVN", "NormalizeL2", "ScaledDotProductAttention", "Interpolate",
    )
)  # fmt: skip


def has_own_layers(graph: ov.Model) -> bool:
    """Whether regnet built the graph, so that its layers have their names."""
    return "stem.conv.conv" in ops_by_name(graph)


def name_layers(graph: ov.Model) -> list[str]:
    """Name the layers of another maker's graph in place; return the operations to keep in FP32."""
    from openvino._offline_transformations import apply_moc_transformations

    apply_moc_transformations(graph, cf=True)  # folds batch norm, and constants
    layers = {name for op in graph.get_ordered_ops() if (name := _named(op))}
    graph.validate_nodes_and_infer_types()
    own = layers | {f"{layer}.conv" for layer in layers}
    return [
        name
        for name, op in ops_by_name(graph).items()
        if name not in own and op.get_type_name() in _IN_FLOAT
    ]


def _named(op: Any) -> str | None:
    """Give a product the form and the name of a layer; return the name, None if it is no layer."""
    from openvino import opset13 as opset

    kind = op.get_type_name()
    if kind not in WEIGHTED or not _at_several_positions(op):
        return None
    try:
        weights = values(op.input_value(1))
    except ModelError:  # a product of two computed values
        return None
    if kind == "MatMul":
        if weights.ndim != 2:
            return None
        turned, data = op.get_attributes(), op.input_value(0)
        if turned["transpose_a"]:
            axes = np.arange(len(data.get_partial_shape()))
            axes[-2:] = axes[:-3:-1]
            data = opset.transpose(data, opset.constant(axes))
        rows = weights if turned["transpose_b"] else weights.T
        constant = opset.constant(np.ascontiguousarray(rows))
        product = opset.matmul(data, constant, False, True)
        width = len(rows)
        shape: tuple[int, ...] = (-1,)
    else:
        product = op
        width, shape = op.get_output_partial_shape(0)[1].get_length(), (1, -1, 1, 1)
    end, bias = _biased(op, width)
    name: str = end.get_friendly_name()
    users = end.output(0).get_target_inputs()
    total = opset.add(product, opset.constant(bias.reshape(shape)))
    for user in users:
        user.replace_source_output(total.output(0))
    product.set_friendly_name(f"{name}.conv")
    total.set_friendly_name(name)
    return name


def _at_several_positions(op: Any) -> bool:
    """Whether a product is computed for more than one position of a photo, as many for each."""
    sizes = list(op.get_output_partial_shape(0))[1:]
    if any(size.is_dynamic for size in sizes):
        return False
    places = sizes[:-1] if op.get_type_name() == "MatMul" else sizes[1:]
    return bool(math.prod(size.get_length() for size in places) > 1)


def _biased(op: Any, width: int) -> tuple[Any, NDArray[np.float32]]:
    """Return the sum of a product and its bias, and the bias; the product and zeros without one."""
    users = list(op.output(0).get_target_inputs())
    if len(users) == 1 and (add := users[0].get_node()).get_type_name() == "Add":
        with suppress(ModelError):
            bias = values(add.input_value(1 - users[0].get_index()))
            channel = -1 if op.get_type_name() == "MatMul" else -3
            if bias.size == width and (bias.ndim == 1 or bias.shape[channel] == width):
                return add, bias
    return op, np.zeros(width, np.float32)
