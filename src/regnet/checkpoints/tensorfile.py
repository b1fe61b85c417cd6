"""What is in files that nobody vouches for: PyTorch's two formats, and safetensors. No torch.

A pickle is read by a machine of our own that imports and runs nothing; plain values become Python's
or inert records. Anything else that a pickle asks for is refused and named. Tensors become numpy
arrays, views of the file's storages: PyTorch's zip archive keeps these apart, its older format, a
row of pickles, appends them. numpy has no bfloat16: those numbers come widened to float32, which is
exact. Tensors of other types that numpy lacks are `NotPlain`.
"""

import json
import math
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from regnet.checkpoints.model_files import REMEDY, checked_kind
from regnet.checkpoints.pickles import Calls, RefusedError, read_pickle
from regnet.checkpoints.plain_types import Record, require
from regnet.system.errors import UnsafeError, WeightsError

_MAGIC = 0x1950A86A20F9469CFC6C  # how PyTorch's older format begins, as a pickled number


@dataclass(frozen=True)
class Content:
    """Nested containers with tensors, which the file may back, and the metadata of safetensors."""

    value: Any
    metadata: dict[str, str] = field(default_factory=dict)


def read_content(path: Path) -> Content:
    """Return what is in a file, whichever of the three formats it has.

    Raises `UnsafeError` where reading would run code, `WeightsError` where the file is missing,
    truncated, corrupt or something else than a checkpoint.
    """
    kind = checked_kind(path)
    if kind == "safetensors":
        return _read_safetensors(path)
    return Content(_load_pickle(path, is_zip=kind == "zip"))


def _read_safetensors(path: Path) -> Content:
    """Return the arrays of a file whose header the library checked, mapped into memory."""
    try:
        with safe_open(path, framework="np") as checked, path.open("rb") as file:
            metadata = dict(checked.metadata() or {})
            start = 8 + int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(start - 8))
        header.pop("__metadata__", None)
        if not header:
            raise WeightsError(f"{path} holds no named tensors")
        whole, tensors = _mapped(path), {}
        for key, about in header.items():
            first, last = about["data_offsets"]
            kind = _SAFETENSORS.get(about["dtype"], NumberType(about["dtype"], 1))
            numbers = kind.decode(whole[start + first : start + last])
            shape = tuple(about["shape"])
            tensors[key] = numbers.reshape(shape) if kind.in_numpy else kind.not_plain(shape)
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RecursionError) as exc:
        raise WeightsError(f"{path} is a truncated or corrupt safetensors file: {exc}") from exc
    return Content(tensors, metadata)


def _mapped(path: Path) -> NDArray[np.uint8]:
    """Return the bytes of a file, mapped into memory."""
    return np.asarray(np.memmap(path, np.uint8, "r"))


def _load_pickle(path: Path, *, is_zip: bool) -> Any:
    try:
        if is_zip:
            return read_archive(path)
        with path.open("rb") as file:
            return read_pickles(file)
    except RefusedError as exc:
        raise UnsafeError(
            f"{path} is refused: reading it would run code (it asks for {exc}). {REMEDY}"
        ) from exc
    # A broken file makes the readers raise almost anything: this is where it gets a name.
    except Exception as exc:
        reason = str(exc).strip().split("\n", 1)[0][:200] or type(exc).__name__
        raise WeightsError(f"{path} is truncated or corrupt: {reason}") from exc


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


@dataclass(frozen=True)
class NotPlain:
    """A tensor that cannot be a weight; `reason` goes on from its name."""

    reason: str
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class NumberType:
    """A type of numbers by its name and its bytes; `array` is what their arrays have, if any."""

    name: str
    size: int
    array: np.dtype[Any] | None = None

    @property
    def in_numpy(self) -> bool:
        """Tell whether arrays can hold such numbers, bfloat16 as float32."""
        return self.array is not None

    def decode(self, data: NDArray[np.uint8], order: Literal["<", ">"] = "<") -> NDArray[Any]:
        """Return the numbers in bytes of an order: a view, or a wider copy of bfloat16.

        Bytes of numbers that numpy lacks are returned as they are.
        """
        if self.array is None:
            return data
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


