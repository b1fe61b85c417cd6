"""OpenVINO models as files: reading them with their metadata, and what their graph costs."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regnet.ir.checksum import require_intact
from regnet.ir.graph_cost import PREPROCESSING
from regnet.ir.metadata import ModelMetadata, metadata_from_strings
from regnet.system.errors import ModelError
from regnet.system.runtime import core, ov

RT_INFO = "regnet"
CROPS = f"{PREPROCESSING}crops"
"""The op that gives crops where a model's `data` may be crops or whole photos."""


def read_graph(path: Path) -> ov.Model:
    """Return the model in an IR (.xml beside its .bin) or ONNX file.

    Where its input may be crops or whole photos, as in the bundled IRs, it takes crops alone.
    Raises `ModelError` if it is none, or if the .bin is not the one that was written with the .xml;
    if that is not known, also if weights are NaN or infinite.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    if path.suffix == ".xml" and not path.with_suffix(".bin").is_file():
        raise ModelError(f"{path}: its weights {path.with_suffix('.bin').name} are missing")
    if path.suffix == ".xml" and b"<net" not in _head(path):
        raise ModelError(f"{path}: not an OpenVINO model")
    proved = path.suffix == ".xml" and require_intact(path)
    try:
        model = core.read_model(path)
    except RuntimeError as exc:
        reason = str(exc).strip().splitlines()[-1]
        raise ModelError(f"{path}: not a model that OpenVINO can read ({reason})") from exc
    if not proved:
        require_finite(_floats(model), source=str(path))
    _take_crops_alone(model)
    return model


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


def _floats(model: ov.Model) -> Iterator[tuple[str, NDArray[Any]]]:
    for op in model.get_ops():
        if op.get_type_name() == "Constant" and op.get_element_type() in (ov.Type.f32, ov.Type.f16):
            yield op.get_friendly_name(), op.data


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1024)


def has_metadata(model: ov.Model) -> bool:
    """Whether `regnet convert` wrote metadata into this model."""
    return bool(model.has_rt_info([RT_INFO]))


def graph_metadata(model: ov.Model, *, source: str) -> ModelMetadata:
    """Return the metadata that `regnet convert` wrote into a model; raises `ModelError`."""
    if not has_metadata(model):
        raise ModelError(
            f"{source}: has no regnet metadata (labels, protocol), so it cannot be used exactly; "
            "convert it from its checkpoint with `regnet convert`"
        )
    try:
        values = {key: str(value.value) for key, value in _entries(model)}
    except (RuntimeError, TypeError) as exc:
        raise ModelError(f"{source}: its regnet metadata is damaged ({exc})") from exc
    return metadata_from_strings(values, source=source)


def file_metadata(path: Path, model: ov.Model) -> ModelMetadata | None:
    """Return the metadata of an IR or ONNX file, None where it has none; `model` is its graph.

    That of ONNX files can only be seen where onnx is installed.
    """
    if path.suffix != ".onnx":
        return graph_metadata(model, source=str(path)) if has_metadata(model) else None
    try:
        import onnx
    except ImportError:
        return None
    props = onnx.load(path, load_external_data=False).metadata_props
    values = {prop.key: prop.value for prop in props}
    return metadata_from_strings(values, source=str(path)) if "spec" in values else None


def _entries(model: ov.Model) -> Iterator[tuple[str, Any]]:
    for key in model.get_rt_info([RT_INFO]).value:
        yield key, model.get_rt_info([RT_INFO, key])


def set_graph_metadata(model: ov.Model, metadata: ModelMetadata) -> None:
    """Write the metadata into the model's rt_info, in place of what was there."""
    model.set_rt_info(metadata.to_strings(), [RT_INFO])


def add_logits(model: ov.Model, *, source: str) -> None:
    """Make the input of the final softmax a second output. Raises `ModelError` if there is none."""
    softmax = model.output(0).get_node().input_value(0).get_node()
    if softmax.get_type_name() != "Softmax":
        raise ModelError(f"{source}: its graph does not end in a softmax; convert it again")
    model.add_outputs([softmax.input_value(0)])
