"""The layers of a converted graph, one by one: weights, biases, strides and padding.

Outputs alone do not prove a graph right: a fault in a channel that the photos do not excite, or one
whose effect is below the rounding of later layers, does not show in them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from regnet.ir.constants import ops_by_name, values
from regnet.network.modules import RegNet, layers
from regnet.pixels.protocol import Preprocess
from regnet.system.errors import ConversionError, ModelError
from regnet.system.runtime import ov

Array64 = NDArray[np.float64]

_ROUNDING: Final = 2.0**-22  # relative; folding in float64 and storing in float32 takes 2^-24
_CANCELLED: Final = 2.0**-40  # of the layer's largest value: what a difference may lose in float64


@dataclass(frozen=True)
class _Layer:
    """A layer of the network with batch norm inside: what its operations in the graph must hold."""

    op: str
    add: str
    weight: Array64
    bias: Array64
    window: dict[str, list[int]]


def require_layers(graph: ov.Model, network: RegNet, preprocess: Preprocess, *, half: bool) -> None:
    """Raise `ConversionError` unless the graph's layers are the network's, batch norm folded.

    Folding is recomputed in float64 by torch. `half`: the graph stores its weights in FP16.
    """
    ops = ops_by_name(graph)
    try:
        wrong = [
            *_wrong_normalisation(ops, preprocess),
            *(fault for layer in _layers(network) for fault in _wrong(ops, layer, half=half)),
        ]
    except (KeyError, ModelError) as exc:
        raise ConversionError(f"the converted graph lacks a layer of the network: {exc}") from exc
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ConversionError(
            f"the converted model disagrees with the network: {wrong[0]}{more}; nothing was written"
        )


def _wrong_normalisation(ops: dict[str, Any], preprocess: Preprocess) -> Iterator[str]:
    for name, expected in (("centred", preprocess.mean), ("normalised", preprocess.scale)):
        found = values(ops[name].input_value(1)).ravel()
        if not np.array_equal(found, np.array(expected, np.float32)):
            yield f"the constant of {name} is {found.tolist()}, not {list(expected)}"


def _layers(network: RegNet) -> Iterator[_Layer]:
    with torch.no_grad():
        for name, module, norm in layers(network):
            weight, bias = _folded(module, norm)
            if isinstance(module, nn.Linear):
                yield _Layer(name, "logits", weight, bias, {})
            else:
                yield _Layer(f"{name}.conv", name, weight, bias, _window(module))


def _folded(module: nn.Conv2d | nn.Linear, norm: nn.BatchNorm2d | None) -> tuple[Array64, Array64]:
    weight = module.weight.double()
    bias = None if module.bias is None else module.bias.double()
    if norm is not None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        weight, bias = fuse_conv_bn_weights(
            weight,
            bias,
            norm.running_mean.double(),
            norm.running_var.double(),
            norm.eps,
            norm.weight.double(),
            norm.bias.double(),
        )
    assert bias is not None
    return weight.numpy(), bias.numpy()


def _window(conv: nn.Conv2d) -> dict[str, list[int]]:
    """Return a convolution's attributes by their names in OpenVINO."""
    assert not isinstance(conv.padding, str)
    return {
        "strides": list(conv.stride),
        "dilations": list(conv.dilation),
        "pads_begin": list(conv.padding),
        "pads_end": list(conv.padding),
    }


def _wrong(ops: dict[str, Any], layer: _Layer, *, half: bool) -> Iterator[str]:
    """Yield what is wrong with a layer in the graph."""
    op = ops[layer.op]
    weight = values(op.input_value(1))
    if op.get_type_name() == "MatMul" and not op.get_attributes()["transpose_b"]:
        weight = weight.T
    if not _holds(weight.reshape(layer.weight.shape), layer.weight, half=half):
        yield f"the weights of {layer.op}"
    if not _holds(values(ops[layer.add].input_value(1)).ravel(), layer.bias, half=False):
        yield f"the bias of {layer.add}"
    attributes = op.get_attributes()
    for key, expected in layer.window.items():
        if list(attributes[key]) != expected:
            yield f"{key} of {layer.op} are {list(attributes[key])}, not {expected}"


def _holds(found: NDArray[np.float32], expected: Array64, *, half: bool) -> bool:
    """Tell whether stored numbers are the expected ones, rounded as they are stored."""
    slack = _ROUNDING * np.abs(expected) + _CANCELLED * np.abs(expected).max()
    low, high = (_stored(expected + side * slack, half=half) for side in (-1, 1))
    return bool(((low <= found) & (found <= high)).all())


def _stored(numbers: Array64, *, half: bool) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        single = numbers.astype(np.float32)
        return single.astype(np.float16).astype(np.float32) if half else single