def read_archive(path: Path) -> Any:
    """Return the content of an archive that `torch.save` wrote. Damage raises anything."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        name = next(name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl")
        storages = _ArchiveStorages(archive, file, name.removesuffix("data.pkl"), path)
        pickled = BytesIO(storages.member(name))
        return read_pickle(
            pickled, calls=_all_calls(), values=_TYPES, persistent=storages.persistent
        )


class _ArchiveStorages:
    """The storages of an archive, mapped into memory."""

    def __init__(self, archive: zipfile.ZipFile, file: BinaryIO, folder: str, path: Path) -> None:
        self._archive, self._file, self._folder = archive, file, folder
        self._whole = _mapped(path)
        self._known: dict[str, Storage] = {}
        order = f"{folder}byteorder"
        is_big = order in archive.namelist() and self.member(order) == b"big"
        self._order: Literal["<", ">"] = ">" if is_big else "<"

    def persistent(self, reference: Any) -> Any:
        """Return the storage that a persistent id (kind, type, key, device, count) names."""
        kind, dtype, key, _, count = reference
        _require_storage(kind, dtype, key, count)
        if key not in self._known:
            start, end = self._place(f"{self._folder}data/{key}")
            if count * dtype.size > end - start:
                raise EOFError(f"the storage {key!r:.40} is too short")
            data = self._whole[start : start + count * dtype.size]
            self._known[key] = Storage(dtype, dtype.decode(data, self._order))
        return self._known[key]

    def member(self, name: str) -> bytes:
        """Return the content of a member."""
        start, end = self._place(name)
        return self._whole[start:end].tobytes()

    def _place(self, name: str) -> tuple[int, int]:
        """Return where the content of an uncompressed member begins and ends in the file."""
        info = self._archive.getinfo(name)
        self._file.seek(info.header_offset)
        header = self._file.read(30)
        start = info.header_offset + 30 + sum(struct.unpack("<26xHH", header))
        if not header.startswith(b"PK\3\4") or start + info.file_size > len(self._whole):
            raise EOFError(f"{name!r:.60} is not whole")
        return start, start + info.file_size


def read_pickles(stream: BinaryIO, calls: Calls | None = None) -> Any:
    """Return the content of PyTorch's older format or a bare pickle. Damage raises anything."""
    calls = _all_calls() if calls is None else calls
    first = read_pickle(stream, calls=calls, values=_TYPES)
    if first != _MAGIC:
        return first
    _version, _system = read_pickle(stream), read_pickle(stream)
    storages = _LaterStorages(stream)
    content = read_pickle(stream, calls=calls, values=_TYPES, persistent=storages.persistent)
    storages.fill(read_pickle(stream))
    return content


