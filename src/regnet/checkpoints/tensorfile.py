"""Named tensors out of files that nobody vouches for: PyTorch's two formats, and safetensors.

A pickle is read by torch's restricted unpickler alone, which knows tensors and plain values; numpy
scalars, which old training code stored as errors and learning rates, become Python numbers by
stand-ins of our own. Anything else that a pickle asks for is refused and named.
"""

import contextlib
import io
import itertools
import math
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from regnet.errors import MissingExtraError, UnsafeError, WeightsError

try:
    import torch
    from safetensors import SafetensorError, safe_open
except ImportError as exc:
    raise MissingExtraError("reading and writing checkpoints", "torch") from exc

Kind = Literal["zip", "pickle", "safetensors"]

# Averaged weights come first where a file holds both, as in timm and torchvision.
_CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model")
_MAX_NESTING = 4


@dataclass(frozen=True)
class TensorFile:
    """The named tensors in a file; `entry` is the path inside it to where they were found.

    The tensors may be backed by the file: copy what must outlive it.
    """

    tensors: dict[str, torch.Tensor]
    entry: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)


def read_tensors(path: Path, *, entry: str | None = None) -> TensorFile:
    """Return the named tensors in a file, whichever of the three formats it has.

    Raises `UnsafeError` where reading would run code, `WeightsError` where the file is missing,
    truncated, corrupt or something else than a checkpoint.
    """
    kind = _kind(path)
    if kind == "safetensors":
        return _read_safetensors(path)
    if kind == "zip":
        _check_zip(path)
    content = _load_pickle(path, mmap=kind == "zip")
    try:
        return _find_state(*_chosen(content, entry))
    except WeightsError as exc:
        raise WeightsError(f"{path}: {exc}") from exc


def _kind(path: Path) -> Kind:
    """Tell a file's format from its first bytes; names lie."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
            size = file.seek(0, 2)
    except OSError as exc:
        raise WeightsError(f"cannot read {path}: {exc.strerror or exc}") from exc
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if _begins_safetensors(head):
        if int.from_bytes(head[:8], "little") > size - 8:
            raise WeightsError(f"{path} is a truncated safetensors file; download it again")
        return "safetensors"
    if head.startswith(b"\x80"):
        return "pickle"
    raise WeightsError(f"{path} is not a checkpoint: {_what_instead(head)}")


def _begins_safetensors(head: bytes) -> bool:
    """Tell whether a file begins with the length (below 4 GiB) of a JSON text, and that text."""
    return head[4:9] == b"\0\0\0\0{"


def _what_instead(head: bytes) -> str:
    if not head:
        return "it is empty"
    if head.lstrip().startswith(b"<"):
        return "it is a web page (a server's error page, most likely); download it again"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the file itself with 'git lfs pull'"
    return f"it is neither a PyTorch nor a safetensors file (it begins with {head[:8]!r})"


def _read_safetensors(path: Path) -> TensorFile:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError, RuntimeError) as exc:
        raise WeightsError(f"{path} is a truncated or corrupt safetensors file: {exc}") from exc
    if not tensors:
        raise WeightsError(f"{path} holds no named tensors")
    return TensorFile(tensors, metadata=metadata)


def _check_zip(path: Path) -> None:
    """Refuse archives that `torch.save` did not write, before torch maps them into memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            # torch itself does not look at the checksums.
            damaged = _first_damaged(archive) if stored else None
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError) as exc:
        raise WeightsError(
            f"{path} is truncated or corrupt: {str(exc) or 'it ends too early'}"
        ) from exc
    names = {member.filename.rpartition("/")[2] for member in members}
    if "constants.pkl" in names:
        raise UnsafeError(f"{path} is a TorchScript archive, which is code. {_REMEDY}")
    if "data.pkl" not in names:
        raise WeightsError(f"{path} is not a checkpoint: it is a zip archive of something else")
    if not stored:
        raise WeightsError(f"{path} is a compressed zip archive, which PyTorch never writes")
    if damaged:
        raise WeightsError(f"{path} is corrupt: {damaged} in it fails its checksum")


def _first_damaged(archive: zipfile.ZipFile) -> str | None:
    """Return the first member that fails its checksum; `set_crc32_options(False)` writes zeros."""
    for member in archive.infolist():
        if member.CRC == 0:
            del member.CRC  # so that none is expected
    return archive.testzip()


_REMEDY = (
    "Save the weights alone, torch.save(model.state_dict(), ...) or as .safetensors, "
    "where you trust the file"
)


def _load_pickle(path: Path, *, mmap: bool) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_NUMPY_SCALARS):
            warnings.simplefilter("ignore")
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mmap)
    # A broken file makes torch raise almost anything: this is the boundary where it gets a name.
    except Exception as exc:
        if asked := _asked_for(exc, path, is_zip=mmap):
            raise UnsafeError(
                f"{path} is refused: reading it would run code (it asks for {', '.join(asked)}). "
                f"{_REMEDY}"
            ) from exc
        raise WeightsError(f"{path} {_fault(exc)}") from exc


def _fault(exc: Exception) -> str:
    if "Unsupported operand" in str(exc):
        return "is corrupt, or pickled in a way that cannot be read safely: save it as .safetensors"
    # torch's own text for a pickle that fails is advice to read it unsafely.
    if isinstance(exc, pickle.UnpicklingError):
        return "is truncated or corrupt"
    lines = str(exc).strip().splitlines()
    return f"is truncated or corrupt: {lines[0][:200] if lines else type(exc).__name__}"


