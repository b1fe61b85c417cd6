"""What the Open Inference Protocol feeds a model: named tensors in, encoded photos or pixels out.

Nothing is allocated before the shape is held against the bytes that came.
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

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Port:
    """An input or output of a model as the protocol describes it; -1 in `shape` is any number."""

    name: str
    datatype: str
    shape: Shape

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


PHOTOS: Final = Port("image", "BYTES", (-1,))
"""The input that every model announces: photos as they are encoded, JPEG and the like."""

PIXELS: Final = "data"
"""The input that models take instead, unannounced: raw pixels 0..255, UINT8 or FP32.

It is the crop by the model's protocol, (N, crop, crop, 3) or (N, 3, crop, crop) in its order of
channels; of a model whose graph makes the crop it is whole images, UINT8 (N, H, W, 3) in RGB.
"""

_KINDS: Final[dict[str, np.dtype[Any]]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4")}


@dataclass(frozen=True, eq=False)
class Tensor:
    """A named tensor of a request, nothing of it trusted yet.

    Its elements are `raw` bytes, little-endian, each BYTES element after its length in 4 bytes; or
    else `values`, a flat sequence of numbers or of bytes.
    """

    name: str
    datatype: str
    shape: Shape
    raw: bytes | memoryview | None = None
    values: Sequence[Any] | None = None


def images(
    tensors: Sequence[Tensor], metadata: ModelMetadata, limits: Limits
) -> list[bytes] | list[NDArray[Any]] | NDArray[Any]:
    """Return what `ServedModel.probabilities` takes of a request's tensors.

    Raises `BadRequest`, `TooLarge` of more images than the limit, `Unprocessable` of numbers that
    are no pixels.
    """
    if len(tensors) != 1:
        names = ", ".join(shown(tensor.name) for tensor in tensors[:4])
        raise BadRequest(f"one input is wanted, not {len(tensors)} ({names})")
    tensor = tensors[0]
    if tensor.name not in (PHOTOS.name, PIXELS):
        raise BadRequest(
            f"no input is called {shown(tensor.name)}: send photos as {PHOTOS.name} (BYTES [-1]), "
            f"or the model's pixels as {PIXELS} (UINT8 or FP32)"
        )
    _require_shape(tensor)
    _require_batch(tensor.shape[0], limits)
    if tensor.name == PHOTOS.name:
        return _photos(tensor)
    if metadata.preprocessing == "graph":
        return _whole_images(tensor, limits)
    return _crops(tensor, metadata)


def _require_shape(tensor: Tensor) -> None:
    shape = tensor.shape
    if not 1 <= len(shape) <= 4 or any(not _is_size(size) for size in shape):
        raise _bad(tensor, f"its shape {shown(list(shape))} is none of 1 to 4 sizes above 0")


def _is_size(size: object) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and 0 < size < 1 << 31


def _require_batch(count: int, limits: Limits) -> None:
    if count > limits.batch:
        raise TooLarge(
            f"{count} images in one request are over the limit of {limits.batch}", limit="batch"
        )


def _photos(tensor: Tensor) -> list[bytes]:
    count = tensor.shape[0]
    if tensor.datatype != "BYTES" or math.prod(tensor.shape) != count:
        raise _bad(tensor, f"is {_described(tensor)}; it takes BYTES [{count}]")
    if tensor.raw is not None:
        photos = _unpacked(tensor, memoryview(tensor.raw), count)
    else:
        photos = [bytes(value) for value in _values(tensor) if isinstance(value, bytes)]
    if len(photos) != count:
        raise _bad(tensor, f"its shape says {count} elements, {len(photos)} came")
    return photos


def _unpacked(tensor: Tensor, raw: memoryview, count: int) -> list[bytes]:
    """Return BYTES elements, each of which comes after its length."""
    photos: list[bytes] = []
    at = 0
    while at < len(raw) and len(photos) <= count:
        start = at + 4
        at = start + int.from_bytes(raw[at:start], "little")
        if start > len(raw) or at > len(raw):
            raise _bad(tensor, f"element {len(photos)} ends after the {len(raw)} bytes that came")
        photos.append(bytes(raw[start:at]))
    return photos


def _crops(tensor: Tensor, metadata: ModelMetadata) -> NDArray[Any]:
    """Return crops as the engine takes them: (N, crop, crop, 3)."""
    size = metadata.preprocess.crop
    sides = tensor.shape[1:]
    last = sides == (size, size, 3)
    if not last and sides != (3, size, size):
        raise _bad(
            tensor,
            f"is {_described(tensor)}; the model's crop is [N, {size}, {size}, 3] or "
            f"[N, 3, {size}, {size}] (or send photos as {PHOTOS.name})",
        )
    numbers = _pixels(tensor, whole=metadata.preprocess.interpolation != "opencv-linear")
    return np.ascontiguousarray(numbers if last else numbers.transpose(0, 2, 3, 1))


def _whole_images(tensor: Tensor, limits: Limits) -> list[NDArray[Any]]:
    shape = tensor.shape
    if len(shape) != 4 or shape[3] != 3 or tensor.datatype != "UINT8":
        raise _bad(tensor, f"is {_described(tensor)}; it takes whole images, UINT8 [N, H, W, 3]")
    if shape[1] * shape[2] > limits.pixels:
        raise Unprocessable(
            f"an image of {shape[2]} x {shape[1]} pixels is over the limit of {limits.pixels:,}",
            limit="pixels",
        )
    return list(_pixels(tensor, whole=True))


def _pixels(tensor: Tensor, *, whole: bool) -> NDArray[Any]:
    """Return numbers on 0..255 in the tensor's shape: uint8 where they must be `whole`."""
    numbers = _numbers(tensor)
    kind = np.uint8 if whole else np.float32
    if numbers.dtype == np.uint8:
        return numbers.astype(kind, copy=False)
    if not ((numbers >= 0) & (numbers <= 255)).all():  # NaN fails too
        raise Unprocessable(
            f"input {tensor.name}: pixels are 0..255, without mean and scale, which the model does"
        )
    if whole and (numbers != np.floor(numbers)).any():
        raise Unprocessable(f"input {tensor.name}: the pixels of this model are whole numbers")
    return numbers.astype(kind, copy=False)