class _LaterStorages:
    """The storages of the older format: made when named, filled at the end.

    They are little-endian whatever machine wrote them (THPStorage_writeFileRaw).
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        here = stream.tell()
        self._left = stream.seek(0, 2) - here
        stream.seek(here)
        self._known: dict[str, Storage] = {}

    def persistent(self, reference: Any) -> Any:
        """Return the storage that a persistent id (kind, type, key, device, count, view) names."""
        if reference[0] == "module":  # (kind, class, file, source): a whole network
            return reference[1]
        kind, dtype, key, _, count, view = reference
        _require_storage(kind, dtype, key, count)
        if view is not None:
            raise ValueError("a view of a storage")
        if key not in self._known:
            self._left -= count * dtype.size
            if self._left < 0:
                raise EOFError("the storages are longer than the file")
            self._known[key] = Storage(dtype, dtype.decode(np.empty(count * dtype.size, np.uint8)))
        return self._known[key]

    def fill(self, keys: Sequence[str]) -> None:
        """Read the storages in the order of their keys, each after its count of numbers."""
        if sorted(keys) != sorted(self._known):
            raise ValueError("the storages are not those that the tensors have")
        for key in keys:
            storage = self._known[key]
            (count,) = struct.unpack("<q", self._stream.read(8))
            numbers = storage.type.decode(
                np.frombuffer(self._stream.read(count * storage.type.size), np.uint8)
            )
            if len(numbers) != len(storage.numbers):
                raise EOFError(f"the storage {key!r:.40} is too short")
            storage.numbers[:] = numbers


def _require_storage(kind: Any, dtype: Any, key: Any, count: Any) -> None:
    require(dtype, NumberType)
    require(key, str)
    require(count, int)
    if kind != "storage" or count < 0:
        raise ValueError("a persistent id of another kind")


def _all_calls() -> Calls:
    """Return the calls of tensors and of files of the older format inside a bare pickle.

    A nested file is read once, and holds no other: pickles could ask for that without end.
    """
    known: dict[bytes, Any] = {}

    def nested(data: Any) -> Any:
        require(data, bytes)
        if data not in known:
            known[data] = read_pickles(BytesIO(data), _TENSOR_CALLS)
        return known[data]

    return {**_TENSOR_CALLS, "torch.storage._load_from_bytes": nested}


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, *_: Any
) -> NDArray[Any] | NotPlain:
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
    if not kind.in_numpy:
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


def _tensor_of_type(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    _grad: Any,
    _hooks: Any,
    dtype: Any,
    *_: Any,
) -> NDArray[Any] | NotPlain:
    """Return a tensor of a type that has no storages of its own, as a view of bytes."""
    require(storage, Storage)
    require(dtype, NumberType)
    whole = storage.numbers[: len(storage.numbers) // dtype.size * dtype.size]
    require(whole.dtype.type, type(np.uint8))
    return _tensor(Storage(dtype, dtype.decode(whole)), offset, shape, strides)


def _same(tensor: Any, *_: Any) -> Any:
    require(tensor, np.ndarray, NotPlain)
    return tensor


def _not_plain(reason: str) -> Callable[..., NotPlain]:
    return lambda *_: NotPlain(reason)


_MAX_DIMENSIONS = 16
_MAX_NUMBER = 2**62

_UTILS = "torch._utils._rebuild_"
_ODD = "is not a plain tensor but sparse, nested or quantized"

_TENSOR_CALLS: Calls = {
    f"{_UTILS}tensor": _tensor,
    f"{_UTILS}tensor_v2": _tensor,
    f"{_UTILS}tensor_v3": _tensor_of_type,
    f"{_UTILS}parameter": _same,
    f"{_UTILS}parameter_with_state": _same,
    f"{_UTILS}device_tensor_from_cpu_tensor": _same,
    f"{_UTILS}sparse_tensor": _not_plain(_ODD),
    f"{_UTILS}qtensor": _not_plain(_ODD),
    f"{_UTILS}nested_tensor": _not_plain(_ODD),
    f"{_UTILS}wrapper_subclass": _not_plain(_ODD),
    f"{_UTILS}meta_tensor_no_storage": _not_plain("has no data (device meta)"),
    "torch.Size": lambda size: size,
    "torch.device": lambda *arguments: Record("torch.device", *arguments),
    "torch.serialization._get_layout": lambda name: Record("torch.layout", name),
    "torch.torch_version.TorchVersion": lambda *text: Record("TorchVersion", *text),
    "torch.nn.parameter.Parameter": _same,
    "torch.Tensor": _not_plain(_ODD),
}

# Types of numbers by torch's name; what storages and safetensors call them.
_NAMES = (
    *(("float64", "Double", "F64"), ("float32", "Float", "F32"), ("float16", "Half", "F16")),
    *(("int64", "Long", "I64"), ("int32", "Int", "I32"), ("int16", "Short", "I16")),
    *(("int8", "Char", "I8"), ("uint8", "Byte", "U8"), ("uint8", "Untyped", "U8")),
    *(("uint64", "", "U64"), ("uint32", "", "U32"), ("uint16", "", "U16")),
    *(("bool", "Bool", "BOOL"), ("bfloat16", "BFloat16", "BF16")),
    *(("complex64", "ComplexFloat", "C64"), ("complex128", "ComplexDouble", "")),
    *(("qint8", "QInt8", ""), ("quint8", "QUInt8", ""), ("qint32", "QInt32", "")),
)
_NOT_IN_NUMPY = {
    **dict.fromkeys(("qint8", "quint8", "quint4x2", "quint2x4", "float4_e2m1fn_x2"), 1),
    **dict.fromkeys((f"float8_{kind}" for kind in ("e5m2", "e4m3fn", "e8m0fnu")), 1),
    **dict.fromkeys((f"float8_{kind}fnuz" for kind in ("e5m2", "e4m3")), 1),
    **dict.fromkeys(("bits8", "bits4x2", "bits2x4", "bits1x8"), 1),
    **dict.fromkeys((f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)), 1),
    "bits16": 2,
    "complex32": 4,
    "qint32": 4,
}


def _number_type(name: str) -> NumberType:
    if name == "bfloat16":
        return NumberType("torch.bfloat16", 2, np.dtype(np.float32))
    if name in _NOT_IN_NUMPY:
        return NumberType(f"torch.{name}", _NOT_IN_NUMPY[name])
    return NumberType(f"torch.{name}", np.dtype(name).itemsize, np.dtype(name))


_NUMBERS = {name: _number_type(name) for name in (*_NOT_IN_NUMPY, *(row[0] for row in _NAMES))}
_SAFETENSORS = {theirs: _NUMBERS[name] for name, _, theirs in _NAMES}

# What a pickle may mention of torch: the types of numbers, and of storages by their numbers' type.
_TYPES: dict[str, Any] = {
    **{kind.name: kind for kind in _NUMBERS.values()},
    **{
        f"{module}.{storage}Storage": _NUMBERS[name]
        for module in ("torch", "torch.cuda", "torch.storage")
        for name, storage, _ in _NAMES
    },
    **{
        f"torch.{name}": name
        for name in (
            *("strided", "contiguous_format", "channels_last", "preserve_format"),
            *("per_tensor_affine", "per_tensor_symmetric", "per_channel_symmetric"),
            *("per_channel_affine", "per_channel_affine_float_qparams"),
        )
    },
}
