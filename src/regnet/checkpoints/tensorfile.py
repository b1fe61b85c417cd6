"""What is in files that nobody vouches for: PyTorch's two formats, and safetensors.

A pickle is read by a machine of our own that imports and runs nothing; plain values become Python's
or inert records. Anything else that a pickle asks for is refused and named. Tensors are views of
the file's storages, which PyTorch's zip archive keeps apart and its older format, a row of pickles,
appends.
"""

import math
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from regnet.checkpoints.model_files import REMEDY, checked_kind
from regnet.checkpoints.pickles import Calls, RefusedError, read_pickle
from regnet.checkpoints.plain_types import Record, require
from regnet.system.errors import MissingExtraError, UnsafeError, WeightsError

try:
    import torch
    from safetensors import SafetensorError, safe_open
except ImportError as exc:
    raise MissingExtraError("reading and writing checkpoints", "torch") from exc

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
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError, RuntimeError) as exc:
        raise WeightsError(f"{path} is a truncated or corrupt safetensors file: {exc}") from exc
    if not tensors:
        raise WeightsError(f"{path} holds no named tensors")
    return Content(tensors, metadata)


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


def plain_tensor(key: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy of a tensor as contiguous float32, or int64 for BN's step counters.

    Raises `WeightsError` naming the key where it is sparse, quantized, complex, whole-numbered,
    without data, or holds a value that is not finite.
    """
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        raise WeightsError(f"{key} is not a plain tensor but sparse, nested or quantized")
    if tensor.device.type != "cpu":
        raise WeightsError(f"{key} has no data (device {tensor.device})")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise WeightsError(f"{key} has more elements than data")
    tensor = tensor.detach()
    if key.endswith(".num_batches_tracked"):
        return tensor.to(torch.int64, copy=True)
    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        raise WeightsError(f"{key} has type {tensor.dtype}: floating point expected")
    plain = tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if not torch.isfinite(plain).all():
        raise WeightsError(f"{key} holds values that are not finite (NaN or infinity)")
    return plain


@dataclass(frozen=True)
class Storage:
    """The bytes of a storage, and the type of its numbers."""

    dtype: torch.dtype
    data: torch.UntypedStorage


@dataclass(frozen=True)
class NotPlain:
    """A tensor that cannot be a weight; `reason` goes on from its name."""

    reason: str


def read_archive(path: Path) -> Any:
    """Return the content of an archive that `torch.save` wrote. Damage raises anything."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        name = next(name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl")
        storages = _ArchiveStorages(archive, file, folder=name.removesuffix("data.pkl"), path=path)
        pickled = BytesIO(storages.member(name))
        return read_pickle(
            pickled, calls=_all_calls(), values=_TYPES, persistent=storages.persistent
        )


class _ArchiveStorages:
    """The storages of an archive, mapped into memory when they are first asked for."""

    def __init__(
        self, archive: zipfile.ZipFile, file: BinaryIO, *, folder: str, path: Path
    ) -> None:
        self._archive, self._file, self._folder = archive, file, folder
        self._whole = torch.UntypedStorage.from_file(str(path), False, path.stat().st_size)
        self._known: dict[str, torch.UntypedStorage] = {}
        order = f"{folder}byteorder"
        self._swapped = order in archive.namelist() and self.member(order) == b"big"

    def persistent(self, reference: Any) -> Any:
        """Return the storage that a persistent id (kind, type, key, device, count) names."""
        kind, dtype, key, _, count = reference
        _require_storage(kind, dtype, key)
        if key not in self._known:
            start, end = self._place(f"{self._folder}data/{key}")
            self._known[key] = self._whole[start:end]
            if self._swapped:
                _swap_bytes(self._known[key], dtype)
        if not 0 <= count <= self._known[key].nbytes() // dtype.itemsize:
            raise EOFError(f"the storage {key!r:.40} is too short")
        return Storage(dtype, self._known[key])

    def member(self, name: str) -> bytes:
        """Return the content of a member; its checksum is not looked at (it may be left out)."""
        start, end = self._place(name)
        self._file.seek(start)
        return self._file.read(end - start)

    def _place(self, name: str) -> tuple[int, int]:
        """Return where the content of an uncompressed member begins and ends in the file."""
        info = self._archive.getinfo(name)
        self._file.seek(info.header_offset)
        header = self._file.read(30)
        start = info.header_offset + 30 + sum(struct.unpack("<26xHH", header))
        if not header.startswith(b"PK\3\4") or start + info.file_size > self._whole.nbytes():
            raise EOFError(f"{name!r:.60} is not whole")
        return start, start + info.file_size


