"""What is in files that nobody vouches for: PyTorch's two formats, and safetensors. No torch.

A pickle is read by a machine of our own that imports and runs nothing; plain values become Python's
or inert records. Anything else that a pickle asks for is refused and named. Tensors become numpy
arrays, views of the file's storages: PyTorch's zip archive keeps these apart, its older format, a
row of pickles, appends them.
"""

import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

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
from regnet.checkpoints.pickles import Calls, RefusedError, instructions, read_pickle
from regnet.checkpoints.plain_types import Record, require
from regnet.system.errors import UnsafeError, WeightsError, reason_of

REMEDY: Final = (
    "Save the weights alone, torch.save(model.state_dict(), ...) or as .safetensors, "
    "where you trust the file"
)
Bytes = NDArray[np.uint8]

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
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as exc:
        raise WeightsError(f"cannot read {path}: {reason_of(exc)}") from exc
    read = next((read for kind, read in _FORMATS.items() if kind.match(head)), None)
    if read is None:
        raise WeightsError(f"{path} is not a checkpoint: {_what_instead(head)}")
    try:
        return read(path)
    except WeightsError:
        raise
    except RefusedError as exc:
        raise UnsafeError(
            f"{path} is refused: reading it would run code (it asks for {exc}). {REMEDY}"
        ) from exc
    # A broken file makes the readers raise almost anything: this is where it gets a name.
    except Exception as exc:
        reason = str(exc).strip().split("\n", 1)[0][:200] or type(exc).__name__
        raise WeightsError(f"{path} is truncated or corrupt: {reason}") from exc


def _what_instead(head: bytes) -> str:
    if not head:
        return "it is empty"
    if head.lstrip().startswith(b"<"):
        return "it is a web page (a server's error page, most likely); download it again"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the file itself with 'git lfs pull'"
    return f"it is neither a PyTorch nor a safetensors file (it begins with {head[:8]!r})"


def _mapped(path: Path) -> Bytes:
    return np.asarray(np.memmap(path, np.uint8, "r"))


def _read_safetensors(path: Path) -> Content:
    """Return the arrays of a file whose header the library has checked."""
    whole = _mapped(path)
    start = 8 + int.from_bytes(whole[:8].tobytes(), "little")
    if start > len(whole):
        raise WeightsError(f"{path} is a truncated safetensors file; download it again")
    try:
        with safe_open(path, framework="np") as checked:
            metadata = dict(checked.metadata() or {})
    except (SafetensorError, OSError, ValueError) as exc:
        raise WeightsError(f"{path} is a truncated or corrupt safetensors file: {exc}") from exc
    header = json.loads(whole[8:start].tobytes())
    header.pop("__metadata__", None)
    if not header:
        raise WeightsError(f"{path} holds no named tensors")
    tensors: dict[str, NDArray[Any] | NotPlain] = {}
    for key, about in header.items():
        first, last = about["data_offsets"]
        name, shape = about["dtype"], tuple(about["shape"])
        kind = OF_SAFETENSORS.get(name) or NumberType(name, 1)
        numbers = kind.decode(whole[start + first : start + last])
        tensors[key] = kind.not_plain(shape) if kind.array is None else numbers.reshape(shape)
    return Content(tensors, metadata)


def _read_archive(path: Path) -> Content:
    """Return the content of an archive that `torch.save` wrote."""
    with zipfile.ZipFile(path) as archive:
        infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
    ends = [info.filename.rpartition("/")[2] for info in infos]
    if "constants.pkl" in ends:
        raise UnsafeError(f"{path} is a TorchScript archive, which is code. {REMEDY}")
    if "data.pkl" not in ends:
        raise WeightsError(f"{path} is not a checkpoint: it is a zip archive of something else")
    if ends.count("data.pkl") > 1:
        raise WeightsError(f"{path} is not a checkpoint: it holds {ends.count('data.pkl')} of them")
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
        raise WeightsError(f"{path} is a compressed zip archive, which PyTorch never writes")
    members = _members(_mapped(path), infos)
    name = infos[ends.index("data.pkl")].filename
    storages = _storages(members, name.removesuffix("data.pkl"))
    pickled, budget = BytesIO(members[name].data), instructions()
    read = partial(read_pickle, pickled, calls=_all_calls(budget), budget=budget)
    return Content(read(values=_TYPES, persistent=storages))


