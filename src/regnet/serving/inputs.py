"""What the Open Inference Protocol feeds a model: named tensors in, encoded photos or pixels out.

Nothing is allocated before the shape is checked against the bytes that came.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.ir.metadata import ModelMetadata
from regnet.serving.limits import Limits
from regnet.serving.refusals import BadRequest, TooLarge, Unprocessable
from regnet.system.errors import shown

PHOTOS: Final = "image"
"""The input that every model announces: photos as they are encoded (BYTES), JPEG and the like."""

PIXELS: Final = "data"
"""The input that models take instead, unannounced: raw pixels 0..255, UINT8 or FP32.

It is the crop by the model's protocol, (N, crop, crop, 3) or (N, 3, crop, crop) in its order of
channels; if the model's graph makes the crop it is whole images, UINT8 (N, H, W, 3) in RGB.
"""

Inputs = list[bytes] | list[NDArray[Any]] | NDArray[Any]
"""Encoded photos or pixels, as `ServedModel.probabilities` takes them."""

_KINDS: Final[dict[str, np.dtype[Any]]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4")}


@dataclass(frozen=True, eq=False)
class Tensor:
    """A named tensor of a request, nothing of it trusted yet.

    Its elements are `raw` bytes, little-endian, each BYTES element after its length in 4 bytes; or
    else `values`, a flat sequence of numbers or of bytes.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: bytes | memoryview | None = None
    values: Sequence[Any] | None = None

    def __str__(self) -> str:
        return f"{shown(self.datatype).strip(chr(39))} {list(self.shape)}"

    def bad(self, reason: str) -> BadRequest:
        """Return the refusal of this tensor."""
        return BadRequest(f"input {self.name}: {reason}")

    def require_values(self) -> Sequence[Any]:
        """Return the values; raises `BadRequest` if there are none."""
        if self.values is None:
            raise self.bad("has no data")
        return self.values


def images(tensor: Tensor, metadata: ModelMetadata, limits: Limits) -> Inputs:
    """Return the photos or pixels in a request's tensor.

    Raises `BadRequest`, `TooLarge` for more images than the limit, `Unprocessable` for numbers that
    are no pixels.
    """
    shape = tensor.shape
    if tensor.name not in (PHOTOS, PIXELS):
        raise BadRequest(
            f"no input is called {shown(tensor.name)}: send photos as {PHOTOS} (BYTES [-1]), "
            f"or the model's pixels as {PIXELS} (UINT8 or FP32)"
        )
    if not 1 <= len(shape) <= 4 or any(type(n) is not int or not 0 < n < 1 << 31 for n in shape):
        raise tensor.bad(f"its shape {shown(list(shape))} is none of 1 to 4 sizes above 0")
    if shape[0] > limits.batch:
        raise TooLarge(
            f"{shape[0]} images in one request are over the limit of {limits.batch}", limit="batch"
        )
    if tensor.name == PHOTOS:
        return _photos(tensor)
    if metadata.preprocessing == "graph":
        return _whole_images(tensor, limits)
    return _crops(tensor, metadata)


def _photos(tensor: Tensor) -> list[bytes]:
    count = tensor.shape[0]
    if tensor.datatype != "BYTES" or math.prod(tensor.shape) != count:
        raise tensor.bad(f"is {tensor}; it takes BYTES [{count}]")
    if tensor.raw is not None:
        photos = _unpacked(tensor, memoryview(tensor.raw), count)
    else:
        photos = [value for value in tensor.require_values() if isinstance(value, bytes)]
    if len(photos) != count:
        raise tensor.bad(f"its shape says {count} elements, {len(photos)} came")
    return photos


def _unpacked(tensor: Tensor, raw: memoryview, count: int) -> list[bytes]:
    """Return BYTES elements, each of which comes after its length."""
    photos: list[bytes] = []
    at = 0
    while at < len(raw) and len(photos) <= count:
        start = at + 4
        at = start + int.from_bytes(raw[at:start], "little")
        if start > len(raw) or at > len(raw):
            raise tensor.bad(f"element {len(photos)} ends after the {len(raw)} bytes that came")
        photos.append(bytes(raw[start:at]))
    return photos


def _crops(tensor: Tensor, metadata: ModelMetadata) -> NDArray[Any]:
    """Return crops as the engine takes them: (N, crop, crop, 3)."""
    size = metadata.preprocess.crop
    sides = tensor.shape[1:]
    channels_last = sides == (size, size, 3)
    if not channels_last and sides != (3, size, size):
        raise tensor.bad(
            f"is {tensor}; the model's crop is [N, {size}, {size}, 3] or "
            f"[N, 3, {size}, {size}] (or send photos as {PHOTOS})"
        )
    pixels = _pixels(tensor, whole=metadata.preprocess.interpolation != "opencv-linear")
    return np.ascontiguousarray(pixels if channels_last else pixels.transpose(0, 2, 3, 1))


def _whole_images(tensor: Tensor, limits: Limits) -> list[NDArray[Any]]:
    shape = tensor.shape
    if len(shape) != 4 or shape[3] != 3 or tensor.datatype != "UINT8":
        raise tensor.bad(f"is {tensor}; it takes whole images, UINT8 [N, H, W, 3]")
    if shape[1] * shape[2] > limits.pixels:
        raise Unprocessable(
            f"an image of {shape[2]} x {shape[1]} pixels is over the limit of {limits.pixels:,}",
            limit="pixels",
        )
    return list(_pixels(tensor, whole=True))


def _pixels(tensor: Tensor, *, whole: bool) -> NDArray[Any]:
    """Return numbers on 0..255 in the tensor's shape: uint8 if they must be `whole`."""
    numbers = _numbers(tensor)
    if numbers.dtype != np.uint8:
        if not ((numbers >= 0) & (numbers <= 255)).all():  # NaN fails too
            raise Unprocessable(
                f"input {tensor.name}: pixels are 0..255, without mean and scale, which the model "
                "does"
            )
        if whole and (numbers != np.floor(numbers)).any():
            raise Unprocessable(f"input {tensor.name}: the pixels of this model are whole numbers")
    return numbers.astype(np.uint8 if whole else np.float32, copy=False)


def _numbers(tensor: Tensor) -> NDArray[Any]:
    """Return the elements in their shape once their number is known to be right."""
    kind = _KINDS.get(tensor.datatype)
    if kind is None:
        raise tensor.bad(f"is {shown(tensor.datatype)}; it takes {' or '.join(_KINDS)}")
    count = math.prod(tensor.shape)
    if tensor.raw is not None:
        if len(tensor.raw) != count * kind.itemsize:
            raise tensor.bad(
                f"{tensor} takes {count * kind.itemsize} bytes, {len(tensor.raw)} came"
            )
        return np.frombuffer(tensor.raw, kind).reshape(tensor.shape)
    values = tensor.require_values()
    if len(values) != count:
        raise tensor.bad(f"{tensor} takes {count} numbers, {len(values)} came")
    try:
        array = np.asarray(values)
    except ValueError:  # lists of several lengths
        array = np.empty(0, object)
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise tensor.bad("its data is not a flat list of numbers")
    return array.reshape(tensor.shape)
