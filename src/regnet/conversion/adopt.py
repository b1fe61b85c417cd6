"""An image classifier of another maker -> an IR of regnet's, compared with the original.

The original runs in its own engine, fed as its maker feeds it: normalised in float32 outside the
graph, image by image. The IR gets raw pixels in one batch. So layout, mean, scale, order of
channels, softmax and the free batch are all part of the comparison.
"""

import math
from collections import Counter
from pathlib import Path
from typing import Final

import numpy as np

from regnet.conversion.foreign_files import foreign_files
from regnet.conversion.foreign_graph import (
    adopt_graph,
    last_operation,
    outputs_by_graph,
    read_face,
    read_foreign,
    require_classes,
    resized,
    weighted,
)
from regnet.conversion.foreign_settings import Description, read_description
from regnet.conversion.original import Original, as_rows
from regnet.conversion.proof import Judge, Pixels, Rows
from regnet.conversion.protocol_choice import choose_protocol
from regnet.conversion.values import Conversion, Outputs, Request, write_conversion
from regnet.ir.constants import pixels_of
from regnet.ir.graph import add_logits, write_ir
from regnet.ir.metadata import ModelMetadata, StoredPrecision
from regnet.network.labels import Label, Labels, imagenet_labels, numbered_labels
from regnet.pixels.protocol import Preprocess
from regnet.pixels.samples import sample_crops
from regnet.system.errors import ConversionError, ModelError
from regnet.system.files import new_folder_beside, replace_all
from regnet.system.runtime import core, ov
from regnet.system.text import last_line
from regnet.system.version import TOOL_VERSION

_SUMS_TO_1: Final = 1e-3  # probabilities may be of float16
_BACKGROUND: Final = Label("", "background")


def adopt(request: Request, folder: Path) -> Conversion:
    """Convert a foreign classifier as requested into a folder and return the measurements.

    Nothing is written unless it gives the original's probabilities and top classes on the sample
    photos, each also mirrored. Raises `ModelError` if the file is damaged or no classifier,
    `ProtocolError`, `WeightsError`, `MissingExtraError`, `ConversionError`.
    """
    _require_plain(request)
    path = request.weights
    files = foreign_files(path)
    graph = read_foreign(path)
    face = read_face(graph, path)
    description = read_description(files, graph)
    preprocess, assumed = choose_protocol(
        request.protocol,
        channels=request.channels,
        known=description.preprocess,
        size=face.size,
        has_bytes=face.element == "u8",
        nhwc=face.layout == "NHWC",
    )
    if "named" not in request.protocol:
        assumed = (*assumed, *description.assumed)
    resized(graph, face, preprocess.crop, path)
    classes = require_classes(graph, path)
    labels, about_names = _labels(request, description, max(classes, 2))
    original = Original(path, face, preprocess)
    pixels = _sample_pixels(preprocess)
    if classes == 1:
        outputs, notes = _one_output(request, graph)
    else:
        outputs, notes = _outputs(request, graph, original, pixels)
    by_softmax = last_operation(graph) == "Softmax"
    adopted = adopt_graph(graph, face, preprocess, outputs, path)
    metadata = ModelMetadata(
        name=request.model_name,
        card="",
        preprocess=preprocess,
        labels=labels,
        weights_sha384=files.weights_sha384,
        precision=_stored_precision(adopted),
        licence=request.licence or description.licence or "unknown",
        version=TOOL_VERSION,
        assumed=(*about_names, *assumed),
        origin=f"{path.name} ({description.maker})",
    )
    judge = original.judge(pixels, outputs, by_softmax=by_softmax)
    target = folder / request.file_name
    with new_folder_beside(target) as scratch:
        names = write_ir(adopted, metadata, scratch / target.name)
        rows = _run(scratch / target.name, pixels, outputs, by_softmax=by_softmax)
        proof = judge.proof(rows)
        _require_top_classes(judge, rows, original.name)
        replace_all(scratch, folder, names)
    conversion = Conversion(
        target, tuple(names), proof, 0.0, len(pixels), metadata.assumed, None, notes, original.name
    )
    write_conversion(folder, conversion)
    return conversion


def _require_plain(request: Request) -> None:
    """Refuse what is for checkpoints, and what is made of an adopted model afterwards."""
    for name in ("card", "spec", "entry"):
        if getattr(request, name) is not None:
            raise ConversionError(f"{request.weights}: is not a checkpoint: leave out --{name}")
    usual = {"format": "ir", "precision": "fp32", "preprocessing": "caller"}
    for name, value in usual.items():
        if (given := getattr(request, name)) != value:
            raise ConversionError(
                f"{request.weights}: convert it without --{name} {given} first, then convert the "
                f".xml that this writes with --{name} {given}"
            )


