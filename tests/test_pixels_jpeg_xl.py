"""JPEG XL: sizes told from the header, pixels of every kind, and files that are damaged."""

import io
import random
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regnet.pixels.decode import decode_pixels
from regnet.pixels.decode_limits import DecodeLimits
from regnet.pixels.jpeg_xl import jpeg_xl_size
from regnet.pixels.preprocess import crop_pixels, rgb_pixels
from regnet.pixels.protocol import OMZ
from regnet.system.errors import ImageError

codec = pytest.importorskip("imagecodecs")


def picture(width: int = 48, height: int = 40) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 5, y * 6, x + y], axis=-1).astype(np.uint8)


def encoded(pixels: np.ndarray, **options: Any) -> bytes:
    data: bytes = codec.jpegxl_encode(np.ascontiguousarray(pixels), lossless=True, **options)
    return data


SIZES = [(48, 40), (1, 1), (256, 256), (8, 8), (640, 480), (1920, 1080), (7, 513), (9000, 3)]


@pytest.mark.parametrize("boxes", [False, True], ids=["bare", "in boxes"])
@pytest.mark.parametrize("size", SIZES)
def test_the_size_is_told_from_the_header(size: tuple[int, int], boxes: bool) -> None:
    data = encoded(picture(*size), usecontainer=boxes)
    assert jpeg_xl_size(data) == size
    assert jpeg_xl_size(data[:64]) == size


@pytest.mark.parametrize("data", [b"", b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\xd8\xff"])
def test_other_files_have_no_size(data: bytes) -> None:
    assert jpeg_xl_size(data) is None


@pytest.mark.parametrize("boxes", [False, True], ids=["bare", "in boxes"])
def test_lossless_pixels_are_those_that_were_written(boxes: bool) -> None:
    data = encoded(picture(), usecontainer=boxes)
    assert np.array_equal(decode_pixels(data, "RGB"), picture())
    assert np.array_equal(decode_pixels(data, "BGR"), picture()[..., ::-1])
    assert np.array_equal(rgb_pixels(data), picture())  # in the process for slow formats
    assert np.array_equal(crop_pixels(data, OMZ), crop_pixels(picture(), OMZ))


def test_grey_alpha_depth_and_frames() -> None:
    plain = picture()
    grey = np.repeat(plain[..., :1], 3, axis=2)
    for pixels, expected in (
        (plain[..., 0], grey),
        (np.dstack([plain, plain[..., :1]]), plain),
        (plain.astype(np.uint16) * 257, plain),
        ((plain / 255).astype(np.float32), plain),
        (np.stack([plain, 255 - plain]), plain),
    ):
        assert np.array_equal(decode_pixels(encoded(pixels), "RGB"), expected)


def test_its_own_orientation_is_applied_once() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(picture()).save(file, "JPEG", exif=exif, quality=95, subsampling=0)
    upright = decode_pixels(file.getvalue(), "RGB").astype(int)
    turned = decode_pixels(codec.jpegxl_encode_jpeg(file.getvalue()), "RGB")
    assert turned.shape == upright.shape == (48, 40, 3)
    assert np.abs(turned - upright).mean() < 2


def test_limits_hold_before_it_is_decoded() -> None:
    data = encoded(picture())
    with pytest.raises(ImageError, match="48 x 40 is over the limit of 1,000"):
        decode_pixels(data, "RGB", limits=DecodeLimits(pixels=1000))
    taken: list[int] = []
    decode_pixels(data, "RGB", taking=taken.append)
    assert taken
    claim = (1 << 30) - 1
    bits = 0 | 3 << 1 | claim << 3 | 0 << 33 | 3 << 36 | claim << 38
    huge = b"\xff\x0a" + bits.to_bytes(16, "little")
    assert jpeg_xl_size(huge) == (1 << 30, 1 << 30)
    with pytest.raises(ImageError, match="over the limit"):
        decode_pixels(huge, "RGB")


def test_what_is_damaged_is_an_error_or_other_pixels() -> None:
    data = encoded(np.random.default_rng(0).integers(0, 255, (40, 48, 3)).astype(np.uint8))
    for cut in (2, 5, 20, len(data) // 2):
        with pytest.raises(ImageError, match="JPEG XL"):
            decode_pixels(data[:cut], "RGB")
    chance = random.Random(0)
    for _ in range(60):
        changed = bytearray(data)
        changed[chance.randrange(2, len(data))] ^= 1 << chance.randrange(8)
        with suppress(ImageError):
            assert rgb_pixels(bytes(changed)).shape[2] == 3