def _asked_for(exc: Exception, path: Path, *, is_zip: bool) -> list[str]:
    """Return the functions or classes for which torch refused a pickle; none for other faults."""
    if not isinstance(exc, pickle.UnpicklingError):
        return []
    if named := re.search(r"GLOBAL ([\w.<>]+\w)", str(exc)):
        return [named[1]]
    # Newer pickle protocols fail before torch comes to the name: look for it, executing nothing.
    # In a damaged file there may be none to find.
    with contextlib.suppress(Exception), path.open("rb") as file:
        return _globals_in(_first_pickle(file) if is_zip else file)
    return []


def _first_pickle(file: BinaryIO) -> BinaryIO:
    with zipfile.ZipFile(file) as archive:
        member = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        return io.BytesIO(archive.read(member))


def _globals_in(stream: BinaryIO) -> list[str]:
    """Return what the pickles in a stream would import, at most 5 names, without running them.

    torch's own names are left out. PyTorch's older format is five pickles in a row.
    """
    names: dict[str, None] = {}
    strings: list[str] = []
    # A broken pickle has the names that it has.
    with contextlib.suppress(Exception):
        for opcode, argument, _ in itertools.chain(*(pickletools.genops(stream) for _ in range(5))):
            if opcode.name in ("GLOBAL", "INST"):
                names[str(argument).replace(" ", ".")] = None
            elif opcode.name == "STACK_GLOBAL":
                names[".".join(strings[-2:])] = None
            elif isinstance(argument, str):
                strings.append(argument)
    harmless = ("torch.", "collections.OrderedDict", "_codecs.encode", "numpy.dtype")
    return [name for name in names if not name.startswith(harmless)][:5]


class _NumpyDtype:
    """Stands in for numpy.dtype inside a pickle: a kind such as "f8" and a byte order."""

    def __init__(self, kind: str, align: bool = False, copy: bool = False) -> None:
        self.kind = kind
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"


_STRUCT_CODES = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "u1": "B", "b1": "?"}


def _numpy_scalar(dtype: _NumpyDtype, data: bytes) -> float | int | bool:
    """Stand in for numpy's scalar constructor inside a pickle: bytes -> a Python number."""
    value: float | int | bool
    (value,) = struct.unpack(dtype.order + _STRUCT_CODES[dtype.kind], data)
    return value


_NUMPY_SCALARS: list[Any] = [
    (_NumpyDtype, "numpy.dtype"),
    (_numpy_scalar, "numpy.core.multiarray.scalar"),
    (_numpy_scalar, "numpy._core.multiarray.scalar"),
]


def _chosen(content: Any, entry: str | None) -> tuple[Any, tuple[str, ...]]:
    """Return the entry that is asked for and the path to it; all of the file where none is."""
    path = tuple(entry.split("/")) if entry else ()
    for name in path:
        if not isinstance(content, Mapping) or name not in content:
            raise WeightsError(f"there is no entry {entry}")
        content = content[name]
    return content, path


def _find_state(content: Any, entry: tuple[str, ...] = ()) -> TensorFile:
    """Return the state dict inside what a pickle held: itself, or in a known container."""
    where = f"entry {'/'.join(entry)}" if entry else "the file"
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{where} holds no named tensors (but {type(content).__name__})")
    if len(entry) >= _MAX_NESTING:
        raise WeightsError(f"{where} is nested too deep for a checkpoint")
    if (name := _container(content)) is not None:
        return _find_state(content[name], (*entry, name))
    if strange := [key for key in content if not isinstance(key, str)]:
        raise WeightsError(f"{where} has a name that is no text: {strange[0]!r:.80}")
    if strange := [key for key, value in content.items() if not isinstance(value, torch.Tensor)]:
        raise WeightsError(
            f"{where} has entries that are neither tensors nor a known container of them "
            f"(model_state, {', '.join(_CONTAINERS)}): {', '.join(strange[:8])}"
        )
    for key, tensor in content.items():
        _require_plain(key, tensor)
    return TensorFile(dict(content), entry)


def _container(content: Mapping[Any, Any]) -> str | None:
    """Return the name of the entry with the best weights; None where `content` is plain."""
    states = [k for k in ("model_state", "ema_state") if _is_filled(content.get(k))]
    if len(states) == 2:
        better = _error(content, "test_err") <= _error(content, "ema_err")
        return "model_state" if better else "ema_state"
    if states:
        return states[0]
    return next((k for k in _CONTAINERS if _is_filled(content.get(k))), None)


def _is_filled(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value)


def _error(content: Mapping[Any, Any], name: str) -> float:
    """Return an error in percent as pycls compares it; missing or undefined counts as 100."""
    value = content.get(name)
    if value is None:
        return 100.0
    try:
        error = float(value)
    except (TypeError, ValueError, RuntimeError) as exc:
        raise WeightsError(f"{name} is no number: {value!r:.80}") from exc
    return 100.0 if math.isnan(error) else error


def _require_plain(key: str, tensor: torch.Tensor) -> None:
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        raise WeightsError(f"{key} is not a plain tensor but sparse, nested or quantized")
    if tensor.device.type != "cpu":
        raise WeightsError(f"{key} has no data (device {tensor.device})")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise WeightsError(f"{key} has more elements than data")


def plain_tensor(key: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy of a tensor as contiguous float32, or int64 for BN's step counters.

    Raises `WeightsError` naming the key where it is sparse, quantized, complex, whole-numbered,
    without data, or holds a value that is not finite.
    """
    _require_plain(key, tensor)
    tensor = tensor.detach()
    if key.endswith(".num_batches_tracked"):
        return tensor.to(torch.int64, copy=True)
    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        raise WeightsError(f"{key} has type {tensor.dtype}: floating point expected")
    plain = tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if not torch.isfinite(plain).all():
        raise WeightsError(f"{key} holds values that are not finite (NaN or infinity)")
    return plain
