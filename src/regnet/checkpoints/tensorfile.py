"""What is in files that nobody vouches for: PyTorch's two formats, and safetensors. No torch.

A pickle is read by a machine of our own that imports and runs nothing; plain values become Python's
or inert records. Anything else that a pickle asks for is refused and named. Tensors become numpy
arrays, views of the file's storages: PyTorch's zip archive keeps these apart, its older format, a
row of pickles, appends them.
"""

import json
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

from regnet.checkpoints.arrays import (
    NUMBERS,
    OF_SAFETENSORS,
    OF_STORAGES,
    NotPlain,
    NumberType,
    Storage,
    tensor,
    tensor_of_type,
)
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
            kind = OF_SAFETENSORS.get(about["dtype"], NumberType(about["dtype"], 1))
            numbers = kind.decode(whole[start + first : start + last])
            shape = tuple(about["shape"])
            tensors[key] = kind.not_plain(shape) if kind.array is None else numbers.reshape(shape)
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


def _same(value: Any, *_: Any) -> Any:
    require(value, np.ndarray, NotPlain)
    return value


def _not_plain(reason: str) -> Callable[..., NotPlain]:
    return lambda *_: NotPlain(reason)


_UTILS = "torch._utils._rebuild_"
_ODD = "is not a plain tensor but sparse, nested or quantized"

_TENSOR_CALLS: Calls = {
    f"{_UTILS}tensor": tensor,
    f"{_UTILS}tensor_v2": tensor,
    f"{_UTILS}tensor_v3": tensor_of_type,
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

# What a pickle may mention of torch: the types of numbers, and of storages by their numbers' type.
_TYPES: dict[str, Any] = {
    **{kind.name: kind for kind in NUMBERS.values()},
    **{
        f"{module}.{name}Storage": kind
        for module in ("torch", "torch.cuda", "torch.storage")
        for name, kind in OF_STORAGES.items()
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
