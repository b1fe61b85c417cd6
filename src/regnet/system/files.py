"""Files that appear whole or not at all, and their hashes."""

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

_DESCRIPTOR: Final = re.compile(r"/dev/std(out|err)|(?:/dev|/proc/(?:self|thread-self))/fd/(\d+)")
_SCRATCH: Final = ".regnet-{}.tmp"


@contextmanager
def new_folder_beside(path: Path) -> Iterator[Path]:
    """Give an empty folder on the same file system as `path`; it is removed at the end.

    Files made in it move to their final names with `Path.replace`, in one step.
    """
    with _scratch(path.parent, partial(Path.mkdir, mode=0o700)) as folder:
        yield folder


def temporary_folder() -> AbstractContextManager[Path]:
    """Give an empty folder in the system's own for such; it is removed at the end."""
    return new_folder_beside(Path(tempfile.gettempdir(), "any"))


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
    with _scratch(path.parent, partial(Path.touch, exist_ok=False)) as part:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


@contextmanager
def _scratch(folder: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Give a new file or folder in a folder; it goes at the end, those of dead processes before.

    Which processes live is told by their locks; where a file system has none, nothing is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    with ExitStack() as stack:
        while True:
            path = folder / _SCRATCH.format(os.urandom(4).hex())
            make(path)
            try:
                stack.enter_context(_held(path))
            except (BlockingIOError, FileNotFoundError):  # another process took it for a dead one's
                continue
            except OSError:
                pass
            stack.callback(_remove, path)
            yield path
            return


def remove_leftovers(folder: Path) -> None:
    """Remove what dead processes left half written in a folder."""
    for path in folder.glob(_SCRATCH.format("????????")):
        with suppress(OSError), _held(path):
            _remove(path)


def is_scratch(path: Path) -> bool:
    """Tell a file or folder that is being written, or was left so."""
    return path.match(_SCRATCH.format("*"))


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold a file or folder as long as this process lives.

    Raises `BlockingIOError` where another one does, `FileNotFoundError` where it is gone, `OSError`
    where nothing can be held.
    """
    try:
        import fcntl
    except ImportError as exc:  # Windows
        raise OSError("no locks") from exc
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.stat()
        yield
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is on disk before it gets its name. Raises `OSError`."""
    with whole_file(path) as file:
        file.write(data)


def write_all(descriptor: int, data: bytes) -> None:
    """Write bytes to an open file; the system has them when this returns. Raises `OSError`."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


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


def is_file_name(text: str) -> bool:
    """Tell whether a path can be this text: without NUL and characters that no bytes stand for."""
    with suppress(UnicodeEncodeError):
        return b"\0" not in os.fsencode(text)
    return False


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
