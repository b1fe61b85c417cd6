"""Resize and crop inside the graph: a whole image of any size in, Pillow 13's pixels out.

Both of Pillow's passes (`pillow_resize.py`) are matrix products with weights that the graph
computes from the image's height and width. An axis of the crop is cut into blocks of 16 pixels, and
each block is multiplied with the few source pixels that it depends on.

What makes it exact in float32, which holds the whole numbers up to 2^24:
- Distances are ratios of whole numbers, ((2x + 1) * target - (2o + 1) * source) to 2 * max(source,
  target), taken in int32. Products may overflow on the way: the difference is small, so it is right
  all the same. The kernel is a table, with its derivatives, at multiples of 1/1024.
- Weights have 22 fractional bits. The upper 13 and the lower 9 are multiplied apart, so that every
  product and every sum is a whole number that float32 holds.
What can remain is a weight at the other neighbour of its 22 bits, where it lies half way between
them; a value may then be rounded the other way, by 1.

All of it is pinned to float32, also where the network runs in bf16. Bound: the long side must come
to less than 2^26 pixels after the resize.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

from regnet.ir.graph_cost import PREPROCESSING
from regnet.pixels.protocol import Preprocess
from regnet.system.errors import ProtocolError
from regnet.system.runtime import ov

opset = ov.opset15
Node = Any  # openvino.Node or openvino.Output: operations take either

IMAGE = "image"
PIXELS = "pixels"
"""The tensor between preprocessing and network: float32 [1, 3, crop, crop], 0..255."""

_BLOCK = 16  # pixels of the crop that share a window of the source
_ROUND_TO = 16  # windows are as long as a multiple of it, so that few lengths are ever compiled
_STEPS = 1024  # entries of the kernel's table a unit of distance
_COARSE = 1 << 10  # a kernel's value times an upper weight, of 13 bits, is a float32
_UPPER = 1 << 13
_ONE = 1 << 22

_PIECES = {
    "bicubic": ((1.0, 0.0, -2.5, 1.5), (2.0, -4.0, 2.5, -0.5)),
    "bilinear": ((1.0, -1.0, 0.0, 0.0),),
}
"""The kernel at distances 0 to 1 and 1 to 2: coefficients of rising powers. Beyond it is 0."""


def embed_preprocessing(model: ov.Model, preprocess: Preprocess) -> ov.Model:
    """Return a copy of a converted model that takes whole images and makes their crops itself.

    The model takes [?, 3, crop, crop], 0..255 in the protocol's order of channels; the copy takes
    `image`, uint8 [1, height, width, 3], RGB. Raises `ProtocolError` where the protocol is none of
    Pillow's.
    """
    copy = model.clone()
    old = copy.get_parameters()[0]
    copy.reshape({old.output(0): [1, 3, preprocess.crop, preprocess.crop]})
    front = preprocessing_model(preprocess)
    pixels = front.get_results()[0].input_value(0)
    for user in old.output(0).get_target_inputs():
        user.replace_source_output(pixels)
    copy.add_parameters(front.get_parameters())
    copy.remove_parameter(old)
    copy.validate_nodes_and_infer_types()
    return copy


def preprocessing_model(preprocess: Preprocess) -> ov.Model:
    """Return the graph from `image`, uint8 [1, height, width, 3], RGB, to `pixels`.

    These are float32 [1, 3, crop, crop], whole numbers 0..255, in the protocol's order of channels.
    Raises `ProtocolError` where the protocol is none of Pillow's.
    """
    if preprocess.fit == "square":
        raise ProtocolError(
            f"protocol {preprocess.name}: the largest square cannot be cut in the graph; choose "
            "--fit crop or stretch, or leave out --preprocessing graph"
        )
    if preprocess.interpolation not in _PIECES:
        raise ProtocolError(
            f"protocol {preprocess.name}: {preprocess.interpolation} cannot be put into the graph; "
            f"choose --interpolation {' or '.join(_PIECES)}, or leave out --preprocessing graph"
        )
    image = opset.parameter([1, -1, -1, 3], np.uint8)
    image.set_layout(ov.Layout("NHWC"))
    pixels = _crop(image, preprocess)
    model = ov.Model([pixels], [image], "preprocessing")
    for op in model.get_ops():
        op.get_rt_info()["precise_0"] = ""  # keeps float32 where the plugin is asked for bf16
        op.set_friendly_name(f"{PREPROCESSING}{op.get_friendly_name()}")
    image.set_friendly_name(IMAGE)
    image.output(0).get_tensor().set_names({IMAGE})
    pixels.output(0).get_tensor().set_names({PIXELS})
    return model


@dataclass(frozen=True)
class _Axes:
    """Both axes of an image, int32 [2] each, height first; `vertical_first` is one boolean.

    `source` pixels become `target`, of which the crop begins at `start`.
    """

    source: Node
    target: Node
    start: Node
    vertical_first: Node

    def by_pass(self, values: Node) -> Node:
        """Return values, height first, in the order of the passes; and the other way round."""
        return opset.gather(values, self.choose(_int([0, 1]), _int([1, 0])), _int(0))

    def choose(self, vertical_first: Node, horizontal_first: Node) -> Node:
        return opset.select(self.vertical_first, vertical_first, horizontal_first)


def _crop(image: Node, preprocess: Preprocess) -> Node:
    """Return the crop [1, 3, crop, crop] in the protocol's order of channels.

    Of all transpositions the plugin is fastest at [n, a, b, c] to [n, c, a, b]: all are that one.
    """
    crop = preprocess.crop
    axes = _axes(image, preprocess)
    taps, inside = _taps(axes, preprocess)
    upper, lower = _weights(axes, taps, inside, preprocess)
    begin, end = _extent(axes, taps)
    index = taps - _column(axes.by_pass(begin), 3)
    parts = [opset.split(value, _int(0), 2).outputs() for value in (index, upper, lower)]
    first, second = zip(*parts, strict=True)  # of both passes
    source = _source(axes, image, begin, end)  # [first axis, 3 * second axis]
    half = _resized(source, *first, crop=crop)  # [crop * 3, second axis]
    half = _view(_turn(_view(half, [1, 1, crop * 3, -1])), [-1, crop * 3])
    whole = _view(_resized(half, *second, crop=crop), [1, crop, crop, 3])
    planes = _turn(whole)  # [1, 3, second axis, first axis]
    swapped, kept = _int([3, 1, crop, crop]), _int([1, 3 * crop * crop, 1, 1])
    planes = _view(_turn(_view(planes, axes.choose(swapped, kept))), [1, 3, crop, crop])
    if preprocess.channels == "RGB":
        return planes
    return opset.gather(planes, _int([2, 1, 0]), _int(1))


def _axes(image: Node, preprocess: Preprocess) -> _Axes:
    """Return the sizes before and after, as `Preprocess.resized` and `crop_box` compute them."""
    source = opset.gather(opset.shape_of(image, "i32"), _int([1, 2]), _int(0))
    both = preprocess.fit == "stretch"
    short = source if both else opset.reduce_min(source, _int([0]), True)
    target = whole_quotient(source * _int(preprocess.resize), short)
    rest = target - _int(preprocess.crop)
    start = opset.bitwise_right_shift(rest, _int(1))
    odd = opset.bitwise_and(rest, _int(1))
    # Of a half: up, half to even, or down.
    up = {"ceil": odd, "round": opset.bitwise_and(odd, start), "floor": _int([0])}
    height, width = opset.split(source - target, _int(0), 2).outputs()  # how much they shrink
    vertical_first = opset.greater(
        height, opset.maximum(_int([0]), opset.multiply(width, _int([2])))
    )
    return _Axes(source, target, start + up[preprocess.offset], vertical_first)


def whole_quotient(number: Node, by: Node) -> Node:
    """Return number // by of whole numbers. The float32 quotient is off by little: mend it."""
    about = _i32(opset.floor(_f32(number) / _f32(by)))
    # A half more keeps the quotient of what is left away from whole numbers.
    more = opset.floor((_f32(number - about * by) + _float(0.5)) / _f32(by))
    return about + _i32(more)


