"""The folder of a run: its name and lock, and the checkpoints to resume from."""

import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from regnet.system.errors import OutputError, TrainingError, reason_of
from regnet.system.files import new_folder_beside, whole_file

FORMAT: Final = 2
LAST: Final = "last.ckpt"
RUNS: Final = Path("runs")
WEIGHTS: Final = "weights.safetensors"
RECIPE: Final = "recipe.toml"
REPORT: Final = "report.html"
_LOCK: Final = ".lock"
_MAX_RUNS: Final = 100_000


def resuming(folder: Path, *options: str) -> str:
    """Return the command that resumes the run in a folder, with other options than before."""
    return shlex.join(["regnet", "train", "-o", str(folder), "--resume", *options])


def run_folder(
    folder: str | Path | None, dataset: str | Path, recipe: str, *, resume: bool
) -> Path:
    """Return the folder to run in: the one given, or `runs/DATASET-RECIPE`, numbered from 2 on.

    Without a folder a new run takes the first free one, and `resume` the last with a checkpoint,
    or the first. Raises `TrainingError` if the folder already holds a run.
    """
    if folder is not None:
        path = Path(folder).expanduser()
        if not resume and (path / LAST).exists():
            raise TrainingError(
                f"{path} already holds a run: go on with it (--resume), or name another folder"
            )
        return path
    names = _names(dataset, recipe)
    if not resume:
        return next(path for path in names if not path.exists())
    first = next(names)
    existing = [path for path in (first, *takewhile(Path.exists, names)) if (path / LAST).exists()]
    return existing[-1] if existing else first


def _names(dataset: str | Path, recipe: str) -> Iterator[Path]:
    path = Path(dataset).expanduser()
    name = re.sub(r"[^\w.]+", "-", f"{path.name or path.resolve().name}-{recipe}").strip("-.")
    yield RUNS / name
    yield from (RUNS / f"{name}-{number}" for number in range(2, _MAX_RUNS))


def folder_to_resume(folder: str | Path | None, *, resume: bool) -> Path:
    """Return the folder of a run that is resumed by its folder alone. Raises `TrainingError`."""
    if not resume:
        raise TrainingError("name the photos to train on, or a run to resume: -o DIR --resume")
    if folder is None:
        raise TrainingError("name the folder of the run to resume: -o DIR --resume")
    path = Path(folder).expanduser()
    if not (path / LAST).exists():
        raise TrainingError(
            f"{path}: there is no run to resume. Name its folder (-o DIR), or photos to train on"
        )
    return path


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Make a folder and keep other runs out of it; remove it if nothing was written.

    Raises `TrainingError` if another run uses it, `OutputError` if it is not writable.
    """
    lock = FileLock(folder / _LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as exc:
        raise TrainingError(
            f"{folder}: another run is using it; wait for its end, or name another folder"
        ) from exc
    except OSError as exc:
        raise OutputError(f"cannot write to {folder}: {reason_of(exc)}") from exc
    try:
        yield
    finally:
        lock.release()
        if [path.name for path in folder.iterdir()] == [_LOCK]:
            with suppress(OSError):
                (folder / _LOCK).unlink()
                folder.rmdir()


def write_checkpoint(path: Path, values: dict[str, Any]) -> None:
    """Write a checkpoint atomically. Raises `OutputError`.

    `values` are tensors, numbers, texts, and lists and dicts of them.
    """
    import torch

    try:
        with whole_file(path) as file:
            torch.save({"format": FORMAT} | values, file)
    except (OSError, RuntimeError) as exc:  # torch's writer turns the first into the second
        then = "there is none yet. Make room and start again"
        if path.is_file():
            then = f"the previous one is intact. Make room, then: {resuming(path.parent)}"
        raise OutputError(f"cannot write the checkpoint {path}: {_reason(exc)}; {then}") from exc


def read_run(path: Path) -> dict[str, Any]:
    """Return the values of a checkpoint, on the CPU. Raises `TrainingError`."""
    import torch

    try:
        values: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as exc:
        raise TrainingError(f"{path}: there is no run to resume; leave out --resume") from exc
    except OSError as exc:
        raise TrainingError(f"cannot read {path}: {reason_of(exc)}") from exc
    except Exception as exc:  # torch raises a dozen kinds, with advice that does not apply
        raise TrainingError(
            f"{path}: is damaged, or no checkpoint of a run; start again in another folder"
        ) from exc
    version = values.get("format") if isinstance(values, dict) else None
    if not isinstance(version, int) or version != FORMAT:
        raise TrainingError(
            f"{path}: is not a checkpoint of a run of this version; start again in another folder"
        )
    return dict(values)


def require_room(folder: Path, bytes_needed: int) -> None:
    """Raise `OutputError` if a folder is not writable or has fewer bytes free."""
    try:
        with new_folder_beside(folder / LAST):
            free = shutil.disk_usage(folder).free
    except OSError as exc:
        raise OutputError(f"cannot write to {folder}: {reason_of(exc)}") from exc
    if free < bytes_needed:
        needed = -(-bytes_needed >> 20)
        raise OutputError(
            f"{folder}: {free >> 20:,} MiB are free, checkpoints need {needed:,} MiB: "
            "make room, or name a folder on another disk"
        )


def _reason(error: BaseException) -> object:
    """Return the system's reason, if there is one: torch's message is about its own code."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__context__
    return error
