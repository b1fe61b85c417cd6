"""A converted model's graph in INT8 by NNCF, and any of its layers back in floating point.

Choices that differ from NNCF's defaults, for less noise at next to no cost: pixels enter as the
whole numbers they are, without rounding; sums of residual blocks stay in floating point, and so
does the head, one small product of means; ranges hold all that was seen, where the mean of the
photos' largest values cuts off too much; channels are equalized before, weights rounded and biases
corrected after.
"""

import contextlib
import io
import logging
import math
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from regnet.ir.constants import (
    WEIGHTED,
    Crop,
    ops_by_name,
    pixels_of,
    set_values,
    source_of,
    values,
)
from regnet.quantization.layers import has_own_layers, name_layers
from regnet.quantization.weights import correct_biases, equalize, round_weights
from regnet.system.errors import MissingExtraError, QuantizationError
from regnet.system.parallel import Watch, unwatched
from regnet.system.runtime import ov

_IN_FLOAT: Final = (r"head\..*", r"logits", r".*\.sum", r".*\.f\.se($|\..*)")
_FORMS: Final = ("Transpose", "Reshape", "Squeeze", "Unsqueeze")
_SENDER: Final = "openvino_telemetry"
_LEVELS: Final = 256


@dataclass(frozen=True)
class Int8Graph:
    """A graph in INT8 beside the same in floating point, of which layers can be restored.

    `multiplications` are those of one image in each INT8 layer, by its name, in the graph's order.
    """

    quantized: ov.Model
    reference: ov.Model
    multiplications: Mapping[str, int]

    def restored(self, layers: Collection[str]) -> ov.Model:
        """Return a copy in which these layers compute in floating point, with their own weights."""
        graph = self.quantized.clone()
        ops, originals = ops_by_name(graph), ops_by_name(self.reference)
        for layer in layers:
            conv, original = ops[f"{layer}.conv"], originals[f"{layer}.conv"]
            _take_float(conv)
            set_values(conv, 1, values(original.input_value(1)))
            set_values(ops[layer], 1, values(originals[layer].input_value(1)))
        return graph


def int8_graph(graph: ov.Model, crops: Sequence[Crop], *, watch: Watch = unwatched) -> Int8Graph:
    """Return the graph [?,3,H,W] of an IR from `regnet convert` in INT8.

    The crops (H, W, 3) set the ranges. The same crops give the same graph. Raises
    `QuantizationError` if nothing in the graph can be INT8, `MissingExtraError` if NNCF is not
    installed.
    """
    reference = graph.clone()
    own = has_own_layers(reference)
    if own:
        _take_whole_pixels(reference)
        for _ in watch(range(1), "equalising channels", 1):
            equalize(reference, crops)
        scope = {"patterns": list(_IN_FLOAT)}
    else:
        scope = {"names": name_layers(reference)}
    for _ in watch(range(1), "calibrating", 1):
        quantized = _quantized(reference, crops, scope)
    if own:
        _round_pixels_exactly(quantized)
    multiplications = _multiplications(quantized)
    if not multiplications:
        raise QuantizationError("its graph has no convolution or product that INT8 suits")
    round_weights(quantized, reference, multiplications, crops, watch=watch)
    correct_biases(quantized, reference, multiplications, crops, watch=watch)
    return Int8Graph(quantized, reference, multiplications)


def _quantized(
    graph: ov.Model, crops: Sequence[Crop], in_float: Mapping[str, list[str]]
) -> ov.Model:
    """Return the graph in INT8 by NNCF, but for the operations of these names or patterns."""
    nncf = _nncf()
    from nncf.quantization import advanced_parameters as advanced
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    parameters = advanced.AdvancedQuantizationParameters(
        # Halving the range of weights is for CPUs whose 16-bit sums overflow: before VNNI.
        overflow_fix=advanced.OverflowFix.DISABLE,
        activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
        disable_bias_correction=True,
    )
    with contextlib.redirect_stdout(io.StringIO()):  # NNCF's own progress bars
        return nncf.quantize(
            graph.clone(),
            nncf.Dataset(list(crops), lambda crop: pixels_of([crop])),
            subset_size=len(crops),
            ignored_scope=nncf.IgnoredScope(**in_float, validate=False),
            advanced_parameters=parameters,
        )


