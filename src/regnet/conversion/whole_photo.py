"""An IR that takes crops -> one that takes whole photos: the same network behind a resize.

The pixels that its graph computes are compared with the protocol's own.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regnet.conversion.graph_preprocess import PIXELS, embed_preprocessing
from regnet.conversion.values import FLOOR
from regnet.ir.graph import graph_metadata, read_graph, write_ir
from regnet.ir.records import PixelBound
from regnet.pixels.preprocess import crop_pixels, rgb_pixels
from regnet.pixels.protocol import Preprocess
from regnet.pixels.samples import sample_photos
from regnet.system.errors import ConversionError
from regnet.system.files import new_folder_beside, replace_all
from regnet.system.runtime import core, ov

Images = Sequence[NDArray[np.uint8]]

MIN_IDENTICAL = 0.9999
MAX_LEVELS = 1


@dataclass(frozen=True)
class WholePhotoModel:
    """An IR that takes whole photos, checked on `photos` sample photos.

    `max_delta` is the largest difference of a probability from the model that takes crops, for the
    same pixels; `pixel_bound` compares these with the protocol's.
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
    stem = source.stem
    suffix = next((s for s in ("-fp16", "-int8") if stem.endswith(s)), "")
    target = folder / f"{name or stem.removesuffix(suffix)}-graph{suffix}.xml"
    with new_folder_beside(target) as scratch:
        files = write_ir(whole, metadata, scratch / target.name)
        delta = _checked(graph, scratch / target.name, images)
        replace_all(scratch, folder, files)
    return WholePhotoModel(target, tuple(files), delta, len(images), bound, metadata.assumed)


def _checked(graph: ov.Model, path: Path, images: Images) -> float:
    """Return the largest difference; raises `ConversionError` if it exceeds 1e-5."""
    pixels, rows = zip(*run_whole(core.read_model(path), images), strict=True)
    original = run(graph, pixels)
    delta = max(float(np.abs(a - b).max()) for a, (b,) in zip(rows, original, strict=True))
    if not delta <= FLOOR:
        raise ConversionError(
            f"{path.name}: probabilities differ by {delta:.3g} from those of the model that takes "
            f"crops, {FLOOR:g} is allowed; nothing was written"
        )
    return delta


def pixel_bound(model: ov.Model, preprocess: Preprocess, photos: Images) -> PixelBound:
    """Return how the pixels inside a model with embedded preprocessing differ from the protocol's.

    Measured in float32 on photos, uint8 (H, W, 3), RGB, and on `odd_images`. Raises
    `ConversionError` where under 99.99 % are identical or any is more than 1 level apart.
    """
    images = [*photos, *odd_images(preprocess)]
    equal = total = levels = 0
    for image, (pixels, *_) in zip(images, run_whole(model, images), strict=True):
        apart = np.abs(pixels - crop_pixels(image, preprocess).transpose(2, 0, 1))
        equal += int((apart == 0).sum())
        total += apart.size
        levels = max(levels, int(apart.max()))
    bound = PixelBound(identical=equal / total, levels=levels, photos=len(images))
    if bound.identical < MIN_IDENTICAL or levels > MAX_LEVELS:
        raise ConversionError(
            f"the graph's pixels differ from the protocol's: {bound.identical:.4%} are identical "
            f"and some are {levels} levels apart, where {MIN_IDENTICAL:.2%} and {MAX_LEVELS} are "
            "promised; nothing was written"
        )
    return bound


def run_whole(model: ov.Model, images: Images) -> Iterator[list[NDArray[np.float32]]]:
    """Yield the pixels (3, crop, crop) and each output (classes) for each image, in float32."""
    model = model.clone()
    model.add_outputs(PIXELS)
    for *outputs, pixels in run(model, images):
        yield [pixels, *outputs]


def run(model: ov.Model, images: Iterable[NDArray[Any]]) -> Iterator[list[NDArray[np.float32]]]:
    """Yield a model's outputs for each image, in float32, without the axis of the batch."""
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for image in images:
        yield [output[0].copy() for output in compiled(image[None]).to_tuple()]


def odd_images(preprocess: Preprocess) -> list[NDArray[np.uint8]]:
    """Return images of noise in shapes that are hard to resize right, always the same ones."""
    short = preprocess.resize
    sizes = [
        (1, 1),
        (1, 300),
        (300, 1),
        (short, short),
        (short, short + 77),
        (short // 2 + 1, short // 3 + 1),
        (short + 1, short),
        (2 * short + 90, short + 20),  # vertical first
        (short + 20, 3 * short),
        (375, 500),
    ]
    noise = np.random.default_rng(0)
    return [noise.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
