"""A graph of OpenVINO as a torch module, operation by operation, so that torch's devices run it.

It has all that the graph has: batch norm folded into the convolutions, a temperature, a head of
`regnet teach`, outputs for logits and features.
"""

import operator
from collections.abc import Callable
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from regnet.ir.constants import WEIGHTED
from regnet.system.errors import ModelError
from regnet.system.runtime import ov

# The same operation under both names. A sum of bf16 and of a constant in f32 is in f32.
_ELEMENTWISE: Final[dict[str, Callable[..., Any]]] = {
    "Abs": torch.abs,
    "Add": operator.add,
    "Divide": operator.truediv,
    "Exp": torch.exp,
    "HSwish": F.hardswish,
    "Multiply": operator.mul,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sqrt": torch.sqrt,
    "Subtract": operator.sub,
    "Tanh": torch.tanh,
}


def torch_graph(graph: ov.Model, *, dtype: torch.dtype, source: str) -> fx.GraphModule:
    """Return a graph as a module: pixels (N, H, W, 3) -> all its outputs, in float32.

    Convolutions and products compute in `dtype`, but the last layer, means and softmax in float32.
    Raises `ModelError`, which names `source`, for an operation that has no counterpart here.
    """
    from openvino.passes import ConstantFolding, Manager

    folded, passes = graph.clone(), Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(folded)
    return _Translation(folded, dtype, source).module()


