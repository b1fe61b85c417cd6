"""The exact pixels of a preprocessing protocol, from whatever holds an image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regnet.pixels.decode import Pixels, upright_pixels
from regnet.pixels.decode_limits import DECODE_LIMITS, DecodeLimits
from regnet.pixels.decoder import decode_elsewhere, decode_quick, decode_within
from regnet.pixels.opencv_resize import linear_crop
from regnet.pixels.pillow_resize import resize_crop
from regnet.pixels.protocol import Box, Channels, Preprocess, Size
from regnet.system.errors import ImageError, reason_of

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
    limits: DecodeLimits = DECODE_LIMITS,
) -> Crop:
    """Return the protocol's crop of one image: (crop, crop, 3) in `preprocess.channels`.

    It is uint8, but float32 on 0..255 where the interpolation is OpenCV's, which does not round.
    `image` is encoded bytes, a path, a Pillow image of any mode, or a uint8 array: (H, W, 3) or
    (H, W, 4) in the order of `array_channels`, or grey (H, W). Encoded ones are decoded within
    `limits`, those that may take long in another process. Safe to call from many threads.
    Raises `ImageError` with the reason.
    """
    given = _encoded(image)
    crop = quick_crop(given, preprocess, array_channels=array_channels, limits=limits)
    if crop is None:
        assert isinstance(given, bytes)
        return decode_elsewhere(given, preprocess, limits)
    return crop


def quick_crop(
    image: ImageLike,
    preprocess: Preprocess,
    *,
    array_channels: Channels = "RGB",
    limits: DecodeLimits = DECODE_LIMITS,
) -> Crop | None:
    """Return what `crop_pixels` does, None of a photo that may take long to decode."""
    given = _encoded(image)
    if isinstance(given, bytes):
        pixels = decode_quick(given, preprocess.channels, limits)
        if pixels is None:
            return None
    else:
        pixels = _upright(given, preprocess.channels, array_channels, limits)
    return crop_of(pixels, preprocess)


def crop_of(pixels: Pixels, preprocess: Preprocess) -> Crop:
    """Return the protocol's crop of pixels (H, W, 3) in the order of its channels."""
    pixels = _used(pixels, preprocess)
    size = preprocess.resized(pixels.shape[1], pixels.shape[0])
    return _part(pixels, preprocess, size, preprocess.crop_box(*size))


def rgb_pixels(image: ImageLike, *, limits: DecodeLimits = DECODE_LIMITS) -> Pixels:
    """Return all pixels of one image, upright: uint8 (H, W, 3), RGB. Raises `ImageError`."""
    given = _encoded(image)
    pixels = _upright(given, "RGB", "RGB", limits)
    return np.ascontiguousarray(pixels) if isinstance(given, bytes) else np.array(pixels, order="C")


def stages(
    image: ImageLike,
    preprocess: Preprocess,
    *,
    array_channels: Channels = "RGB",
    limits: DecodeLimits = DECODE_LIMITS,
) -> Stages:
    """Return the pixels after decode, resize and crop, to tell where two pipelines part.

    `cropped` equals `crop_pixels`, whose arguments these are; but here the whole image is resized,
    so one whose resized pixels would take more than `limits.memory` is an `ImageError` too.
    """
    pixels = _upright(_encoded(image), preprocess.channels, array_channels, limits)
    used = _used(pixels, preprocess)
    width, height = size = preprocess.resized(used.shape[1], used.shape[0])
    each = 12 if preprocess.interpolation == "opencv-linear" else 3
    if each * width * height > limits.memory:
        raise ImageError(
            f"too many pixels: resized to {width} x {height} they take "
            f"{each * width * height / 1e6:,.0f} MB of memory, over the limit of "
            f"{limits.memory / 1e6:,.0f} MB (--max-memory)"
        )
    left, top, right, bottom = preprocess.crop_box(*size)
    resized = _part(used, preprocess, size, (0, 0, width, height))
    cropped = np.ascontiguousarray(resized[top:bottom, left:right])
    return Stages(np.ascontiguousarray(pixels), resized, cropped)


def _used(pixels: Pixels, preprocess: Preprocess) -> Pixels:
    left, top, right, bottom = preprocess.used(pixels.shape[1], pixels.shape[0])
    return pixels[top:bottom, left:right]


def _part(pixels: Pixels, preprocess: Preprocess, size: Size, box: Box) -> Crop:
    """Return a part of an image as the protocol resizes it."""
    if preprocess.interpolation == "opencv-linear":
        return np.ascontiguousarray(linear_crop(pixels, size=size, box=box) * np.float32(255))
    return resize_crop(pixels, size=size, box=box, interpolation=preprocess.interpolation)


def _encoded(image: ImageLike) -> bytes | NDArray[Any] | Image.Image:
    """Return the bytes of an encoded image, and other images as they are."""
    if isinstance(image, Image.Image | np.ndarray | bytes):
        return image
    if isinstance(image, str | Path):
        try:
            return Path(image).read_bytes()
        except (OSError, ValueError) as exc:
            raise ImageError(f"cannot read {image}: {reason_of(exc)}") from exc
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    raise ImageError(
        f"cannot read an image from {type(image).__name__}: "
        "give bytes, a path, a uint8 array or a Pillow image"
    )


def _upright(
    image: bytes | NDArray[Any] | Image.Image,
    channels: Channels,
    array_channels: Channels,
    limits: DecodeLimits,
) -> Pixels:
    """Return an image's pixels as a view (H, W, 3) in the order of `channels`."""
    if isinstance(image, bytes):
        return decode_within(image, channels, limits)
    if isinstance(image, Image.Image):
        return upright_pixels(image, channels)
    return _from_array(image, flipped=channels != array_channels)


def _from_array(array: np.ndarray[Any, Any], *, flipped: bool) -> Pixels:
    if array.dtype != np.uint8:
        raise ImageError(f"an array of {array.dtype} is not an image: give uint8 pixels, 0..255")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ImageError(
            f"an array of shape {array.shape} is not an image: give (H, W), (H, W, 3) or "
            "(H, W, 4), or a list of such arrays"
        )
    if array.ndim == 2:
        return np.repeat(array[:, :, None], 3, axis=2)
    return array[:, :, 2::-1] if flipped else array[:, :, :3]
