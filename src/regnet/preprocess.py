"""The exact pixels of a preprocessing protocol, from whatever holds an image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regnet.decode import MAX_PIXELS, Pixels, decode_image, pack, upright_rgb
from regnet.errors import ImageError
from regnet.linear import linear_crop
from regnet.protocol import Box, Channels, Preprocess
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
    rgb = _rgb(image, array_channels, max_pixels)
    return _part(rgb, preprocess, preprocess.crop_box(*preprocess.resized(*rgb.size)))


def rgb_pixels(image: ImageLike, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Return all pixels of one image, upright: uint8 (H, W, 3), RGB. Raises `ImageError`."""
    return pack(_rgb(image, "RGB", max_pixels), "RGB")


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
    rgb = _rgb(image, array_channels, max_pixels)
    width, height = size = preprocess.resized(*rgb.size)
    if width * height > max_pixels:
        raise ImageError(
            f"too many pixels: resized to {width} x {height} it is over the limit of {max_pixels:,}"
        )
    left, top, right, bottom = preprocess.crop_box(*size)
    resized = _part(rgb, preprocess, (0, 0, width, height))
    cropped = np.ascontiguousarray(resized[top:bottom, left:right])
    return Stages(pack(rgb, preprocess.channels), resized, cropped)


def _part(rgb: Image.Image, preprocess: Preprocess, box: Box) -> Crop:
    """Return a part of an image as the protocol resizes it."""
    size = preprocess.resized(*rgb.size)
    if preprocess.interpolation == "opencv-linear":
        return linear_crop(pack(rgb, preprocess.channels), size=size, box=box) * np.float32(255)
    part = resize_crop(rgb, size=size, box=box, interpolation=preprocess.interpolation)
    return pack(part, preprocess.channels)


def _rgb(image: ImageLike, array_channels: Channels, max_pixels: int) -> Image.Image:
    if isinstance(image, Image.Image):
        return upright_rgb(image)
    if isinstance(image, np.ndarray):
        return _from_array(image, array_channels)
    if isinstance(image, str | Path):
        image = _read(Path(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_image(bytes(image), max_pixels=max_pixels)
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


def _from_array(array: np.ndarray[Any, Any], channels: Channels) -> Image.Image:
    if array.dtype != np.uint8:
        raise ImageError(f"an array of {array.dtype} is no image: give uint8 pixels, 0..255")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ImageError(
            f"an array of shape {array.shape} is no image: give (H, W), (H, W, 3) or (H, W, 4)"
        )
    if array.ndim == 3:
        array = array[:, :, :3] if channels == "RGB" else array[:, :, 2::-1]
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")