class _Translation:
    """One graph on its way to torch; `_nodes` has the node of each output, by operation."""

    def __init__(self, graph: ov.Model, dtype: torch.dtype, source: str) -> None:
        self._dtype, self._source = dtype, source
        self._graph, self._root = fx.Graph(), nn.Module()
        self._nodes: dict[str, fx.Node] = {}
        self._outputs = [result.input_value(0) for result in graph.get_results()]
        self._ops = graph.get_ordered_ops()
        self._last = [op.get_name() for op in self._ops if op.get_type_name() in WEIGHTED][-1:]

    def module(self) -> fx.GraphModule:
        """Translate operation by operation."""
        for op in self._ops:
            kind, name = op.get_type_name(), op.get_name()
            if name in self._nodes:  # a bias, which its convolution has added
                continue
            if kind == "Parameter":
                self._nodes[name] = self._graph.placeholder("pixels")
            elif kind in _ELEMENTWISE:
                self._nodes[name] = self._call(_ELEMENTWISE[kind], *self._inputs(op))
            elif kind not in ("Constant", "Result"):
                translate = getattr(self, f"_{kind.lower()}", None)
                if translate is None:
                    raise self._unknown(kind)
                self._nodes[name] = translate(op)
        outputs = [self._method("float", self._value(output)) for output in self._outputs]
        self._graph.output(outputs)
        return fx.GraphModule(self._root, self._graph)

    def _unknown(self, what: str) -> ModelError:
        return ModelError(
            f"{self._source}: torch does not run its operation {what}: take a device of OpenVINO's "
            "(--device CPU)"
        )

    def _call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> fx.Node:
        return self._graph.call_function(function, arguments, options)

    def _method(self, name: str, *arguments: Any, **options: Any) -> fx.Node:
        return self._graph.call_method(name, arguments, options)

    def _inputs(self, op: Any) -> list[fx.Node]:
        return [self._value(output) for output in op.input_values()]

    def _value(self, output: Any) -> fx.Node:
        """Return the node of an output; a constant becomes a buffer."""
        op = output.get_node()
        if op.get_type_name() != "Constant":
            return self._nodes[op.get_name()]
        return self._buffer(op.get_name(), torch.from_numpy(op.data.copy()))

    def _buffer(self, name: str, tensor: Tensor) -> fx.Node:
        if tensor.dtype == torch.float16:
            tensor = tensor.float()
        if not hasattr(self._root, name):
            self._root.register_buffer(name, tensor)
        return self._graph.get_attr(name)

    def _numbers(self, op: Any, place: int) -> list[int]:
        """Return a constant input as whole numbers."""
        constant = op.input_value(place).get_node()
        if constant.get_type_name() != "Constant":
            raise self._unknown(f"{op.get_type_name()} of a computed shape")
        return [int(number) for number in constant.data.reshape(-1)]

    def _weight(self, op: Any) -> Tensor:
        """Return the weights of a convolution, groups in one axis with the channels."""
        constant = op.input_value(1).get_node()
        if constant.get_type_name() != "Constant":
            raise self._unknown(f"{op.get_type_name()} with computed weights")
        weight = torch.from_numpy(constant.data.copy())
        return weight.flatten(0, 1) if op.get_type_name() == "GroupConvolution" else weight

    def _computed(self, op: Any) -> torch.dtype:
        return torch.float32 if op.get_name() in self._last else self._dtype

    def _convolution(self, op: Any) -> fx.Node:
        """Translate a convolution, with groups or without, and the bias that is added to it."""
        attributes, dtype = op.get_attributes(), self._computed(op)
        weight = self._weight(op).to(dtype)
        if weight.dim() != 4:
            raise self._unknown("Convolution of other than two axes")
        grouped = op.get_type_name() == "GroupConvolution"
        x = self._padded(op, self._method("to", self._value(op.input_value(0)), dtype))
        node = self._call(
            F.conv2d,
            x,
            self._buffer(f"{op.get_name()}_weight", weight),
            self._bias(op, dtype),
            stride=tuple(attributes["strides"]),
            padding=self._padding(op),
            dilation=tuple(attributes["dilations"]),
            groups=op.input_value(1).get_shape()[0] if grouped else 1,
        )
        if (total := self._biased(op)) is not None:
            self._nodes[total.get_name()] = node
        return node

    def _biased(self, op: Any) -> Any:
        """Return the sum of a convolution and a constant per channel, None if there is none."""
        users = [port.get_node() for port in op.output(0).get_target_inputs()]
        if len(users) != 1 or users[0].get_type_name() != "Add":
            return None
        (bias,) = (v for v in users[0].input_values() if v.get_node().get_name() != op.get_name())
        channels = op.get_output_partial_shape(0)[1].get_max_length()
        constant = bias.get_node().get_type_name() == "Constant"
        return users[0] if constant and list(bias.get_shape()) == [1, channels, 1, 1] else None

    def _bias(self, op: Any, dtype: torch.dtype) -> fx.Node | None:
        if (total := self._biased(op)) is None:
            return None
        (bias,) = (v for v in total.input_values() if v.get_node().get_name() != op.get_name())
        values = torch.from_numpy(bias.get_node().data.reshape(-1).copy())
        return self._buffer(f"{op.get_name()}_bias", values.to(dtype))

    _groupconvolution = _convolution

    def _padding(self, op: Any) -> tuple[int, ...]:
        """Return what torch pads both sides with: nothing where the sides differ."""
        begin, end = op.get_attributes()["pads_begin"], op.get_attributes()["pads_end"]
        return tuple(begin) if list(begin) == list(end) else (0,) * len(begin)

    def _padded(self, op: Any, x: fx.Node, value: float = 0.0) -> fx.Node:
        """Return the input with a padding whose sides differ, as TensorFlow's do."""
        (top, left), (bottom, right) = (op.get_attributes()[f"pads_{e}"] for e in ("begin", "end"))
        if (top, left) == (bottom, right):
            return x
        return self._call(F.pad, x, (left, right, top, bottom), value=value)

    def _matmul(self, op: Any) -> fx.Node:
        factors = []
        for place, side in enumerate("ab"):
            factor = self._method("to", self._value(op.input_value(place)), self._computed(op))
            transposed = op.get_attributes()[f"transpose_{side}"]
            factors.append(self._method("transpose", factor, -2, -1) if transposed else factor)
        return self._call(torch.matmul, *factors)

    def _maxpool(self, op: Any) -> fx.Node:
        attributes = op.get_attributes()
        return self._call(
            F.max_pool2d,
            self._padded(op, self._value(op.input_value(0)), float("-inf")),
            tuple(attributes["kernel"]),
            stride=tuple(attributes["strides"]),
            padding=self._padding(op),
            dilation=tuple(attributes["dilations"]),
            ceil_mode=attributes["rounding_type"] == "ceil",
        )

    def _avgpool(self, op: Any) -> fx.Node:
        attributes = op.get_attributes()
        return self._call(
            F.avg_pool2d,
            self._value(op.input_value(0)),
            tuple(attributes["kernel"]),
            stride=tuple(attributes["strides"]),
            padding=self._padding(op),
            ceil_mode=attributes["rounding_type"] == "ceil",
            count_include_pad=not attributes["exclude-pad"],
        )

    def _reducemean(self, op: Any) -> fx.Node:
        return self._method(
            "mean",
            self._value(op.input_value(0)),
            self._numbers(op, 1),
            keepdim=op.get_attributes()["keep_dims"],
            dtype=torch.float32,
        )

    def _softmax(self, op: Any) -> fx.Node:
        x = self._method("float", self._value(op.input_value(0)))
        return self._call(torch.softmax, x, op.get_attributes()["axis"])

    def _swish(self, op: Any) -> fx.Node:
        if len(op.input_values()) > 1:
            raise self._unknown("Swish with a factor")
        return self._call(F.silu, self._value(op.input_value(0)))

    def _clamp(self, op: Any) -> fx.Node:
        attributes = op.get_attributes()
        x = self._value(op.input_value(0))
        return self._call(torch.clamp, x, attributes["min"], attributes["max"])

    def _transpose(self, op: Any) -> fx.Node:
        return self._method("permute", self._value(op.input_value(0)), self._numbers(op, 1))

    def _reshape(self, op: Any) -> fx.Node:
        """Translate a reshape, whose first number 0 or -1 is the batch."""
        first, *rest = self._numbers(op, 1)
        if first > 0 or 0 in rest or (first == -1 and -1 in rest):
            raise self._unknown("Reshape of other than an image's axes")
        batch = -1 if -1 not in rest else 0
        return self._call(_reshaped, self._value(op.input_value(0)), batch, rest)

    def _convert(self, op: Any) -> fx.Node:
        kind = op.get_attributes()["destination_type"]
        if kind not in ("f32", "f16"):
            raise self._unknown(f"Convert to {kind}")
        return self._method("float", self._value(op.input_value(0)))


def _reshaped(x: Tensor, batch: int, rest: list[int]) -> Tensor:
    return x.reshape(len(x) if batch == 0 else batch, *rest)
