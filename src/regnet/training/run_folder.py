"""The folder of a run: its name, its files, and that no two runs write to it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from regnet.system.errors import OutputError, TrainingError
from regnet.training.run_checkpoint import LAST

RUNS: Final = Path("runs")
WEIGHTS: Final = "weights.safetensors"
RECIPE: Final = "recipe.toml"
REPORT: Final = "report.html"
_LOCK: Final = ".lock"
_MOST: Final = 100_000


def run_folder(
    folder: str | Path | None, dataset: str | Path, recipe: str, *, resume: bool
) -> Path:
    """Return the folder to run in: the one named, or `runs/DATASET-RECIPE`, numbered from 2 on.

    Without a name a new run takes the first that is free, and `resume` the last that has a
    checkpoint, or the first. Raises `TrainingError` where there is a run already.
    """
    if folder is None:
        return _resumed(dataset, recipe) if resume else _free(dataset, recipe)
    path = Path(folder).expanduser()
    if not resume and (path / LAST).exists():
        raise TrainingError(
            f"{path} holds a run already: go on with it (--resume), or name another folder"
        )
    return path


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


def _candidates(dataset: str | Path, recipe: str) -> Iterator[Path]:
    path = Path(dataset).expanduser()
    data = path.name or path.resolve().name
    name = re.sub(r"[^\w.]+", "-", f"{data}-{recipe}").strip("-.")
    yield RUNS / name
    yield from (RUNS / f"{name}-{number}" for number in range(2, _MOST))


def _free(dataset: str | Path, recipe: str) -> Path:
    return next(path for path in _candidates(dataset, recipe) if not path.exists())


def _resumed(dataset: str | Path, recipe: str) -> Path:
    there = list(takewhile(Path.exists, _candidates(dataset, recipe)))
    begun = [path for path in there if (path / LAST).exists()]
    return begun[-1] if begun else next(_candidates(dataset, recipe))


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder, which is made if need be.

    Raises `TrainingError` where one is there, `OutputError` where it cannot be written to.
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
        raise OutputError(f"cannot write to {folder}: {exc.strerror or exc}") from exc
    try:
        yield
    finally:
        lock.release()
        _remove_unused(folder)


def _remove_unused(folder: Path) -> None:
    """Remove a folder that a run failed in before it wrote anything."""
    if [path.name for path in folder.iterdir()] == [_LOCK]:
        with suppress(OSError):
            (folder / _LOCK).unlink()
            folder.rmdir()