def _nncf() -> Any:
    """Return NNCF, quiet and without telemetry: it reports its use where that package is found."""
    sender = sys.modules.get(_SENDER)
    sys.modules[_SENDER] = None  # type: ignore[assignment]
    try:
        import nncf
    except ImportError as exc:
        raise MissingExtraError("quantizing", "quantize") from exc
    finally:
        del sys.modules[_SENDER]
        if sender is not None:
            sys.modules[_SENDER] = sender
    nncf.set_log_level(logging.ERROR)
    return nncf


def _take_whole_pixels(graph: ov.Model) -> None:
    """Let the stem take pixels less a whole number, so that 256 levels hold them exactly.

    (p - mean) / scale * w = (p - round(mean)) * (w / scale) + a constant, which goes to the bias.
    At the image's edge, where zeros are the padding, that is off by less than half a level.
    """
    ops = ops_by_name(graph)
    centred, normalised = ops["centred"], ops["normalised"]
    stem, bias = ops["stem.conv.conv"], ops["stem.conv"]
    mean, scale = (values(op.input_value(1)) for op in (centred, normalised))
    whole = np.round(mean)
    weights = values(stem.input_value(1)) / scale
    offset = (weights * (whole - mean)).sum(axis=(1, 2, 3)).reshape(1, -1, 1, 1)
    set_values(centred, 1, whole)
    set_values(stem, 1, weights)
    set_values(bias, 1, values(bias.input_value(1)) + offset)
    stem.input(0).replace_source_output(centred.output(0))


def _round_pixels_exactly(graph: ov.Model) -> None:
    """Quantize the pixels themselves, 0..255 in whole levels, instead of what the stem takes."""
    from openvino import opset13 as opset

    ops = ops_by_name(graph)
    centred, stem = ops["centred"], ops["stem.conv.conv"]
    low, high = (opset.constant(np.float32(value)) for value in (0, _LEVELS - 1))
    pixels = opset.fake_quantize(centred.input_value(0), low, high, low, high, _LEVELS)
    pixels.set_friendly_name("pixels")
    centred.input(0).replace_source_output(pixels.output(0))
    stem.input(0).replace_source_output(centred.output(0))


def _take_float(op: Any) -> None:
    """Let an operation take its input unrounded, also if only its form changed since rounding."""
    place = op.input(0)
    while True:
        source = place.get_source_output()
        node = source.get_node()
        if node.get_type_name() == "FakeQuantize":
            place.replace_source_output(node.input_value(0))
        if node.get_type_name() not in _FORMS or len(source.get_target_inputs()) > 1:
            return
        place = node.input(0)


def _multiplications(graph: ov.Model) -> dict[str, int]:
    """Return the multiplications of one image in each layer whose weights are stored in INT8."""
    layers = (op for op in graph.get_ordered_ops() if op.get_type_name() in WEIGHTED)
    return {
        op.get_friendly_name().removesuffix(".conv"): _products(op)
        for op in layers
        if _is_int8(op.input_value(1))
    }


def _is_int8(weights: Any) -> bool:
    """Whether weights are stored in INT8: Multiply(Convert(INT8), scale)."""
    node = source_of(weights, "Multiply", "Convert", "Subtract", "Reshape")
    return bool(node.get_element_type() in (ov.Type.i8, ov.Type.u8))


def _products(op: Any) -> int:
    """Return outputs x weights an output: all weights but those of the other output channels."""
    outputs: int = math.prod(size.get_length() for size in list(op.get_output_partial_shape(0))[1:])
    weights: list[Any] = list(op.get_input_partial_shape(1))
    skipped = 2 if op.get_type_name() == "GroupConvolution" else 1
    per_output: int = math.prod(size.get_length() for size in weights[skipped:])
    return outputs * per_output
