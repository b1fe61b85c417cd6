"""Tensors as numpy arrays: types of numbers, storages, and views of them.

numpy has no bfloat16: those numbers come widened to float32, which is exact. Tensors of other types
that numpy lacks are `NotPlain`.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from regnet.checkpoints.plain_types import require
from regnet.system.errors import WeightsError

_MAX_DIMENSIONS = 16
_MAX_NUMBER = 2**62


@dataclass(frozen=True)
class NotPlain:
    """A tensor that cannot be a weight; `reason` goes on from its name."""

    reason: str
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class NumberType:
    """A type of numbers and its bytes; `array` is the type in numpy, None where it lacks them."""

    name: str
    size: int
    array: np.dtype[Any] | None = None

    def decode(self, data: NDArray[np.uint8], order: Literal["<", ">"] = "<") -> NDArray[Any]:
        """Return the numbers in bytes of an order: a view, or a wider copy of bfloat16.

        Numbers that numpy lacks come as their bytes (n, size).
        """
        if self.array is None:
            return data.reshape(-1, self.size)
        if self.size == self.array.itemsize:
            return data.view(self.array.newbyteorder(order))
        return (data.view(f"{order}u2").astype(np.uint32) << 16).view(self.array)

    def not_plain(self, shape: tuple[int, ...]) -> NotPlain:
        """Return what stands for a tensor of such numbers that numpy lacks."""
        return NotPlain(f"has type {self.name}: floating point expected", shape)


@dataclass(frozen=True)
class Storage:
    """The numbers of a storage (n,), and their type."""

    type: NumberType
    numbers: NDArray[Any]


def tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> NDArray[Any] | NotPlain:
    """Return a tensor as a view of a storage; everything in it has to be inside the storage."""
    require(storage, Storage)
    for numbers in (shape, strides):
        require(numbers, tuple, list)
        if len(numbers) > _MAX_DIMENSIONS:
            raise ValueError(f"a tensor of {len(numbers)} dimensions")
    for number in (offset, *shape, *strides):
        require(number, int)
        if not 0 <= number < _MAX_NUMBER:
            raise ValueError("a negative size, or one that is too large")
    kind: NumberType = storage.type
    data: NDArray[Any] = storage.numbers
    if kind.array is None:
        return kind.not_plain(tuple(shape))
    if not math.prod(shape):
        return data[:0].reshape(tuple(shape))
    reach = 0  # of the dimensions of smaller strides
    for step, size in sorted(zip(strides, shape, strict=True)):
        if size > 1 and step <= reach:
            return NotPlain("has more elements than data")
        reach += (size - 1) * step
    if offset + reach >= len(data):
        raise EOFError("a tensor is longer than its storage")
    steps = tuple(step * data.itemsize for step in strides)
    return np.ndarray(tuple(shape), data.dtype, data, offset * data.itemsize, steps)


def tensor_of_type(storage: Any, *view: Any) -> NDArray[Any] | NotPlain:
    """Return a tensor of a type that has no storages of its own, as a view of bytes."""
    offset, shape, strides, _grad, _hooks, kind, *_ = view
    require(storage, Storage)
    require(kind, NumberType)
    if storage.type is not NUMBERS["uint8"] or kind is NUMBERS["bfloat16"]:
        raise ValueError("a tensor of other numbers than its storage")
    whole = storage.numbers[: len(storage.numbers) // kind.size * kind.size]
    return tensor(Storage(kind, kind.decode(whole)), offset, shape, strides)


def plain_array(key: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return a copy of an array as contiguous float32, or int64 for BN's step counters.

    Raises `WeightsError` naming the key where it is complex, whole-numbered, or holds a value that
    is not finite.
    """
    counter = key.endswith(".num_batches_tracked")
    if array.dtype.kind not in ("biuf" if counter else "f"):
        raise WeightsError(f"{key} has type torch.{array.dtype}: floating point expected")
    with np.errstate(invalid="ignore", over="ignore"):
        plain = np.array(array, np.int64 if counter else np.float32, order="C")
    if not np.isfinite(plain).all():
        raise WeightsError(f"{key} holds values that are not finite (NaN or infinity)")
    return plain


# Types of numbers as torch calls them, their storages, and safetensors; numpy has most of them.
_NAMES = (
    ("float64", "Double", "F64"), ("float32", "Float", "F32"), ("float16", "Half", "F16"),
    ("bfloat16", "BFloat16", "BF16"), ("bool", "Bool", "BOOL"), ("uint8", "Byte", "U8"),
    ("complex64", "ComplexFloat", "C64"), ("complex128", "ComplexDouble", ""),
    ("int64", "Long", "I64"), ("int32", "Int", "I32"), ("int16", "Short", "I16"),
    ("int8", "Char", "I8"), ("uint8", "Untyped", "U8"), ("uint16", "", "U16"),
    ("uint32", "", "U32"), ("uint64", "", "U64"),
    ("qint8", "QInt8", ""), ("quint8", "QUInt8", ""), ("qint32", "QInt32", ""),
)  # fmt: skip
_NOT_IN_NUMPY = {
    1: "qint8 quint8 quint4x2 quint2x4 bits8 bits4x2 bits2x4 bits1x8 float8_e5m2 float8_e5m2fnuz "
    "float8_e4m3fn float8_e4m3fnuz float8_e8m0fnu float4_e2m1fn_x2 int1 int2 int3 int4 int5 int6 "
    "int7 uint1 uint2 uint3 uint4 uint5 uint6 uint7",
    2: "bits16",
    4: "complex32 qint32",
}
_SIZES = {name: size for size, names in _NOT_IN_NUMPY.items() for name in names.split()}


def _number_type(name: str) -> NumberType:
    if name in _SIZES:
        return NumberType(f"torch.{name}", _SIZES[name])
    array = np.dtype("float32" if name == "bfloat16" else name)
    return NumberType(f"torch.{name}", 2 if name == "bfloat16" else array.itemsize, array)


NUMBERS = {name: _number_type(name) for name in (*_SIZES, *(row[0] for row in _NAMES))}
OF_STORAGES = {theirs: NUMBERS[name] for name, theirs, _ in _NAMES}
OF_SAFETENSORS = {theirs: NUMBERS[name] for name, _, theirs in _NAMES}