def _outputs(axes: _Axes, crop: int) -> Node:
    """Return the target pixels of each block: int32 [2, blocks, 16]; beyond the crop its last."""
    blocks = -(-crop // _BLOCK)
    offsets = np.minimum(np.arange(blocks * _BLOCK), crop - 1).reshape(1, blocks, _BLOCK)
    return _column(axes.by_pass(axes.start), 3) + _int(offsets)


def _taps(axes: _Axes, preprocess: Preprocess) -> tuple[Node, Node]:
    """Return each block's source pixels, inside the image, and which exist: [2, blocks, taps]."""
    source, target = (_column(axes.by_pass(v), 3) for v in (axes.source, axes.target))
    scale = _f32(source) / _f32(target)
    reach = opset.maximum(scale, _float(1)) * _float(len(_PIECES[preprocess.interpolation]))
    length = scale * _float(_BLOCK - 1) + (reach + _float(1)) * _float(2)
    taps = _round_up(_i32(opset.ceiling(length)))
    count = opset.reduce_max(taps, _int([0, 1, 2]), False)
    firsts = opset.gather(_outputs(axes, preprocess.crop), _int([0]), _int(2))
    low = _i32(opset.floor((_f32(firsts) + _float(0.5)) * scale - reach))
    taps = low + opset.range(_int(0), count, _int(1), "i32")
    existing = opset.maximum(opset.minimum(taps, source - _int(1)), _int(0))
    return existing, opset.equal(taps, existing)


def _round_up(length: Node) -> Node:
    return opset.bitwise_and(length + _int(_ROUND_TO - 1), _int(-_ROUND_TO))


def _extent(axes: _Axes, taps: Node) -> tuple[Node, Node]:
    """Return the first source pixels needed and those after the last: [2] each, height first."""
    ends = opset.gather(_view(taps, [2, -1]), _int([0, -1]), _int(1))
    first, last = (_view(v, [2]) for v in opset.split(axes.by_pass(ends), _int(1), 2).outputs())
    length = _round_up(last - first + _int(1))
    return first, opset.minimum(first + length, axes.source)


def _source(axes: _Axes, image: Node, begin: Node, end: Node) -> Node:
    """Return a part of the image in float32, as [first axis, 3 * second axis]."""
    part = opset.slice(image, begin, end, _int([1, 1]), _int([1, 2]))
    rows, columns = opset.split(end - begin, _int(0), 2).outputs()
    turned = opset.concat([_int([1, 1]), rows, opset.multiply(columns, _int([3]))], 0)
    upright = opset.concat([rows, _int([1]), columns, _int([3])], 0)
    # A clamp that changes nothing converts bytes many times faster than converting alone.
    pixels = opset.clamp(_f32(_view(part, axes.choose(upright, turned))), 0.0, 255.0)
    return _view(_turn(pixels), opset.concat([axes.choose(rows, columns), _int([-1])], 0))


def _resized(source: Node, index: Node, upper: Node, lower: Node, *, crop: int) -> Node:
    """Return one pass over a source [length, 3 * n]: [crop * 3, n], whole numbers 0..255.

    `index` [1, blocks, taps] are source rows, `upper` and `lower` weights [1, blocks, 16, taps].
    """
    windows = opset.gather(source, index, _int(0))
    # floor(upper + lower + 1/2), the lower as the whole multiple of 2^-13 below it.
    carry = opset.floor(opset.matmul(lower, windows, False, False))
    carry = carry * _float(1 / _UPPER) + _float(0.5)
    total = carry + opset.matmul(upper, windows, False, False)
    pixels = opset.clamp(opset.floor(total), 0.0, 255.0)
    rows = -(-crop // _BLOCK) * _BLOCK
    if rows == crop:
        return pixels
    pixels = _view(pixels, [rows, -1])
    return opset.slice(pixels, _int([0]), _int([crop]), _int([1]), _int([0]))


def _weights(axes: _Axes, taps: Node, inside: Node, preprocess: Preprocess) -> tuple[Node, Node]:
    """Return the weights of the taps of each output, [2, blocks, 16, taps], as two parts.

    The upper is a multiple of 2^-13; the lower, a multiple of 2^-22 up to 2^-14, is times 2^13.
    """
    value, rest = _kernel(*_distance(axes, taps, inside, preprocess), preprocess.interpolation)
    # Sums and products of `value` are exact; what is small enough for float32's rounding is apart.
    values = opset.reduce_sum(value, _int([3]), True)
    rests = opset.reduce_sum(rest, _int([3]), True)
    share = _float(1) / (values + rests)
    upper = opset.floor((value + rest) * share * _float(_UPPER) + _float(0.5))
    minus = upper * _float(-1 / _UPPER)
    left = (value + minus * values) + (rest + minus * rests)
    lower = opset.floor(left * share * _float(_ONE) + _float(0.5))
    return upper * _float(1 / _UPPER), lower * _float(_UPPER / _ONE)


def _distance(axes: _Axes, taps: Node, inside: Node, preprocess: Preprocess) -> tuple[Node, Node]:
    """Return how far taps are from outputs: in steps of the table, int32, and what is left over.

    What is left is in units of the kernel, 0 to 1 / 1024. Taps that do not exist are out of reach.
    """
    source, target = (_column(axes.by_pass(v), 4) for v in (axes.source, axes.target))
    unit = opset.maximum(source, target) * _int(2)
    tap = opset.unsqueeze(taps, _int([2]))
    output = opset.unsqueeze(_outputs(axes, preprocess.crop), _int([3]))
    two, one = _int(2), _int(1)
    apart = opset.abs((tap * two + one) * target - (output * two + one) * source)
    pieces = len(_PIECES[preprocess.interpolation])
    reached = opset.less(apart, unit * _int(pieces))
    reached = opset.logical_and(reached, opset.unsqueeze(inside, _int([2])))
    each = _float(1) / _f32(unit)
    steps = _i32(opset.floor(_f32(apart) * (each * _float(_STEPS))))
    steps = opset.select(reached, steps, _int(pieces * _STEPS))
    over = apart * _int(_STEPS) - steps * unit
    return steps, _f32(over) * (each * _float(1 / _STEPS))


def _kernel(steps: Node, over: Node, interpolation: str) -> tuple[Node, Node]:
    """Return the kernel at steps / 1024 + over: multiples of 2^-10, and what is to be added."""
    table = [opset.gather(_float(row), steps, _int(0)) for row in _table(interpolation)]
    coarse, fine, slope, bend, twist = table
    return coarse, fine + over * (slope + over * (bend + over * twist))


def _table(interpolation: str) -> NDArray[np.float32]:
    """Return the kernel's value at 0, 1/1024, ... in two parts, and three derivatives: (5, steps).

    The parts are the nearest multiple of 2^-10 and what is left; derivatives are over factorials.
    """
    at = np.arange(_STEPS) / _STEPS
    rows = []
    for order, factorial in enumerate((1, 1, 2, 6)):
        pieces = enumerate(map(Polynomial, _PIECES[interpolation]))
        values = [piece.deriv(order)(at + start) / factorial for start, piece in pieces]
        rows.append(np.append(np.concatenate(values), 0.0))
    coarse = np.round(rows[0] * _COARSE) / _COARSE
    return np.stack([coarse, rows[0] - coarse, *rows[1:]]).astype(np.float32)


def _turn(values: Node) -> Node:
    return opset.transpose(values, _int([0, 3, 1, 2]))


def _view(values: Node, shape: Any) -> Node:
    return opset.reshape(values, _int(shape) if isinstance(shape, list) else shape, False)


def _column(values: Node, rank: int) -> Node:
    """Return [2] as [2, 1, ...] of a rank."""
    return _view(values, [2] + [1] * (rank - 1))


def _int(values: Any) -> Node:
    return opset.constant(np.array(values, np.int32))


def _float(values: Any) -> Node:
    return opset.constant(np.array(values, np.float32))


def _i32(values: Node) -> Node:
    return opset.convert(values, "i32")


def _f32(values: Node) -> Node:
    return opset.convert(values, "f32")
