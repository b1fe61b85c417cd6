"""Channels of a network scaled to like ranges: one step of INT8 then suits them all.

ReLU(x / s) = ReLU(x) / s for s > 0, so what a layer's channel is divided by, the layers that take
it can be multiplied with. Scales are powers of two: the network computes the same to the last bit.
Source: Nagel et al. 2019 (arXiv 1906.04721), section 4.1; here with the measured ranges.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.ir.constants import Crop, channel_statistics, ops_by_name, set_values, values
from regnet.system.runtime import ov

_BLOCK: Final = re.compile(r"s(\d+)\.b(\d+)\.f\.c")

# How much of the difference in range is taken from activations, and is to be left to weights.
_ACTIVATIONS, _WEIGHTS = 0.5, 0.25
_LEAST_RANGE: Final = 1e-2  # channels that were hardly seen may be larger on other photos
_LARGEST_SCALE: Final = 16.0

Scales = NDArray[np.float32]


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
