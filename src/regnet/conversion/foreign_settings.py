"""What the files of a foreign classifier say about it: classes, preprocessing, licence, maker.

Read are the descriptions of Hugging Face's folders, of OpenVINO Model API (`model_info` in an IR or
in an ONNX file), and of Ultralytics (an ONNX file's metadata). Sources: model_api 0.4.7,
parameters.py and image_model.py; ultralytics 8.3, engine/exporter.py and data/augment.py.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from regnet.checkpoints.hub_settings import named_classes, read_settings
from regnet.checkpoints.model_files import ModelFiles, read_json
from regnet.conversion.foreign_files import read_onnx
from regnet.ir.model_api import MODEL_INFO
from regnet.network.labels import Labels
from regnet.pixels.protocol import Fit, Preprocess, Triple
from regnet.system.errors import ModelError, ProtocolError, shown
from regnet.system.runtime import ov
from regnet.system.text import visible

if TYPE_CHECKING:
    from onnx import ModelProto

_MAX_NAMES: Final = 1 << 20  # characters
_ONES: Final = (1.0, 1.0, 1.0)
_ZEROS: Final = (0.0, 0.0, 0.0)
_FITS: Final[dict[str, Fit]] = {"standard": "stretch", "crop": "square"}


@dataclass(frozen=True)
class Description:
    """What files say; None or "" where they are silent. `assumed`: a sentence for each guess.

    `maker` is the program that wrote the file, and the version of the format.
    """

    labels: Labels | None = None
    preprocess: Preprocess | None = None
    licence: str = ""
    maker: str = ""
    assumed: tuple[str, ...] = ()


def read_description(files: ModelFiles, graph: ov.Model) -> Description:
    """Return what a model's files say; raises `ModelError` if they are of no classifier.

    Raises `WeightsError` if a description in its folder cannot be used.
    """
    path = files.weights[0]
    maker, properties = "OpenVINO", dict[str, str]()
    if path.suffix == ".onnx":
        model = read_onnx(path)
        opset = _opset(model, path)
        program = f"{model.producer_name} {model.producer_version}".strip() or "an unknown program"
        maker = f"{visible(program)[:80]}, ONNX opset {opset}"
        properties = {prop.key: prop.value for prop in model.metadata_props}
    info = _model_info(graph, properties)
    if files.config:
        settings = read_settings(files, any_network=True)
        preprocess = settings.preprocess and settings.preprocess.in_order("RGB")
        return Description(
            settings.labels, preprocess, _licence(files.config), maker, settings.assumed
        )
    if {"names", "task"} <= properties.keys():
        return replace(_ultralytics(properties, path), maker=maker)
    return replace(_model_api(info, graph, path), maker=maker) if info else Description(maker=maker)


def _licence(config: Path) -> str:
    """Return the licence in a config.json, as timm writes it."""
    values = read_json(config)
    known = values.get("pretrained_cfg") or values
    return visible(str(known.get("license") or "") if isinstance(known, dict) else "")[:200]


def _opset(model: "ModelProto", path: Path) -> int:
    """Return the version of ONNX's operations; raises `ModelError` if it is too new."""
    from onnx.defs import onnx_opset_version

    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    opset, newest = max(versions, default=0), onnx_opset_version()
    if opset > newest:
        raise ModelError(
            f"{path}: is of ONNX opset {opset}, and this installation reads up to {newest}; "
            "export it with an earlier one"
        )
    return opset