def _members(whole: Bytes, infos: Sequence[zipfile.ZipInfo]) -> dict[str, Bytes]:
    """Return the bytes of an archive's members, in the order of their places.

    Each has its checksum, at which PyTorch's own reader does not look; 0 stands for none.
    """
    members: dict[str, Bytes] = {}
    end = 0
    for info in infos:
        name = info.filename
        if info.header_offset < end or name in members:
            raise ValueError(f"members of the archive overlap, or two are called {name:.60}")
        header = whole[info.header_offset : info.header_offset + 30].tobytes()
        start = info.header_offset + 30 + sum(struct.unpack("<26xHH", header))
        end = start + info.file_size
        if not header.startswith(b"PK\3\4") or end > len(whole):
            raise EOFError(f"{name:.60} is not whole")
        members[name] = whole[start:end]
        if info.CRC and zlib.crc32(members[name].data) != info.CRC:
            raise ValueError(f"{name:.60} in it fails its checksum")
    return members


def _storages(members: Mapping[str, Bytes], folder: str) -> Callable[[Any], Storage]:
    """Return what finds the storage that a persistent id (kind, type, key, device, count) names."""
    known: dict[str, Storage] = {}
    is_big = bytes(members.get(f"{folder}byteorder", b"")) == b"big"

    def persistent(reference: Any) -> Storage:
        kind, dtype, key, _, count = reference
        _require_storage(kind, dtype, key, count)
        if key not in known:
            data = members.get(f"{folder}data/{key}")
            if data is None or count * dtype.size > len(data):
                raise EOFError(f"the storage {key!r:.40} is too short, or missing")
            numbers = dtype.decode(data[: count * dtype.size], ">" if is_big else "<")
            known[key] = Storage(dtype, numbers)
        return known[key]

    return persistent


def _read_older(path: Path) -> Content:
    # Unlike a file, a mapping never reserves more memory than there is to read.
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as stream:
        return Content(read_pickles(cast(BinaryIO, stream)))


def read_pickles(stream: BinaryIO) -> Any:
    """Return the content of PyTorch's older format or a bare pickle. Damage raises anything."""
    budget = instructions()
    return _read_pickles(stream, _all_calls(budget), budget)


def _read_pickles(stream: BinaryIO, calls: Calls, budget: Iterator[int]) -> Any:
    read = partial(read_pickle, stream, budget=budget)
    first = read(calls=calls, values=_TYPES)
    if first != _MAGIC:
        return first
    _version, _system = read(), read()
    storages = _LaterStorages(stream)
    content = read(calls=calls, values=_TYPES, persistent=storages.persistent)
    storages.fill(read())
    return content


class _LaterStorages:
    """The storages of the older format: made when named, filled at the end.

    They are little-endian whatever machine wrote them (THPStorage_writeFileRaw).
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        here = stream.tell()
        stream.seek(0, 2)
        self._left = stream.tell() - here
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
            size = len(storage.numbers) * storage.type.size
            data = np.frombuffer(self._stream.read(size), np.uint8)
            if count != len(storage.numbers) or len(data) != size:
                raise EOFError(f"the storage {key!r:.40} is too short")
            storage.numbers[:] = storage.type.decode(data)


def _require_storage(kind: Any, dtype: Any, key: Any, count: Any) -> None:
    require(dtype, NumberType)
    require(key, str)
    require(count, int)
    if kind != "storage" or count < 0:
        raise ValueError("a persistent id of another kind")


def _all_calls(budget: Iterator[int]) -> Calls:
    """Return the calls of tensors and of files of the older format inside a bare pickle.

    A nested file is read once, and holds no other: pickles could ask for that without end.
    """
    known: dict[bytes, Any] = {}

    def nested(data: Any) -> Any:
        require(data, bytes)
        if data not in known:
            known[data] = _read_pickles(BytesIO(data), _TENSOR_CALLS, budget)
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

_FORMATS: dict[re.Pattern[bytes], Callable[[Path], Content]] = {
    re.compile(rb"PK\x03\x04"): _read_archive,
    re.compile(rb".{4}\0{4}\{", re.DOTALL): _read_safetensors,  # a length and a JSON text
    re.compile(rb"\x80"): _read_older,
}
