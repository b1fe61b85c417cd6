"""Open files that any thread may read anywhere, closed when nobody needs them any more."""

import os
import tempfile
import weakref
from collections.abc import Iterable
from threading import Lock
from typing import BinaryIO, Final, cast

from regnet.system.errors import ImageError
from regnet.system.in_flight import wait_for_room

_FULL: Final = 256 << 20


class SharedFile:
    """A seekable file for positioned reads; it is closed when the last holder of this is gone."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = Lock()
        self.size = file.seek(0, os.SEEK_END)
        weakref.finalize(self, file.close)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return the bytes from an offset on, fewer where the file ends before."""
        if not 0 <= offset < self.size:  # as archives claim; too large to seek to, some of them
            return b""
        with self._lock:
            self._file.seek(offset)
            return self._file.read(min(size, self.size - offset))

    def append(self, data: bytes) -> None:
        """Write bytes at the end of a file opened without a buffer; raises `OSError`."""
        with self._lock:
            self._file.seek(self.size)
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
            self.size += len(data)

    def span(self, offset: int, size: int) -> "Span":
        """Return a run of its bytes, to be read later."""
        return Span(self, offset, size)


class Window:
    """A part of a shared file, such as an archive inside of another, as a file of its own."""

    def __init__(self, file: SharedFile, offset: int, size: int) -> None:
        self._file, self._offset = file, offset
        self.size = max(0, min(size, file.size - offset))

    def read_at(self, offset: int, size: int) -> bytes:
        """Return the bytes from an offset on, fewer where the part ends before."""
        return self._file.read_at(self._offset + offset, max(0, min(size, self.size - offset)))

    def span(self, offset: int, size: int) -> "Span":
        """Return a run of its bytes, by its place in the whole file."""
        return Span(self._file, self._offset + offset, size)


Readable = SharedFile | Window


class Cursor:
    """A place in a shared file, with what readers of archives ask of a stream."""

    def __init__(self, file: Readable) -> None:
        self._file, self._at = file, 0

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes and go on behind them."""
        left = max(0, self._file.size - self._at)
        data = self._file.read_at(self._at, left if size < 0 else min(size, left))
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to an offset and return it."""
        self._at = offset + (0, self._at, self._file.size)[whence]
        return self._at

    def seekable(self) -> bool:
        """Say that `seek` works."""
        return True

    def tell(self) -> int:
        """Return the offset."""
        return self._at


class Span:
    """A run of bytes in a shared file, read when called; raises `ImageError`. Thread-safe."""

    def __init__(self, file: SharedFile, offset: int, size: int) -> None:
        self._file, self.offset, self.size = file, offset, size

    def __call__(self) -> bytes:
        """Return the bytes."""
        wait_for_room(self.size)
        try:
            data = self._file.read_at(self.offset, self.size)
        except OSError as exc:
            raise ImageError(f"cannot be read: {exc.strerror or exc}") from exc
        if len(data) != self.size:
            raise ImageError("the archive was cut short while it was read")
        return data

    def first(self, count: int) -> bytes:
        """Return its first bytes, at most `count`."""
        return Span(self._file, self.offset, min(count, self.size))()

    def lies_in(self, file: SharedFile) -> bool:
        """Tell whether its bytes are those of this file."""
        return self._file is file

    def window(self) -> Window:
        """Return it as a file of its own."""
        return Window(self._file, self.offset, self.size)


class Spool:
    """Room for bytes that are read later, in unnamed temporary files.

    A new file is begun after every 256 MiB, so that what nobody holds any more is soon free again.
    """

    def __init__(self) -> None:
        self._file: SharedFile | None = None

    def put(self, parts: Iterable[bytes]) -> Span:
        """Put bytes aside and return where they are; raises `ImageError` where there is no room."""
        if self._file is None or self._file.size >= _FULL:
            self._file = _temporary()
        start = self._file.size
        for part in parts:
            try:
                self._file.append(part)
            except OSError as exc:
                raise _no_room(exc) from exc
        return Span(self._file, start, self._file.size - start)


def _temporary() -> SharedFile:
    try:
        return SharedFile(cast(BinaryIO, tempfile.TemporaryFile(buffering=0)))
    except OSError as exc:
        raise _no_room(exc) from exc


def _no_room(exc: OSError) -> ImageError:
    return ImageError(
        f"cannot be put aside in a temporary file: {exc.strerror or exc} (set TMPDIR to a folder "
        "with room)"
    )
