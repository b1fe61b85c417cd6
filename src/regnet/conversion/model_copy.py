"""A converted model -> the same in another form: ONNX, another precision, taking whole photos.

A copy is compared with its source on the sample photos. How far rounding alone moves the source's
outputs is measured by running it with the weights of its first layer (in INT8, of all layers) two
units in the last place larger and smaller.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.conversion.export import onnx_pixel_bound, write_onnx
from regnet.conversion.graph_preprocess import embed_preprocessing
from regnet.conversion.ir_to_onnx import ir_to_onnx
from regnet.conversion.proof import Judge, Rows, run_written
from regnet.conversion.values import Conversion, Format, Precision
from regnet.conversion.whole_photo import pixel_bound, run
from regnet.ir.constants import (
    WEIGHTED,
    constant_array,
    set_values,
    store_weights,
    with_float_weights,
)
from regnet.ir.graph import add_logits, graph_metadata, read_graph, write_ir
from regnet.ir.metadata import ModelMetadata
from regnet.pixels.preprocess import rgb_pixels
from regnet.pixels.samples import sample_crops, sample_photos
from regnet.system.errors import ConversionError, OutputError
from regnet.system.files import new_folder_beside, replace_all
from regnet.system.runtime import ov

_SUFFIXES: Final = {"fp32": "", "fp16": "-fp16", "int8": "-int8"}
_ULP: Final = 2.0**-23


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a copy is to be. `precision` None is the source's; `whole` makes it take whole photos.

    `name` is that of the file, without what says its precision; None: the source's.
    """

    format: Format = "ir"
    precision: Precision | None = None
    whole: bool = False
    name: str | None = None


def write_copy(source: Path, folder: Path, form: Form, *, keep: Path | None = None) -> Conversion:
    """Write a copy of the IR at `source` into a folder and return the measurements.

    Nothing is written unless its outputs on the sample photos are the source's. Raises
    `ConversionError` if they are not, an operation cannot be written as ONNX, or the form is the
    source's own, `ProtocolError` if the protocol cannot be put into the graph, `ModelError`,
    `OutputError` instead of replacing the file to `keep`.
    """
    graph = read_graph(source)
    metadata = graph_metadata(graph, source=str(source))
    _require_change(form, metadata, source)
    takes_whole = metadata.preprocessing == "graph"
    original = graph.clone()
    if form.precision:
        store_weights(graph, half=form.precision == "fp16")
        metadata = replace(metadata, precision=form.precision)
    images = sample_crops(metadata.preprocess)
    if form.whole or takes_whole:
        images = [rgb_pixels(path) for path in sample_photos()]
    written = graph
    if form.whole:
        written = embed_preprocessing(graph, metadata.preprocess)
        bound = pixel_bound(written, metadata.preprocess, images)
        metadata = replace(metadata, preprocessing="graph", pixel_bound=bound)
    if form.format == "onnx" and metadata.preprocessing == "graph":
        metadata = replace(metadata, pixel_bound=onnx_pixel_bound(metadata.preprocess, images))
    target = folder / _file_name(source, form, metadata)
    if keep and target.exists() and keep.exists() and target.samefile(keep):
        raise OutputError(f"{target} is the original: choose another folder (-o) or --name")
    with new_folder_beside(target) as scratch:
        path = scratch / target.name
        if form.format == "onnx":
            files = write_onnx(ir_to_onnx(written, metadata.precision), metadata, path)
        else:
            files = write_ir(written, metadata, path)
        pixels, rows = run_written(path, metadata, images)
        expected = expected_outputs(graph, metadata, images if takes_whole else pixels)
        proof = expected.proof(rows)
        replace_all(scratch, folder, files)
    rounding = 0.0
    if form.precision:
        before = outputs(original, metadata, images if takes_whole else pixels)
        rounding = expected.distance(before).probabilities
    return Conversion(
        path=target,
        files=tuple(files),
        proof=proof,
        rounding=rounding,
        photos=len(images),
        assumed=metadata.assumed,
        pixel_bound=metadata.pixel_bound,
        original=source.name,
    )


def _require_change(form: Form, metadata: ModelMetadata, source: Path) -> None:
    """Raise `ConversionError` if the source cannot become what is asked for, or is that."""
    if form.precision and metadata.precision == "int8":
        raise ConversionError(f"{source}: is an INT8 model: leave out --precision")
    if form.whole and metadata.preprocessing == "graph":
        raise ConversionError(f"{source}: takes whole photos already")
    same = form.precision in (None, metadata.precision)
    if form.format == "ir" and same and not form.whole:
        raise ConversionError(
            f"{source}: is converted already: choose another form with --format, --precision or "
            "--preprocessing, or convert what it was made from"
        )


def _file_name(source: Path, form: Form, metadata: ModelMetadata) -> str:
    """Return the name of the copy's main file, `NAME[-graph][-fp16|-int8].xml` or `.onnx`."""
    stem = source.stem
    for suffix in ("-fp16", "-int8", "-graph"):
        stem = stem.removesuffix(suffix)
    whole = "-graph" if metadata.preprocessing == "graph" else ""
    kind = "onnx" if form.format == "onnx" else "xml"
    return f"{form.name or stem}{whole}{_SUFFIXES[metadata.precision]}.{kind}"


def expected_outputs(
    graph: ov.Model, metadata: ModelMetadata, images: Iterable[NDArray[Any]]
) -> Judge:
    """Return what a graph gives for its inputs in float32, and how far rounding moves that."""
    images, int8 = list(images), metadata.precision == "int8"
    if int8:  # rounding moves few values, but each by a whole step: more ways show some of them
        graph = with_float_weights(graph)  # sums are exact then
    ways = (2, -2, 4, -4, 8, -8) if int8 else (2, -2)
    moved = [outputs(_moved(graph, ulps, every=int8), metadata, images) for ulps in ways]
    return Judge(outputs(graph, metadata, images), moved, name="its source")


def outputs(graph: ov.Model, metadata: ModelMetadata, images: Iterable[NDArray[Any]]) -> Rows:
    """Return the outputs of a graph without INT8 weights for inputs one by one."""
    graph = graph.clone()
    add_logits(graph, source=metadata.name)
    probabilities, logits = map(np.stack, zip(*run(graph, images), strict=True))
    return Rows(logits, probabilities)


def _moved(graph: ov.Model, ulps: int, *, every: bool) -> ov.Model:
    """Return a copy whose first layer, or every one, has weights that much larger."""
    graph = graph.clone()
    ops = [op for op in graph.get_ordered_ops() if op.get_type_name() in WEIGHTED]
    layers = [(op, array) for op in ops if (array := constant_array(op.input_value(1))) is not None]
    for op, array in layers if every else layers[:1]:
        set_values(op, 1, array * np.float32(1 + ulps * _ULP))
    return graph
