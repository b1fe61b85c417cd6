"""IR and ONNX files: their graphs read and written with metadata and the checksum of the weights.

The checksum, SHA-256 as `sha256sum` prints it, is recorded in the .xml and checked whenever the
model is read: 61 MB take 0.1 s or less, a small part of compiling a model.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.ir.graph_cost import PREPROCESSING
from regnet.ir.metadata import (
    CONVERSION_FILE,
    KNOWN_BY,
    ModelMetadata,
    metadata_from_strings,
    not_ours,
)
from regnet.ir.model_api import MODEL_INFO, model_info
from regnet.system.errors import ConversionError, ModelError, reason_of
from regnet.system.runtime import core, ov

RT_INFO: Final = "regnet"
CROPS: Final = f"{PREPROCESSING}crops"
"""The op that gives crops in a model whose `data` may be crops or whole photos."""

_CHECKSUM: Final = "bin_sha256"
_UNKNOWN: Final = "0" * 64  # the checksum while the .xml is written, before there is a .bin


def read_graph(path: Path) -> ov.Model:
    """Return the model in an IR (.xml beside its .bin) or ONNX file.

    If its input may be crops or whole photos, as in the bundled IRs, it takes crops alone. Raises
    `ModelError` for other files, and if the .bin is not the one written with the .xml; if that is
    not known, also if weights are NaN or infinite.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    intact = False
    if path.suffix == ".xml":
        if not path.with_suffix(".bin").is_file():
            raise ModelError(f"{path}: its weights {path.with_suffix('.bin').name} are missing")
        xml = path.read_bytes()
        if b"<net" not in xml[:1024]:
            raise ModelError(f"{path}: not an OpenVINO model")
        intact = _require_intact(path, xml)
    try:
        model = core.read_model(path)
    except RuntimeError as exc:
        reason = str(exc).strip().splitlines()[-1]
        raise ModelError(f"{path}: not a model that OpenVINO can read ({reason})") from exc
    if not intact:
        floats = (ov.Type.f32, ov.Type.f16)
        constants = (op for op in model.get_ops() if op.get_type_name() == "Constant")
        weights = ((op.get_friendly_name(), op) for op in constants)
        require_finite(
            ((name, op.data) for name, op in weights if op.get_element_type() in floats),
            source=str(path),
        )
    _take_crops_alone(model)
    return model


def write_ir(model: ov.Model, metadata: ModelMetadata, path: Path) -> list[str]:
    """Write `path` (.xml) and its .bin; return their names, the .xml last.

    rt_info gets the metadata, the checksum of the .bin, and the settings of OpenVINO Model API;
    the model changes accordingly. Raises `ConversionError` if a file cannot be written.
    """
    model.set_friendly_name(metadata.name)
    set_graph_metadata(model, metadata)
    model.set_rt_info(_UNKNOWN, [RT_INFO, _CHECKSUM])
    model.set_rt_info(model_info(metadata), [MODEL_INFO])
    entry = b'<bin_sha256 value="%s"'
    try:
        ov.save_model(model, path, compress_to_fp16=False)
        known = entry % _checksum(path).encode()
        path.write_bytes(path.read_bytes().replace(entry % _UNKNOWN.encode(), known, 1))
    except OSError as exc:
        raise ConversionError(f"cannot write {path.name}: {reason_of(exc)}") from exc
    except RuntimeError as exc:  # OpenVINO does not say why
        raise ConversionError(
            f"cannot write {path.name}: the disk is full, or the folder cannot be written to "
            f"({exc}); make room, or choose another folder"
        ) from exc
    return [path.with_suffix(".bin").name, path.name]


def _require_intact(path: Path, xml: bytes) -> bool:
    """Raise `ModelError` if the .bin is not the one recorded in the .xml at `path`.

    Return False if nothing is recorded, as in IRs of earlier versions.
    """
    recorded = re.search(rb'<bin_sha256 value="([0-9a-f]{64})"', xml)
    if recorded is None or recorded[1].decode() == _checksum(path):
        return recorded is not None
    converted_by_regnet = (path.parent / CONVERSION_FILE).is_file()
    remedy = f"remove {path.parent} and " if converted_by_regnet else ""
    raise ModelError(
        f"{path.with_suffix('.bin')} is damaged (its checksum differs from the one recorded in "
        f"{path.name}); {remedy}convert it again"
    )


def _checksum(path: Path) -> str:
    with path.with_suffix(".bin").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _take_crops_alone(model: ov.Model) -> None:
    """Remove the resize in front of a network whose `data` may be crops or whole photos."""
    data, *others = model.get_parameters()
    if others or not data.get_partial_shape()[-1].is_dynamic:
        return
    for op in model.get_ops():
        if op.get_friendly_name() == CROPS:
            crops = ov.opset15.parameter(op.get_output_partial_shape(0), data.get_element_type())
            crops.set_friendly_name(data.get_friendly_name())
            crops.output(0).get_tensor().set_names(data.output(0).get_names())
            for user in op.output(0).get_target_inputs():
                user.replace_source_output(crops.output(0))
            model.add_parameters([crops])
            model.remove_parameter(data)
            model.validate_nodes_and_infer_types()
            return


def require_finite(weights: Iterable[tuple[str, NDArray[Any]]], *, source: str) -> None:
    """Raise `ModelError` if one of the named constants holds NaN or infinity.

    The graph itself may not show it: OpenVINO's ReLU makes 0 of NaN.
    """
    for name, values in weights:
        if not np.isfinite(values).all():
            raise ModelError(
                f"{source}: its weights hold NaN or infinity (in {name}); convert it again from a "
                "sound checkpoint"
            )


def has_metadata(model: ov.Model) -> bool:
    """Whether `regnet convert` wrote metadata into this model."""
    return bool(model.has_rt_info([RT_INFO]))


def graph_metadata(model: ov.Model, *, source: str) -> ModelMetadata:
    """Return the metadata that `regnet convert` wrote into a model; raises `ModelError`."""
    if not has_metadata(model):
        raise not_ours(source)
    try:
        names = model.get_rt_info([RT_INFO]).value
        values = {name: str(model.get_rt_info([RT_INFO, name]).value) for name in names}
    except (RuntimeError, TypeError) as exc:
        raise ModelError(f"{source}: its regnet metadata is damaged ({exc})") from exc
    return metadata_from_strings(values, source=source)


def file_metadata(path: Path, model: ov.Model) -> ModelMetadata | None:
    """Return the metadata of an IR or ONNX file, None without; `model` is its graph."""
    if path.suffix != ".onnx":
        return graph_metadata(model, source=str(path)) if has_metadata(model) else None
    import onnx

    props = onnx.load(path, load_external_data=False).metadata_props
    values = {prop.key: prop.value for prop in props}
    return metadata_from_strings(values, source=str(path)) if KNOWN_BY in values else None


def set_graph_metadata(model: ov.Model, metadata: ModelMetadata) -> None:
    """Write the metadata into the model's rt_info, in place of what was there."""
    model.set_rt_info(metadata.to_strings(), [RT_INFO])


def add_logits(model: ov.Model, *, source: str) -> None:
    """Make the input of the final softmax a second output. Raises `ModelError` if there is none."""
    softmax = model.output(0).get_node().input_value(0).get_node()
    if softmax.get_type_name() != "Softmax":
        raise ModelError(f"{source}: its graph does not end in a softmax; convert it again")
    model.add_outputs([softmax.input_value(0)])
