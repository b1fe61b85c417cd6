"""Weights made fit for INT8: channels equalized, weights rounded, biases corrected.

Channels of a network are scaled to like ranges: one step of INT8 then suits them all.
ReLU(x / s) = ReLU(x) / s for s > 0, so what a layer's channel is divided by, the layers that take
it can be multiplied with. Scales are powers of two: the network computes the same to the last bit.
Source: Nagel et al. 2019 (arXiv 1906.04721), section 4.1; here with the measured ranges.

Rounding each weight to the nearest leaves errors that add up over a layer's inputs, for those go
together. Here each is rounded in turn, shifted to make up for the errors of those before it, as far
as the inputs allow. Source: Frantar et al. 2022 (GPTQ, arXiv 2210.17323), computed with a factor of
the covariance itself, as Babai's nearest plane: the same levels without an inverse. Biases then
make up for what is left.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from regnet.ir.constants import (
    Crop,
    channel_statistics,
    ops_by_name,
    outputs_of,
    set_values,
    values,
)
from regnet.system.errors import QuantizationError
from regnet.system.parallel import Watch
from regnet.system.runtime import ov

_BLOCK: Final = re.compile(r"s(\d+)\.b(\d+)\.f\.c")

# How much of the difference in range is taken from activations, and is to be left to weights.
_ACTIVATIONS, _WEIGHTS = 0.5, 0.25
_LEAST_RANGE: Final = 1e-2  # channels that were hardly seen may be larger on other photos
_LARGEST_SCALE: Final = 16.0

Scales = NDArray[np.float32]

_POSITIONS: Final = 64  # of a photo, at which a layer's inputs are looked at
_DAMPING: Final = 0.01  # of the mean variance, for inputs that hardly vary
_LARGEST: Final = 127
_STEP: Final = 64  # inputs rounded before their errors reach all others, in one matrix product
_BIAS_PHOTOS: Final = 100  # means settle quickly

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Link:
    """Layers whose outputs end up in the same channels, and all that takes these.

    `between` are the ReLUs at which the channels are seen.
    """

    sources: tuple[str, ...]
    between: tuple[str, ...]
    takers: tuple[str, ...]


def equalize(graph: ov.Model, crops: Sequence[Crop]) -> None:
    """Scale the channels of a RegNet's graph in place; the crops (H, W, 3) tell their ranges."""
    ops = ops_by_name(graph)
    if "stem.conv.relu" not in ops:
        return  # a channel's scale does not pass through SiLU
    found = list(links(ops))
    names = [name for link in found for name in link.between]
    ranges = dict(zip(names, channel_statistics(graph, names, crops, "max"), strict=True))
    for link in found:
        largest = np.max([_relative(ranges[name]) for name in link.between], axis=0)
        scales = _scales(largest, [ops[_weighted(taker, ops)] for taker in link.takers])
        for source in link.sources:
            _divide_outputs(ops, source, scales)
        for taker in link.takers:
            _multiply_inputs(ops[_weighted(taker, ops)], scales)


def links(names: Iterable[str]) -> Iterator[Link]:
    """Yield the links of a RegNet from the names in its graph."""
    names = set(names)
    blocks = sorted((int(m[1]), int(m[2])) for name in names if (m := _BLOCK.fullmatch(name)))
    stages = {s: [f"s{s}.b{b}" for t, b in blocks if t == s] for s, _ in blocks}
    yield Link(("stem.conv",), ("stem.conv.relu",), _enters(stages[1][0]))
    for stage, own in stages.items():
        for block in own:
            yield Link((f"{block}.f.a",), (f"{block}.f.a.relu",), (f"{block}.f.b",))
            squeeze = f"{block}.f.se.f_ex.0"
            takers = (f"{block}.f.c", *((squeeze,) if squeeze in names else ()))
            yield Link((f"{block}.f.b",), (f"{block}.f.b.relu",), takers)
        after = _enters(stages[stage + 1][0]) if stage + 1 in stages else ("head.fc",)
        yield Link(
            (f"{own[0]}.proj", *(f"{block}.f.c" for block in own)),
            tuple(f"{block}.sum.relu" for block in own),
            (*(f"{block}.f.a" for block in own[1:]), *after),
        )


def _enters(block: str) -> tuple[str, ...]:
    return (f"{block}.proj", f"{block}.f.a")


def _weighted(layer: str, names: Iterable[str]) -> str:
    """Return the name of the operation that has a layer's weights."""
    return f"{layer}.conv" if f"{layer}.conv" in names else layer


