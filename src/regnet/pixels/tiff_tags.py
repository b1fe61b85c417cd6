"""The tags of a TIFF, read without decoding it: which values it has, and whether it is RAW."""

import struct
from typing import Final

BITS_PER_SAMPLE: Final = 258
SAMPLES_PER_PIXEL: Final = 277
MAX_SAMPLE_VALUE: Final = 281
SAMPLE_FORMAT: Final = 339

_SUBFILE_TYPE: Final = 254
_PHOTOMETRIC: Final = 262
_SUB_IFDS: Final = 330
_DNG_VERSION: Final = 50706
_FILTERED: Final = (32803, 34892)  # kinds of pixels behind a colour filter
_SHORT: Final = 3  # a type of values


def tiff_tags(data: bytes) -> dict[int, int]:
    """Return the tags of a TIFF's first directory, each with its first value as a whole number.

    Values that do not fit into the directory, but for those of two bytes, are their places. Empty
    for BigTIFF.
    """
    if data[2:4] in (b"+\0", b"\0+"):
        return {}
    order = "<" if data[:1] == b"I" else ">"
    try:
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, at)
        return dict(_tag(data, at + 2 + 12 * number, order) for number in range(count))
    except struct.error:
        return {}


def is_camera_raw(data: bytes) -> bool:
    """Tell a camera RAW file in the guise of TIFF: what is read of it is a thumbnail or nothing.

    It has the version of DNG, or a colour filter as its kind of pixels, or a thumbnail in front of
    pictures in other places.
    """
    tags = tiff_tags(data)
    thumbnail = tags.get(_SUBFILE_TYPE, 0) & 1 == 1 and _SUB_IFDS in tags
    return _DNG_VERSION in tags or tags.get(_PHOTOMETRIC) in _FILTERED or thumbnail


def _tag(data: bytes, at: int, order: str) -> tuple[int, int]:
    """Return number and first value of the entry of a tag."""
    tag, kind, count, value = struct.unpack_from(f"{order}HHII", data, at)
    if kind == _SHORT:
        place = at + 8 if count <= 2 else value
        (value,) = struct.unpack_from(f"{order}H", data, place)
    return tag, value
