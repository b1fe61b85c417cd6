"""Files that appear whole or not at all, and their hashes."""

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

_DESCRIPTOR: Final = re.compile(r"/dev/std(out|err)|(?:/dev|/proc/(?:self|thread-self))/fd/(\d+)")


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
    """Give a file that is on disk before it gets its name; an error leaves none. A link stays one.

    A stream, pipe or device is written as it is.
    """
    if (stream := open_stream(path)) is not None:
        with stream:
            yield stream
        return
    path = path.resolve()
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


def open_stream(path: Path) -> BinaryIO | None:
    """Open what is written as it is: an open stream (/dev/stdout), a pipe or a device.

    None for a file, one that does not exist yet too. Raises `OSError`.
    """
    if found := _DESCRIPTOR.fullmatch(str(path)):
        name, number = found.groups()
        sys.stdout.flush()  # what was printed before comes before
        # Its own descriptor: opened by its name, a file that it is redirected to would be emptied.
        return os.fdopen(os.dup(int(number or {"out": 1, "err": 2}[name])), "wb")
    return path.open("wb") if is_stream(path) else None


def is_stream(path: Path) -> bool:
    """Return whether a path is an open stream (/dev/stdout), a pipe or a device."""
    if _DESCRIPTOR.fullmatch(str(path)):
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


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
