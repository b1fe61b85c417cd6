"""Network and protocol -> IR or ONNX: raw pixels in, probabilities out, verified."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regnet.certificate import PixelBound
from regnet.conversion import Conversion
from regnet.errors import ConversionError
from regnet.files import new_folder_beside, replace_all
from regnet.metadata import ModelMetadata
from regnet.network import RegNet, fold_batch_norm
from regnet.onnx_graph import OUTPUT, onnx_graph

Pixels = NDArray[np.float32]

MAX_DELTA = 1e-5


def export_network(
    network: RegNet,
    metadata: ModelMetadata,
    path: Path,
    images: Sequence[NDArray[np.uint8]],
    *,
    notes: tuple[str, ...] = (),
) -> Conversion:
    """Write an IR (`path` ends in .xml, its .bin beside it) or ONNX (.onnx); say what was measured.

    `images` are what the converted model and the network are compared on: crops (crop, crop, 3) by
    the metadata's protocol or, where `metadata.preprocessing` is "graph", whole images (H, W, 3),
    RGB; `metadata.precision` says how weights are stored. Nothing appears at the path unless the
    comparison holds; raises `ConversionError` where it does not, `ProtocolError` where the protocol
    cannot be put into the graph.
    """
    half = metadata.precision == "fp16"
    folded = fold_batch_norm(network)
    stored = _rounded_to_fp16(folded) if half else folded
    weights = {name: value.numpy() for name, value in stored.state_dict().items()}
    with new_folder_beside(path) as scratch:
        written = _write_and_run(scratch / path.name, weights, metadata, images)
        reference = probabilities(network, metadata, written.pixels)
        expected = probabilities(stored, metadata, written.pixels) if half else reference
        delta = _checked(written.found, expected)
        replace_all(scratch, path.parent, written.names)
    rounding = _difference(expected, reference)
    names = tuple(written.names)
    return Conversion(path, names, delta, rounding, len(images), notes, written.bound)


def probabilities(network: RegNet, metadata: ModelMetadata, pixels: Pixels) -> Pixels:
    """Return the network's probabilities (N, classes) for raw pixels (N, 3, H, W), one by one."""
    import torch

    mean, scale = (
        torch.tensor(values).view(1, 3, 1, 1)
        for values in (metadata.preprocess.mean, metadata.preprocess.scale)
    )
    network = network.eval()
    with torch.inference_mode():
        rows = [
            torch.softmax(network((torch.from_numpy(image[None]) - mean) / scale), 1)
            for image in pixels
        ]
    return torch.cat(rows).numpy()


def _rounded_to_fp16(folded: RegNet) -> RegNet:
    """Return a copy whose convolution and head weights are FP16 numbers; biases stay."""
    rounded = deepcopy(folded)
    for name, parameter in rounded.named_parameters():
        if name.endswith(".weight"):
            parameter.data = parameter.data.half().float()
    return rounded


def _difference(a: Pixels, b: Pixels) -> float:
    return float(np.abs(a - b).max())


def _checked(found: Pixels, expected: Pixels) -> float:
    """Return the largest difference; raises `ConversionError` where it is over the bound."""
    delta = _difference(found, expected)
    sums = float(np.abs(found.sum(axis=1, dtype=np.float64) - 1).max())
    if not (delta <= MAX_DELTA and sums <= MAX_DELTA):
        raise ConversionError(
            f"the converted model disagrees with the network: probabilities differ by {delta:.3g} "
            f"and sum to 1 within {sums:.3g}, where {MAX_DELTA:g} is allowed; nothing was written"
        )
    return delta


@dataclass(frozen=True)
class _Written:
    """The files written, the `pixels` (N, 3, crop, crop) their network got and what they `found`.

    `bound` is of the pixels where the graph makes them.
    """

    names: list[str]
    pixels: Pixels
    found: Pixels
    bound: PixelBound | None = None


def _write_and_run(
    path: Path,
    weights: dict[str, Any],
    metadata: ModelMetadata,
    images: Sequence[NDArray[np.uint8]],
) -> _Written:
    if metadata.preprocessing == "graph":
        return _write_and_run_whole(path, weights, metadata, images)
    from regnet.ir_file import write_ir

    pixels = np.stack(images).transpose(0, 3, 1, 2).astype(np.float32)
    if path.suffix == ".onnx":
        return _Written(_write_onnx(path, weights, metadata), pixels, _run_onnx(path, pixels))
    names = write_ir(_ir(path, weights, metadata), metadata, path)
    return _Written(names, pixels, _run_ir(path, pixels))


def _write_and_run_whole(
    path: Path,
    weights: dict[str, Any],
    metadata: ModelMetadata,
    images: Sequence[NDArray[np.uint8]],
) -> _Written:
    """Write an IR that makes its crops itself, with what was measured of their pixels."""
    from regnet.graph_preprocess import embed_preprocessing
    from regnet.ir_file import write_ir
    from regnet.pixel_check import pixel_bound, run_whole
    from regnet.runtime import core

    model = embed_preprocessing(_ir(path, weights, metadata), metadata.preprocess)
    bound = pixel_bound(model, metadata.preprocess, images)
    names = write_ir(model, replace(metadata, pixel_bound=bound), path)
    pixels, found = zip(*run_whole(core.read_model(path), images), strict=True)
    return _Written(names, np.stack(pixels), np.stack(found), bound)


def _write_onnx(path: Path, weights: dict[str, Any], metadata: ModelMetadata) -> list[str]:
    """Write the .onnx file with the metadata in its properties; return its files' names."""
    import onnx

    half = metadata.precision == "fp16"
    model = onnx_graph(metadata.spec, weights, metadata.preprocess, half=half)
    onnx.helper.set_model_props(model, metadata.to_strings())
    side_file = f"{path.name}.data"
    large = sum(value.nbytes for value in weights.values()) > 2**30  # protobuf ends at 2 GiB
    onnx.save_model(model, path, save_as_external_data=large, location=side_file)
    return [side_file, path.name] if large else [path.name]


def _ir(path: Path, weights: dict[str, Any], metadata: ModelMetadata) -> Any:
    """Return the OpenVINO model; an ONNX file is written on the way, beside `path`."""
    from openvino.passes import ConstantFolding, Manager

    from regnet.runtime import core

    onnx_path = path.with_suffix(".onnx")
    _write_onnx(onnx_path, weights, replace(metadata, precision="fp32"))
    model = core.read_model(onnx_path)
    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(model)
    if metadata.precision == "fp16":
        _store_weights_in_fp16(model)
    return model


def _store_weights_in_fp16(model: Any) -> None:
    """Replace the weights by FP16 constants that are converted to FP32 when the model is loaded."""
    from openvino import opset13 as opset

    for op in model.get_ordered_ops():
        if op.get_type_name() in ("Convolution", "GroupConvolution", "MatMul"):
            weight = op.input_value(1).get_node()
            half = opset.constant(weight.data.astype(np.float16))
            op.input(1).replace_source_output(opset.convert(half, "f32").output(0))


def _run_ir(path: Path, pixels: Pixels) -> Pixels:
    """Return the probabilities that OpenVINO computes in FP32."""
    from regnet.runtime import core

    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(path, "CPU", hints)
    return np.concatenate([compiled(image[None])[OUTPUT] for image in pixels])


def _run_onnx(path: Path, pixels: Pixels) -> Pixels:
    """Return the probabilities that ONNX Runtime computes, or OpenVINO where it is not there."""
    try:
        import onnxruntime
    except ImportError:
        return _run_ir(path, pixels)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([OUTPUT], {"data": image[None]})[0] for image in pixels])
