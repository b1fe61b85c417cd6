"""The exact pixels of a preprocessing protocol, from whatever holds an image."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from regnet.decode import MAX_PIXELS, Pixels, decode_image, pack, upright_rgb
from regnet.errors import ImageError
from regnet.protocol import Channels, Preprocess
from regnet.resize import resize_crop

ImageLike = bytes | bytearray | memoryview | str | Path | np.ndarray[Any, Any] | Image.Image


def crop_pixels(
    image: ImageLike,
    preprocess: Preprocess,
    *,
    array_channels: Channels = "RGB",
    max_pixels: int = MAX_PIXELS,
) -> Pixels:
    """Return the protocol's crop of one image: uint8 (crop, crop, 3) in `preprocess.channels`.

    `image` is encoded bytes, a path, a Pillow image of any mode, or a uint8 array: (H, W, 3) or
    (H, W, 4) in the order of `array_channels`, or grey (H, W). Safe to call from many threads.
    Raises `ImageError` with the reason.
    """
    rgb = _rgb(image, array_channels, max_pixels)
    size = preprocess.resized(*rgb.size)
    box = preprocess.crop_box(*size)
    crop = resize_crop(rgb, size=size, box=box, interpolation=preprocess.interpolation)
    return pack(crop, preprocess.channels)


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
