"""The graph of an IR as ONNX, operation by operation, with the names that it has.

FakeQuantize becomes QuantizeLinear and DequantizeLinear, and weights stored in INT8 stay in 8 bits,
before a DequantizeLinear. They are written as UINT8 with the zero point 128: on CPUs without VNNI
ONNX Runtime's sums of UINT8 times INT8 overflow 16 bits, those of UINT8 times UINT8 do not.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from regnet.conversion.graph_preprocess import PIXELS
from regnet.conversion.onnx_nodes import Nodes
from regnet.conversion.onnx_operations import OPERATIONS, OPSET, output_name, untranslatable
from regnet.ir.constants import WEIGHTED, constant_array, constant_ops, source_of, values
from regnet.ir.metadata import StoredPrecision
from regnet.system.runtime import ov

Array = NDArray[Any]

_ZERO: Final = 128
_LEVELS: Final = 256
_OFF: Final = 1e-2  # of a level, by which zero may miss it
_TENSORS: Final = {"f32": TensorProto.FLOAT, "u8": TensorProto.UINT8}


def ir_to_onnx(graph: ov.Model, precision: StoredPrecision) -> ModelProto:
    """Return a graph of one input and one output as ONNX; both keep their names.

    For "fp16" and "int8" weights in floating point are stored in FP16 where that changes nothing.
    Raises `ConversionError` for an operation that has no translation.
    """
    return _Translation(graph, precision).whole()


@dataclass(frozen=True)
class Int8Weights:
    """Weights in INT8: `levels` as ONNX has them, of which each output has its step."""

    levels: NDArray[np.int16]
    steps: NDArray[np.float32]
    axis: int


class _Translation(Nodes):
    """An ONNX graph that grows by the operations of an IR."""

    def __init__(self, graph: ov.Model, precision: StoredPrecision) -> None:
        super().__init__()
        self.graph = folded(graph)
        self.precision = precision
        self.known: dict[tuple[str, int], str] = {}  # values by the output that they are
        self.fixed = constant_ops(self.graph)
        self.joined: set[str] = set()  # operations that are part of another's node

    def whole(self) -> ModelProto:
        """Return the whole graph."""
        first, last = (_described(port) for port in (self.graph.input(0), self.graph.output(0)))
        self.taken |= {first.name, last.name}
        self.known[_key(self.graph.output(0).get_node().input_value(0))] = last.name
        for op in self.graph.get_ordered_ops():
            if op.get_type_name() == "Parameter":
                self.known[op.get_name(), 0] = first.name
            elif op.get_type_name() != "Result" and op.get_name() not in self.fixed | self.joined:
                self.add(op)
        return self.model([first], [last], opset=OPSET)

    def add(self, op: Any) -> None:
        """Add an operation and its constants."""
        kind, quantized = op.get_type_name(), None
        if kind in WEIGHTED:
            quantized = int8_weights(op)
        if quantized:
            self.int8_product(op, quantized)
        elif kind == "FakeQuantize":
            self.fake_quantize(op, self.named(op), self.value(op.input_value(0)))
        elif kind in OPERATIONS:
            name = self.named(op)
            inputs = [self.value(value) for value in op.input_values()]
            OPERATIONS[kind](self, op, name, inputs)
        else:
            raise untranslatable(op)

    def named(self, op: Any) -> str:
        """Return the name of an operation's node, and know its outputs by it from now on."""
        name = self.known.get((op.get_name(), 0))
        if name is None:
            pixels = PIXELS in op.output(0).get_names()
            name = self.fresh(PIXELS if pixels else op.get_friendly_name())
        self.promised.add(name)
        for place in range(op.get_output_size()):
            self.known.setdefault((op.get_name(), place), output_name(name, place))
        return name

    def value(self, output: Any) -> str:
        """Return the name of a value; a constant is added when it is first used."""
        key = _key(output)
        if key not in self.known:
            self.known[key] = self.stored(output)
        return self.known[key]

    def stored(self, output: Any) -> str:
        """Add a constant: weights of a layer in the precision of weights."""
        array = constant_array(output)
        if array is None:
            raise untranslatable(output.get_node(), "no constant inputs")
        users = [port.get_node() for port in output.get_target_inputs()]
        layers = [op for op in users if op.get_type_name() in WEIGHTED]
        if not layers:
            return self.constant(output.get_node().get_friendly_name(), array)
        layer = layers[0].get_friendly_name().removesuffix(".conv")
        name, array = f"{layer}.weight", as_onnx(layers[0], array)
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        lossless = np.array_equal(half.astype(array.dtype), array)
        if self.precision == "fp32" or not lossless:
            return self.constant(name, array)
        fp16 = self.constant(f"{name}.fp16", half)
        return self.node("Cast", [fp16], name, to=TensorProto.FLOAT)

    def int8_product(self, op: Any, weights: Int8Weights) -> None:
        """Add a layer of weights in INT8, with the bias that follows it.

        ONNX Runtime computes in INT8 where a layer and its bias are one node.
        """
        bias = _bias(op)
        if bias is not None:
            self.joined.add(bias.get_name())
        name = self.named(op if bias is None else bias)
        levels = (weights.levels + _ZERO).astype(np.uint8)
        parts: dict[str, Array] = {
            "int8": levels,
            "scale": weights.steps,
            "zero": np.full(levels.shape[weights.axis], _ZERO, np.uint8),
        }
        inputs = [self.constant(f"{name}.weight.{key}", part) for key, part in parts.items()]
        inputs = [
            self.value(op.input_value(0)),
            self.node("DequantizeLinear", inputs, f"{name}.weight", axis=weights.axis),
        ]
        if bias is not None:
            inputs.append(self.constant(f"{name}.bias", values(bias.input_value(1)).ravel()))
        OPERATIONS[op.get_type_name()](self, op, name, inputs)

    def fake_quantize(self, op: Any, name: str, x: str) -> None:
        """Add the rounding of activations, in UINT8 if their ranges allow it."""
        levels: int = op.get_attributes()["levels"]
        low, high, out_low, out_high = (
            values(op.input_value(place)).astype(np.float64) for place in range(1, 5)
        )
        grid, out_grid = _grid(low, high, levels), _grid(out_low, out_high, levels)
        if grid is None or out_grid is None:
            self.rounded(name, x, low, high, out_low, out_high, levels=levels)
            return
        if levels < _LEVELS:
            ends = [self.scalar(f"{name}.low", low), self.scalar(f"{name}.high", high)]
            x = self.node("Clip", [x, *ends], f"{name}.clipped")
        scale, zero = self.grid(name, grid)
        x = self.node("QuantizeLinear", [x, scale, zero], f"{name}.uint8")
        if out_grid != grid:
            scale, zero = self.grid(f"{name}.out", out_grid)
        self.node("DequantizeLinear", [x, scale, zero], name)

    def grid(self, name: str, grid: tuple[float, int]) -> tuple[str, str]:
        """Add a scale and a zero point."""
        zero = np.array(grid[1], np.uint8)
        return self.scalar(f"{name}.scale", grid[0]), self.constant(f"{name}.zero", zero)

    def scalar(self, name: str, value: Any) -> str:
        return self.constant(name, np.array(value, np.float32).reshape(()))

    def rounded(self, name: str, x: str, *ends: Array, levels: int) -> None:
        """Add a rounding of any range, also one per channel, in floating point."""
        low, high, out_low, out_high = ends
        steps = levels - 1
        chain = (
            ("Max", "above", low),
            ("Min", "below", high),
            ("Sub", "from_low", low),
            ("Mul", "level", steps / (high - low)),
            ("Round", "whole", None),
            ("Mul", "spread", (out_high - out_low) / steps),
        )
        for kind, part, number in chain:
            given = (
                []
                if number is None
                else [self.constant(f"{name}.{part}.by", number.astype(np.float32))]
            )
            x = self.node(kind, [x, *given], f"{name}.{part}")
        self.node("Add", [x, self.constant(f"{name}.out_low", out_low.astype(np.float32))], name)


