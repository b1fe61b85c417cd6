"""A network with random weights as an IR, in floating point or INT8: as fast as a trained one.

Speed depends on shapes and types, not on values; so nothing is trained, and INT8 needs no photos:
the graph gets the operations that `regnet.quantization.int8_graph` puts there, with ranges that
hold what random weights give.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.conversion.onnx_graph import onnx_graph
from regnet.ir.constants import ops_by_name, set_values, values
from regnet.ir.graph import write_ir
from regnet.ir.metadata import InferencePrecision, ModelMetadata, StoredPrecision
from regnet.network.labels import Label, imagenet_labels
from regnet.network.spec import Spec
from regnet.pixels.protocol import OMZ, Preprocess
from regnet.system.runtime import core, ov
from regnet.system.version import TOOL_VERSION

Weights = dict[str, NDArray[np.float32]]

_LEVELS: Final = 256
_LARGEST_LEVEL: Final = 127
_RANGE: Final = 16.0  # of activations: those of random weights are about 1
_BIAS: Final = np.float32(0.1)
_CONVOLUTIONS: Final = ("Convolution", "GroupConvolution")
_SQUEEZE: Final = ".f.se.f_ex."


def write_random_ir(
    spec: Spec, path: Path, *, precision: InferencePrecision, image_size: int = 224, seed: int = 0
) -> None:
    """Write the IR (`path` ends in .xml) of a network with random weights, as `convert` would.

    For "int8" it is one as `quantize` would write. It takes images of `image_size` pixels. Raises
    `MissingExtraError` without the extra `torch`.
    """
    stored: StoredPrecision = "int8" if precision == "int8" else "fp32"
    metadata = _metadata(spec, path.stem, stored, image_size)
    graph = _float_graph(spec, metadata.preprocess, seed)
    if stored == "int8":
        _to_int8(graph)
    write_ir(graph, metadata, path)


def protocol(image_size: int) -> Preprocess:
    """Return the protocol of networks for images of this size; resized by the usual 8 / 7."""
    if image_size == OMZ.crop:
        return OMZ
    resize = max(round(image_size * OMZ.resize / OMZ.crop), image_size)
    return replace(OMZ, name="custom", resize=resize, crop=image_size)


def _metadata(spec: Spec, name: str, precision: StoredPrecision, image_size: int) -> ModelMetadata:
    labels = imagenet_labels()
    if spec.classes != len(labels):
        labels = tuple(Label("", f"class {i}") for i in range(spec.classes))
    return ModelMetadata(
        name=name,
        card="",
        spec=spec,
        preprocess=protocol(image_size),
        labels=labels,
        weights_sha384="",
        precision=precision,
        licence="none: random weights",
        version=TOOL_VERSION,
    )


def _float_graph(spec: Spec, preprocess: Preprocess, seed: int) -> ov.Model:
    from openvino.passes import ConstantFolding, Manager

    weights = random_weights(spec, seed=seed)
    graph = core.read_model(onnx_graph(spec, weights, preprocess).SerializeToString())
    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(graph)
    return graph


def random_weights(spec: Spec, *, seed: int = 0) -> Weights:
    """Return weights and biases of each layer, by pycls's names, with BN inside the convolutions.

    Each layer's outputs are about as large as its inputs. No bias is 0: the engine would leave it
    out.
    """
    random = np.random.default_rng(seed)
    found: Weights = {}
    for name, shape in _shapes(spec):
        deviation = np.float32(math.sqrt(1 / math.prod(shape[1:])))
        found[f"{name}.weight"] = random.standard_normal(shape, np.float32) * deviation
        found[f"{name}.bias"] = random.standard_normal(shape[0], np.float32) * _BIAS
    return found


def _shapes(spec: Spec) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name of each layer and the shape of its weights."""
    yield "stem.conv", (spec.stem_width, 3, 3, 3)
    width = spec.stem_width
    for number, stage in enumerate(spec.stages, start=1):
        inner = stage.inner_width
        for block in range(1, stage.depth + 1):
            name = f"s{number}.b{block}"
            if block == 1:
                yield f"{name}.proj", (stage.width, width, 1, 1)
            yield f"{name}.f.a", (inner, width, 1, 1)
            yield f"{name}.f.b", (inner, stage.group_width, 3, 3)
            if (squeeze := spec.se_width(width)) is not None:
                yield f"{name}{_SQUEEZE}0", (squeeze, inner, 1, 1)
                yield f"{name}{_SQUEEZE}2", (inner, squeeze, 1, 1)
            yield f"{name}.f.c", (stage.width, inner, 1, 1)
            width = stage.width
    yield "head.fc", (spec.classes, width)


def _to_int8(graph: ov.Model) -> None:
    """Round the input of each convolution to 8 bits, and store its weights in 8; as NNCF does."""
    rounded: dict[str, Any] = {}
    for op in graph.get_ordered_ops():
        if op.get_type_name() not in _CONVOLUTIONS or _SQUEEZE in op.get_friendly_name():
            continue
        _round_weights(op)
        if op.get_friendly_name() == "stem.conv.conv":
            _take_whole_pixels(graph, op)
            continue
        source = op.input_value(0)
        name = source.get_node().get_friendly_name()
        if name not in rounded:
            rounded[name] = _fake_quantize(source, _RANGE)
        op.input(0).replace_source_output(rounded[name].output(0))


def _take_whole_pixels(graph: ov.Model, stem: Any) -> None:
    """Let the stem take whole levels less a whole mean, without the division by the scale."""
    centred = ops_by_name(graph)["centred"]
    set_values(centred, 1, np.round(values(centred.input_value(1))))
    pixels = _fake_quantize(centred.input_value(0), _LEVELS - 1)
    centred.input(0).replace_source_output(pixels.output(0))
    stem.input(0).replace_source_output(centred.output(0))


def _fake_quantize(source: Any, high: float) -> Any:
    from openvino import opset13 as opset

    ends: Sequence[Any] = [opset.constant(np.float32(value)) for value in (0, high)]
    return opset.fake_quantize(source, *ends, *ends, _LEVELS)


def _round_weights(op: Any) -> None:
    """Store weights as INT8 and a step for each output channel."""
    from openvino import opset13 as opset

    weights = values(op.input_value(1))
    outputs = (*weights.shape[: weights.ndim - 3], 1, 1, 1)  # less inputs, height, width
    sizes = np.abs(weights).reshape(*outputs[:-3], -1).max(axis=-1).reshape(outputs)
    steps = np.maximum(sizes, 1e-6) / _LARGEST_LEVEL
    levels = opset.constant(np.round(weights / steps).astype(np.int8))
    whole = opset.multiply(opset.convert(levels, "f32"), opset.constant(steps))
    op.input(1).replace_source_output(whole.output(0))
