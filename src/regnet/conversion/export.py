"""Network and protocol -> IR or ONNX: raw pixels in, probabilities out, verified."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from regnet.conversion.graph_preprocess import embed_preprocessing, preprocessing_model
from regnet.conversion.ir_to_onnx import ir_to_onnx
from regnet.conversion.onnx_graph import onnx_graph
from regnet.conversion.proof import (
    Reference,
    as_stored,
    forward,
    read_written,
    require_layers,
    run_written,
)
from regnet.conversion.values import Conversion
from regnet.conversion.whole_photo import pixel_bound
from regnet.ir.constants import store_weights
from regnet.ir.graph import write_ir
from regnet.ir.metadata import ModelMetadata
from regnet.ir.model_api import onnx_properties
from regnet.ir.records import PixelBound
from regnet.network.layers import EPSILON, layers
from regnet.network.reference import ReferenceNetwork, Weights
from regnet.network.spec import Spec
from regnet.pixels.protocol import Preprocess
from regnet.system.files import new_folder_beside, replace_all


def export_network(
    weights: Weights,
    metadata: ModelMetadata,
    path: Path,
    images: Sequence[NDArray[np.uint8]],
) -> Conversion:
    """Write an IR (`path` ends in .xml, its .bin beside it) or ONNX (.onnx); say what was measured.

    `weights` are those of the metadata's spec, by pycls's names. `images` are what the converted
    model and the network are compared on: crops (crop, crop, 3) by the metadata's protocol or,
    where `metadata.preprocessing` is "graph", whole images (H, W, 3), RGB; `metadata.precision`
    says how weights are stored. Nothing appears at the path unless the outputs and the layers of
    the written file are the network's; raises `ConversionError` if they are not, `ProtocolError` if
    the protocol cannot be put into the graph.
    """
    spec, preprocess = metadata.regnet, metadata.preprocess
    half = metadata.precision == "fp16"
    folded = fold_batch_norm(spec, weights)
    if half:
        folded = {n: as_stored(a, half=a.ndim > 1) for n, a in folded.items()}
    with new_folder_beside(path) as scratch:
        names, bound = _write(scratch / path.name, folded, metadata, images)
        pixels, rows = run_written(scratch / path.name, metadata, images)
        network = ReferenceNetwork(spec, folded if half else weights)
        reference = Reference(network, preprocess, pixels)
        proof = reference.proof(rows)
        graph = read_written(scratch / path.name)
        require_layers(graph, spec, weights, preprocess, half=half)
        replace_all(scratch, path.parent, names)
    rounding = 0.0
    if half:
        original = forward(ReferenceNetwork(spec, weights), preprocess, pixels)
        rounding = reference.distance(original).probabilities
    return Conversion(path, tuple(names), proof, rounding, len(images), metadata.assumed, bound)


def fold_batch_norm(spec: Spec, weights: Weights) -> dict[str, NDArray[np.float32]]:
    """Return a weight and a bias for each layer; folded in float64, stored in float32."""
    folded: dict[str, Any] = {}
    for layer in layers(spec):
        none = np.zeros(layer.width_out)
        weight, bias = weights[f"{layer.name}.weight"], weights.get(f"{layer.name}.bias", none)
        if layer.norm is not None:
            scale, shift, mean, variance = (
                weights[f"{layer.norm}.{part}"].astype(np.float64)
                for part in ("weight", "bias", "running_mean", "running_var")
            )
            gain = scale / np.sqrt(variance + EPSILON)
            alone = layer.kind == "norm"
            weight = gain if alone else weight * gain.reshape(-1, 1, 1, 1)
            bias = shift - mean * gain
        folded |= {f"{layer.name}.weight": weight, f"{layer.name}.bias": bias}
    return {name: values.astype(np.float32) for name, values in folded.items()}


def _write(
    path: Path, weights: Weights, metadata: ModelMetadata, images: Sequence[NDArray[np.uint8]]
) -> tuple[list[str], PixelBound | None]:
    """Write the model; return its files' names and the bound of the pixels its graph makes."""
    spec, preprocess, half = metadata.regnet, metadata.preprocess, metadata.precision == "fp16"
    whole, as_onnx = metadata.preprocessing == "graph", path.suffix == ".onnx"
    if as_onnx and not whole:
        written = onnx_graph(spec, weights, preprocess, half=half)
        return write_onnx(written, metadata, path), None
    beside = path.with_name(f"{path.stem}-crops.onnx")
    _save_onnx(onnx_graph(spec, weights, preprocess), beside)
    model, bound = read_written(beside), None
    if half:
        store_weights(model, half=True)
    if whole:
        model = embed_preprocessing(model, preprocess)
        bound = (
            onnx_pixel_bound(preprocess, images)
            if as_onnx
            else pixel_bound(model, preprocess, images)
        )
        metadata = replace(metadata, pixel_bound=bound)
    if as_onnx:
        return write_onnx(ir_to_onnx(model, metadata.precision), metadata, path), bound
    return write_ir(model, metadata, path), bound


def onnx_pixel_bound(preprocess: Preprocess, images: Sequence[NDArray[np.uint8]]) -> PixelBound:
    """Return how the pixels that an ONNX file makes of whole images differ from the protocol's.

    Raises `ConversionError` if they differ too much, `ProtocolError` as `embed_preprocessing`.
    """
    front = ir_to_onnx(preprocessing_model(preprocess), "fp32")
    return pixel_bound(front.SerializeToString(), preprocess, images)


def write_onnx(model: onnx.ModelProto, metadata: ModelMetadata, path: Path) -> list[str]:
    """Write an ONNX file with the metadata among its properties; return the names of its files."""
    onnx.helper.set_model_props(model, metadata.to_strings() | onnx_properties(metadata))
    return _save_onnx(model, path)


def _save_onnx(model: onnx.ModelProto, path: Path) -> list[str]:
    """Write an ONNX file, and one for its weights if it is large; return their names."""
    side_file = f"{path.name}.data"
    large = sum(len(weights.raw_data) for weights in model.graph.initializer) > 2**30
    onnx.save_model(model, path, save_as_external_data=large, location=side_file)
    return [side_file, path.name] if large else [path.name]  # protobuf ends at 2 GiB
