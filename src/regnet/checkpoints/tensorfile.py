"""What is in files that nobody vouches for: PyTorch's two formats, and safetensors.

A pickle is read by a machine of our own that imports and runs nothing; plain values become Python's
or inert records. Anything else that a pickle asks for is refused and named.
"""

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from regnet.checkpoints.pickles import RefusedError
from regnet.errors import MissingExtraError, UnsafeError, WeightsError

try:
    import torch
    from safetensors import SafetensorError, safe_open

    from regnet.checkpoints.torch_file import read_archive, read_pickles
except ImportError as exc:
    raise MissingExtraError("reading and writing checkpoints", "torch") from exc

Kind = Literal["zip", "pickle", "safetensors"]


@dataclass(frozen=True)
class Content:
    """What a file holds: nested containers with tensors, and the metadata of safetensors.

    The tensors may be backed by the file: copy what must outlive it.
    """

    value: Any
    metadata: dict[str, str] = field(default_factory=dict)


def read_content(path: Path) -> Content:
    """Return what is in a file, whichever of the three formats it has.

    Raises `UnsafeError` where reading would run code, `WeightsError` where the file is missing,
    truncated, corrupt or something else than a checkpoint.
    """
    kind = _kind(path)
    if kind == "safetensors":
        return _read_safetensors(path)
    if kind == "zip":
        _check_zip(path)
    return Content(_load_pickle(path, is_zip=kind == "zip"))


def _kind(path: Path) -> Kind:
    """Tell a file's format from its first bytes; its suffix may be wrong."""
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


def _check_zip(path: Path) -> None:
    """Refuse archives that `torch.save` did not write, before torch maps them into memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            if stored and sum(member.file_size for member in members) > path.stat().st_size:
                raise EOFError("its members are longer than the file")
            # torch itself does not look at the checksums.
            damaged = _first_damaged(archive) if stored else None
    # A broken file makes zipfile raise almost anything.
    except Exception as exc:
        raise WeightsError(
            f"{path} is truncated or corrupt: {str(exc) or 'it ends too early'}"
        ) from exc
    names = [member.filename.rpartition("/")[2] for member in members]
    if "constants.pkl" in names:
        raise UnsafeError(f"{path} is a TorchScript archive, which is code. {_REMEDY}")
    if "data.pkl" not in names:
        raise WeightsError(f"{path} is not a checkpoint: it is a zip archive of something else")
    if not stored:
        raise WeightsError(f"{path} is a compressed zip archive, which PyTorch never writes")
    if names.count("data.pkl") > 1:
        raise WeightsError(
            f"{path} is not a checkpoint: it holds {names.count('data.pkl')} of them"
        )
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


def _load_pickle(path: Path, *, is_zip: bool) -> Any:
    try:
        if is_zip:
            return read_archive(path)
        with path.open("rb") as file:
            return read_pickles(file)
    except RefusedError as exc:
        raise UnsafeError(
            f"{path} is refused: reading it would run code (it asks for {exc}). {_REMEDY}"
        ) from exc
    # A broken file makes the readers raise almost anything: this is where it gets a name.
    except Exception as exc:
        reason = str(exc).strip().split("\n", 1)[0][:200] or type(exc).__name__
        raise WeightsError(f"{path} is truncated or corrupt: {reason}") from exc


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
