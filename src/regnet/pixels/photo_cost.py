"""What decoding a photo would cost, from its header and the marker segments of a JPEG.

Nothing is decoded. Source of the markers: ITU T.81, annex B.
"""

import re
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from regnet.pixels.formats import refused
from regnet.system.errors import ImageError

QUICK_MEMORY: Final = 200_000_000  # maximum bytes for decoding a quick photo
_QUICK_JPEG: Final = 16_000_000  # pixels times scans: about 0.15 s of one core
_QUICK_OTHER: Final = 4_000_000  # pixels
_QUICK_BYTES: Final = 1 << 20  # Pillow takes microseconds a chunk, and chunks can be tiny

_RESULT: Final = 3  # bytes per pixel of the result
_STORED: Final = {"1": 1, "L": 1, "P": 1}  # bytes per pixel in Pillow, by mode; others take 4
_WORKING: Final = {"WEBP": 10, "AVIF": 10, "HEIC": 10, "JPEG XL": 10, "JPEG2000": 18, "ICO": 12}
"""Additional bytes per pixel that a decoder takes if it stores 4."""
_DEEP: Final = 8  # bytes per pixel for reducing 16 or 32 bits to 8

UNKNOWN: Final = 1 << 62  # the work of a photo of which only a decoder can tell
_OTHER_PIXEL: Final = 4  # pixels of a JPEG that take as long as one of another format
_OTHER_BYTE: Final = 10  # and as one byte of chunks, all tiny, which Pillow goes through in Python
_FEW_CHUNKS: Final = 1024

MAX_SCANS: Final = 100
"""Scans of one JPEG. Encoders write about ten; each scan is decoded over the whole image."""

MAX_SCAN_PIXELS: Final = 2_500_000_000
"""Scans times pixels of one JPEG: about ten seconds of one core."""

MAX_SEGMENTS: Final = 4096  # segments before the first scan
MAX_FILL: Final = 1 << 16  # bytes between those segments that belong to none of them
_SOS: Final = 0xDA
_EOI: Final = 0xD9
_EXIF: Final = 0xE1
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL: Final = frozenset((0xC0, 0xC1))
_ALONE: Final = frozenset((0x01, *range(0xD0, 0xDA)))  # markers without a length
_PLAIN: Final = frozenset((*range(0xC0, 0xD0), *range(0xDA, 0xF0), 0xFE)) - {0xC8}
_MARKER: Final = re.compile(rb"\xff[\x01-\xfe]")
_IN_SCANS: Final = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # not those inside a scan
_MAX_STEPS: Final = 100_000


class Outline(NamedTuple):
    """The start of a JPEG; `scan` is the offset of its first scan, -1 if there is none.

    `pixels` are claimed by the frame's header, 0 if there is none; `samples` are those of all its
    components. `one_scan`: decoders stop after the first scan. `has_app1`: there may be EXIF or
    XMP data.
    """

    scan: int
    pixels: int
    samples: int
    one_scan: bool
    has_app1: bool

    def head(self, data: bytes) -> int:
        """Return the number of bytes before the first scan."""
        return self.scan if self.scan > 0 else len(data)

    def has_quick_head(self, data: bytes) -> bool:
        """Return whether Pillow reads what is before the first scan in a moment."""
        return self.head(data) <= _QUICK_BYTES

    def memory_of_scans(self, pixels: int) -> int:
        """Return the bytes of memory for joining the scans of an image of so many pixels."""
        if self.one_scan:
            return 0
        return 2 * (self.samples if self.pixels == pixels else 4 * pixels)

    def memory(self, pixels: int) -> int:
        """Return the bytes of memory that libjpeg takes for an image of so many pixels."""
        return _RESULT * pixels + self.memory_of_scans(pixels)


@dataclass(frozen=True)
class Cost:
    """The `pixels` that a photo claims to have, None if only a decoder can tell.

    `quick` photos take a fraction of a second at most, whatever their bytes are. `work` is the
    longest that decoding may take, in the time for a pixel of a JPEG: some 25 ns.
    """

    pixels: int | None
    quick: bool
    work: int = field(default=UNKNOWN, compare=False)


def cost_of(data: bytes) -> Cost:
    """Return what decoding a photo would cost, without decoding; takes microseconds."""
    try:
        outline = jpeg_outline(data)
    except ImageError:
        return Cost(0, quick=True, work=0)  # it is refused as quickly
    if outline is not None:
        scans = 1 if outline.one_scan else max(1, data.count(b"\xff\xda"))
        work = outline.pixels * scans
        quick = work <= _QUICK_JPEG and outline.has_quick_head(data)
        return Cost(outline.pixels, quick, work + _OTHER_BYTE * outline.head(data))
    if refused(data):
        return Cost(0, quick=True, work=0)
    if (size := claimed_size(data)) is None:
        return Cost(None, quick=False)
    pixels, chunks = size[0] * size[1], _work_of_chunks(data)
    quick = pixels <= _QUICK_OTHER and (len(data) <= _QUICK_BYTES or not chunks)
    return Cost(pixels, quick, _OTHER_PIXEL * pixels + chunks)


