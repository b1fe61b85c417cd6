import io
import os
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regnet.pixels import decode as decode_module
from regnet.pixels import decoder as decoder_module
from regnet.pixels.decode import decode_pixels
from regnet.pixels.decode_limits import DECODE_LIMITS, DecodeLimits
from regnet.pixels.decoder import Decoder, decode_elsewhere, decode_quick, decode_within
from regnet.pixels.preprocess import crop_of, crop_pixels
from regnet.pixels.protocol import OMZ, PYCLS
from regnet.system.errors import ImageError, LimitError
from regnet.system.in_flight import Room
from regnet.system.notices import DarkPhotoWarning, about


def noise(width: int, height: int) -> Image.Image:
    small = np.random.default_rng(3).integers(0, 256, (7, 9, 3), np.uint8)
    return Image.fromarray(small).resize((width, height))


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


TURNED = encoded(noise(4200, 4000), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0")  # fmt: skip # noqa: E501
SLOW = [TURNED, encoded(noise(50, 40), "TIFF"), encoded(noise(2100, 2000), "WEBP")]
LONG = encoded(Image.new("RGB", (2100, 2000)), "PNG")


@pytest.mark.parametrize("photo", SLOW, ids=["turned JPEG", "TIFF", "WebP"])
def test_another_process_gives_the_same_pixels(photo: bytes) -> None:
    assert decode_quick(photo, "RGB", DECODE_LIMITS) is None
    for channels in ("RGB", "BGR"):
        here = decode_pixels(photo, channels)  # type: ignore[arg-type]
        assert np.array_equal(decode_within(photo, channels, DECODE_LIMITS), here)  # type: ignore[arg-type]
    for protocol in (OMZ, PYCLS):
        crop = crop_pixels(photo, protocol)
        assert crop.dtype == (np.float32 if protocol is PYCLS else np.uint8)
        assert np.array_equal(crop, crop_of(decode_pixels(photo, protocol.channels), protocol))


def test_a_photo_of_more_pixels_than_pillow_takes_is_turned_too() -> None:
    image = Image.new("L", (15_000, 12_000))
    image.paste(255, (0, 0, 15_000, 6_000))
    exif = Image.Exif()
    exif[0x0112] = 6
    crop = crop_pixels(encoded(image, "JPEG", exif=exif), OMZ)
    assert crop[:, :100].max() < 9
    assert crop[:, -100:].min() > 246


def test_a_decoder_that_takes_too_long_is_ended_and_the_next_photo_is_decoded() -> None:
    error = r"decoding took longer than the limit of 0.01 s \(--max-decode\)"
    with pytest.raises(ImageError, match=error):
        decode_within(LONG, "RGB", DecodeLimits(seconds=0.01))
    assert decode_within(SLOW[1], "RGB", DECODE_LIMITS).shape == (40, 50, 3)


def test_a_small_file_may_take_less_memory() -> None:
    limits = DecodeLimits(memory=100_000_000)
    assert limits.memory_of(0) == 35_000_000
    assert limits.memory_of(100_000) == 60_000_000
    assert limits.memory_of(1_000_000) == 100_000_000
    image = Image.new("L", (3000, 3000))
    small = encoded(image, "PNG")
    error = (
        "decoding 3000 x 3000 pixels takes about 36 MB, more than the limit of 20 MB of memory for "
        rf"a file of {len(small):,} bytes \(--max-memory\)"
    )
    with pytest.raises(ImageError, match=error):
        decode_within(small, "RGB", DecodeLimits(memory=50_000_000))
    large = encoded(image, "PNG", compress_level=0)
    assert decode_within(large, "RGB", DecodeLimits(memory=50_000_000)).shape == (3000, 3000, 3)


def tile_of(side: int) -> bytes:
    """A TIFF of 8 x 8 pixels whose one tile claims to be large."""
    entries = [(256, 8), (257, 8), (258, 8), (259, 5), (262, 1), (277, 1)]
    entries += [(322, side), (323, side), (324, 8), (325, 4000)]
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + rows + b"\0" * 4000


def test_what_a_header_does_not_say_is_limited_too() -> None:
    with pytest.raises(ImageError, match=r"the TIFF|more than the limit of \d+ MB"):
        decode_within(tile_of(60_000), "RGB", DECODE_LIMITS)


def test_libraries_write_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    photo = bytearray(encoded(noise(500, 400), "TIFF", compression="tiff_lzw"))
    photo[2000:2100] = b"\xff" * 100
    with pytest.raises(ImageError):
        decode_within(bytes(photo), "RGB", DECODE_LIMITS)
    assert capfd.readouterr() == ("", "")


def test_warnings_of_another_process_are_given_here() -> None:
    dark = Image.fromarray(np.full((40, 50), 4000, np.uint16))
    with about("night.tif"), pytest.warns(DarkPhotoWarning, match="night.tif: 16-bit values end"):
        decode_within(encoded(dark, "TIFF"), "RGB", DECODE_LIMITS)


def test_a_process_that_was_ended_from_outside_is_replaced() -> None:
    decode_elsewhere(SLOW[1], None, DECODE_LIMITS)
    for decoder in list(decoder_module._decoders(os.getpid()).idle.queue):
        decoder.kill()
        decoder._process.wait(60)
    assert decode_elsewhere(SLOW[1], None, DECODE_LIMITS).shape == (40, 50, 3)
    ended = Decoder()
    ended.kill()
    error = ended.pixels(SLOW[1], None, DECODE_LIMITS, Room(1))
    assert str(error) == "decoding it ended the decoder (status -9)"


def test_a_long_head_of_a_jpeg_is_not_read_here() -> None:
    small = encoded(noise(50, 40), "JPEG")
    assert decode_quick(small, "RGB", DECODE_LIMITS) is not None
    exif = b"\xff\xe1\x03\x00Exif\0\0" + b"x" * 760
    assert decode_quick(small[:2] + exif * 2000 + small[2:], "RGB", DECODE_LIMITS) is None


def test_photos_larger_than_their_headers_say_are_not_decoded_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo = bytearray(encoded(Image.new("P", (9000, 9000)), "GIF"))
    photo[6:10] = b"\x08\0\x08\0"  # of the screen; the frame goes beyond it
    monkeypatch.setattr(decode_module, "_load", lambda *_: pytest.fail("was decoded here"))
    assert decode_quick(bytes(photo), "RGB", DECODE_LIMITS) is None


def test_memory_of_all_is_limited_but_one_photo_may_have_more() -> None:
    room, held, most = Room(100), [0, 0], threading.Lock()

    def decode(memory: int) -> None:
        with room.taken(memory):
            with most:
                held[0] += memory
                held[1] = max(held)
            threading.Event().wait(0.002)
            with most:
                held[0] -= memory

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [30, 60, 10, 100, 50] * 8))
        assert held[1] <= 100
        list(pool.map(decode, [500, 600] * 4))
    assert held == [0, 600]


@pytest.mark.parametrize("wrong", [{"memory": 0}, {"seconds": -1}, {"pixels": True}])
def test_impossible_limits_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(LimitError, match=rf"{next(iter(wrong))} must be a .* number over 0"):
        DecodeLimits(**wrong)
