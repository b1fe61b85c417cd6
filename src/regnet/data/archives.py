"""Images inside zip and tar archives, read without extracting anything to disk."""

import bz2
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, Literal, cast

from regnet.data.spool import Cursor, SharedFile, Span, Spool
from regnet.errors import ImageError

ArchiveKind = Literal["zip", "tar"]
Member = tuple[str, Callable[[], bytes]]

IMAGE_SUFFIXES: Final = frozenset(
    (".avif", ".bmp", ".dib", ".gif", ".ico", ".j2k", ".jp2", ".jpe", ".jpeg", ".jpg")
) | {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}

# Over this size, more than so many times its packed size is no picture.
_BOMB_BYTES: Final = 16 << 20
_BOMB_RATIO: Final = 200

# Members that are too large are skipped, but a compressed stream must be read to be skipped.
_MAX_SKIP: Final = 16 << 30

_IN_MEMORY: Final = 64 << 10  # bytes of a member of a compressed tar
_PART: Final = 1 << 20  # bytes put aside at a time
_MAX_READ: Final = 16 << 20  # bytes of a header of a tar, and at least a part

_TAR_SUFFIXES: Final = (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
_OPENERS: Final = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
PACKED_MAGIC: Final = tuple(magic for magic, _ in _OPENERS)
"""What compressed tars begin with."""

_BROKEN: Final = (
    *(tarfile.TarError, zlib.error, lzma.LZMAError),
    *(OSError, EOFError, ValueError, OverflowError, RecursionError),
)


def archive_kind(head: bytes, name: str = "") -> ArchiveKind | None:
    """Return what archive begins with these 512 bytes or is called so; None for other files."""
    name = name.lower()
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06") or name.endswith(".zip"):
        return "zip"
    compressed = any(head.startswith(magic) for magic, _ in _OPENERS)
    if compressed or head[257:262] == b"ustar" or name.endswith(_TAR_SUFFIXES):
        return "tar"
    return None


def is_image_name(name: str) -> bool:
    """Tell whether a path in an archive or folder looks like a picture and is not hidden."""
    parts = PurePosixPath(name).parts
    if not parts or any(p == "__MACOSX" or (p[0] == "." and p != "..") for p in parts):
        return False
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def zip_members(archive: zipfile.ZipFile, *, max_bytes: int) -> Iterator[Member]:
    """Yield name and reader of each image in a zip, sorted by name; readers are thread-safe.

    A reader raises `ImageError` where its member is encrypted, corrupt or over `max_bytes`.
    """
    for info in sorted(archive.infolist(), key=lambda info: info.filename):
        if not info.is_dir() and is_image_name(info.filename):
            yield info.filename, _ZipReader(archive, info, max_bytes)


class _ZipReader:
    """Reads one member when called; keeps the archive open for as long as it lives."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, max_bytes: int) -> None:
        self._archive, self._info, self._max_bytes = archive, info, max_bytes

    def __call__(self) -> bytes:
        info = self._info
        check_packing(
            info.flag_bits, info.compress_type, info.file_size, info.compress_size, self._max_bytes
        )
        try:
            with self._archive.open(info) as member:
                # The size bounds what is unpacked, also where the header lies about it.
                data = member.read(info.file_size)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, *_BROKEN) as exc:
            raise ImageError(f"this member of the zip is corrupt ({exc})") from exc
        if len(data) != info.file_size:
            raise ImageError("this member of the zip is truncated")
        return data


def check_packing(flags: int, method: int, size: int, packed: int, max_bytes: int) -> None:
    """Raise `ImageError` where a member of a zip cannot be unpacked safely to `size` bytes."""
    if flags & 1:
        raise ImageError("this member of the zip is encrypted: unpack it first")
    # Others unpack without bound, so a small member could fill the memory.
    if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ImageError("this member of the zip is neither stored nor deflated: repack it")
    check_size(size, max_bytes)
    if size > max(_BOMB_BYTES, _BOMB_RATIO * packed):
        raise ImageError(f"a zip bomb? {packed:,} bytes unpack to {size:,}")


def tar_members(file: SharedFile, *, max_bytes: int) -> Iterator[Member]:
    """Yield name and reader of each image in a tar(.gz, .bz2, .xz), in the order of the archive.

    Readers are thread-safe. Those of a plain tar read where their member lies; what is compressed
    can only be read front to back, so members over 64 KiB are put aside in a temporary file here.
    Raises `ImageError` where the archive is broken; a member over `max_bytes` fails alone.
    """
    spool = Spool()
    with _opened_tar(file) as (archive, lies_in):
        for member in _regular_members(archive, lies_in):
            if is_image_name(member.name):
                yield member.name, _tar_reader(archive, member, max_bytes, lies_in, spool)


def tar_files(file: SharedFile) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """Yield name, bytes and reader of every file in a tar, images or not, without reading it.

    A reader works until the next file is asked for. Raises `ImageError` where the archive is
    broken.
    """
    with _opened_tar(file) as (archive, lies_in):
        for member in _regular_members(archive, lies_in):
            yield member.name, member.size, partial(_extracted, archive, member)


def _extracted(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    return cast(BinaryIO, archive.extractfile(member)).read()


@contextmanager
def _opened_tar(file: SharedFile) -> Iterator[tuple[tarfile.TarFile, SharedFile | None]]:
    """Give the open tar, and the file where its members lie as they are; maps its errors."""
    plain = Cursor(file)
    try:
        stream = _unpacked(plain)
        with tarfile.open(fileobj=cast(BinaryIO, _Bounded(stream)), mode="r:") as archive:
            yield archive, file if stream is plain else None
    except _BROKEN as exc:
        raise ImageError(f"this tar archive is corrupt or truncated ({exc})") from exc


def _regular_members(
    archive: tarfile.TarFile, lies_in: SharedFile | None
) -> Iterator[tarfile.TarInfo]:
    for member in _headers(archive):
        if lies_in is None and member.size > _MAX_SKIP:
            raise ImageError(f"a tar bomb? {member.name} claims {member.size:,} bytes")
        if member.isreg():
            yield member


def _headers(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    end = -1
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # it keeps every header
        if member.size < 0 or archive.offset <= end:  # it could go round for ever
            raise tarfile.ReadError("a header claims less than nothing")
        end = archive.offset
        yield member


def _tar_reader(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    max_bytes: int,
    lies_in: SharedFile | None,
    spool: Spool,
) -> Callable[[], bytes]:
    """Return a reader of one member; `lies_in` is the file where its bytes lie as they are."""
    try:
        check_size(member.size, max_bytes)
        if lies_in is not None and not member.issparse():
            if member.offset_data + member.size > lies_in.size:
                raise tarfile.ReadError("unexpected end of data")
            return Span(lies_in, member.offset_data, member.size)
        opened = cast(BinaryIO, archive.extractfile(member))
        if member.size > _IN_MEMORY:
            return spool.put(iter(partial(opened.read, _PART), b""))
        data = opened.read()
        return lambda: data
    except ImageError as exc:
        return failing(str(exc))


def _unpacked(stream: Cursor) -> Cursor | BinaryIO:
    head = stream.read(6)
    stream.seek(0)
    for magic, opener in _OPENERS:
        if head.startswith(magic):
            return cast(BinaryIO, opener(cast(BinaryIO, stream)))
    return stream


class _Bounded:
    """A stream that refuses large reads: tarfile would read a header of any size claimed."""

    def __init__(self, stream: Cursor | BinaryIO) -> None:
        self._read = stream.read
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_READ:
            raise tarfile.ReadError(f"a header claims {size:,} bytes")
        return self._read(size)


def check_size(size: int, max_bytes: int) -> None:
    """Raise `ImageError` where an image file of `size` bytes is over the limit."""
    if size > max_bytes:
        raise ImageError(f"{size:,} bytes is over the limit of {max_bytes:,} for one image file")


def failing(reason: str) -> Callable[[], bytes]:
    """Return a reader that raises `ImageError` with this reason."""

    def read() -> bytes:
        raise ImageError(reason)

    return read


def open_zip(file: str | Path | BinaryIO) -> zipfile.ZipFile:
    """Return an open zip; raises `ImageError` where it is none."""
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, *_BROKEN) as exc:
        raise ImageError(f"this zip archive is corrupt or truncated ({exc})") from exc
