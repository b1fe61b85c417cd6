"""Network and protocol -> IR or ONNX: raw pixels in, probabilities out, verified."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regnet.conversion.graph_preprocess import embed_preprocessing
from regnet.conversion.onnx_graph import onnx_graph
from regnet.conversion.proof import Reference, forward, read_written, require_layers, run_written
from regnet.conversion.values import Conversion
from regnet.conversion.whole_photo import pixel_bound
from regnet.ir.graph import write_ir
from regnet.ir.metadata import ModelMetadata
from regnet.ir.model_api import onnx_properties
from regnet.ir.records import PixelBound
from regnet.network.modules import RegNet, fold_batch_norm
from regnet.system.files import new_folder_beside, replace_all
from regnet.system.runtime import ov


def export_network(
    network: RegNet,
    metadata: ModelMetadata,
    path: Path,
    images: Sequence[NDArray[np.uint8]],
) -> Conversion:
    """Write an IR (`path` ends in .xml, its .bin beside it) or ONNX (.onnx); say what was measured.

    `images` are what the converted model and the network are compared on: crops (crop, crop, 3) by
    the metadata's protocol or, where `metadata.preprocessing` is "graph", whole images (H, W, 3),
    RGB; `metadata.precision` says how weights are stored. Nothing appears at the path unless the
    outputs and the layers of the written file are the network's; raises `ConversionError` if they
    are not, `ProtocolError` if the protocol cannot be put into the graph.
    """
    half = metadata.precision == "fp16"
    stored = _rounded_to_fp16(fold_batch_norm(network)) if half else network
    folded = fold_batch_norm(stored).state_dict()
    weights = {name: value.numpy() for name, value in folded.items()}
    with new_folder_beside(path) as scratch:
        names, bound = _write(scratch / path.name, weights, metadata, images)
        pixels, rows = run_written(scratch / path.name, metadata, images)
        reference = Reference(stored, metadata.preprocess, pixels)
        proof = reference.proof(rows)
        require_layers(read_written(scratch / path.name), network, metadata.preprocess, half=half)
        replace_all(scratch, path.parent, names)
    rounding = 0.0
    if half:
        original = forward(deepcopy(network).double(), metadata.preprocess, pixels)
        rounding = reference.distance(original).probabilities
    return Conversion(path, tuple(names), proof, rounding, len(images), metadata.assumed, bound)


def _rounded_to_fp16(folded: RegNet) -> RegNet:
    """Return a copy whose convolution and head weights are FP16 numbers; biases stay."""
    rounded = deepcopy(folded)
    for name, parameter in rounded.named_parameters():
        if name.endswith(".weight"):
            parameter.data = parameter.data.half().float()
    return rounded


def _write(
    path: Path,
    weights: dict[str, Any],
    metadata: ModelMetadata,
    images: Sequence[NDArray[np.uint8]],
) -> tuple[list[str], PixelBound | None]:
    """Write the model; return its files' names and the bound of the pixels its graph makes."""
    if path.suffix == ".onnx":
        properties = metadata.to_strings() | onnx_properties(metadata)
        half = metadata.precision == "fp16"
        return _save_onnx(path, weights, metadata, half=half, properties=properties), None
    model = _ir(path, weights, metadata)
    if metadata.preprocessing == "caller":
        return write_ir(model, metadata, path), None
    model = embed_preprocessing(model, metadata.preprocess)
    bound = pixel_bound(model, metadata.preprocess, images)
    return write_ir(model, replace(metadata, pixel_bound=bound), path), bound


def _save_onnx(
    path: Path,
    weights: dict[str, Any],
    metadata: ModelMetadata,
    *,
    half: bool,
    properties: dict[str, str],
) -> list[str]:
    import onnx

    model = onnx_graph(metadata.spec, weights, metadata.preprocess, half=half)
    onnx.helper.set_model_props(model, properties)
    side_file = f"{path.name}.data"
    large = sum(value.nbytes for value in weights.values()) > 2**30  # protobuf ends at 2 GiB
    onnx.save_model(model, path, save_as_external_data=large, location=side_file)
    return [side_file, path.name] if large else [path.name]


def _ir(path: Path, weights: dict[str, Any], metadata: ModelMetadata) -> Any:
    """Return the OpenVINO model, read from an ONNX file beside `path` without properties."""
    onnx_path = path.with_suffix(".onnx")
    _save_onnx(onnx_path, weights, metadata, half=False, properties={})
    model = read_written(onnx_path)
    for op in model.get_ordered_ops() if metadata.precision == "fp16" else ():
        if op.get_type_name() in ("Convolution", "GroupConvolution", "MatMul"):
            # FP16 constants are converted to FP32 when the model is loaded.
            weight = op.input_value(1).get_node()
            half = ov.opset13.constant(weight.data.astype(np.float16))
            op.input(1).replace_source_output(ov.opset13.convert(half, "f32").output(0))
    return model