def read_pickles(stream: BinaryIO, calls: Calls | None = None) -> Any:
    """Return the content of PyTorch's older format or a bare pickle. Damage raises anything."""
    calls = _all_calls() if calls is None else calls
    first = read_pickle(stream, calls=calls, values=_TYPES)
    if first != _MAGIC:
        return first
    _version, system = read_pickle(stream), read_pickle(stream)
    storages = _LaterStorages(stream)
    content = read_pickle(stream, calls=calls, values=_TYPES, persistent=storages.persistent)
    storages.fill(read_pickle(stream), swapped=system.get("little_endian") is False)
    return content


class _LaterStorages:
    """The storages of the older format: made when named, filled at the end."""

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
        _require_storage(kind, dtype, key)
        if view is not None:
            raise ValueError("a view of a storage")
        if key not in self._known:
            require(count, int)
            if not 0 <= count <= self._left // dtype.itemsize:
                raise EOFError("the storages are longer than the file")
            self._left -= count * dtype.itemsize
            data = torch.empty(count * dtype.itemsize, dtype=torch.uint8).untyped_storage()
            self._known[key] = Storage(dtype, data)
        return self._known[key]

    def fill(self, keys: Sequence[str], *, swapped: bool) -> None:
        """Read the storages in the order of their keys, each after its count of numbers."""
        for key in keys:
            storage = self._known[key]
            (count,) = struct.unpack("<q", self._stream.read(8))
            size = storage.data.nbytes()
            data = self._stream.read(size)
            if count * storage.dtype.itemsize != size or len(data) != size:
                raise EOFError(f"the storage {key!r:.40} is too short")
            if size:
                numbers = torch.empty(0, dtype=torch.uint8).set_(storage.data)
                numbers.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
            if swapped:
                _swap_bytes(storage.data, storage.dtype)


def _swap_bytes(data: torch.UntypedStorage, dtype: torch.dtype) -> None:
    """Turn numbers of a big-endian machine into ours, in place."""
    if dtype.itemsize > 1:
        numbers = torch.empty(0, dtype=torch.uint8).set_(data).view(-1, dtype.itemsize)
        numbers.copy_(numbers.flip(1))


def _require_storage(kind: Any, dtype: Any, key: Any) -> None:
    require(dtype, torch.dtype)
    require(key, str)
    if kind != "storage":
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


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> torch.Tensor | NotPlain:
    """Return a tensor as a view of a storage; everything in it has to be inside the storage."""
    require(storage, Storage)
    return _tensor_of_type(storage, offset, size, stride, None, None, storage.dtype)


def _tensor_of_type(
    storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any
) -> torch.Tensor | NotPlain:
    require(storage, Storage)
    require(dtype, torch.dtype)
    for numbers in (size, stride):
        require(numbers, tuple, list)
        if len(numbers) > _MAX_DIMENSIONS:
            raise ValueError(f"a tensor of {len(numbers)} dimensions")
    for number in (offset, *size, *stride):
        require(number, int)
        if not 0 <= number < _MAX_NUMBER:
            raise ValueError("a negative size, or one that is too large")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) and (last + 1) * dtype.itemsize > storage.data.nbytes():
        raise EOFError("a tensor is longer than its storage")
    if math.prod(size) * dtype.itemsize > storage.data.nbytes():
        return NotPlain("has more elements than data")
    empty = torch.empty(0, dtype=dtype)
    return empty.set_(storage.data, offset, size, stride) if math.prod(size) else empty.view(size)


def _same(tensor: Any, *_: Any) -> Any:
    require(tensor, torch.Tensor, NotPlain)
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

_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "QInt8": torch.qint8,
    "QUInt8": torch.quint8,
    "QInt32": torch.qint32,
    "Untyped": torch.uint8,
}

# What a pickle may mention of torch: the types of numbers, and of storages by their numbers' type.
_TYPES: dict[str, Any] = {
    **{str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)},
    **{
        f"{module}.{name}Storage": dtype
        for module in ("torch", "torch.cuda", "torch.storage")
        for name, dtype in _STORAGES.items()
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
