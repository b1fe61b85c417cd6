"""What readers of archives share: files read by several threads, limits, and the files inside."""

import bz2
import gzip
import io
import lzma
import os
import posixpath
import tarfile
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from threading import Lock
from typing import BinaryIO, Final, Literal, cast

from regnet.data.photo_files import SkipTally, counts_as_photo
from regnet.pixels.formats import checked_read
from regnet.system.errors import ImageError, reason_of
from regnet.system.in_flight import wait_for_room

ArchiveKind = Literal["zip", "tar"]
Read = Callable[[], bytes]

MAX_BYTES: Final = 256 << 20  # image files of more bytes are not read
RATIO: Final = 200
"""Times its packed size that an archive or a file in it may unpack to, and beyond that."""

BEYOND: Final = 1 << 30
"""Bytes that all files of an archive together may unpack to beyond the ratio."""

TAR_SUFFIXES: Final = (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
OPENERS: Final = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
"""What compressed tars begin with, and what unpacks them."""

BOMB_BYTES: Final = 16 << 20  # over this size, a file of more than the ratio is no picture
_SLACK: Final = 64 << 10  # bytes that a packed file may be longer than the file, and an eighth
_FULL: Final = 256 << 20  # bytes of a temporary file

BROKEN: Final = (
    *(tarfile.TarError, zlib.error, lzma.LZMAError),
    *(OSError, EOFError, ValueError, OverflowError, RecursionError),
)
"""What damaged archives make of their readers."""


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """A file in an archive, of `size` bytes unpacked.

    `head` returns its first 512 bytes, None for a link to nowhere; `keep` takes the maximum bytes
    of an image and returns a thread-safe reader that raises `ImageError`. Call both before the next
    file is asked for. `error` says why a part of the archive cannot be read; `what` replaces the
    suffix in counts of skipped files.
    """

    name: str
    size: int
    head: Callable[[], bytes | None]
    keep: Callable[[int], Read]
    error: str | None = None
    what: str = ""


def photos_in(
    files: Iterable[ArchiveFile], place: str, tally: SkipTally | None
) -> Iterator[ArchiveFile]:
    """Yield the files of an archive at `place` that are photos, or errors; count the others."""
    for file in files:
        if file.error is not None or counts_as_photo(file.name, file.head):
            yield file
        elif tally is not None:
            tally.add(place, file.name, file.what)


def reader(file: ArchiveFile, max_bytes: int) -> Read:
    """Return the reader of a photo in an archive."""
    return checked_read(file.name, file.keep(max_bytes))


def plain_path(name: str) -> str:
    """Return the path of a file in an archive below its top: not absolute, without `.` and `..`."""
    if name.startswith("/") or "./" in name or "//" in name:
        return posixpath.normpath(f"/{name}").lstrip("/")
    return name


def archive_kind(head: bytes, name: str = "") -> ArchiveKind | None:
    """Return what archive begins with these 512 bytes or is called so; None for other files."""
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06") or name.lower().endswith(".zip"):
        return "zip"
    compressed = any(head.startswith(magic) for magic, _ in OPENERS)
    return "tar" if compressed or is_tar(head, name) else None


def is_tar(head: bytes, name: str) -> bool:
    """Tell a tar, also a `.tar.gz`, by its first 512 bytes or its name."""
    return head[257:262] == b"ustar" or name.lower().endswith(TAR_SUFFIXES)


def check_packing(flags: int, method: int, size: int, packed: int, max_bytes: int) -> None:
    """Raise `ImageError` if a member of a zip cannot be unpacked safely to `size` bytes."""
    if flags & 1:
        raise ImageError("this member of the zip is encrypted: unpack it first")
    # Others unpack without bound, so a small member could fill the memory.
    if method not in (0, 8):
        raise ImageError("this member of the zip is neither stored nor deflated: repack it")
    check_size(size, max_bytes)
    if packed > size + (size >> 3) + _SLACK:
        raise ImageError(f"this member of the zip is corrupt: {packed:,} bytes hold {size:,}")
    check_ratio("zip", size, packed)


def check_ratio(kind: ArchiveKind, size: int, packed: int) -> None:
    """Raise `ImageError` if an image file is packed as no picture can be."""
    if size > max(BOMB_BYTES, RATIO * packed):
        raise ImageError(f"a {kind} bomb? {packed:,} bytes unpack to {size:,}")


def check_size(size: int, max_bytes: int) -> None:
    """Raise `ImageError` if an image file of `size` bytes is over the limit."""
    if size > max_bytes:
        raise ImageError(f"{size:,} bytes is over the limit of {max_bytes:,} for one image file")


def failing(reason: str) -> Read:
    """Return a reader that raises `ImageError` with this reason."""

    def read() -> bytes:
        raise ImageError(reason)

    return read


def or_failing(make: Callable[[], Read]) -> Read:
    """Return the reader that `make` returns, or one that raises its `ImageError`."""
    try:
        return make()
    except ImageError as exc:
        return failing(str(exc))


class SharedFile:
    """A seekable file for positioned reads; it is closed when the last holder of this is gone."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = Lock()
        self.size = file.seek(0, os.SEEK_END)
        plain = isinstance(file, io.FileIO | io.BufferedReader) and hasattr(os, "pread")
        self._descriptor = file.fileno() if plain else None
        weakref.finalize(self, file.close)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return the bytes from an offset on, fewer if the file ends before."""
        if not 0 <= offset < self.size:  # as archives claim; too large to seek to, some of them
            return b""
        if self._descriptor is not None:  # processes forked later have no place to share
            return os.pread(self._descriptor, min(size, self.size - offset), offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.read(min(size, self.size - offset))

    def append(self, data: bytes) -> None:
        """Write bytes at the end of a file opened without a buffer; raises `ImageError`."""
        rest = memoryview(data)
        try:
            with self._lock:
                self._file.seek(self.size)
                while rest:
                    rest = rest[self._file.write(rest) :]
                self.size += len(data)
        except OSError as exc:
            raise _no_room(exc) from exc

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
            raise ImageError(f"cannot be read: {reason_of(exc)}") from exc
        if len(data) != count:
            raise ImageError("the archive was cut short while it was read")
        return data

    def read_at(self, offset: int, size: int) -> bytes:
        """Return the bytes from an offset in it on, fewer if it ends before."""
        return self._file.read_at(self.offset + offset, max(0, min(size, self.size - offset)))

    def span(self, offset: int, size: int) -> "Span":
        """Return a run of its bytes, by its place in the whole file."""
        return Span(self._file, self.offset + offset, size)

    def within(self, max_bytes: int) -> "Span":
        """Return this; raises `ImageError` if it has more bytes."""
        check_size(self.size, max_bytes)
        return self

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
        if self._file is None or self._file.size >= _FULL:
            self._file = _temporary()
        start = self._file.size
        for part in parts:
            self._file.append(part)
        return Span(self._file, start, self._file.size - start)


def in_memory(data: bytes) -> Span:
    """Return bytes as a span of a file in memory."""
    return Span(SharedFile(io.BytesIO(data)), 0, len(data))


def _temporary() -> SharedFile:
    try:
        return SharedFile(cast(BinaryIO, tempfile.TemporaryFile(buffering=0)))
    except OSError as exc:
        raise _no_room(exc) from exc


def _no_room(exc: OSError) -> ImageError:
    return ImageError(
        f"cannot be put aside in a temporary file: {reason_of(exc)} (set TMPDIR to a folder "
        "with room)"
    )