def _numbers(tensor: Tensor) -> NDArray[Any]:
    """Return the elements in their shape once their number is known to be right."""
    kind = _KINDS.get(tensor.datatype)
    if kind is None:
        raise _bad(tensor, f"is {shown(tensor.datatype)}; it takes {' or '.join(_KINDS)}")
    wanted = math.prod(tensor.shape)
    if tensor.raw is not None:
        if len(tensor.raw) != wanted * kind.itemsize:
            raise _bad(
                tensor,
                f"{_described(tensor)} takes {wanted * kind.itemsize} bytes, "
                f"{len(tensor.raw)} came",
            )
        return np.frombuffer(tensor.raw, kind).reshape(tensor.shape)
    values = _values(tensor)
    if len(values) != wanted:
        raise _bad(tensor, f"{_described(tensor)} takes {wanted} numbers, {len(values)} came")
    return _array(tensor, values).reshape(tensor.shape)


def _array(tensor: Tensor, values: Sequence[Any]) -> NDArray[Any]:
    try:
        array = np.asarray(values)
    except ValueError as exc:  # lists of several lengths
        raise _bad(tensor, "its data is no flat list of numbers") from exc
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise _bad(tensor, "its data is no flat list of numbers")
    return array


def _values(tensor: Tensor) -> Sequence[Any]:
    if tensor.values is None:
        raise _bad(tensor, "has no data")
    return tensor.values


def _described(tensor: Tensor) -> str:
    return f"{shown(tensor.datatype).strip(chr(39))} {list(tensor.shape)}"


def _bad(tensor: Tensor, reason: str) -> BadRequest:
    return BadRequest(f"input {tensor.name}: {reason}")