def folded(graph: ov.Model) -> ov.Model:
    """Return a copy in which all that computes from constants is one, but for weights in INT8."""
    from openvino.passes import ConstantFolding, Manager

    graph = graph.clone()
    for op in graph.get_ops():
        if op.get_type_name() in WEIGHTED and int8_weights(op):
            convert = op.input_value(1).get_node()
            while convert.input_value(0).get_node().get_type_name() != "Constant":
                convert = convert.input_value(0).get_node()
            convert.get_rt_info()["DisableConstantFolding_0"] = ""
    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(graph)
    return graph


def _grid(low: Array, high: Array, levels: int) -> tuple[float, int] | None:
    """Return the scale and the zero point of a range in UINT8; None if there are none."""
    if low.size > 1 or high.size > 1 or levels > _LEVELS or not high.item() > low.item():
        return None
    scale = (high.item() - low.item()) / (levels - 1)
    zero = round(-low.item() / scale)
    exact = abs(-low.item() / scale - zero) < _OFF and 0 <= zero < _LEVELS
    return (scale, zero) if exact else None


def int8_weights(op: Any) -> Int8Weights | None:
    """Return a layer's weights if they are constants in INT8 times a step for each output."""
    product = source_of(op.input_value(1), "Reshape", "Convert")
    if product.get_type_name() != "Multiply":
        return None
    stored = source_of(product.input_value(0))
    zero, steps = None, source_of(product.input_value(1), "Reshape")
    if stored.get_type_name() == "Subtract":
        zero = source_of(stored.input_value(1), "Reshape", "Convert")
        stored = source_of(stored.input_value(0))
    stored = source_of(stored.output(0), "Convert")
    known = [node for node in (stored, steps, zero) if node is not None]
    eight = stored.output(0).get_element_type() in (ov.Type.i8, ov.Type.u8)
    if not eight or any(node.get_type_name() != "Constant" for node in known):
        return None
    levels = stored.data.astype(np.int16)
    if zero is not None:
        if np.ptp(zero.data):
            return None
        levels = levels - zero.data.ravel()[:1].astype(np.int16)
    levels = as_onnx(op, levels.reshape(list(op.input_value(1).get_shape())))
    axis = int(op.get_type_name() == "MatMul" and not op.get_attributes()["transpose_b"])
    outputs = levels.shape[axis]
    if steps.data.size not in (1, outputs) or np.abs(levels + 0.5).max() > _ZERO:
        return None
    return Int8Weights(levels, np.full(outputs, steps.data.ravel(), np.float32), axis)


