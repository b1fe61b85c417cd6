"""An IR that takes crops -> one that takes whole photos: the same network behind a resize."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from regnet.conversion.graph_preprocess import embed_preprocessing
from regnet.conversion.pixel_check import pixel_bound, run_whole
from regnet.conversion.values import FLOOR
from regnet.ir.graph import graph_metadata, read_graph, write_ir
from regnet.ir.records import PixelBound
from regnet.pixels.preprocess import rgb_pixels
from regnet.pixels.samples import sample_photos
from regnet.system.errors import ConversionError
from regnet.system.files import new_folder_beside, replace_all
from regnet.system.runtime import core, ov

Images = Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class WholePhotoModel:
    """An IR that takes whole photos, and how it was checked on `photos` sample photos.

    `max_delta` is the largest difference of a probability from the model that takes crops, given
    the pixels that this one computes; `pixel_bound` compares those with the protocol's. `assumed`
    is the model's.
    """

    path: Path
    files: tuple[str, ...]
    max_delta: float
    photos: int
    pixel_bound: PixelBound
    assumed: tuple[str, ...] = ()


def write_whole_photo_model(source: Path, folder: Path, *, name: str | None) -> WholePhotoModel:
    """Write the IR at `source` with resize and crop inside its graph, as `NAME-graph.xml`.

    Raises `ModelError` if `source` is no IR from regnet, `ProtocolError` if its protocol cannot be
    put into the graph, `ConversionError` if that was done before or the result disagrees.
    """
    graph = read_graph(source)
    metadata = graph_metadata(graph, source=str(source))
    if metadata.preprocessing == "graph":
        raise ConversionError(f"{source}: takes whole photos already")
    images = [rgb_pixels(path) for path in sample_photos()]
    whole = embed_preprocessing(graph, metadata.preprocess)
    bound = pixel_bound(whole, metadata.preprocess, images)
    metadata = replace(metadata, preprocessing="graph", pixel_bound=bound)
    target = folder / _file_name(source, name)
    with new_folder_beside(target) as scratch:
        files = write_ir(whole, metadata, scratch / target.name)
        delta = _checked(graph, scratch / target.name, images)
        replace_all(scratch, folder, files)
    return WholePhotoModel(target, tuple(files), delta, len(images), bound, metadata.assumed)


def _file_name(source: Path, name: str | None) -> str:
    stem = source.stem
    suffix = next((s for s in ("-fp16", "-int8") if stem.endswith(s)), "")
    return f"{name or stem.removesuffix(suffix)}-graph{suffix}.xml"


def _checked(graph: ov.Model, path: Path, images: Images) -> float:
    """Return the largest difference; raises `ConversionError` if it exceeds 1e-5."""
    original = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    delta = max(
        float(np.abs(original(pixels[None])[0][0] - rows).max())
        for pixels, rows in run_whole(core.read_model(path), images)
    )
    if not delta <= FLOOR:
        raise ConversionError(
            f"{path.name}: probabilities differ by {delta:.3g} from those of the model that takes "
            f"crops, {FLOOR:g} is allowed; nothing was written"
        )
    return delta
