"""Operations of OpenVINO as nodes of ONNX, opset 18: those that image classifiers have.

A translation is called with the nodes so far, the operation, the name of its output, and the names
of its inputs.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from regnet.conversion.onnx_nodes import Nodes
from regnet.ir.constants import constant_array
from regnet.system.errors import ConversionError
from regnet.system.runtime import ov

OPSET: Final = 18

Translation = Callable[[Nodes, Any, str, list[str]], object]

_TYPES: Final = {
    "f32": TensorProto.FLOAT,
    "f16": TensorProto.FLOAT16,
    "f64": TensorProto.DOUBLE,
    "i8": TensorProto.INT8,
    "u8": TensorProto.UINT8,
    "i32": TensorProto.INT32,
    "i64": TensorProto.INT64,
    "boolean": TensorProto.BOOL,
}


def untranslatable(op: Any, what: str = "") -> ConversionError:
    """Return the error about an operation that has no translation."""
    return ConversionError(
        f"{op.get_friendly_name()}: {op.get_type_name()}{what and f' with {what}'} cannot be "
        "written as ONNX; leave out --format onnx"
    )


def output_name(name: str, place: int) -> str:
    """Return the name of an output of an operation called `name`."""
    return f"{name}.{place}" if place else name


def _same(kind: str) -> Translation:
    return lambda nodes, op, name, inputs: nodes.node(kind, inputs, name)


def _with(kind: str, *attributes: str) -> Translation:
    """Return a translation to a node with attributes of the same names and values."""

    def translation(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
        values = op.get_attributes()
        nodes.node(kind, inputs[:1], name, **{key: values[key] for key in attributes})

    return translation


def _reduced(kind: str) -> Translation:
    def translation(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
        axes = _integers(nodes, f"{name}.axes", _fixed(op, 1).ravel())
        nodes.node(kind, [inputs[0], axes], name, keepdims=int(op.get_attributes()["keep_dims"]))

    return translation


def _fixed(op: Any, place: int) -> NDArray[Any]:
    """Return an input that must be a constant."""
    array = constant_array(op.input_value(place))
    if array is None:
        raise untranslatable(op, "an input that is computed")
    return array


def _integers(nodes: Nodes, name: str, values: Any) -> str:
    return nodes.constant(name, np.array(values, np.int64))


def _float(nodes: Nodes, name: str, value: float) -> str:
    return nodes.constant(name, np.array(value, np.float32))


def _windows(op: Any) -> dict[str, Any]:
    """Return the attributes that convolution and pooling share."""
    values = op.get_attributes()
    same = {"same_upper": "SAME_UPPER", "same_lower": "SAME_LOWER"}.get(values["auto_pad"])
    around: dict[str, Any] = {"pads": [*values["pads_begin"], *values["pads_end"]]}
    return {"strides": values["strides"]} | ({"auto_pad": same} if same else around)


def _convolution(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    """Add a convolution, whose weights [outputs, inputs a group, height, width] are an input."""
    groups = 1
    if op.get_type_name() == "GroupConvolution":
        groups = op.input_value(1).get_shape()[0]
    dilations = op.get_attributes()["dilations"]
    nodes.node("Conv", inputs, name, group=groups, dilations=dilations, **_windows(op))


def _max_pool(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    if (
        any(op.output(1).get_target_inputs())
        or op.get_attributes()["rounding_type"] == "ceil_torch"
    ):
        raise untranslatable(op, "indices or ceil_torch")
    values = op.get_attributes()
    ceil = int(values["rounding_type"] == "ceil")
    nodes.node(
        "MaxPool", inputs, name, kernel_shape=values["kernel"], ceil_mode=ceil,
        dilations=values["dilations"], **_windows(op),
    )  # fmt: skip


def _average_pool(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    values = op.get_attributes()
    ceil, count = values["rounding_type"] == "ceil", not values["exclude-pad"]
    nodes.node(
        "AveragePool", inputs, name, kernel_shape=values["kernel"], ceil_mode=int(ceil),
        count_include_pad=int(count), **_windows(op),
    )  # fmt: skip


def _adaptive_pool(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    if set(_fixed(op, 1).ravel().tolist()) != {1}:
        raise untranslatable(op, "more than one output position")
    nodes.node("GlobalAveragePool", inputs[:1], name)


def _matmul(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    values = op.get_attributes()
    sides = []
    for value, key, port in zip(inputs, ("transpose_a", "transpose_b"), op.inputs(), strict=True):
        rank = len(port.get_partial_shape())
        if values[key] and rank > 1:
            order = [*range(rank - 2), rank - 1, rank - 2]
            value = nodes.node("Transpose", [value], f"{name}.{key}", perm=order)
        sides.append(value)
    nodes.node("MatMul", sides, name)


def _clamp(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    values = op.get_attributes()
    low, high = (_float(nodes, f"{name}.{key}", values[key]) for key in ("min", "max"))
    nodes.node("Clip", [*inputs, low, high], name)


def _swish(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    x, *beta = inputs
    scaled = nodes.node("Mul", [x, *beta], f"{name}.scaled") if beta else x
    nodes.node("Mul", [x, nodes.node("Sigmoid", [scaled], f"{name}.sigmoid")], name)


def _hard_sigmoid(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    alpha, beta = 1 / 6, 0.5
    if len(inputs) > 1:
        alpha, beta = (float(_fixed(op, place).item()) for place in (1, 2))
    nodes.node("HardSigmoid", inputs[:1], name, alpha=alpha, beta=beta)


def _gelu(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    """Add x * (1 + erf(x / sqrt(2))) / 2, or its approximation by tanh."""
    (x,) = inputs
    half, one = _float(nodes, f"{name}.half", 0.5), _float(nodes, f"{name}.one", 1.0)
    if op.get_attributes().get("approximation_mode", "ERF").upper() == "TANH":
        cube = nodes.node("Mul", [nodes.node("Mul", [x, x], f"{name}.square"), x], f"{name}.cube")
        bent = nodes.node("Mul", [cube, _float(nodes, f"{name}.c", 0.044715)], f"{name}.bent")
        root = _float(nodes, f"{name}.root", float(np.sqrt(2 / np.pi)))
        inner = nodes.node("Mul", [nodes.node("Add", [x, bent], f"{name}.in"), root], f"{name}.arg")
        bell = nodes.node("Tanh", [inner], f"{name}.tanh")
    else:
        root = _float(nodes, f"{name}.root", float(np.sqrt(2)))
        bell = nodes.node("Erf", [nodes.node("Div", [x, root], f"{name}.arg")], f"{name}.erf")
    share = nodes.node("Add", [bell, one], f"{name}.share")
    nodes.node("Mul", [nodes.node("Mul", [x, share], f"{name}.twice"), half], name)


def _mvn(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    values = op.get_attributes()
    axes = _integers(nodes, f"{name}.axes", _fixed(op, 1).ravel())
    mean = nodes.node("ReduceMean", [inputs[0], axes], f"{name}.mean", keepdims=1)
    if not values["normalize_variance"]:
        nodes.node("Sub", [inputs[0], mean], name)
        return
    centred = nodes.node("Sub", [inputs[0], mean], f"{name}.centred")
    square = nodes.node("Mul", [centred, centred], f"{name}.square")
    spread = nodes.node("ReduceMean", [square, axes], f"{name}.variance", keepdims=1)
    eps = _float(nodes, f"{name}.eps", values["eps"])
    inside = values["eps_mode"].lower() == "inside_sqrt"
    for kind in ("Add", "Sqrt") if inside else ("Sqrt", "Add"):
        given = [spread, eps] if kind == "Add" else [spread]
        spread = nodes.node(kind, given, f"{name}.{kind.lower()}")
    nodes.node("Div", [centred, spread], name)


def _prelu(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    slope, rank = _fixed(op, 1), len(op.input(0).get_partial_shape())
    if slope.ndim == 1 and slope.size > 1:  # one per channel
        slope = slope.reshape(-1, *[1] * (rank - 2))
    nodes.node("PRelu", [inputs[0], nodes.constant(f"{name}.slope", slope)], name)


def _lrn(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    if _fixed(op, 1).ravel().tolist() != [1]:
        raise untranslatable(op, "other axes than the channels'")
    values = op.get_attributes()
    sizes = {key: values[key] for key in ("alpha", "beta", "bias", "size")}
    nodes.node("LRN", inputs[:1], name, **sizes)


def _axes_second(kind: str) -> Translation:
    def translation(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
        axes = [_integers(nodes, f"{name}.axes", _fixed(op, 1).ravel())] if inputs[1:] else []
        nodes.node(kind, [inputs[0], *axes], name)

    return translation


def _reshape(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    shape = constant_array(op.input_value(1))
    literal = shape is not None and 0 in shape and not op.get_attributes()["special_zero"]
    wide = nodes.node("Cast", [inputs[1]], f"{name}.shape", to=TensorProto.INT64)
    nodes.node("Reshape", [inputs[0], wide], name, allowzero=int(literal))


def _transpose(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    nodes.node("Transpose", inputs[:1], name, perm=_fixed(op, 1).ravel().tolist())


def _gather(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    if op.get_attributes()["batch_dims"]:
        raise untranslatable(op, "batch dimensions")
    nodes.node("Gather", inputs[:2], name, axis=int(_fixed(op, 2).item()))


def _shape_of(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    shape = nodes.node("Shape", inputs, f"{name}.i64")
    nodes.node("Cast", [shape], name, to=_TYPES[op.get_element_type().to_string()])


def _cast(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    kind = op.get_element_type().to_string()
    if kind not in _TYPES:
        raise untranslatable(op, f"the type {kind}")
    nodes.node("Cast", inputs, name, to=_TYPES[kind])


def _split(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    count = op.get_output_size()
    outputs = [output_name(name, place) for place in range(count)]
    sizes: dict[str, Any] = {"axis": int(_fixed(op, 1).item())}
    given = inputs[:1]
    if op.get_type_name() == "VariadicSplit":
        given.append(_integers(nodes, f"{name}.sizes", _fixed(op, 2).ravel()))
    else:
        sizes["num_outputs"] = count
    nodes.nodes.append(helper.make_node("Split", given, outputs, name=name, **sizes))


def _slice(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    x, start, stop, step, *axes = inputs
    nodes.node("Slice", [x, start, stop, *axes, step], name)


def _strided_slice(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    masks = op.get_attributes()
    if any(masks["new_axis_mask"]) or any(masks["ellipsis_mask"]):
        raise untranslatable(op, "new axes or an ellipsis")
    begin, end = (_fixed(op, place).ravel() for place in (1, 2))
    steps = _fixed(op, 3).ravel() if len(inputs) > 3 else np.ones_like(begin)
    far = np.iinfo(np.int64).max // 2
    places = range(len(begin))

    def masked(key: str, place: int) -> bool:
        return bool(place < len(masks[key]) and masks[key][place])

    shrunk = [place for place in places if masked("shrink_axis_mask", place)]
    low = [0 if masked("begin_mask", p) else int(begin[p]) for p in places]
    high = [far if masked("end_mask", p) else int(end[p]) for p in places]
    if any(step < 1 for step in steps):
        raise untranslatable(op, "steps backwards")
    for place in shrunk:
        high[place] = low[place] + 1 or far
    parts = {"low": low, "high": high, "axes": list(places), "steps": steps}
    given = [_integers(nodes, f"{name}.{key}", value) for key, value in parts.items()]
    whole = nodes.node("Slice", [inputs[0], *given], f"{name}.whole" if shrunk else name)
    if shrunk:
        axes = _integers(nodes, f"{name}.shrunk", shrunk)
        nodes.node("Squeeze", [whole, axes], name)


def _pad(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    mode = op.get_attributes()["pad_mode"].lower()
    sides = np.concatenate([_fixed(op, place).ravel() for place in (1, 2)])
    if mode not in ("constant", "edge", "reflect") or (sides < 0).any():
        raise untranslatable(op, f"mode {mode}")
    around = _integers(nodes, f"{name}.pads", sides)
    nodes.node("Pad", [inputs[0], around, *inputs[3:]], name, mode=mode)


def _broadcast(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    if op.get_attributes()["mode"].lower() not in ("numpy", "bidirectional"):
        raise untranslatable(op, "a mapping of axes")
    wide = nodes.node("Cast", [inputs[1]], f"{name}.shape", to=TensorProto.INT64)
    nodes.node("Expand", [inputs[0], wide], name)


def _range(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    """Add a range, of whole numbers in int64: ONNX takes shapes for that, whatever they are."""
    kind = op.get_element_type().to_string()
    between = TensorProto.INT64 if kind in ("i32", "i64") else _TYPES[kind]
    ends = [nodes.node("Cast", [x], f"{name}.{p}", to=between) for p, x in enumerate(inputs)]
    nodes.node("Cast", [nodes.node("Range", ends, f"{name}.range")], name, to=_TYPES[kind])


def _squared_difference(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    apart = nodes.node("Sub", inputs, f"{name}.apart")
    nodes.node("Mul", [apart, apart], name)


def _bitwise_right(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    """Add a division by a power of two, rounded down, as ONNX shifts no signed numbers."""
    power = np.array(2 ** int(_fixed(op, 1).item()), np.int32)
    by = nodes.constant(f"{name}.by", power)
    rest = nodes.node("Mod", [inputs[0], by], f"{name}.rest")  # never below 0
    nodes.node("Div", [nodes.node("Sub", [inputs[0], rest], f"{name}.whole"), by], name)


def _attention(nodes: Nodes, op: Any, name: str, inputs: list[str]) -> None:
    """Add softmax(queries x keys^T x scale + mask) x values."""
    queries, keys, contents, *more = inputs
    shape, rank = op.get_input_partial_shape(0), len(op.get_input_partial_shape(0))
    masked = any(value.get_element_type() == ov.Type.boolean for value in op.input_values())
    if op.get_attributes()["causal"] or masked or shape[-1].is_dynamic:
        raise untranslatable(op, "a causal or boolean mask, or a free width")
    order = [*range(rank - 2), rank - 1, rank - 2]
    turned = nodes.node("Transpose", [keys], f"{name}.keys", perm=order)
    scale = more[1] if more[1:] else _float(nodes, f"{name}.scale", shape[-1].get_length() ** -0.5)
    x = nodes.node("MatMul", [queries, turned], f"{name}.products")
    x = nodes.node("Mul", [x, scale], f"{name}.scores")
    if more:
        x = nodes.node("Add", [x, more[0]], f"{name}.masked")
    x = nodes.node("Softmax", [x], f"{name}.shares", axis=-1)
    nodes.node("MatMul", [x, contents], name)


OPERATIONS: Final[Mapping[str, Translation]] = {
    **{kind: _same(kind) for kind in (
        "Abs", "Add", "Equal", "Erf", "Exp", "Floor", "Greater", "Less", "Log", "Mish", "Relu",
        "Sigmoid", "Sign", "Sqrt", "Tanh",
    )},
    **{kind: _same(name) for kind, name in {
        "BitwiseAnd": "BitwiseAnd", "Ceiling": "Ceil", "Divide": "Div",
        "GreaterEqual": "GreaterOrEqual", "HSwish": "HardSwish", "LessEqual": "LessOrEqual",
        "LogicalAnd": "And", "LogicalNot": "Not", "LogicalOr": "Or", "Maximum": "Max",
        "Minimum": "Min", "Multiply": "Mul", "Negative": "Neg", "Power": "Pow",
        "Select": "Where", "SoftPlus": "Softplus", "Subtract": "Sub", "Tile": "Tile",
    }.items()},
    **{f"Reduce{k}": _reduced(f"Reduce{k}") for k in ("L2", "Max", "Mean", "Min", "Prod", "Sum")},
    "AdaptiveAvgPool": _adaptive_pool,
    "AvgPool": _average_pool,
    "BitwiseRightShift": _bitwise_right,
    "Broadcast": _broadcast,
    "Clamp": _clamp,
    "Concat": lambda nodes, op, name, inputs: nodes.node(
        "Concat", inputs, name, axis=op.get_attributes()["axis"]
    ),
    "Convert": _cast,
    "Convolution": _convolution,
    "Elu": _with("Elu", "alpha"),
    "Gather": _gather,
    "Gelu": _gelu,
    "GroupConvolution": _convolution,
    "HSigmoid": _hard_sigmoid,
    "HardSigmoid": _hard_sigmoid,
    "LRN": _lrn,
    "LogSoftmax": _with("LogSoftmax", "axis"),
    "MVN": _mvn,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "PRelu": _prelu,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "ScaledDotProductAttention": _attention,
    "ShapeOf": _shape_of,
    "Slice": _slice,
    "Softmax": _with("Softmax", "axis"),
    "Split": _split,
    "SquaredDifference": _squared_difference,
    "Squeeze": _axes_second("Squeeze"),
    "StridedSlice": _strided_slice,
    "Swish": _swish,
    "Transpose": _transpose,
    "Unsqueeze": _axes_second("Unsqueeze"),
    "VariadicSplit": _split,
}  # fmt: skip
"""Translations by the operation's type; constants and FakeQuantize are `ir_to_onnx`'s."""
