"""Checkpoints of a run: everything it needs to go on as if it had never stopped."""

import shutil
from pathlib import Path
from typing import Any, Final

import torch

from regnet.system.errors import OutputError, TrainingError
from regnet.system.files import new_folder_beside, whole_file
from regnet.training.command import resuming

FORMAT: Final = 2
LAST: Final = "last.ckpt"


def write_checkpoint(path: Path, values: dict[str, Any]) -> None:
    """Write a checkpoint; the one before stays whole until this one is. Raises `OutputError`.

    `values` are tensors, numbers, texts, and lists and tables of them.
    """
    try:
        with whole_file(path) as file:
            torch.save({"format": FORMAT} | values, file)
    except (OSError, RuntimeError) as exc:  # torch's writer turns the first into the second
        raise OutputError(
            f"cannot write the checkpoint {path}: {_reason(exc)}; {_then(path)}"
        ) from exc


def read_run(path: Path) -> dict[str, Any]:
    """Return what `write_checkpoint` wrote, on the CPU. Raises `TrainingError`."""
    try:
        values: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as exc:
        raise TrainingError(f"{path}: there is no run to go on with; leave out --resume") from exc
    except OSError as exc:
        raise TrainingError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except Exception as exc:  # torch raises a dozen kinds, with advice that is none here
        raise TrainingError(
            f"{path}: is damaged, or no checkpoint of a run; begin anew in another folder"
        ) from exc
    found = values.get("format") if isinstance(values, dict) else None
    if not isinstance(found, int) or found != FORMAT:
        raise TrainingError(
            f"{path}: is no checkpoint of a run of this version; begin anew in another folder"
        )
    return dict(values)


def require_room(folder: Path, bytes_needed: int) -> None:
    """Make sure a folder can be written to and has room; raises `OutputError`."""
    try:
        with new_folder_beside(folder / LAST):
            free = shutil.disk_usage(folder).free
    except OSError as exc:
        raise OutputError(f"cannot write to {folder}: {exc.strerror or exc}") from exc
    if free < bytes_needed:
        needed = -(-bytes_needed >> 20)
        raise OutputError(
            f"{folder}: {free >> 20:,} MiB are free, checkpoints need {needed:,} MiB: "
            "make room, or name a folder on another disk"
        )


def bytes_of_run(network: torch.nn.Module) -> int:
    """Return about what two checkpoints and the model take.

    Weights, their mean, momentum and the best in each checkpoint; the weights' file and the IR.
    """
    size: int = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    return (2 * 4 + 2) * size


def _then(path: Path) -> str:
    """Return what to do after a write that failed."""
    if path.is_file():
        return f"the one before is as it was. Make room, then: {resuming(path.parent)}"
    return "there is none yet. Make room and start again"


def _reason(error: BaseException) -> object:
    """Return what the system said, if it did: torch's own message is about its code."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__context__
    return error
