"""The exact pixels of a preprocessing protocol, from whatever holds an image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regnet.decode import MAX_PIXELS, Pixels, decode_pixels, upright_pixels
from regnet.errors import ImageError
from regnet.linear import linear_crop
from regnet.protocol import Box, Channels, Preprocess, Size
from regnet.resize import resize_crop

ImageLike = bytes | bytearray | memoryview | str | Path | np.ndarray[Any, Any] | Image.Image
Crop = NDArray[Any]
"""uint8 where Pillow resizes, float32 on 0..255 where OpenCV does: (height, width, 3)."""


@dataclass(frozen=True, eq=False)
class Stages:
    """The pixels of one image after each stage of a protocol, in its order of channels.

    `decoded` is uint8 (H, W, 3), upright; `resized` and `cropped` are as `Crop` says.
    """

    decoded: Pixels
    resized: Crop
    cropped: Crop


def crop_pixels(
    image: ImageLike,
    preprocess: Preprocess,
    *,
    array_channels: Channels = "RGB",
    max_pixels: int = MAX_PIXELS,
) -> Crop:
    """Return the protocol's crop of one image: (crop, crop, 3) in `preprocess.channels`.

    It is uint8, but float32 on 0..255 where the interpolation is OpenCV's, which does not round.
    `image` is encoded bytes, a path, a Pillow image of any mode, or a uint8 array: (H, W, 3) or
    (H, W, 4) in the order of `array_channels`, or grey (H, W). Safe to call from many threads.
    Raises `ImageError` with the reason.
    """
    pixels = _upright(image, preprocess.channels, array_channels, max_pixels)
    return _part(pixels, preprocess, preprocess.crop_box(*_resized(pixels, preprocess)))


def rgb_pixels(image: ImageLike, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Return all pixels of one image, upright: uint8 (H, W, 3), RGB. Raises `ImageError`."""
    return np.array(_upright(image, "RGB", "RGB", max_pixels), order="C")


def stages(
    image: ImageLike,
    preprocess: Preprocess,
    *,
    array_channels: Channels = "RGB",
    max_pixels: int = MAX_PIXELS,
) -> Stages:
    """Return the pixels after decode, resize and crop, to tell where two pipelines part.

    `cropped` equals `crop_pixels`, whose arguments these are; but here the whole image is resized,
    so one whose resized pixels would be over `max_pixels` is an `ImageError` too.
    """
    pixels = _upright(image, preprocess.channels, array_channels, max_pixels)
    width, height = size = _resized(pixels, preprocess)
    if width * height > max_pixels:
        raise ImageError(
            f"too many pixels: resized to {width} x {height} it is over the limit of {max_pixels:,}"
        )
    left, top, right, bottom = preprocess.crop_box(*size)
    resized = _part(pixels, preprocess, (0, 0, width, height))
    cropped = np.ascontiguousarray(resized[top:bottom, left:right])
    return Stages(np.ascontiguousarray(pixels), resized, cropped)


def _resized(pixels: Pixels, preprocess: Preprocess) -> Size:
    height, width = pixels.shape[:2]
    return preprocess.resized(width, height)


def _part(pixels: Pixels, preprocess: Preprocess, box: Box) -> Crop:
    """Return a part of an image as the protocol resizes it."""
    size = _resized(pixels, preprocess)
    if preprocess.interpolation == "opencv-linear":
        return np.ascontiguousarray(linear_crop(pixels, size=size, box=box) * np.float32(255))
    return resize_crop(pixels, size=size, box=box, interpolation=preprocess.interpolation)


def _upright(
    image: ImageLike, channels: Channels, array_channels: Channels, max_pixels: int
) -> Pixels:
    """Return an image's pixels as a view (H, W, 3) in the order of `channels`."""
    if isinstance(image, Image.Image):
        return upright_pixels(image, channels)
    if isinstance(image, np.ndarray):
        return _from_array(image, flipped=channels != array_channels)
    if isinstance(image, str | Path):
        image = _read(Path(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_pixels(bytes(image), channels, max_pixels=max_pixels)
    raise ImageError(
        f"cannot read an image from {type(image).__name__}: "
        "give bytes, a path, a uint8 array or a Pillow image"
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise ImageError(f"cannot read {path}: {reason}") from exc


def _from_array(array: np.ndarray[Any, Any], *, flipped: bool) -> Pixels:
    if array.dtype != np.uint8:
        raise ImageError(f"an array of {array.dtype} is no image: give uint8 pixels, 0..255")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ImageError(
            f"an array of shape {array.shape} is no image: give (H, W), (H, W, 3) or (H, W, 4)"
        )
    if array.ndim == 2:
        return np.repeat(array[:, :, None], 3, axis=2)
    return array[:, :, 2::-1] if flipped else array[:, :, :3]
