"""The pixels that a graph computes from whole photos, compared with the protocol's own."""

from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regnet.conversion.graph_preprocess import IMAGE, PIXELS
from regnet.ir.records import PixelBound
from regnet.pixels.preprocess import crop_pixels
from regnet.pixels.protocol import Preprocess
from regnet.system.errors import ConversionError
from regnet.system.runtime import core, ov

Images = Sequence[NDArray[np.uint8]]

MIN_IDENTICAL = 0.9999
MAX_LEVELS = 1


def pixel_bound(model: ov.Model | bytes, preprocess: Preprocess, photos: Images) -> PixelBound:
    """Return how the pixels inside a model with embedded preprocessing differ from the protocol's.

    `bytes` are those of an ONNX file that gives the pixels alone. Measured in float32 on photos,
    uint8 (H, W, 3), RGB, and on `odd_images`. Raises `ConversionError` where under 99.99 % are
    identical or any is more than 1 level apart.
    """
    images = [*photos, *odd_images(preprocess)]
    equal = total = levels = 0
    for image, pixels in zip(images, _pixels(model, images), strict=True):
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


def _pixels(model: ov.Model | bytes, images: Images) -> Iterator[NDArray[np.float32]]:
    """Yield the pixels (3, crop, crop) that a model makes of each image."""
    if isinstance(model, bytes) and find_spec("onnxruntime"):
        import onnxruntime

        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        for image in images:
            yield session.run(None, {IMAGE: image[None]})[0][0]
    elif isinstance(model, bytes):
        yield from (pixels for (pixels,) in run(core.read_model(model), images))
    else:
        yield from (pixels for pixels, *_ in run_whole(model, images))


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
