"""Values of more than 8 bits: shifted where the bits are declared, never black in silence."""

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from regnet.pixels.decode import decode_pixels, upright_pixels
from regnet.system.errors import ImageError
from regnet.system.notices import DarkPhotoWarning

TWELVE = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def encoded(values: NDArray[Any], form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, form, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def with_significant_bits(png: bytes, bits: int) -> bytes:
    return png[:33] + chunk(b"sBIT", bytes([bits])) + png[33:]


def colour_png(values: NDArray[Any]) -> bytes:
    """Return a PNG of 16-bit RGB; Pillow writes none."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    height, width, _ = values.shape
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def tiff_of_12_bits(values: NDArray[Any]) -> bytes:
    """Return a grey TIFF with two values in three bytes."""
    first, second = values.ravel()[::2].astype(int), values.ravel()[1::2].astype(int)
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1)
    data = packed.astype(np.uint8).tobytes()
    height, width = values.shape
    tags = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1)]
    tags += [(278, height), (279, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


def red(data: bytes) -> NDArray[np.uint8]:
    return decode_pixels(data, "RGB")[..., 0]


@pytest.mark.parametrize(
    "data",
    [
        encoded(TWELVE, "TIFF", tiffinfo={281: 4095}),
        with_significant_bits(encoded(TWELVE, "PNG"), 12),
        with_significant_bits(encoded(TWELVE * 16, "PNG"), 12),  # scaled, as the standard wants it
        tiff_of_12_bits(TWELVE),
        b"P5 64 64 4095\n" + TWELVE.astype(">u2").tobytes(),
    ],
    ids=["highest value", "significant bits", "scaled", "12 bits", "pgm"],
)
def test_declared_12_bits_give_the_whole_range(data: bytes) -> None:
    assert np.array_equal(red(data), TWELVE >> 4)


@pytest.mark.parametrize("highest", [4000, 255, 65535])
def test_other_highest_values_declare_no_bits(highest: int) -> None:
    data = encoded(TWELVE * 16, "TIFF", tiffinfo={281: highest})
    assert np.array_equal(red(data), TWELVE >> 4)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_dark_grey_of_16_bits_is_read_with_a_warning(form: str) -> None:
    with pytest.warns(DarkPhotoWarning, match="16-bit values end at 4,095"):
        assert np.array_equal(red(encoded(TWELVE, form)), TWELVE >> 8)


def test_a_dark_pillow_image_is_warned_of() -> None:
    with pytest.warns(DarkPhotoWarning, match="end at 4,095"):
        upright_pixels(Image.fromarray(TWELVE), "RGB")


def test_dark_colours_of_16_bits_are_read_with_a_warning() -> None:
    colours = np.stack([TWELVE, TWELVE, TWELVE], axis=-1)
    with pytest.warns(DarkPhotoWarning, match="end at 4,095"):
        assert red(colour_png(colours)).max() == 15
    assert red(colour_png(colours * 16)).max() == 255  # a warning would be an error


def test_one_value_of_4096_is_enough() -> None:
    assert red(encoded(TWELVE + 1, "PNG")).max() == 16


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8), "32-bit floats from 0 to 1"),
        (np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8), "32-bit floats from -1 to 1"),
        (np.linspace(0, 1e5, 64, dtype=np.float32).reshape(8, 8), "from 0 to 100000"),
        (np.full((8, 8), np.nan, np.float32), "32-bit floats"),
        (np.arange(0, 64_000, 1000, np.int32).reshape(8, 8), "integers from 0 to 63000"),
        (np.arange(-32, 32, dtype=np.int32).reshape(8, 8), "signed integers from -32 to 31"),
    ],
)
def test_values_of_no_known_range_are_errors(values: NDArray[Any], kind: str) -> None:
    for read in (
        lambda: decode_pixels(encoded(values, "TIFF"), "RGB"),
        lambda: upright_pixels(Image.fromarray(values), "RGB"),
    ):
        with pytest.raises(ImageError, match=f"{kind}.*scale them to 0..255"):
            read()


def tiff(values: NDArray[Any], kind: int, samples: int = 1) -> bytes:
    """Return a TIFF of any values; `kind` is its sample format, and colour has 3 `samples`."""
    data, (height, width) = values.tobytes(), values.shape[:2]
    bits = values.dtype.itemsize * 8
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 2 if samples == 3 else 1)]
    tags += [(273, 8), (277, samples), (278, height), (279, len(data)), (339, kind)]
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


@pytest.mark.parametrize(
    ("type", "kind", "named"),
    [
        ("<f8", 3, "64-bit floats"),
        ("<f2", 3, "16-bit floats"),
        ("<u8", 1, "64-bit integers"),
        ("<i1", 2, "8-bit signed integers"),
        ("<i2", 2, "signed integers from -100 to"),
        ("<c8", 6, "64-bit values"),
    ],
)
def test_values_of_other_kinds_are_errors(type: str, kind: int, named: str) -> None:
    values = (np.linspace(0, 1, 64).reshape(8, 8) * 200 - 100).astype(type)
    with pytest.raises(ImageError, match=rf"{named}.*: scale them to 0\.\.255"):
        decode_pixels(tiff(values, kind), "RGB")


def test_colours_of_floats_are_errors() -> None:
    with pytest.raises(ImageError, match=r"32-bit floats: scale them to 0\.\.255"):
        decode_pixels(tiff(np.zeros((8, 8, 3), np.float32), 3, samples=3), "RGB")


@pytest.mark.parametrize("type", [np.float32, np.int32])
def test_wide_values_of_8_bits_are_read(type: Any) -> None:
    values = np.arange(256).reshape(16, 16).astype(type)
    assert np.array_equal(red(encoded(values, "TIFF")), values)


def test_the_cases(shared: Path) -> None:
    photos = shared / "cases" / "photos"
    with pytest.raises(ImageError, match=r"scale them to 0\.\.255"):
        decode_pixels((photos / "float01.tif").read_bytes(), "RGB")
    with pytest.warns(DarkPhotoWarning):
        decode_pixels((photos / "grey_12in16.tif").read_bytes(), "RGB")


def test_threads_that_decode_do_not_hide_the_warning() -> None:
    """Pillow's own warnings are kept back while it decodes; this one comes after."""
    data = encoded(TWELVE, "PNG")
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        for _ in range(3):
            red(data)
    assert len(given) == 3
