"""Constants of OpenVINO graphs read and replaced, and statistics of what flows through layers."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from regnet.system.errors import ModelError
from regnet.system.machine import this_machine
from regnet.system.runtime import core, ov

Crop = NDArray[Any]
Reduction = Literal["mean", "max"]

WEIGHTED: Final = ("Convolution", "GroupConvolution", "MatMul")
"""Kinds of operations that have weights, as their second input."""

_BATCH: Final = 8


def ops_by_name(graph: ov.Model) -> dict[str, Any]:
    """Return the operations of a graph by their names."""
    return {op.get_friendly_name(): op for op in graph.get_ordered_ops()}


def source_of(output: Any, *through: str) -> Any:
    """Return the operation behind an output, seen through operations of some types."""
    node = output.get_node()
    while node.get_type_name() in through:
        node = node.input_value(0).get_node()
    return node


def values(output: Any) -> NDArray[np.float32]:
    """Return a constant's values in FP32; raises `ModelError` where it is none."""
    node = source_of(output, "Convert")
    if node.get_type_name() != "Constant":
        raise ModelError(f"its graph computes {node.get_friendly_name()}; a constant is wanted")
    found: NDArray[np.float32] = node.data.astype(np.float32)
    return found


def constant_array(output: Any) -> NDArray[Any] | None:
    """Return a constant of the type that it is used in, None if the output is no constant."""
    node = output.get_node()
    if node.get_type_name() == "Constant":
        return np.array(node.data)
    if node.get_type_name() != "Convert":
        return None
    inner = constant_array(node.input_value(0))
    return None if inner is None else inner.astype(node.get_element_type().to_dtype())


def constant_ops(graph: ov.Model) -> set[str]:
    """Return the unique names of the operations that compute from constants alone."""
    fixed: set[str] = set()
    for op in graph.get_ordered_ops():
        inputs = (value.get_node().get_name() for value in op.input_values())
        if op.get_type_name() != "Parameter" and fixed.issuperset(inputs):
            fixed.add(op.get_name())
    return fixed


def set_values(op: Any, place: int, array: NDArray[Any]) -> None:
    """Make an input of an operation a constant; weights are in FP16 where that loses nothing."""
    from openvino import opset13 as opset

    whole = np.ascontiguousarray(array, np.float32)
    with np.errstate(over="ignore"):
        half = whole.astype(np.float16)
    if op.get_type_name() in WEIGHTED and np.array_equal(half.astype(np.float32), whole):
        constant = opset.convert(opset.constant(half), "f32")
    else:
        constant = opset.constant(whole)
    op.input(place).replace_source_output(constant.output(0))


def store_weights(graph: ov.Model, *, half: bool) -> None:
    """Store the constant weights of all layers in FP16, or else in FP32; they are used in FP32."""
    from openvino import opset13 as opset

    for op in graph.get_ordered_ops():
        if (
            op.get_type_name() in WEIGHTED
            and (array := constant_array(op.input_value(1))) is not None
        ):
            with np.errstate(over="ignore"):
                constant = opset.constant(array.astype(np.float16 if half else np.float32))
            stored = opset.convert(constant, "f32") if half else constant
            op.input(1).replace_source_output(stored.output(0))


def with_float_weights(graph: ov.Model) -> ov.Model:
    """Return an INT8 graph whose weights are FP32 of the same values, so that it runs in FP32."""
    from openvino import opset13 as opset

    graph = graph.clone()
    fixed, layers = constant_ops(graph), graph.get_ordered_ops()
    ops = [
        op
        for op in layers
        if op.get_type_name() in WEIGHTED and op.input_value(1).get_node().get_name() in fixed
    ]
    weights = ov.Model([op.input_value(1) for op in ops], [])
    arrays = core.compile_model(weights, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})()
    for place, op in enumerate(ops):
        op.input(1).replace_source_output(opset.constant(arrays[place]).output(0))
    return graph


def runnable(graph: ov.Model) -> ov.Model:
    """Return the graph to compile: without INT8 weights if this CPU's sums of INT8 overflow."""
    constants = (op for op in graph.get_ops() if op.get_type_name() == "Constant")
    if this_machine().sums_int8 or all(op.get_element_type() != ov.Type.i8 for op in constants):
        return graph
    return with_float_weights(graph)


def pixels_of(crops: Sequence[Crop]) -> NDArray[np.float32]:
    """Return crops (H, W, 3) as the graph of an IR takes them, (N, 3, H, W)."""
    return np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2), np.float32)


def outputs_of(
    graph: ov.Model, outputs: Sequence[Any], crops: Sequence[Crop], *, batch: int = _BATCH
) -> Iterator[list[NDArray[np.float32]]]:
    """Yield what these outputs of operations in the graph are, batch by batch of crops."""
    part = runnable(ov.Model(list(outputs), graph.get_parameters()))
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(part, "CPU", options).create_infer_request()
    for start in range(0, len(crops), batch):
        request.infer({0: pixels_of(crops[start : start + batch])})
        yield [request.get_output_tensor(place).data for place in range(len(outputs))]


def channel_statistics(
    graph: ov.Model, names: Sequence[str], crops: Sequence[Crop], reduction: Reduction
) -> list[NDArray[np.float64]]:
    """Return the mean or maximum of each channel of these operations' outputs over the crops.

    An output is (N, channels, H, W), or after a MatMul (N, ..., channels).
    """
    from openvino import opset13 as opset

    graph = graph.clone()
    ops = ops_by_name(graph)
    reduce = opset.reduce_mean if reduction == "mean" else opset.reduce_max
    outputs = [
        reduce(ops[name].output(0), np.array(_positions(ops[name])), False).output(0)
        for name in names
    ]
    batches = [[rows.astype(np.float64) for rows in b] for b in outputs_of(graph, outputs, crops)]
    joined = [np.concatenate(rows) for rows in zip(*batches, strict=True)]
    return [rows.mean(axis=0) if reduction == "mean" else rows.max(axis=0) for rows in joined]


def _positions(op: Any) -> list[int]:
    """Return the axes of positions in what an operation, or a MatMul with bias, gives."""
    rank = len(op.get_output_partial_shape(0))
    products = [op, *(value.get_node() for value in op.input_values())]
    after_matmul = any(node.get_type_name() == "MatMul" for node in products)
    return list(range(1, rank - 1) if after_matmul else range(2, rank))
