"""Images inside zip and tar archives, read without extracting anything to disk."""

import bz2
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, Literal, cast

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

_TAR_SUFFIXES: Final = (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
_OPENERS: Final = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
_BROKEN: Final = (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)


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
        self._check(info)
        try:
            with self._archive.open(info) as member:
                # The size bounds what is unpacked, also where the header lies about it.
                data = member.read(info.file_size)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, *_BROKEN) as exc:
            raise ImageError(f"this member of the zip is corrupt ({exc})") from exc
        if len(data) != info.file_size:
            raise ImageError("this member of the zip is truncated")
        return data

    def _check(self, info: zipfile.ZipInfo) -> None:
        if info.flag_bits & 1:
            raise ImageError("this member of the zip is encrypted: unpack it first")
        # Others unpack without bound, so a small member could fill the memory.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ImageError("this member of the zip is neither stored nor deflated: repack it")
        check_size(info.file_size, self._max_bytes)
        if info.file_size > max(_BOMB_BYTES, _BOMB_RATIO * info.compress_size):
            raise ImageError(
                f"a zip bomb? {info.compress_size:,} bytes unpack to {info.file_size:,}"
            )


def tar_members(stream: BinaryIO, *, max_bytes: int) -> Iterator[Member]:
    """Yield name and bytes of each image in a tar(.gz, .bz2, .xz), in the order of the archive.

    The bytes are read here, one member ahead: such archives can only be read front to back.
    Raises `ImageError` where the archive is broken; a member over `max_bytes` fails alone.
    """
    try:
        packed = _Bounded(_unpacked(stream), max_bytes + tarfile.RECORDSIZE)
        with tarfile.open(fileobj=cast(BinaryIO, packed), mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it keeps every header
                if member.size > _MAX_SKIP and packed.stream is not stream:
                    raise ImageError(f"a tar bomb? {member.name} claims {member.size:,} bytes")
                if member.isreg() and is_image_name(member.name):
                    yield member.name, _tar_read(archive, member, max_bytes)
    except _BROKEN as exc:
        raise ImageError(f"this tar archive is corrupt or truncated ({exc})") from exc


def _tar_read(
    archive: tarfile.TarFile, member: tarfile.TarInfo, max_bytes: int
) -> Callable[[], bytes]:
    try:
        check_size(member.size, max_bytes)
    except ImageError as exc:
        return failing(str(exc))
    opened = archive.extractfile(member)
    data = opened.read() if opened else b""
    return lambda: data


def _unpacked(stream: BinaryIO) -> BinaryIO:
    head = stream.read(6)
    stream.seek(0)
    for magic, opener in _OPENERS:
        if head.startswith(magic):
            return cast(BinaryIO, opener(stream))
    return stream


class _Bounded:
    """A stream that refuses large reads: tarfile would read a header of any size claimed."""

    def __init__(self, stream: BinaryIO, max_read: int) -> None:
        self.stream, self._max_read = stream, max_read
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self._max_read:
            raise tarfile.ReadError(f"a header claims {size:,} bytes")
        return self.stream.read(size)


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
