"""Files that appear whole or not at all, and their hashes."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def new_folder_beside(path: Path) -> Iterator[Path]:
    """Give an empty folder on the same file system as `path`; it is removed at the end.

    Files made in it move to their final names with `Path.replace`, in one step.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        yield Path(folder)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file that is on disk before it gets its name; an error leaves none."""
    with new_folder_beside(path) as scratch:
        part = scratch / path.name
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is on disk before it gets its name. Raises `OSError`."""
    with whole_file(path) as file:
        file.write(data)


def sha384_of(path: Path) -> str:
    """Return the SHA-384 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha384").hexdigest()


def replace_all(folder: Path, destination: Path, names: Sequence[str]) -> None:
    """Move the named files from a folder to another in this order; the last one completes them."""
    destination.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).replace(destination / name)


def copy_all(source: Path, destination: Path, names: Sequence[str]) -> None:
    """Copy the named files to a folder in this order; each appears whole. Raises `OSError`."""
    with new_folder_beside(destination / names[-1]) as scratch:
        for name in names:
            shutil.copyfile(source / name, scratch / name)
        replace_all(scratch, destination, names)
