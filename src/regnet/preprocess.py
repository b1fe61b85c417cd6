"""Preprocessing protocols as data, and the exact pixels that they define."""

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image

from regnet.decode import MAX_PIXELS, Pixels, decode_image, pack, upright_rgb
from regnet.decode import Channels as Channels
from regnet.errors import ImageError, ProtocolError
from regnet.resize import Box, Size, resize_crop
from regnet.resize import Interpolation as Interpolation

Triple = tuple[float, float, float]
ImageLike = bytes | bytearray | memoryview | str | Path | np.ndarray[Any, Any] | Image.Image

MAX_SIDE = 4096


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """A protocol: short side to `resize` by Pillow on uint8, centre crop `crop`, mean and scale.

    `mean` and `scale` are on 0..255 pixels in the order of `channels`: (pixel - mean) / scale.
    Raises `ProtocolError` where a value is impossible.
    """

    name: str
    resize: int = 256
    crop: int = 224
    interpolation: Interpolation = "bicubic"
    channels: Channels = "BGR"
    mean: Triple = (103.53, 116.28, 123.675)
    scale: Triple = (57.375, 57.12, 58.395)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise ProtocolError(f"name={self.name!r} is not allowed: give the protocol a name")
        _require_side("resize", self.resize, MAX_SIDE)
        _require_side("crop", self.crop, self.resize)
        _require_one_of("interpolation", self.interpolation, get_args(Interpolation))
        _require_one_of("channels", self.channels, get_args(Channels))
        _require_triple("mean", self.mean, -math.inf, "three finite numbers")
        _require_triple("scale", self.scale, 0.0, "three finite numbers over 0")

    def to_dict(self) -> dict[str, Any]:
        """Return the protocol as plain JSON values; `preprocess_from_dict` reads it back."""
        return asdict(self)

    def resized(self, width: int, height: int) -> Size:
        """Return (width, height) of an image after the resize: the long side is cut, not rounded.

        A long side is int(resize * long / short), as in the protocol of the published figures.
        """
        if width <= height:
            return self.resize, int(self.resize * height / width)
        return int(self.resize * width / height), self.resize

    def crop_box(self, width: int, height: int) -> Box:
        """Return (left, top, right, bottom) of the centre crop in a resized image.

        An offset of a half goes to the even neighbour: int(round((side - crop) / 2)).
        """
        left, top = round((width - self.crop) / 2), round((height - self.crop) / 2)
        return left, top, left + self.crop, top + self.crop


def preprocess_from_dict(values: dict[str, Any]) -> Preprocess:
    """Return the protocol that `Preprocess.to_dict` wrote; raises `ProtocolError`."""
    known = [f.name for f in fields(Preprocess)]
    if unknown := [name for name in values if name not in known]:
        raise ProtocolError(f"unknown protocol fields {unknown}; known are {known}")
    if "name" not in values:
        raise ProtocolError("a protocol needs a field 'name'")
    triples = {
        k: tuple(v)
        for k, v in values.items()
        if k in ("mean", "scale") and isinstance(v, list | tuple)
    }
    return Preprocess(**(values | triples))


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


def _require_side(name: str, value: object, largest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
        raise ProtocolError(
            f"{name}={value!r} is not allowed: {name} must be a whole number from 1 to {largest}"
        )


def _require_one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ProtocolError(
            f"{name}={value!r} is not allowed: {name} must be {' or '.join(allowed)}"
        )


def _require_triple(name: str, values: object, above: float, allowed: str) -> None:
    good = (
        isinstance(values, tuple)
        and len(values) == 3
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        and all(math.isfinite(v) and v > above for v in values)
    )
    if not good:
        raise ProtocolError(f"{name}={values!r} is not allowed: {name} must be {allowed}")


OMZ = Preprocess(name="omz")
