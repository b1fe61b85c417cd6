"""Write a network with random weights as an IR, in FP32 or INT8, as fast as a trained one.

Speed depends on shapes and types, not on values. So nothing is trained, and INT8 needs no
calibration photos: the graph gets the operations of `regnet.quantization.int8_graph`, with ranges
that fit the activations of random weights.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.conversion.onnx_graph import onnx_graph
from regnet.ir.constants import ops_by_name, set_values, values
from regnet.ir.graph import write_ir
from regnet.ir.metadata import InferencePrecision, ModelMetadata
from regnet.network.labels import Label, imagenet_labels
from regnet.network.layers import layers
from regnet.network.spec import Spec
from regnet.pixels.protocol import OMZ, Preprocess
from regnet.system.runtime import core, ov
from regnet.system.version import TOOL_VERSION

Weights = dict[str, NDArray[np.float32]]

_LEVELS: Final = 256
_LARGEST_LEVEL: Final = 127
_RANGE: Final = 16.0  # of activations; those of random weights are about 1
_BIAS: Final = np.float32(0.1)
_CONVOLUTIONS: Final = ("Convolution", "GroupConvolution")
_SQUEEZE: Final = ".f.se.f_ex."


def write_random_ir(
    spec: Spec, path: Path, *, precision: InferencePrecision, image_size: int = 224
) -> None:
    """Write the IR (`path` ends in .xml) as `convert` would, or for "int8" as `quantize` would.

    It takes images of `image_size` pixels. Raises `MissingExtraError` without the `torch` extra.
    """
    from openvino.passes import ConstantFolding, Manager

    labels = imagenet_labels()
    if spec.classes != len(labels):
        labels = tuple(Label("", f"class {i}") for i in range(spec.classes))
    metadata = ModelMetadata(
        name=path.stem,
        card="",
        spec=spec,
        preprocess=protocol(image_size),
        labels=labels,
        weights_sha384="",
        precision="int8" if precision == "int8" else "fp32",
        licence="none: random weights",
        version=TOOL_VERSION,
    )
    onnx = onnx_graph(spec, random_weights(spec), metadata.preprocess)
    graph = core.read_model(onnx.SerializeToString())
    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(graph)
    if precision == "int8":
        _to_int8(graph)
    write_ir(graph, metadata, path)


def protocol(image_size: int) -> Preprocess:
    """Return the preprocessing for images of this size; resized by the usual 8 / 7."""
    if image_size == OMZ.crop:
        return OMZ
    resize = max(round(image_size * OMZ.resize / OMZ.crop), image_size)
    return replace(OMZ, name="custom", resize=resize, crop=image_size)


def random_weights(spec: Spec) -> Weights:
    """Return weights and biases by pycls's names, with batch norm folded into the convolutions.

    Each layer's outputs are about as large as its inputs. No bias is 0: the engine would drop it.
    """
    random = np.random.default_rng(0)
    weights: Weights = {}
    for layer in layers(spec):
        deviation = np.float32(math.sqrt(1 / math.prod(layer.shape[1:])))
        weights[f"{layer.name}.weight"] = (
            random.standard_normal(layer.shape, np.float32) * deviation
        )
        weights[f"{layer.name}.bias"] = random.standard_normal(layer.width_out, np.float32) * _BIAS
    return weights


def _to_int8(graph: ov.Model) -> None:
    """Round each convolution's input to 8 bits, and store its weights in 8 bits; as NNCF does."""
    rounded: dict[str, Any] = {}
    for op in graph.get_ordered_ops():
        if op.get_type_name() not in _CONVOLUTIONS or _SQUEEZE in op.get_friendly_name():
            continue
        _round_weights(op)
        source = op.input_value(0)
        name = source.get_node().get_friendly_name()
        if op.get_friendly_name() == "stem.conv.conv":
            # The stem takes whole levels minus a whole mean, without the division by the scale.
            centred = ops_by_name(graph)["centred"]
            set_values(centred, 1, np.round(values(centred.input_value(1))))
            pixels = _fake_quantize(centred.input_value(0), _LEVELS - 1)
            centred.input(0).replace_source_output(pixels.output(0))
            rounded[name] = centred
        elif name not in rounded:
            rounded[name] = _fake_quantize(source, _RANGE)
        op.input(0).replace_source_output(rounded[name].output(0))


def _fake_quantize(source: Any, high: float) -> Any:
    from openvino import opset13 as opset

    ends = [opset.constant(np.float32(value)) for value in (0, high)]
    return opset.fake_quantize(source, *ends, *ends, _LEVELS)


def _round_weights(op: Any) -> None:
    """Store weights as INT8 with a scale for each output channel."""
    from openvino import opset13 as opset

    weights = values(op.input_value(1))
    outputs = (*weights.shape[: weights.ndim - 3], 1, 1, 1)  # without inputs, height, width
    sizes = np.abs(weights).reshape(*outputs[:-3], -1).max(axis=-1).reshape(outputs)
    scales = np.maximum(sizes, 1e-6) / _LARGEST_LEVEL
    levels = opset.constant(np.round(weights / scales).astype(np.int8))
    restored = opset.multiply(opset.convert(levels, "f32"), opset.constant(scales))
    op.input(1).replace_source_output(restored.output(0))
