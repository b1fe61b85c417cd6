"""The same job as people write it without this package: Pillow, then another engine, in a loop."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rivals import Competitor

from regnet.ir.graph import read_graph
from regnet.ir.metadata import ModelMetadata
from regnet.system.runtime import core

PLAIN_TORCH: Final = "torch eager f32 behind a Pillow loop"
PLAIN_OPENVINO: Final = "OpenVINO as it comes behind a Pillow loop"

Top1 = list[int]

_FILTERS: Final = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class PlainLoop:
    """One such program: `run` gives the top-1 class of each photo.

    `precision` is what it computes in, `comparable` whether its weights are the model's own.
    """

    name: str
    run: Callable[[], Top1]
    precision: str
    comparable: bool


def has_plain_pixels(metadata: ModelMetadata) -> bool:
    """Whether Pillow by itself makes the pixels of a model's protocol."""
    return metadata.preprocess.interpolation in _FILTERS


def plain_pixels(photo: Path, metadata: ModelMetadata) -> NDArray[np.uint8]:
    """Return what a plain program makes of a photo with Pillow: open, convert, resize, crop.

    It is what the model takes: its crop in its channels, or all of the photo, RGB.
    """
    preprocess = metadata.preprocess
    with Image.open(photo) as opened:
        image = opened.convert("RGB")
    if metadata.preprocessing == "graph":
        return np.asarray(image)
    size = preprocess.resized(*image.size)
    resized = image.resize(size, _FILTERS.get(preprocess.interpolation, _FILTERS["bilinear"]))
    crop = np.asarray(resized.crop(preprocess.crop_box(*size)))
    return crop if preprocess.channels == "RGB" else crop[..., ::-1]


def torch_loop(
    torch: Competitor,
    photos: Sequence[Path],
    metadata: ModelMetadata,
    *,
    batch_size: int,
    comparable: bool,
) -> PlainLoop:
    """Return a loop that runs batches of Pillow's crops through torch."""
    crops = replace(metadata, preprocessing="caller")

    def run() -> Top1:
        top1: Top1 = []
        for batch in batches(photos, batch_size):
            pixels = np.stack([plain_pixels(photo, crops) for photo in batch])
            top1 += torch.infer(pixels).argmax(axis=1).tolist()
        return top1

    return PlainLoop(PLAIN_TORCH, run, "f32", comparable)


def openvino_loop(path: Path, photos: Sequence[Path], metadata: ModelMetadata) -> PlainLoop:
    """Return a loop that runs one photo after the other through OpenVINO with its own defaults."""
    compiled = core.compile_model(read_graph(path), "CPU")
    computes_in = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    return PlainLoop(
        PLAIN_OPENVINO,
        partial(_one_by_one, compiled, photos, metadata),
        str(computes_in),
        comparable=True,
    )


def _one_by_one(compiled: Any, photos: Sequence[Path], metadata: ModelMetadata) -> Top1:
    top1: Top1 = []
    for photo in photos:
        pixels: NDArray[Any] = plain_pixels(photo, metadata)[None]
        if metadata.preprocessing == "caller":
            pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)
        top1.append(int(compiled(pixels)[0].argmax()))
    return top1


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield the items in runs of `size`, the last one shorter."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
