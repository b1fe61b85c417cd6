"""Each operation that an IR may have, written as ONNX, gives what it gives in OpenVINO."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from regnet.conversion.ir_to_onnx import ir_to_onnx
from regnet.conversion.onnx_operations import OPERATIONS
from regnet.ir.metadata import StoredPrecision
from regnet.system.errors import ConversionError
from regnet.system.runtime import core, ov

onnxruntime = pytest.importorskip("onnxruntime")
o = ov.opset15
Node = Any
RANDOM = np.random.default_rng(0)
SHAPE = (2, 4, 9, 7)


def weights(*shape: int) -> NDArray[np.float32]:
    return RANDOM.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def i32(x: Node) -> Node:
    return o.convert(o.multiply(x, np.float32(9)), "i32")


def f32(x: Node) -> Node:
    return o.convert(x, "f32")


def small(x: Node) -> Node:
    return o.less(x, np.float32(0.1))


def large(x: Node) -> Node:
    return o.greater(x, np.float32(-0.1))


def size(x: Node) -> Node:
    """Return the size of the first axis."""
    return o.gather(o.shape_of(x, "i32"), np.int64(0), np.int64(0))


def quantize(x: Node, low: Any, high: Any, levels: int = 256, *, by: float = 1) -> Node:
    """Round to levels of a range; the result is that of a range `by` times as large."""
    ends = [np.array(end, np.float32) for end in (low, high)]
    return o.fake_quantize(x, *ends, *(end * np.float32(by) for end in ends), levels)


Build = Callable[[Node], Node]
ONES = [1, 1]
BUILDS: dict[str, Build] = {
    "Abs": o.absolute,
    "AdaptiveAvgPool": lambda x: o.adaptive_avg_pool(x, ints(1, 1)),
    "Add": lambda x: o.add(x, weights(4, 1, 1)),
    "AvgPool": lambda x: o.avg_pool(x, [2, 2], ONES, ONES, [3, 3], True, "ceil", "explicit"),
    "AvgPool with padding": lambda x: o.avg_pool(
        x, [2, 2], ONES, [0, 1], [3, 3], False, "floor", "explicit"
    ),
    "BitwiseAnd": lambda x: f32(o.bitwise_and(i32(x), np.int32(6))),
    "BitwiseRightShift": lambda x: f32(o.bitwise_right_shift(i32(x), np.int32(1))),
    "Broadcast": lambda x: o.broadcast(o.reduce_mean(x, ints(2, 3), True), ints(*SHAPE)),
    "Ceiling": o.ceiling,
    "Clamp": lambda x: o.clamp(x, -0.5, 0.7),
    "Concat": lambda x: o.concat([x, o.relu(x)], 1),
    "Convert": lambda x: f32(o.convert(x, "i32")),
    "Convolution": lambda x: o.convolution(
        x, weights(5, 4, 3, 3), [2, 1], [1, 0], [0, 1], [1, 2], "explicit"
    ),
    "Convolution, same": lambda x: o.convolution(
        x, weights(5, 4, 3, 3), [2, 2], [0, 0], [0, 0], ONES, "same_upper"
    ),
    "Divide": lambda x: o.divide(x, np.float32(3)),
    "Elu": lambda x: o.elu(x, 0.7),
    "Equal": lambda x: f32(o.equal(i32(x), np.int32(3))),
    "Erf": o.erf,
    "Exp": o.exp,
    "FakeQuantize": lambda x: quantize(x, 0, 2.55),
    "FakeQuantize, signed": lambda x: quantize(x, -1.28, 1.27),
    "FakeQuantize, 255 levels": lambda x: quantize(x, -1.27, 1.27, 255),
    "FakeQuantize, other output": lambda x: quantize(x, 0, 2.55, by=2),
    "FakeQuantize, off zero": lambda x: quantize(x, 0.101, 2.34),
    "FakeQuantize per channel": lambda x: quantize(
        x, np.zeros((1, 4, 1, 1)), np.arange(1, 5).reshape(1, 4, 1, 1)
    ),
    "Floor": o.floor,
    "Gather": lambda x: o.gather(x, ints(2, 0, -1), ints(1)),
    "Gelu": lambda x: o.gelu(x, "erf"),
    "Gelu, tanh": lambda x: o.gelu(x, "tanh"),
    "Greater": lambda x: f32(large(x)),
    "GreaterEqual": lambda x: f32(o.greater_equal(x, np.float32(0.1))),
    "GroupConvolution": lambda x: o.group_convolution(
        x, weights(2, 3, 2, 3, 3), ONES, ONES, ONES, ONES, "explicit"
    ),
    "HSigmoid": o.hsigmoid,
    "HSwish": o.hswish,
    "HardSigmoid": lambda x: o.hard_sigmoid(x, np.float32(0.2), np.float32(0.4)),
    "LRN": lambda x: o.lrn(x, ints(1), 1e-1, 0.75, 1.0, 3),
    "Less": lambda x: f32(small(x)),
    "LessEqual": lambda x: f32(o.less_equal(x, np.float32(0.1))),
    "Log": lambda x: o.log(o.exp(x)),
    "LogSoftmax": lambda x: o.log_softmax(x, 1),
    "LogicalAnd": lambda x: f32(o.logical_and(small(x), large(x))),
    "LogicalNot": lambda x: f32(o.logical_not(small(x))),
    "LogicalOr": lambda x: f32(o.logical_or(small(x), o.equal(i32(x), np.int32(3)))),
    "MVN": lambda x: o.mvn(x, ints(1, 2, 3), True, 1e-3, "inside_sqrt"),
    "MVN, outside": lambda x: o.mvn(x, ints(-1), True, 1e-3, "outside_sqrt"),
    "MVN, mean alone": lambda x: o.mvn(x, ints(2, 3), False, 1e-3, "inside_sqrt"),
    "MatMul": lambda x: o.matmul(x, weights(5, 7), False, True),
    "MatMul of two": lambda x: o.matmul(x, o.relu(x), True, False),
    "MaxPool": lambda x: o.max_pool(x, [2, 2], ONES, ONES, ONES, [3, 3], "ceil").output(0),
    "Maximum": lambda x: o.maximum(x, np.float32(0.3)),
    "Minimum": lambda x: o.minimum(x, np.float32(0.3)),
    "Mish": o.mish,
    "Multiply": lambda x: o.multiply(x, weights(1, 4, 1, 1)),
    "Negative": o.negative,
    "PRelu": lambda x: o.prelu(x, weights(4)),
    "PRelu of one": lambda x: o.prelu(x, weights(1)),
    "Pad": lambda x: o.pad(x, ints(0, 0, 1, 2), ints(0, 0, 2, 0), "constant", np.float32(3)),
    "Pad, reflect": lambda x: o.pad(x, ints(0, 0, 1, 2), ints(0, 0, 2, 0), "reflect"),
    "Power": lambda x: o.power(o.absolute(x), np.float32(1.5)),
    "Range": lambda x: o.add(x, f32(o.range(size(x), np.int32(9), np.int32(1), "i32"))),
    "ReduceL2": lambda x: o.reduce_l2(x, ints(1), True),
    "ReduceMax": lambda x: o.reduce_max(x, ints(1), True),
    "ReduceMean": lambda x: o.reduce_mean(x, ints(2, 3), False),
    "ReduceMin": lambda x: o.reduce_min(x, ints(1), True),
    "ReduceProd": lambda x: o.reduce_prod(x, ints(1), True),
    "Tile": lambda x: o.tile(x, ints(1, 2, 1, 3)),
    "ReduceSum": lambda x: o.reduce_sum(x, ints(-1), False),
    "Relu": o.relu,
    "Reshape": lambda x: o.reshape(x, ints(0, 2, -1), True),
    "ScaledDotProductAttention": lambda x: o.scaled_dot_product_attention(
        x, o.relu(x), x, weights(9, 9)
    ),
    "ScaledDotProductAttention, scale": lambda x: o.scaled_dot_product_attention(
        x, x, o.relu(x), weights(9, 9), np.float32(0.3)
    ),
    "Select": lambda x: o.select(o.less(x, np.float32(0)), x, o.exp(x)),
    "ShapeOf": lambda x: o.reshape(x, o.shape_of(o.transpose(x, ints(1, 0, 3, 2))), False),
    "Sigmoid": o.sigmoid,
    "Sign": o.sign,
    "Slice": lambda x: o.slice(x, ints(1, -4), ints(3, -1), ints(1, 2), ints(1, 2)),
    "SoftPlus": o.softplus,
    "Softmax": lambda x: o.softmax(x, 1),
    "Split": lambda x: o.add(*o.split(x, np.int32(1), 2).outputs()),
    "Sqrt": lambda x: o.sqrt(o.absolute(x)),
    "SquaredDifference": lambda x: o.squared_difference(x, np.float32(2)),
    "Squeeze": lambda x: o.squeeze(o.reduce_mean(x, ints(2, 3), True), ints(2, 3)),
    "Squeeze of all": lambda x: o.squeeze(o.reduce_mean(x, ints(1, 2), True)),
    "StridedSlice": lambda x: o.strided_slice(
        x, ints(0, 1, -5), ints(9, 9, -1), ints(1, 2, 1), [1, 0, 0], [1, 1, 0]
    ),
    "StridedSlice to less axes": lambda x: o.strided_slice(
        x, ints(0, 0, 2), ints(1, 9, 9), ints(1, 1, 1), [1, 1, 0], [1, 1, 0], [], [0, 0, 1]
    ),
    "Subtract": lambda x: o.subtract(x, np.float32(3)),
    "Swish": o.swish,
    "Swish with beta": lambda x: o.swish(x, np.float32(1.7)),
    "Tanh": o.tanh,
    "Transpose": lambda x: o.transpose(x, ints(0, 1, 3, 2)),
    "Unsqueeze": lambda x: o.unsqueeze(x, ints(1, -1)),
    "VariadicSplit": lambda x: o.multiply(
        *o.variadic_split(x, np.int32(1), ints(3, 1)).outputs()
    ),
}  # fmt: skip


def graph_of(build: Build) -> ov.Model:
    x = o.parameter(SHAPE, np.float32, name="data")
    x.output(0).get_tensor().set_names({"data"})
    result = build(x)
    output = result if isinstance(result, ov.Output) else result.output(0)
    output.get_tensor().set_names({"prob"})
    return ov.Model([output], [x])


def outputs(graph: ov.Model, *, precision: StoredPrecision = "fp32") -> tuple[Any, Any]:
    """Return what OpenVINO gives for random input, and what ONNX Runtime gives."""
    model = ir_to_onnx(graph, precision)
    onnx.checker.check_model(model, full_check=True)
    x = weights(*SHAPE)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(["prob"], {"data": x})
    compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled(x)[0]), found


@pytest.mark.parametrize("name", BUILDS)
def test_an_operation_is_the_same_in_onnx(name: str) -> None:
    expected, found = outputs(graph_of(BUILDS[name]))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-5
    assert len(np.unique(expected)) > 1


def test_every_operation_of_the_table_is_tried() -> None:
    kinds = {name.partition(",")[0].partition(" ")[0] for name in BUILDS}
    assert set(OPERATIONS) <= kinds


def test_a_product_of_scaled_parts_has_no_weights() -> None:
    def scaled(x: Any) -> Any:
        first, second = o.split(x, np.int32(1), 2).outputs()
        return o.matmul(first, o.multiply(second, np.float32(0.5)), False, True)

    expected, found = outputs(graph_of(scaled))
    assert np.abs(found - expected).max() <= 1e-5


def test_an_unknown_operation_is_named() -> None:
    with pytest.raises(ConversionError, match="CumSum cannot be written as ONNX"):
        ir_to_onnx(graph_of(lambda x: o.cum_sum(x, np.int32(1))), "fp32")
