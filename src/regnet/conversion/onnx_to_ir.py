"""An ONNX file that regnet wrote -> the IR of the same model, with the proof that it is that."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from regnet.conversion.graph_preprocess import PIXELS
from regnet.conversion.ir_to_onnx import folded, int8_weights
from regnet.conversion.model_copy import expected_outputs
from regnet.conversion.proof import Reference, run_written
from regnet.conversion.values import Conversion, Proof
from regnet.ir.constants import (
    WEIGHTED,
    constant_array,
    set_values,
    source_of,
    store_weights,
    values,
)
from regnet.ir.graph import file_metadata, read_graph, write_ir
from regnet.ir.graph_cost import PREPROCESSING
from regnet.ir.metadata import ModelMetadata, not_ours
from regnet.network.layers import layers
from regnet.network.reference import ReferenceNetwork, Weights
from regnet.network.spec import Spec
from regnet.pixels.preprocess import rgb_pixels
from regnet.pixels.samples import sample_crops, sample_photos
from regnet.system.errors import MissingExtraError
from regnet.system.files import new_folder_beside, replace_all
from regnet.system.runtime import ov

_JOINED: Final = "/WithoutBiases"  # how OpenVINO calls a convolution whose bias is apart


def ir_of_onnx(source: Path, target: Path) -> Conversion:
    """Write the IR of an ONNX file that regnet wrote to `target` (.xml).

    It is compared with the reference network of the file's own weights, in float64; an INT8 model,
    and one of another kind than RegNet, with the file as ONNX Runtime runs it. Raises `ModelError`
    for a file of another program, `ConversionError` if the outputs differ, `MissingExtraError`.
    """
    graph = read_graph(source)
    metadata = file_metadata(source, graph)
    if metadata is None:
        raise not_ours(source)
    graph = as_ir(graph, metadata)
    images = sample_crops(metadata.preprocess)
    if metadata.preprocessing == "graph":
        images = [rgb_pixels(path) for path in sample_photos()]
    with new_folder_beside(target) as scratch:
        files = write_ir(graph, metadata, scratch / target.name)
        proof, against = _proof(source, scratch / target.name, metadata, images)
        replace_all(scratch, target.parent, files)
    return Conversion(
        path=target,
        files=tuple(files),
        proof=proof,
        rounding=0.0,
        photos=len(images),
        assumed=metadata.assumed,
        pixel_bound=metadata.pixel_bound,
        original=against,
    )


def _proof(
    source: Path, written: Path, metadata: ModelMetadata, images: list[NDArray[np.uint8]]
) -> tuple[Proof, str]:
    """Return the distances of the IR from the reference network, or of the file from the IR.

    And the name of the file, if it is compared with that.
    """
    pixels, rows = run_written(written, metadata, images)
    spec = metadata.spec
    weights = file_weights(source, spec) if spec and metadata.precision != "int8" else None
    if spec and weights:
        return Reference(ReferenceNetwork(spec, weights), metadata.preprocess, pixels).proof(
            rows
        ), ""
    if not find_spec("onnxruntime"):
        raise MissingExtraError("converting this ONNX model", "onnx")
    inputs = images if metadata.preprocessing == "graph" else pixels
    _, expected = run_written(source, metadata, images)
    judge = expected_outputs(read_graph(written), metadata, inputs)
    return judge.proof(expected), f"{source.name} in ONNX Runtime"


def file_weights(path: Path, spec: Spec) -> Weights | None:
    """Return the weight and bias of each layer in an ONNX file by pycls's names, batch norm folded.

    The last layer's are divided by the temperature, if there is one. None if a layer is not there.
    """
    model = onnx.load(path)
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes = {output: node for node in graph.node for output in node.output}

    def array(name: str) -> NDArray[Any]:
        if name in constants:
            return np.asarray(numpy_helper.to_array(constants[name]), np.float32)
        node = nodes[name]
        if node.op_type not in ("Cast", "Transpose"):
            raise KeyError(name)
        inner = array(node.input[0])
        return inner.T if node.op_type == "Transpose" else inner

    try:
        weights: dict[str, NDArray[Any]] = {}
        for layer in layers(spec):
            linear = layer.kind == "linear"
            end = {"linear": "", "norm": ".scaled"}.get(layer.kind, ".conv")
            weight = array(nodes[f"{layer.name}{end}"].input[1])
            bias = array(nodes["logits" if linear else layer.name].input[1])
            by = np.float32(1)
            if linear and "temperature" in nodes:
                by = np.float32(array(nodes["temperature"].input[1]))
            weight = (weight.T if linear else weight).reshape(layer.shape)
            weights[f"{layer.name}.weight"] = weight / by
            weights[f"{layer.name}.bias"] = bias.reshape(layer.width_out) / by
    except (KeyError, ValueError):
        return None
    return weights


def as_ir(graph: ov.Model, metadata: ModelMetadata) -> ov.Model:
    """Return the graph that OpenVINO reads from an ONNX file in the form that IRs have."""
    if metadata.precision == "int8":
        _join_rounding(graph)
        _sign_weights(graph)
    graph = folded(graph)
    if metadata.preprocessing == "graph":
        _mark_preprocessing(graph)
    if metadata.precision == "fp16":
        store_weights(graph, half=True)
    return graph


def _mark_preprocessing(graph: ov.Model) -> None:
    """Let all that makes the crop compute in float32 always, under names that say what it is."""
    graph.get_parameters()[0].set_layout(ov.Layout("NHWC"))
    pending = [op for op in graph.get_ops() if PIXELS in op.output(0).get_names()]
    seen: set[str] = set()
    while pending:
        op = pending.pop()
        if op.get_name() in seen or op.get_type_name() == "Parameter":
            continue
        seen.add(op.get_name())
        op.get_rt_info()["precise_0"] = ""
        op.set_friendly_name(f"{PREPROCESSING}{op.get_friendly_name().removeprefix(PREPROCESSING)}")
        pending += [value.get_node() for value in op.input_values()]


def _join_rounding(graph: ov.Model) -> None:
    """Replace each pair of QuantizeLinear and DequantizeLinear by one FakeQuantize."""
    from openvino import opset13 as opset

    for op in graph.get_ordered_ops():
        if op.get_type_name() != "Multiply":
            continue
        levels = source_of(op.input_value(0), "Subtract", "Convert")
        if levels.get_type_name() != "FakeQuantize":
            continue
        shifted = op.input_value(0).get_node()
        zero = values(shifted.input_value(1)) if shifted.get_type_name() == "Subtract" else 0.0
        scale = values(op.input_value(1))
        ends = [(values(end) - zero) * scale for end in levels.input_values()[3:]]
        rounded = opset.fake_quantize(
            *levels.input_values()[:3],
            *(opset.constant(end.astype(np.float32)) for end in ends),
            levels.get_attributes()["levels"],
        )
        rounded.set_friendly_name(op.get_friendly_name())
        for user in op.output(0).get_target_inputs():
            user.replace_source_output(rounded.output(0))


def _sign_weights(graph: ov.Model) -> None:
    """Store weights of 8 bits as INT8 times a step, and let layers have the names of an IR."""
    from openvino import opset13 as opset

    for op in graph.get_ordered_ops():
        if op.get_type_name() not in WEIGHTED:
            continue
        op.set_friendly_name(op.get_friendly_name().replace(_JOINED, ".conv"))
        if stored := int8_weights(op):
            shape = list(op.input_value(1).get_shape())
            each = [1] * len(shape)
            each[stored.axis] = -1
            if op.get_type_name() == "GroupConvolution":
                each[:2] = shape[:2]
            levels = opset.constant(stored.levels.astype(np.int8).reshape(shape))
            steps = opset.constant(stored.steps.reshape(each))
            product = opset.multiply(opset.convert(levels, "f32"), steps)
            op.input(1).replace_source_output(product.output(0))
        elif (array := constant_array(op.input_value(1))) is not None:
            set_values(op, 1, array)
