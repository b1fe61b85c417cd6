"""Members of a zip one by one, in constant memory: the standard library keeps half a KB of each.

The layout is that of PKWARE's APPNOTE 6.3 (sections 4.3.7, 4.3.12, 4.3.14 to 4.3.16, 4.5.3).
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from regnet.data.archives import BEYOND, BOMB_BYTES, RATIO, ArchiveFile, Readable, check_packing
from regnet.pixels.formats import HEAD
from regnet.system.errors import ImageError
from regnet.system.in_flight import wait_for_room

# Only the fields that are used; the others are pad bytes (x).
_END: Final = struct.Struct("<4s8x2L2x")
_END64: Final = struct.Struct("<4s36x2Q")
_LOCATOR64: Final = 20  # bytes
_ENTRY: Final = struct.Struct("<4sxB2x2H4x3L3H8xL")
_LOCAL: Final = struct.Struct("<4s22x2H")
_COMMENT: Final = 1 << 16  # bytes that may follow the end's record
_CHUNK: Final = 1 << 19  # over twice the longest entry
_UTF8: Final = 0x800
_LARGEST: Final = (1 << 63) - 1  # of a size or offset, as files have
_WINDOWS: Final = (0, 10, 14)  # systems that made a zip: FAT, NTFS, VFAT


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """A file in a zip: its `size` unpacked and `packed`, and the offset of its local header.

    `bomb` says why the entries from this one on are not unpacked: they overlap, or hold too much.
    """

    name: str
    size: int
    packed: int
    offset: int
    method: int
    flags: int
    crc: int
    bomb: str = ""


def zip_files(file: Readable) -> Iterator[ArchiveFile]:
    """Yield the files in a zip in its own order; raises `ImageError` if it is damaged."""
    for entry in zip_entries(file):
        head, keep = partial(entry_head, file, entry), partial(ZipMember, file, entry)
        yield ArchiveFile(entry.name, entry.size, head, keep)


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A file in a zip, read by calling it; raises `ImageError`. Thread-safe."""

    file: Readable
    entry: ZipEntry
    max_bytes: int

    def __call__(self) -> bytes:
        """Return its bytes."""
        return read_entry(self.file, self.entry, self.max_bytes)


def zip_entries(file: Readable) -> Iterator[ZipEntry]:
    """Yield the files in a zip in its own order; raises `ImageError` if it is damaged."""
    return (entry for entry in _entries(file) if not entry.name.endswith("/"))


def zip_folders(file: Readable) -> Iterator[str]:
    """Yield the path of each file's folder in a zip, and of each folder, with repeats."""
    return (entry.name.rpartition("/")[0] for entry in _entries(file))


def _entries(file: Readable) -> Iterator[ZipEntry]:
    """Yield the files and folders in a zip; names of folders end with /."""
    position, end, shift = _directory(file)
    buffer, at, left, beyond = b"", 0, position, BEYOND
    while position < end:
        if len(buffer) - at < min(_CHUNK // 2, end - position):
            buffer, at = file.read_at(position, min(_CHUNK, end - position)), 0
        entry, length = _entry(buffer, at, shift)
        position, at = position + length, at + length
        # One that alone is longer than the zip is damaged and fails by itself.
        left -= _LOCAL.size + (entry.packed if entry.packed < file.size else 0)
        if entry.size <= BOMB_BYTES:  # larger ones alone are within the ratio, or fail
            beyond -= max(0, entry.size - RATIO * entry.packed)
        if min(left, beyond) < 0:
            limit = f"{RATIO} times its size and {BEYOND >> 20:,} MiB more"
            over = "its size" if left < 0 else limit
            bomb = f"a zip bomb? The members of this zip up to this one are over {over}"
            entry = replace(entry, bomb=bomb)
        yield entry


def entry_head(file: Readable, entry: ZipEntry) -> bytes:
    """Return the first bytes of a file in a zip, b"" if they cannot be unpacked."""
    try:
        if entry.bomb:
            return b""
        check_packing(entry.flags, entry.method, 0, 0, 0)
        packed = _packed(file, entry, min(entry.packed, 2 * HEAD))
        return _unpacked(packed, entry.method, HEAD)[:HEAD]
    except (ImageError, OSError, OverflowError, struct.error, zlib.error):
        return b""


def read_entry(file: Readable, entry: ZipEntry, max_bytes: int) -> bytes:
    """Return the bytes of a file in a zip; raises `ImageError` if they are damaged. Thread-safe."""
    if entry.bomb:
        raise ImageError(entry.bomb)
    check_packing(entry.flags, entry.method, entry.size, entry.packed, max_bytes)
    wait_for_room(entry.size)
    try:
        packed = _packed(file, entry, entry.packed)
        data = _unpacked(packed, entry.method, entry.size)
    except (OSError, OverflowError, struct.error, zlib.error) as exc:
        raise ImageError(f"this member of the zip is corrupt ({exc})") from exc
    if len(data) != entry.size or zlib.crc32(data) != entry.crc:
        raise ImageError("this member of the zip is corrupt (its checksum differs)")
    return data


def _packed(file: Readable, entry: ZipEntry, size: int) -> bytes:
    """Return the first bytes of a file as they are packed."""
    signature, name, extra = _LOCAL.unpack(file.read_at(entry.offset, _LOCAL.size))
    packed = file.read_at(entry.offset + _LOCAL.size + name + extra, size)
    if signature != b"PK\x03\x04" or len(packed) != size:
        raise ImageError("this member of the zip is truncated")
    return packed


def _unpacked(packed: bytes, method: int, size: int) -> bytes:
    """Return what the packed bytes hold, at most `size` bytes if they are deflated."""
    if not method:
        return packed
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, max(1, size))


