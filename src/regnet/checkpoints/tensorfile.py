"""What is in files that nobody vouches for: PyTorch's two formats, and safetensors.

A pickle is read by a machine of our own that imports and runs nothing; plain values become Python's
or inert records. Anything else that a pickle asks for is refused and named.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regnet.checkpoints.file_kind import REMEDY, checked_kind
from regnet.checkpoints.pickles import RefusedError
from regnet.system.errors import MissingExtraError, UnsafeError, WeightsError

try:
    import torch
    from safetensors import SafetensorError, safe_open

    from regnet.checkpoints.torch_file import read_archive, read_pickles
except ImportError as exc:
    raise MissingExtraError("reading and writing checkpoints", "torch") from exc


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
