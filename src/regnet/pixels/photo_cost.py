"""What decoding a photo would cost, from what its header claims."""

from dataclasses import dataclass, field
from typing import Final

from regnet.pixels.jpeg_markers import Outline, jpeg_outline
from regnet.system.errors import ImageError

QUICK_MEMORY: Final = 200_000_000
"""Bytes that decoding a quick photo takes at most."""

_QUICK_JPEG: Final = 16_000_000  # pixels times scans: about 0.15 s of one core
_QUICK_OTHER: Final = 4_000_000  # pixels
_QUICK_BYTES: Final = 1 << 20  # Pillow takes microseconds a chunk, and chunks can be tiny

_RESULT: Final = 3  # bytes a pixel of the array that comes out
_STORED: Final = {"1": 1, "L": 1, "P": 1}  # bytes a pixel in Pillow, by mode; others take 4
_WORKING: Final = {"WEBP": 10, "AVIF": 10, "HEIC": 10, "JPEG2000": 18, "ICO": 12}
"""Bytes a pixel that a decoder takes beside, where it stores 4."""
_DEEP: Final = 8  # bytes a pixel for making 8 bits of 16 or 32

UNKNOWN: Final = 1 << 62
"""The work of a photo of which only a decoder can tell."""

_OTHER_PIXEL: Final = 4  # pixels of a JPEG that take as long as one of another format
_OTHER_BYTE: Final = 10  # and as one byte of chunks, all tiny, which Pillow goes through in Python
_FEW_CHUNKS: Final = 1024


@dataclass(frozen=True)
class Cost:
    """The `pixels` that a photo claims to have, None where only a decoder can tell.

    `quick` photos take a fraction of a second at most, whatever their bytes are. `work` is the time
    that decoding may take at most, in that for a pixel of a JPEG: some 25 ns.
    """

    pixels: int | None
    quick: bool
    work: int = field(default=UNKNOWN, compare=False)


def cost_of(data: bytes) -> Cost:
    """Return what decoding a photo would cost, without decoding; takes microseconds."""
    try:
        found = jpeg_outline(data)
    except ImageError:
        return Cost(0, quick=True, work=0)  # it is refused as quickly
    if found is not None:
        return _of_jpeg(data, found)
    size = claimed_size(data)
    pixels = size and size[0] * size[1]
    if pixels is None:
        return Cost(None, quick=False)
    chunks = _work_of_chunks(data)
    quick = pixels <= _QUICK_OTHER and (len(data) <= _QUICK_BYTES or not chunks)
    return Cost(pixels, quick, _OTHER_PIXEL * pixels + chunks)


def memory_of_jpeg(found: Outline, pixels: int) -> int:
    """Return the bytes of memory that libjpeg takes for a JPEG of so many pixels."""
    return _RESULT * pixels + memory_of_scans(found, pixels)


def memory_of_scans(found: Outline, pixels: int) -> int:
    """Return the bytes of memory for putting a JPEG's scans together; 0 where it has only one."""
    if found.one_scan:
        return 0
    return 2 * (found.samples if found.pixels == pixels else 4 * pixels)


def memory_of(form: str, mode: str, width: int, height: int) -> int:
    """Return the bytes of memory that Pillow takes for a format and mode, but for a JPEG's scans.

    Measured; what only a decoder knows, such as the size of a TIFF's tiles, is not in it.
    """
    stored = _STORED.get(mode, 4)
    deep = _DEEP if mode in ("I", "F") or mode.startswith("I;") else 0
    a_pixel = stored + _RESULT + deep + _WORKING.get(form, 0) * stored // 4
    return (a_pixel * width + 16) * height  # each line has a pointer and is rounded up


def _of_jpeg(data: bytes, found: Outline) -> Cost:
    scans = 1 if found.one_scan else max(1, data.count(b"\xff\xda"))
    work = found.pixels * scans
    quick = work <= _QUICK_JPEG and has_quick_head(data, found)
    return Cost(found.pixels, quick, work + _OTHER_BYTE * _head(data, found))


def _work_of_chunks(data: bytes) -> int:
    """Return the work for the parts of a file: next to none for WebP and a PNG of few chunks."""
    if data[:4] == b"RIFF":
        return 0
    if data[:4] == b"\x89PNG":
        at = 8
        for _ in range(_FEW_CHUNKS):
            at += 12 + int.from_bytes(data[at : at + 4])
            if at >= len(data):
                return 0
    return _OTHER_BYTE * len(data)


def has_quick_head(data: bytes, found: Outline) -> bool:
    """Tell whether Pillow reads in a moment what stands before the first scan of a JPEG."""
    return _head(data, found) <= _QUICK_BYTES


def _head(data: bytes, found: Outline) -> int:
    return found.scan if found.scan > 0 else len(data)


def claimed_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of formats that have them at a fixed place."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR":
        return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    if data[:4] == b"GIF8":
        return _number(data[6:8]), _number(data[8:10])
    if data[:2] == b"BM" and len(data) > 26:
        if _number(data[14:18]) == 12:
            return _number(data[18:20]), _number(data[20:22])
        height = int.from_bytes(data[22:26], "little", signed=True)
        return _number(data[18:22]), abs(height)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _of_webp(data[12:16], data)
    return None


def _of_webp(kind: bytes, data: bytes) -> tuple[int, int] | None:
    if kind == b"VP8X":
        return 1 + _number(data[24:27]), 1 + _number(data[27:30])
    if kind == b"VP8L":
        bits = _number(data[21:25])
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        return _number(data[26:28]) & 0x3FFF, _number(data[28:30]) & 0x3FFF
    return None


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")
