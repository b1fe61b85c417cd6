"""Open files that any thread may read anywhere, closed when nobody needs them any more."""

import io
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
        """Return the bytes from an offset on, fewer if the file ends before."""
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
        """Return a run of its bytes."""
        return Span(self, offset, size)


class Span:
    """A run of bytes in a shared file, read whole by calling it, or as a file of its own."""

    def __init__(self, file: SharedFile, offset: int, size: int) -> None:
        self._file, self.offset, self.size = file, offset, size

    def __call__(self) -> bytes:
        """Return the bytes; raises `ImageError`. Thread-safe."""
        return self.first(self.size)

    def first(self, count: int) -> bytes:
        """Return its first bytes, at most `count`; raises `ImageError`."""
        count = min(count, self.size)
        wait_for_room(count)
        try:
            data = self._file.read_at(self.offset, count)
        except OSError as exc:
            raise ImageError(f"cannot be read: {exc.strerror or exc}") from exc
        if len(data) != count:
            raise ImageError("the archive was cut short while it was read")
        return data

    def read_at(self, offset: int, size: int) -> bytes:
        """Return the bytes from an offset in it on, fewer if it ends before."""
        return self._file.read_at(self.offset + offset, max(0, min(size, self.size - offset)))

    def span(self, offset: int, size: int) -> "Span":
        """Return a run of its bytes, by its place in the whole file."""
        return Span(self._file, self.offset + offset, size)

    def lies_in(self, file: "Readable") -> bool:
        """Tell whether its bytes are those of this file."""
        return self._file is file


Readable = SharedFile | Span


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


class Spool:
    """Room for bytes that are read later, in unnamed temporary files.

    A new file is begun after every 256 MiB, so that what nobody holds any more is soon free again.
    """

    def __init__(self) -> None:
        self._file: SharedFile | None = None

    def put(self, parts: Iterable[bytes]) -> Span:
        """Put bytes aside in a file; raises `ImageError` if there is no room."""
        try:
            if self._file is None or self._file.size >= _FULL:
                self._file = _temporary()
            start = self._file.size
            for part in parts:
                self._file.append(part)
        except OSError as exc:
            raise ImageError(
                f"cannot be put aside in a temporary file: {exc.strerror or exc} (set TMPDIR to a "
                "folder with room)"
            ) from exc
        return Span(self._file, start, self._file.size - start)


def in_memory(data: bytes) -> Span:
    """Return bytes as a span of a file in memory."""
    return Span(SharedFile(io.BytesIO(data)), 0, len(data))


def _temporary() -> SharedFile:
    return SharedFile(cast(BinaryIO, tempfile.TemporaryFile(buffering=0)))
