"""What zip and tar archives share: which one a file is, the files in it, limits of their size."""

import bz2
import gzip
import lzma
import posixpath
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from regnet.data.photo_files import SkipTally, sort_of
from regnet.pixels.formats import checked_read
from regnet.system.errors import ImageError

ArchiveKind = Literal["zip", "tar"]
Read = Callable[[], bytes]

MAX_BYTES: Final = 256 << 20
"""Image files of more bytes are not read."""

RATIO: Final = 200
"""Times its packed size that an archive or a file in it may unpack to, and beyond that."""

BEYOND: Final = 1 << 30
"""Bytes that all files of an archive together may unpack to beyond the ratio."""

TAR_SUFFIXES: Final = (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
OPENERS: Final = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
"""What compressed tars begin with, and what unpacks them."""

BOMB_BYTES: Final = 16 << 20
"""Over this size, a file of more than the ratio is no picture."""

_SLACK: Final = 64 << 10  # bytes that a packed file may be longer than the file, and an eighth

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
        if file.error is not None or sort_of(file.name, file.head) == "photo":
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
    """Raise `ImageError` where a member of a zip cannot be unpacked safely to `size` bytes."""
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
    """Raise `ImageError` where an image file is packed as no picture can be."""
    if size > max(BOMB_BYTES, RATIO * packed):
        raise ImageError(f"a {kind} bomb? {packed:,} bytes unpack to {size:,}")


def check_size(size: int, max_bytes: int) -> None:
    """Raise `ImageError` where an image file of `size` bytes is over the limit."""
    if size > max_bytes:
        raise ImageError(f"{size:,} bytes is over the limit of {max_bytes:,} for one image file")


def failing(reason: str) -> Read:
    """Return a reader that raises `ImageError` with this reason."""

    def read() -> bytes:
        raise ImageError(reason)

    return read
