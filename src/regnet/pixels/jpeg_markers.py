"""The marker segments of a JPEG (ITU T.81, annex B), read without decoding: what it would cost."""

import re
from typing import Final, NamedTuple

from regnet.system.errors import ImageError

MAX_SCANS: Final = 100
"""Scans of one JPEG. Encoders write about ten; each scan is decoded over the whole image."""

MAX_SCAN_PIXELS: Final = 2_500_000_000
"""Scans times pixels of one JPEG: about ten seconds of one core."""

MAX_SEGMENTS: Final = 4096
"""Segments before the first scan."""

MAX_FILL: Final = 1 << 16
"""Bytes between those segments that belong to none of them."""

_SOS: Final = 0xDA
_EOI: Final = 0xD9
_EXIF: Final = 0xE1
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL: Final = frozenset((0xC0, 0xC1))
_ALONE: Final = frozenset((0x01, *range(0xD0, 0xDA)))  # markers without a length
_PLAIN: Final = frozenset((*range(0xC0, 0xD0), *range(0xDA, 0xF0), 0xFE)) - {0xC8}
_MARKER: Final = re.compile(rb"\xff[\x01-\xfe]")
_IN_SCANS: Final = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # not those inside of a scan
_MAX_STEPS: Final = 100_000


class Outline(NamedTuple):
    """What stands before the first scan; `scan` is its offset, -1 if there is none.

    `pixels` are claimed by the frame's header, 0 if there is none; `samples` are those of all its
    components. `one_scan` tells that decoders stop after the first scan; `has_app1` that there may
    be EXIF or XMP data, in doubt too.
    """

    scan: int
    pixels: int
    samples: int
    one_scan: bool
    has_app1: bool


def jpeg_outline(data: bytes) -> Outline | None:
    """Return the outline of a JPEG, None for other data; raises `ImageError` if it is too long."""
    return outline(data) if data[:3] == b"\xff\xd8\xff" else None


def outline(data: bytes) -> Outline:
    """Return the outline of a JPEG; raises `ImageError` if it has too many segments or fill."""
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
    found = _MARKER.search(data, at, at + MAX_FILL + 2)
    return found.start() if found else len(data)


def require_few_scans(data: bytes, found: Outline, pixels: int) -> None:
    """Raise `ImageError` if a JPEG of so many pixels has more scans than are decoded."""
    most = min(MAX_SCANS, MAX_SCAN_PIXELS // max(1, pixels))
    # Counting bytes is fast and never too low: it also counts a thumbnail's scans.
    if found.one_scan or data.count(b"\xff\xda") <= most:
        return
    if _has_more_scans(data, found.scan, most):
        raise ImageError(
            f"over the limit of {most} scans for a JPEG of {pixels:,} pixels (progressive JPEGs "
            "have about ten)"
        )


def _has_more_scans(data: bytes, at: int, most: int) -> bool:
    """Tell whether there are more scans from an offset on; the bytes of segments are skipped."""
    scans = 0
    for _ in range(_MAX_STEPS):
        found = _IN_SCANS.search(data, at)
        if found is None:
            return False
        at, marker = found.end(), data[found.end() - 1]
        if marker == _EOI:
            return False
        scans += marker == _SOS
        if scans > most:
            return True
        at += max(2, int.from_bytes(data[at : at + 2]))
    return True
