"""A converted model read back from its file, to be compared with its network."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from openvino.passes import ConstantFolding, Manager

from regnet.conversion.onnx_graph import INPUT, OUTPUT, with_logits
from regnet.conversion.pixel_check import run_whole
from regnet.conversion.proof import Rows
from regnet.ir.graph import add_logits
from regnet.ir.metadata import ModelMetadata
from regnet.system.errors import ConversionError
from regnet.system.runtime import core, ov

Pixels = NDArray[np.float32]


def read_written(path: Path) -> ov.Model:
    """Return the graph in an IR or ONNX file with its constants computed.

    Raises `ConversionError` if OpenVINO cannot read it.
    """
    try:
        model = core.read_model(path)
    except RuntimeError as exc:
        raise ConversionError(f"the converted graph of {path.name} is wrong: {exc}") from exc
    if path.suffix == ".onnx":
        passes = Manager()
        passes.register_pass(ConstantFolding())
        passes.run_passes(model)
    return model


def run_written(
    path: Path, metadata: ModelMetadata, images: Sequence[NDArray[np.uint8]]
) -> tuple[Pixels, Rows]:
    """Return the pixels (N, 3, crop, crop) that the network in a file got, and its outputs.

    `images` are crops or, if the graph makes the crops, whole images. ONNX files run in ONNX
    Runtime if it is installed, else in OpenVINO; in float32, one by one.
    """
    if metadata.preprocessing == "graph":
        return _run_whole(path, images)
    pixels = np.stack(images).transpose(0, 3, 1, 2).astype(np.float32)
    return pixels, _run_onnx(path, pixels) if path.suffix == ".onnx" else _run_ir(path, pixels)


def _run_whole(path: Path, images: Sequence[NDArray[np.uint8]]) -> tuple[Pixels, Rows]:
    pixels, probabilities, logits = zip(*run_whole(_with_logits(path), images), strict=True)
    return np.stack(pixels), Rows(np.stack(logits), np.stack(probabilities))


def _with_logits(path: Path) -> ov.Model:
    model = core.read_model(path)
    add_logits(model, source=path.name)
    return model


def _run_ir(path: Path, pixels: Pixels) -> Rows:
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(_with_logits(path), "CPU", hints)
    results = [compiled(image[None]) for image in pixels]
    probabilities, logits = (np.concatenate([r[port] for r in results]) for port in (0, 1))
    return Rows(logits, probabilities)


def _run_onnx(path: Path, pixels: Pixels) -> Rows:
    """Run a copy of the file, beside it, that also gives its logits."""
    try:
        import onnxruntime
    except ImportError:
        return _run_ir(path, pixels)
    import onnx

    model, name = with_logits(onnx.load(path, load_external_data=False))
    probe = path.with_name(f"logits-{path.name}")
    onnx.save_model(model, probe)
    session = onnxruntime.InferenceSession(probe, providers=["CPUExecutionProvider"])
    results = [session.run([name, OUTPUT], {INPUT: image[None]}) for image in pixels]
    return Rows(*(np.concatenate(parts) for parts in zip(*results, strict=True)))
