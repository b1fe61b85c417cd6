"""Checkpoints of a run: everything it needs to go on as if it had never stopped."""

import os
import shutil
from pathlib import Path
from typing import Any, Final

import torch

from regnet.errors import OutputError, TrainingError
from regnet.files import new_folder_beside

FORMAT: Final = 1
LAST: Final = "last.ckpt"


def write_checkpoint(path: Path, values: dict[str, Any]) -> None:
    """Write a checkpoint; the one before stays whole until this one is. Raises `OutputError`."""
    try:
        with new_folder_beside(path) as scratch:
            part = scratch / path.name
            with part.open("wb") as file:
                torch.save({"format": FORMAT} | values, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
    except (OSError, RuntimeError) as exc:  # torch's writer turns a full disk into the latter
        raise OutputError(
            f"cannot write the checkpoint {path}: {getattr(exc, 'strerror', None) or exc}; "
            "the one before is as it was: make room and go on with --resume"
        ) from exc


def read_run(path: Path) -> dict[str, Any]:
    """Return what `write_checkpoint` wrote, on the CPU. Raises `TrainingError`."""
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as exc:
        raise TrainingError(f"{path}: there is no run to go on with; leave out --resume") from exc
    except Exception as exc:
        raise TrainingError(f"{path}: is no checkpoint of a run that can be read: {exc}") from exc
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise TrainingError(f"{path}: is no checkpoint of a run of this version")
    return values


def require_room(folder: Path, bytes_needed: int) -> None:
    """Make sure a folder can be written to and has room; raises `OutputError`."""
    try:
        with new_folder_beside(folder / LAST):
            free = shutil.disk_usage(folder).free
    except OSError as exc:
        raise OutputError(f"cannot write to {folder}: {exc.strerror or exc}") from exc
    if free < bytes_needed:
        raise OutputError(
            f"{folder}: {free >> 20:,} MiB are free, checkpoints need {bytes_needed >> 20:,} MiB"
        )