def _model_info(graph: ov.Model, properties: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of Model API in an IR, or in the metadata of an ONNX file."""
    start = f"{MODEL_INFO} "
    info = {k.removeprefix(start): v for k, v in properties.items() if k.startswith(start)}
    if graph.has_rt_info([MODEL_INFO]):
        try:
            names = graph.get_rt_info([MODEL_INFO]).value
            info |= {name: str(graph.get_rt_info([MODEL_INFO, name]).value) for name in names}
        except (RuntimeError, TypeError):
            return info
    return info


def _model_api(info: Mapping[str, str], graph: ov.Model, path: Path) -> Description:
    """Return what Model API would do, which reads photos in BGR."""
    kind = info.get("model_type", "Classification")
    if kind.lower() != "classification":
        raise ModelError(f"{path}: its model_info says model_type {shown(kind)}: no classifier")
    if _is_true(info.get("multilabel")):
        raise ModelError(
            f"{path}: its model_info says multilabel: an image may have several of its classes; "
            "regnet classifies into one"
        )
    labels = [word.replace("_", " ") for word in info.get("labels", "").split()]
    try:
        preprocess, assumed = _model_api_protocol(info, graph)
        known = named_classes(labels, "labels") if labels else None
    except (ValueError, ProtocolError) as exc:
        raise ModelError(f"{path}: its model_info cannot be used: {exc}") from exc
    return Description(known, preprocess, assumed=assumed)


def _model_api_protocol(
    info: Mapping[str, str], graph: ov.Model
) -> tuple[Preprocess | None, tuple[str, ...]]:
    """Return Model API's preprocessing, None without a size; and what of it cannot be had."""
    embedded = _is_true(info.get("embedded_processing"))
    shape = graph.input(0).get_partial_shape()
    sides = [int(info.get(name) or 0) for name in ("orig_width", "orig_height")]
    if not all(sides) and shape.rank.is_static and len(shape) == 4:
        nchw = shape[1].is_static and shape[1].get_length() == 3
        chosen = (shape[2], shape[3]) if nchw else (shape[1], shape[2])
        sides = [side.get_length() if side.is_static else 0 for side in chosen]
    side = min(sides)
    if not side:
        return None, ()
    resize = info.get("resize_type") or "standard"
    preprocess = Preprocess(
        name="model-api",
        resize=side,
        crop=side,
        interpolation="opencv-linear",
        channels="RGB" if _is_true(info.get("reverse_input_channels")) and not embedded else "BGR",
        mean=_ZEROS if embedded else _numbers(info.get("mean_values")) or _ZEROS,
        scale=_ONES if embedded else _numbers(info.get("scale_values")) or _ONES,
        fit=_FITS.get(resize, "stretch"),
    )
    if resize in _FITS:
        return preprocess, ()
    said = f"protocol: resize_type {shown(resize)} cannot be reproduced; instead photos stretched"
    return preprocess, (f"{said} to {side} x {side}",)


def _ultralytics(properties: Mapping[str, str], path: Path) -> Description:
    """Return what Ultralytics' exporter says: pixels / 255, short side and crop of `imgsz`."""
    if properties["task"] != "classify":
        raise ModelError(f"{path}: its task is {shown(properties['task'])}: no classifier")
    names, sizes = (_literal(properties.get(name, "")) for name in ("names", "imgsz"))
    sides = sizes if isinstance(sizes, list | tuple) else (sizes,)
    for name, fine in (
        ("names", isinstance(names, dict)),
        ("imgsz", sides and all(type(side) is int for side in sides)),
    ):
        if not fine:
            text = shown(properties.get(name))
            raise ModelError(f"{path}: its Ultralytics metadata cannot be used: {name} is {text}")
    try:
        labels = named_classes({str(k): str(v) for k, v in names.items()}, "names")
        side = min(sides)
        preprocess = Preprocess(
            name="ultralytics",
            resize=side,
            crop=side,
            interpolation="bilinear",
            channels="RGB",
            mean=_ZEROS,
            scale=(255.0, 255.0, 255.0),
        )
    except (ValueError, ProtocolError) as exc:
        raise ModelError(f"{path}: its Ultralytics metadata cannot be used: {exc}") from exc
    return Description(labels, preprocess, visible(properties.get("license", ""))[:200])


def _literal(text: str) -> Any:
    """Return the value that a Python literal stands for, None if it is too long or none."""
    try:
        return ast.literal_eval(text) if len(text) <= _MAX_NAMES else None
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _is_true(text: str | None) -> bool:
    return (text or "").strip().lower() in ("true", "yes", "1")


def _numbers(text: str | None) -> Triple | None:
    """Return three numbers, or one for all three, separated by white space or commas."""
    words = re.split(r"[\s,]+", (text or "").strip("[]() "))
    values = [float(word) for word in words if word]
    if not values:
        return None
    if len(values) not in (1, 3):
        raise ValueError(f"{shown(text)} is not one number or three")
    a, b, c = values * 3 if len(values) == 1 else values
    return a, b, c