def _labels(
    request: Request, description: Description, classes: int
) -> tuple[Labels, tuple[str, ...]]:
    """Return the class list, and a sentence if it had to be assumed."""
    if labels := request.labels or description.labels:
        if len(labels) != classes:
            raise ConversionError(
                f"{request.weights}: has {classes:,} classes, and the class list {len(labels):,}"
            )
        return labels, ()
    known = imagenet_labels()
    if classes == len(known):
        return known, ("names: its 1,000 classes are taken to be ImageNet-1k's",)
    if classes == len(known) + 1:
        text = "names: its 1,001 classes are taken to be a background and ImageNet-1k's"
        return (_BACKGROUND, *known), (text,)
    return numbered_labels(classes), ("names: its classes are numbered",)


def _outputs(
    request: Request, graph: ov.Model, original: Original, pixels: Pixels
) -> tuple[Outputs, tuple[str, ...]]:
    """Return what the network gives, and a sentence that says how that was found.

    Raises `ModelError` for shares of another sum than 1, as percentages are.
    """
    if request.outputs == "logits":
        return "logits", ()
    known = request.outputs or outputs_by_graph(graph, request.weights)
    if known == "logits":
        return "logits", ("outputs: logits, for the graph ends in a log-softmax",)
    raw = original.raw(pixels)
    sums = raw.sum(axis=1)
    low, high = float(sums.min()), float(sums.max())
    shares = raw.min() >= 0 and high - low <= _SUMS_TO_1 * high
    if not shares and not known:
        return "logits", ("outputs: logits, for they do not sum to 1 on the sample photos",)
    if not shares or max(1 - low, high - 1) > _SUMS_TO_1:
        raise ModelError(
            f"{request.weights}: its outputs sum to {low:.4g} to {high:.4g} on the sample images, "
            "where probabilities sum to 1; export it with logits or probabilities. If they are "
            "logits: --outputs logits"
        )
    if request.outputs:
        return "probabilities", ()
    why = "the graph ends in a softmax" if known else "they sum to 1 on the sample photos"
    return "probabilities", (f"outputs: probabilities, for {why}",)


def _one_output(request: Request, graph: ov.Model) -> tuple[Outputs, tuple[str, ...]]:
    """Return what one number per image is, and a sentence that says how that was found.

    Raises `ModelError` where it may be anything, as of a regression.
    """
    if request.outputs:
        return request.outputs, ()
    if last_operation(graph) != "Sigmoid":
        raise ModelError(
            f"{request.weights}: gives one number per image. If it is the logit, or the "
            "probability, of the second of 2 classes: --outputs logits, or probabilities"
        )
    why = "for the graph ends in a sigmoid of one number"
    return "probabilities", (f"outputs: the probability of the second of 2 classes, {why}",)


def _sample_pixels(preprocess: Preprocess) -> Pixels:
    """Return the crops of the sample photos and their mirror images, (6, 3, crop, crop)."""
    crops = sample_crops(preprocess)
    return pixels_of([*crops, *(crop[:, ::-1] for crop in crops)])


def _stored_precision(graph: ov.Model) -> StoredPrecision:
    """Return how most of the weights are stored; the first layer's may have taken in the scale."""
    sizes = Counter[str]()
    for _, weight in weighted(graph):
        if weight.get_output_partial_shape(0).is_static:
            sizes[weight.get_type_name()] += math.prod(weight.get_output_shape(0))
    return "fp16" if sizes["Convert"] > sizes["Constant"] else "fp32"


def _run(path: Path, pixels: Pixels, outputs: Outputs, *, by_softmax: bool) -> Rows:
    """Return the outputs of an IR for all pixels in one batch, in float32."""
    model = core.read_model(path)
    add_logits(model, source=path.name)
    try:
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        probabilities, logits = (rows.astype(np.float64) for rows in compiled(pixels).to_tuple())
    except RuntimeError as exc:
        raise ConversionError(
            f"OpenVINO cannot run {path.name} in batches ({last_line(exc)}); export the original "
            "with a dynamic batch"
        ) from exc
    if len(probabilities) != len(pixels):
        raise ConversionError(
            f"{path.name} gives {len(probabilities)} rows for {len(pixels)} images: the original "
            "mixes the images of a batch; nothing was written"
        )
    if outputs == "logits":
        return Rows(logits, probabilities)
    return as_rows(probabilities, outputs, by_softmax=by_softmax)


def _require_top_classes(judge: Judge, rows: Rows, original: str) -> None:
    equal = judge.rows.probabilities.argmax(axis=1) == rows.probabilities.argmax(axis=1)
    if not equal.all():
        raise ConversionError(
            f"the top class is another than that of {original} on {np.sum(~equal)} of "
            f"{len(equal)} sample images; nothing was written"
        )