def memory_of(form: str, mode: str, width: int, height: int) -> int:
    """Return the bytes of memory that Pillow takes for a format and mode, without a JPEG's scans.

    Measured. What only a decoder knows, such as the size of a TIFF's tiles, is not included.
    """
    stored = _STORED.get(mode, 4)
    deep = _DEEP if mode in ("I", "F") or mode.startswith("I;") else 0
    per_pixel = stored + _RESULT + deep + _WORKING.get(form, 0) * stored // 4
    return (per_pixel * width + 16) * height  # each line has a pointer and is rounded up


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


def claimed_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height for formats that have them at a fixed place."""

    def number(at: int, length: int) -> int:
        return int.from_bytes(data[at : at + length], "little")

    match data[:4], data[8:12], data[12:16]:
        case b"\x89PNG", _, b"IHDR" if data[4:8] == b"\r\n\x1a\n":
            return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
        case b"GIF8", _, _:
            return number(6, 2), number(8, 2)
        case b"RIFF", b"WEBP", b"VP8X":
            return 1 + number(24, 3), 1 + number(27, 3)
        case b"RIFF", b"WEBP", b"VP8L":
            return 1 + (number(21, 4) & 0x3FFF), 1 + (number(21, 4) >> 14 & 0x3FFF)
        case b"RIFF", b"WEBP", b"VP8 ":
            return number(26, 2) & 0x3FFF, number(28, 2) & 0x3FFF
    if data[:2] == b"BM" and len(data) > 26:
        if number(14, 4) == 12:
            return number(18, 2), number(20, 2)
        return number(18, 4), abs(int.from_bytes(data[22:26], "little", signed=True))
    return None


def jpeg_outline(data: bytes) -> Outline | None:
    """Return the outline of a JPEG, None for other data.

    Raises `ImageError` if it has too many segments or too much fill between them.
    """
    if data[:3] != b"\xff\xd8\xff":
        return None
    at, end, fill, pixels, samples, components, has_app1 = 2, len(data) - 3, 0, 0, 0, 0, False
    for _ in range(MAX_SEGMENTS):
        if at >= end or data[at] != 0xFF or data[at + 1] not in _PLAIN:
            has_app1, start = True, _next_marker(data, at)
            if (fill := fill + start - at) > MAX_FILL:
                raise ImageError(
                    f"{fill:,} bytes between the segments of this JPEG are over the limit of "
                    f"{MAX_FILL:,}"
                )
            if start >= end:
                return Outline(-1, pixels, samples, False, True)
            at = start
        marker = data[at + 1]
        at += 2
        if marker == _SOS:
            one_scan = components > 0 and data[at + 2 : at + 3] == bytes([components])
            return Outline(at - 2, pixels, samples, one_scan, has_app1)
        if marker in _FRAMES:
            pixels = int.from_bytes(data[at + 3 : at + 5]) * int.from_bytes(data[at + 5 : at + 7])
            components = int.from_bytes(data[at + 7 : at + 8])
            samples = _samples(pixels, data[at + 9 : at + 8 + 3 * components : 3])
            components = components if marker in _SEQUENTIAL else 0
        elif marker == _EXIF:
            has_app1 = True
        if marker not in _ALONE:
            at += (data[at] << 8 | data[at + 1]) or 2
    raise ImageError(f"over the limit of {MAX_SEGMENTS:,} segments before the scans of a JPEG")


def _samples(pixels: int, factors: bytes) -> int:
    """Return the samples of components with these factors: 4 bits across, 4 bits down."""
    across, down = [each >> 4 for each in factors], [each & 15 for each in factors]
    finest = max(across, default=1) * max(down, default=1)
    return pixels * sum(a * d for a, d in zip(across, down, strict=True)) // max(1, finest)


def _next_marker(data: bytes, at: int) -> int:
    """Return the offset of the next marker, or one that is too far away if there is none near."""
    match = _MARKER.search(data, at, at + MAX_FILL + 2)
    return match.start() if match else len(data)


def require_few_scans(data: bytes, outline: Outline, pixels: int) -> None:
    """Raise `ImageError` if a JPEG of so many pixels has too many scans."""
    most = min(MAX_SCANS, MAX_SCAN_PIXELS // max(1, pixels))
    # Counting bytes is fast and never too low: it also counts a thumbnail's scans.
    if outline.one_scan or data.count(b"\xff\xda") <= most:
        return
    if _has_more_scans(data, outline.scan, most):
        raise ImageError(
            f"over the limit of {most} scans for a JPEG of {pixels:,} pixels (progressive JPEGs "
            "have about ten)"
        )


def _has_more_scans(data: bytes, at: int, most: int) -> bool:
    """Return whether there are more scans from an offset on; the bytes of segments are skipped."""
    scans = 0
    for _ in range(_MAX_STEPS):
        match = _IN_SCANS.search(data, at)
        if match is None:
            return False
        at, marker = match.end(), data[match.end() - 1]
        if marker == _EOI:
            return False
        scans += marker == _SOS
        if scans > most:
            return True
        at += max(2, int.from_bytes(data[at : at + 2]))
    return True
