"""A corpus of broken images, made the same on every run: an error or pixels, never a crash."""

# ruff: noqa: E501

import io
import resource
import signal
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from regnet.decode import decode_pixels
from regnet.decode_limits import DecodeLimits
from regnet.errors import ImageError
from regnet.preprocess import crop_pixels
from regnet.protocol import OMZ

FORMS = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "JPEG2000"]
SECONDS = 10  # for one file
MAX_PIXELS = 1_000_000
MAX_GROWTH = 512 << 10  # KiB of resident memory over the whole corpus of a test


def picture(width: int = 48, height: int = 40) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(3).integers(0, 40, (height, width))
    return Image.fromarray(np.stack([x * 5, y * 6, x + y + noise], axis=-1).astype(np.uint8))


def encoded(form: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture().save(file, form, **options)
    return file.getvalue()


@contextmanager
def bounded() -> Iterator[None]:
    """Fail where the block takes much memory, or a file in it much time."""

    def too_slow(*_: object) -> None:
        raise TimeoutError(f"a file took over {SECONDS} seconds")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    old = signal.signal(signal.SIGALRM, too_slow)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH


def survives(data: bytes) -> bool:
    """Decode and crop; return whether pixels came out. Only `ImageError` may be raised."""
    signal.alarm(SECONDS)
    try:
        pixels = decode_pixels(data, "RGB", limits=DecodeLimits(pixels=MAX_PIXELS))
        crop = crop_pixels(data, OMZ, limits=DecodeLimits(pixels=MAX_PIXELS))
        reason = None
    except ImageError as exc:
        reason = str(exc)
    finally:
        signal.alarm(0)
    if reason is not None:
        assert reason
        assert "took over" not in reason
        return False
    assert pixels.dtype == crop.dtype == np.uint8
    assert pixels.shape[2:] == (3,)
    assert crop.shape == (224, 224, 3)
    return True


@pytest.mark.parametrize("form", FORMS)
def test_truncations(form: str) -> None:
    data = encoded(form)
    cuts = sorted({*range(64), *range(64, len(data), max(1, len(data) // 60))})
    with bounded():
        for cut in cuts:
            survives(data[:cut])
    assert survives(data)


@pytest.mark.parametrize("form", FORMS)
def test_flipped_bits(form: str) -> None:
    data = encoded(form)
    rng = np.random.default_rng(11)
    with bounded():
        for n in range(150):
            broken = bytearray(data)
            reach = 100 if n % 2 else len(broken)  # every other one in the header
            for at in rng.integers(0, min(reach, len(broken)), 1 + n % 4):
                broken[at] ^= 1 << rng.integers(8)
            survives(bytes(broken))


@pytest.mark.parametrize("form", FORMS)
def test_overwritten_fields(form: str) -> None:
    data = encoded(form)
    with bounded():
        for at in range(min(len(data), 120)):
            for value in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"):
                survives(data[:at] + value + data[at + 4 :])


MAGIC = {
    "jpeg": b"\xff\xd8\xff\xe0",
    "jpeg dqt": b"\xff\xd8\xff\xdb",
    "jpeg exif": b"\xff\xd8\xff\xe1\x40\0Exif\0\0II*\0",
    "png": b"\x89PNG\r\n\x1a\n",
    "gif": b"GIF89a",
    "bmp": b"BM",
    "tiff": b"II*\0\x08\0\0\0",
    "tiff big": b"MM\0*\0\0\0\x08",
    "bigtiff": b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0",
    "webp": b"RIFF\xff\xff\0\0WEBPVP8 ",
    "webp lossless": b"RIFF\xff\xff\0\0WEBPVP8L",
    "webp extended": b"RIFF\xff\xff\0\0WEBPVP8X",
    "ico": b"\0\0\1\0\1\0",
    "jp2": b"\0\0\0\x0cjP  \r\n\x87\n",
    "j2k": b"\xff\x4f\xff\x51",
    "avif": b"\0\0\0\x20ftypavif",
    **{f"ppm {n}": b"P%d\n9 9\n255\n" % n for n in range(1, 7)},
    "nothing": b"",
}


@pytest.mark.parametrize("magic", MAGIC.values(), ids=MAGIC)
def test_random_bytes_after_a_magic_number(magic: bytes) -> None:
    rng = np.random.default_rng(5)
    with bounded():
        for length in [0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 64, 256, 1024, 4096, 65536]:
            for _ in range(4):
                survives(magic + rng.bytes(length))
        survives(magic + b"\0" * 4096)
        survives(magic + b"\xff" * 4096)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, color: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def tiff(*entries: tuple[int, int, int, int], after: int = 0, tail: bytes = b"") -> bytes:
    """Return a little-endian TIFF with one directory of (tag, type, count, value)."""
    rows = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", len(entries))
        + rows
        + struct.pack("<I", after)
        + tail
    )


def sized_tiff(
    width: int, height: int, *entries: tuple[int, int, int, int], **more: object
) -> bytes:
    base = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    return tiff(*base, *entries, **more)  # type: ignore[arg-type]


def app1(body: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


BOMB = zlib.compress(b"\0" * (64 << 20), 9)
HUGE = 2**31 - 1
LOOP = tiff((0x8769, 4, 1, 8), (0x0112, 3, 1, 6), after=8)  # every pointer leads to itself

HOSTILE = {
    "png huge": png(HUGE, HUGE),
    "png wide": png(HUGE, 1, chunk(b"IDAT", zlib.compress(b"\0" * 99))),
    "png zero": png(0, 0),
    "png no data": png(8, 8),
    "png empty data": png(8, 8, chunk(b"IDAT", b"")),
    "png zlib bomb": png(8, 8, chunk(b"IDAT", BOMB)),
    "png icc bomb": png(8, 8, chunk(b"iCCP", b"a\0\0" + BOMB)),
    "png text bomb": png(8, 8, chunk(b"zTXt", b"a\0\0" + BOMB)),
    "png many text bombs": png(8, 8, *[chunk(b"zTXt", b"k%d\0\0" % n + BOMB) for n in range(40)]),
    "png international text bomb": png(8, 8, chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB)),
    "png wrong crc": png(8, 8)[:-30] + b"\0" * 30,
    "png bad depth": png(8, 8, depth=77),
    "png palette missing": png(8, 8, chunk(b"IDAT", zlib.compress(b"\0" * 72)), color=3),
    "png chunk length": png(8, 8)[:33] + b"\xff\xff\xff\xffIDAT",
    "png animation lies": png(8, 8, chunk(b"acTL", struct.pack(">II", 2**31, 0))),
    "png animation zero": png(8, 8, chunk(b"acTL", struct.pack(">II", 0, 0))),
    "png exif loop": png(8, 8, chunk(b"eXIf", LOOP), chunk(b"IDAT", zlib.compress(b"\0" * 200))),
    "gif huge": b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08\0;",
    "gif zero": b"GIF89a\0\0\0\0\0\0\0,\0\0\0\0\0\0\0\0\0\x02\0;",
    "gif frame outside": b"GIF89a\x08\0\x08\0\0\0\0,\xff\xff\xff\xff\xff\xff\xff\xff\0\x02\x01\0\0;",
    "gif code size": b"GIF89a\x08\0\x08\0\0\0\0,\0\0\0\0\x08\0\x08\0\0\xff\x01\0\0;",
    "gif no frame": b"GIF89a\x08\0\x08\0\0\0\0;",
    "gif comments": b"GIF89a\x08\0\x08\0\0\0\0" + b"!\xfe\xff" + b"x" * 255 + b"\0" * 9000,
    "gif endless extension": b"GIF89a\x08\0\x08\0\0\0\0!\xff" + b"\xff" * 300_000,
    "bmp huge": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 54, 40, HUGE, HUGE, 1, 24, *[0] * 6),
    "bmp negative": b"BM"
    + struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 54, 40, -8, -HUGE, 1, 24, *[0] * 6),
    "bmp colours": b"BM"
    + struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 54, 40, 8, 8, 1, 8, 0, 0, 0, 0, HUGE, HUGE),
    "bmp header size": b"BM" + struct.pack("<IHHII", 0, 0, 0, 54, 2**32 - 1) + b"\0" * 99,
    "bmp rle": b"BM"
    + struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 54, 40, 900, 900, 1, 8, 1, 0, 0, 0, 2, 0)
    + b"\0\x02\xff\xff" * 5000,
    "tiff huge": sized_tiff(HUGE, HUGE, (273, 4, 1, 8), (279, 4, 1, 99)),
    "tiff zero": sized_tiff(0, 0, (273, 4, 1, 8), (279, 4, 1, 99)),
    "tiff no strips": sized_tiff(8, 8),
    "tiff strips outside": sized_tiff(8, 8, (273, 4, 1, HUGE), (278, 4, 1, 8), (279, 4, 1, 64)),
    "tiff many strips": sized_tiff(8, 8, (273, 4, 2**30, 8), (278, 4, 1, 1), (279, 4, 2**30, 8)),
    "tiff many bits": tiff((256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 2**31, 8), (277, 3, 1, 60_000)),
    "tiff loop": LOOP,
    "tiff tiles": sized_tiff(8, 8, (322, 4, 1, HUGE), (323, 4, 1, HUGE), (324, 4, 1, 8)),
    "tiff tile zero": sized_tiff(8, 8, (322, 4, 1, 0), (323, 4, 1, 0), (324, 4, 1, 8)),
    "tiff large tile": sized_tiff(8, 8, (322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 8)),
    "tiff directories": tiff(*[(n, 4, 2**28, 8) for n in range(4000)]),
    "tiff float sizes": tiff((256, 11, 1, 0x7F800000), (257, 12, 1, 8), (273, 4, 1, 8)),
    "tiff text sizes": tiff((256, 2, 4, 0x31313131), (257, 2, 4, 8), (273, 4, 1, 8)),
    "bigtiff": b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**62) + b"\0" * 99,
    "webp huge": b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff" * 6 + b"\0" * 8,
    "webp huge animation": b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0" + b"\xff" * 6
    + b"ANIM\x06\0\0\0\0\0\0\0\0\0ANMF\x10\0\0\0" + b"\0" * 16,
    "ppm huge": b"P6\n%d %d\n255\n" % (HUGE, HUGE),
    "ppm digits": b"P6\n" + b"9" * 5000 + b" 1\n255\n",
    "ppm comment": b"P6\n#" + b"x" * 300_000,
    "ppm negative": b"P6\n-8 -8\n255\n" + b"\0" * 192,
    "ppm zero": b"P6\n0 0\n255\n",
    "ppm plain": b"P3\n900 900\n255\n" + b"1 " * 1000,
    "ppm plain token": b"P3\n9 9\n255\n" + b"1" * 300_000,
    "ppm maxval": b"P5\n9 9\n0\n" + b"\0" * 81,
    "ico huge count": b"\0\0\1\0\xff\xff" + b"\0" * 200,
    "ico png bomb": b"\0\0\1\0\1\0\x08\x08\0\0\1\0\x18\0"
    + struct.pack("<II", 5000, 22)
    + png(30_000, 30_000),
    "jpeg 65535 square": b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x22\0\x02\x11\x01\x03\x11\x01"
    b"\xff\xda\0\x0c\x03\x01\0\x02\x11\x03\x11\0\x3f\0" + b"\0" * 99,
    "jpeg zero height": b"\xff\xd8\xff\xc0\0\x0b\x08\0\0\0\x08\x01\x01\x11\0\xff\xda\0\x08\x01\x01\0\0\x3f\0",
    "jpeg no marker": b"\xff\xd8" + b"\xff" * 300_000,
    "jpeg exif loop": encoded("JPEG")[:2] + app1(b"Exif\0\0" + LOOP) + encoded("JPEG")[2:],
    "jpeg many exif": encoded("JPEG")[:2] + app1(b"Exif\0\0" + LOOP) * 500 + encoded("JPEG")[2:],
    "jpeg exif large": encoded("JPEG")[:2]
    + app1(b"Exif\0\0" + tiff(*[(n, 2, 2**31, 8) for n in range(5000)]))
    + encoded("JPEG")[2:],
    "jpeg two pictures lie": encoded("JPEG")[:2]
    + b"\xff\xe2\0\x2aMPF\0"
    + tiff((0xB001, 4, 1, 2**31), (0xB002, 7, 2**31, 8))
    + encoded("JPEG")[2:],
    "jpeg scans": encoded("JPEG", progressive=True)[:-2] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" * 3000,
    "jp2 huge": b"\xff\x4f\xff\x51\0\x2f\0\0" + b"\x7f\xff\xff\xff" * 8 + b"\0\x03" + b"\x07\1\1" * 3,
    "avif empty": b"\0\0\0\x14ftypavif\0\0\0\0avif",
}  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_headers(data: bytes) -> None:
    with bounded():
        survives(data)


@pytest.mark.parametrize(
    "name",
    ["png huge", "bmp huge", "tiff huge", "ppm huge", "gif huge", "jpeg 65535 square"],
)
def test_huge_sizes_are_called_too_many_pixels(name: str) -> None:
    with bounded(), pytest.raises(ImageError, match=r"too many pixels|pixels takes about|corrupt"):
        decode_pixels(HOSTILE[name], "RGB")


def test_broken_animations() -> None:
    frames = [picture().convert("P"), picture(48, 40).rotate(90).convert("P")]
    rng = np.random.default_rng(2)
    with bounded():
        for form in ("GIF", "WEBP", "PNG", "TIFF"):
            file = io.BytesIO()
            frames[0].save(file, form, save_all=True, append_images=frames[1:])
            data = file.getvalue()
            for at in rng.integers(0, len(data), 60):
                survives(data[:at] + rng.bytes(8) + data[at + 8 :])
                survives(data[:at] + data[at + 8 :])


def test_nothing_of_all_this_warns() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data in HOSTILE.values():
            survives(data)
    assert [str(w.message) for w in caught] == []