def _directory(file: Readable) -> tuple[int, int, int]:
    """Return where the directory begins and ends, and what to add to all offsets."""
    tail_at = max(0, file.size - _END.size - _COMMENT)
    tail = file.read_at(tail_at, file.size - tail_at)
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) - place < _END.size:
        raise ImageError("this zip archive is corrupt or truncated: it has no directory")
    _, size, offset = _END.unpack_from(tail, place)
    end = tail_at + place
    at = end - _LOCATOR64 - _END64.size
    if at >= 0 and file.read_at(at + _END64.size, 4) == b"PK\x06\x07":
        signature, size64, offset64 = _END64.unpack(file.read_at(at, _END64.size))
        if signature == b"PK\x06\x06":
            size, offset, end = size64, offset64, at
    begin = end - size
    if begin < 0 or offset > begin:
        raise ImageError(
            "this zip archive is corrupt or truncated: its directory is not where it says"
        )
    return begin, end, begin - offset


def _entry(buffer: bytes, at: int, shift: int) -> tuple[ZipEntry, int]:
    """Return the entry at a place of the directory, and how many bytes it takes there."""
    try:
        values = _ENTRY.unpack_from(buffer, at)
    except struct.error as exc:
        raise ImageError("this zip archive is corrupt: its directory is cut short") from exc
    signature, system, flags, method, crc, packed, size, name, extra, comment, offset = values
    begin = at + _ENTRY.size
    length = _ENTRY.size + name + extra + comment
    if signature != b"PK\x01\x02" or at + length > len(buffer):
        raise ImageError("this zip archive is corrupt: its directory is damaged")
    more = buffer[begin + name : begin + name + extra]
    size, packed, offset = _wide(more, [size, packed, offset])
    text = _name(buffer[begin : begin + name], flags, system)
    return ZipEntry(text, size, packed, offset + shift, method, flags, crc), length


def _name(raw: bytes, flags: int, system: int) -> str:
    """Return a name with / between folders; programs of Windows may write backslashes there."""
    try:
        name = raw.split(b"\0")[0].decode("utf-8" if flags & _UTF8 else "cp437")
    except UnicodeDecodeError as exc:
        raise ImageError(f"this zip archive is corrupt: a name is not UTF-8 ({exc})") from exc
    return name if "/" in name and system not in _WINDOWS else name.replace("\\", "/")


def _wide(extra: bytes, values: list[int]) -> list[int]:
    """Return the values; those of all ones are in the zip64 field of an entry's extra bytes."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == 1:
            whole = field[: len(field) // 8 * 8]
            wide = (min(value, _LARGEST) for (value,) in struct.iter_unpack("<Q", whole))
            try:
                return [next(wide) if value == 0xFFFFFFFF else value for value in values]
            except StopIteration as exc:
                raise ImageError("this zip archive is corrupt: a size is missing") from exc
    return values