def _relative(ranges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ranges of channels as shares of the largest."""
    return np.maximum(ranges / max(float(ranges.max()), 1e-30), _LEAST_RANGE)


def _scales(ranges: NDArray[np.float64], takers: Sequence[Any]) -> Scales:
    """Return each channel's scale: it equalizes activations, but not at all costs to weights."""
    columns = [_columns(taker) for taker in takers if taker.get_type_name() != "MatMul"]
    scales = ranges**_ACTIVATIONS
    if columns:
        scales = scales / _relative(np.max(columns, axis=0)) ** _WEIGHTS
    scales = scales / np.exp(np.log(scales).mean())
    exponents = np.round(np.log2(np.clip(scales, 1 / _LARGEST_SCALE, _LARGEST_SCALE)))
    exact: Scales = np.exp2(exponents).astype(np.float32)
    return exact


def _columns(op: Any) -> NDArray[np.float32]:
    """Return how large the weights of each input channel are, as a share of their rows' largest."""
    sizes = np.abs(values(op.input_value(1))).max(axis=(-1, -2))  # ([groups,] outputs, inputs)
    shares = sizes / np.maximum(sizes.max(axis=-1, keepdims=True), 1e-30)
    columns: NDArray[np.float32] = shares.max(axis=-2).reshape(-1)
    return columns


def _divide_outputs(ops: dict[str, Any], layer: str, scales: Scales) -> None:
    conv, bias = ops[f"{layer}.conv"], ops[layer]
    weights = values(conv.input_value(1))
    outputs = weights.shape[: weights.ndim - 3]  # less inputs, height, width
    set_values(conv, 1, weights / scales.reshape(*outputs, 1, 1, 1))
    set_values(bias, 1, values(bias.input_value(1)) / scales.reshape(1, -1, 1, 1))


def _multiply_inputs(op: Any, scales: Scales) -> None:
    weights = values(op.input_value(1))
    if op.get_type_name() == "MatMul":
        by_row = not op.get_attributes()["transpose_b"]
        set_values(op, 1, weights * (scales[:, None] if by_row else scales[None, :]))
    elif weights.ndim == 5:  # groups, outputs, inputs, height, width
        groups, _, inputs = weights.shape[:3]
        set_values(op, 1, weights * scales.reshape(groups, 1, inputs, 1, 1))
    else:
        set_values(op, 1, weights * scales.reshape(1, -1, 1, 1))


def round_weights(
    quantized: ov.Model, reference: ov.Model, layers: Iterable[str], crops: Sequence[Crop], *,
    watch: Watch,
) -> None:  # fmt: skip
    """Round the layers' weights of the reference anew, in place, on the grid that they have."""
    from openvino import opset13 as opset

    layers = list(layers)
    ops, originals = ops_by_name(quantized), ops_by_name(reference)
    convs = {layer: ops[f"{layer}.conv"] for layer in layers}
    covariances = _covariances(quantized, convs, crops, watch)
    for layer in watch(layers, "rounding weights", len(layers)):
        convert, steps = _stored(convs[layer])
        weights = values(originals[f"{layer}.conv"].input_value(1)).astype(np.float64)
        rows = weights.reshape(len(covariances[layer]), -1, covariances[layer].shape[-1])
        summed = 1 if weights.ndim == 2 else 3  # axes: inputs, or inputs, height and width
        grid = (*weights.shape[:-summed], *[1] * summed)
        grids = np.broadcast_to(steps, grid).reshape(rows.shape[:2])
        levels = np.stack(list(map(rounded, rows, grids, covariances[layer])))
        shape = convert.input_value(0).get_node().data.shape
        constant = opset.constant(np.ascontiguousarray(levels.reshape(shape).astype(np.int8)))
        convert.input(0).replace_source_output(constant.output(0))


def rounded(weights: Matrix, steps: Matrix, covariance: Matrix) -> Matrix:
    """Return whole levels (outputs, inputs) in -127..127 for weights, of a step (outputs,) each.

    They are those that change the outputs little where the inputs vary by `covariance`
    (inputs, inputs), not those that change the weights least. Raises `QuantizationError` if the
    covariance is not finite.
    """
    order = np.argsort(-np.diag(covariance), kind="stable")  # what varies most has most to follow
    factor = _factor(covariance[np.ix_(order, order)])
    targets = np.ascontiguousarray(weights[:, order].T)  # (inputs, outputs)
    errors, levels = np.empty_like(targets), np.empty_like(weights)
    for start in range(0, len(targets), _STEP):
        stop = min(start + _STEP, len(targets))
        before = factor[:start, start:stop].T @ errors[:start]
        for place in range(start, stop):
            pull = before[place - start] + factor[start:place, place] @ errors[start:place]
            wanted = targets[place] - pull / factor[place, place]
            level = np.clip(np.round(wanted / steps), -_LARGEST, _LARGEST)
            errors[place] = level * steps - targets[place]
            levels[:, order[place]] = level
    return levels


def _factor(covariance: Matrix) -> Matrix:
    """Return the upper triangular F of the damped covariance F F^T.

    The covariance of inputs that hardly vary, as of a single photo, is mostly rounding errors and
    may not be positive definite: it is then damped more.
    """
    if not np.isfinite(covariance).all():
        raise QuantizationError(
            "a layer's inputs are not finite on the calibration photos: the model's weights may "
            "hold NaN, or overflow"
        )
    damping = _DAMPING * max(float(np.trace(covariance)) / len(covariance), 1e-12)
    while True:
        damped = covariance + damping * np.eye(len(covariance))
        with suppress(np.linalg.LinAlgError):
            factor: Matrix = np.flip(np.linalg.cholesky(np.flip(damped)))
            return factor
        damping *= 2


@dataclass
class _Moments:
    """Sums over positions seen: how many, the inputs, and their products, a matrix a group."""

    count: int = 0
    total: Any = 0.0
    products: Any = 0.0

    def add(self, inputs: Matrix) -> None:
        """Count inputs (groups, positions, inputs a group)."""
        self.count += inputs.shape[1]
        self.total = self.total + inputs.sum(axis=1)
        self.products = self.products + inputs.transpose(0, 2, 1) @ inputs

    @property
    def covariances(self) -> Matrix:
        """How the inputs of each group vary together (groups, inputs, inputs)."""
        mean = self.total / self.count
        found: Matrix = self.products / self.count - mean[:, :, None] * mean[:, None, :]
        return found


def _covariances(
    graph: ov.Model, convs: Mapping[str, Any], crops: Sequence[Crop], watch: Watch
) -> dict[str, Matrix]:
    """Return how the inputs of each layer's outputs vary together, at positions of the crops."""
    random = np.random.default_rng(0)
    moments = {layer: _Moments() for layer in convs}
    inputs = [conv.input_value(0) for conv in convs.values()]
    photos = outputs_of(graph, inputs, crops, batch=1)
    for arrays in watch(photos, "looking at layers", len(crops)):
        for (layer, conv), array in zip(convs.items(), arrays, strict=True):
            moments[layer].add(_windows(array[0], conv, random))
    return {layer: found.covariances for layer, found in moments.items()}


def _windows(image: NDArray[np.float32], conv: Any, random: np.random.Generator) -> Matrix:
    """Return what a convolution sees of (C, H, W) at some positions: (groups, positions, inputs).

    The inputs are in the order of its weights. A MatMul sees positions of (..., inputs).
    """
    if conv.get_type_name() == "MatMul":
        places = image.reshape(-1, image.shape[-1])
        return places[random.integers(0, len(places), _POSITIONS)][None].astype(np.float64)
    weights = list(conv.get_input_partial_shape(1))
    groups = weights[0].get_length() if len(weights) == 5 else 1
    given = conv.get_attributes()
    padded = np.pad(image, ((0, 0), *zip(given["pads_begin"], given["pads_end"], strict=True)))
    (high, wide), (down, across) = given["dilations"], given["strides"]
    reach = [(n.get_length() - 1) * d + 1 for n, d in zip(weights[-2:], (high, wide), strict=True)]
    seen = sliding_window_view(padded, reach, axis=(1, 2))[:, ::down, ::across, ::high, ::wide]
    rows, columns = (random.integers(0, length, _POSITIONS) for length in seen.shape[1:3])
    chosen = seen[:, rows, columns].astype(np.float64)  # (C, positions, size, size)
    chosen = chosen.transpose(1, 0, 2, 3).reshape(_POSITIONS, groups, -1)
    return np.ascontiguousarray(chosen.transpose(1, 0, 2))


def _stored(conv: Any) -> tuple[Any, NDArray[np.float32]]:
    """Return the conversion from INT8 of a layer's weights, and the steps it is multiplied with."""
    node = conv.input_value(1).get_node()
    while node.get_type_name() != "Multiply":
        node = node.input_value(0).get_node()
    return node.input_value(0).get_node(), values(node.input_value(1))


def correct_biases(
    quantized: ov.Model, reference: ov.Model, layers: Iterable[str], crops: Sequence[Crop], *,
    watch: Watch,
) -> None:  # fmt: skip
    """Set biases, in place, so that each channel has the mean of the reference over the crops.

    One layer after the other: each sees what the corrected ones before it give.
    """
    layers, crops = list(layers), crops[:_BIAS_PHOTOS]
    ops = ops_by_name(quantized)
    for _ in watch(range(1), "looking at outputs", 1):
        means = channel_statistics(reference, layers, crops, "mean")
    pairs = list(zip(layers, means, strict=True))
    for layer, expected in watch(pairs, "correcting biases", len(pairs)):
        (found,) = channel_statistics(quantized, [layer], crops, "mean")
        bias = values(ops[layer].input_value(1))
        set_values(ops[layer], 1, bias + (expected - found).reshape(bias.shape))