def as_onnx(op: Any, weights: Array) -> Array:
    """Return a layer's weights as ONNX has them: those of groups one after the other."""
    grouped = op.get_type_name() == "GroupConvolution"
    return weights.reshape(-1, *weights.shape[2:]) if grouped else weights


def _bias(op: Any) -> Any:
    """Return the addition of a constant for each channel, if it alone takes a convolution."""
    users = list(op.output(0).get_target_inputs())
    add = users[0].get_node()
    if len(users) != 1 or add.get_type_name() != "Add" or op.get_type_name() == "MatMul":
        return None
    shift, channels = constant_array(add.input_value(1)), op.get_output_partial_shape(0)[1]
    return add if shift is not None and shift.shape == (1, channels.get_length(), 1, 1) else None


def _key(output: Any) -> tuple[str, int]:
    return output.get_node().get_name(), output.get_index()


def _described(port: Any) -> ValueInfoProto:
    """Return an input or output of the graph as ONNX describes it."""
    sizes = [
        f"size_{place}" if size.is_dynamic else size.get_length()
        for place, size in enumerate(port.partial_shape)
    ]
    if port.partial_shape[0].is_dynamic:
        sizes[0] = "N"
    kind = _TENSORS[port.element_type.to_string()]
    return helper.make_tensor_value_info(port.any_name, kind, sizes)
