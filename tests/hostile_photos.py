"""Photos made to do harm, the same on every run: small files that claim, repeat or hide a lot.

`KINDS` are makers of files by kind; `corpus` yields them and broken copies of good files.
"""

# ruff: noqa: E501

import io
import itertools
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

FORMS = {
    "JPEG": {}, "PNG": {}, "GIF": {}, "BMP": {}, "TIFF": {"compression": "tiff_lzw"}, "WEBP": {},
    "PPM": {}, "ICO": {}, "JPEG2000": {}, "AVIF": {"speed": 10},
}  # fmt: skip
VARIANTS = {
    "JPEG progressive": ("JPEG", {"progressive": True}),
    "PNG in 16 colours": ("PNG", {"bits": 4}),
    "TIFF plain": ("TIFF", {}),
    "TIFF deflate": ("TIFF", {"compression": "tiff_deflate"}),
    "TIFF of JPEG": ("TIFF", {"compression": "jpeg"}),
    "WEBP lossless": ("WEBP", {"lossless": True}),
    "JPEG2000 tiles": ("JPEG2000", {"tile_size": (16, 16)}),
}
HUGE = 2**31 - 1


def picture(width: int = 48, height: int = 40) -> Image.Image:
    """Return a picture with noise in it."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(3).integers(0, 40, (height, width))
    return Image.fromarray(np.stack([x * 5, y * 6, x + y + noise], axis=-1).astype(np.uint8))


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """Return a file."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def flat(form: str, mode: str, side: int, **options: Any) -> bytes:
    """Return a good file of one colour, small for its pixels."""
    return encoded(Image.new(mode, (side, side)), form, **options)


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, color: int = 2) -> bytes:
    """Return a PNG of these chunks between its first and last."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    """Return so many zero bytes, deflated."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(b"\0" * min(1 << 20, count - at)) for at in range(0, count, 1 << 20)]
    return b"".join(parts) + packer.flush()


def png_lines(width: int, height: int, depth: int, color: int, samples: int) -> bytes:
    """Return a whole PNG of zeros without making its pixels."""
    line = 1 + (width * depth * samples + 7) // 8
    return png(width, height, chunk(b"IDAT", zeros(line * height)), depth=depth, color=color)


def tiff(*entries: tuple[int, int, int, int], after: int = 0, tail: bytes = b"") -> bytes:
    """Return a little-endian TIFF with one directory of (tag, type, count, value)."""
    rows = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    return head + rows + struct.pack("<I", after) + tail


def sized_tiff(
    width: int, height: int, *entries: tuple[int, int, int, int], tail: bytes = b""
) -> bytes:
    """Return a grey TIFF of 8 bits."""
    size = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (262, 3, 1, 1)]
    return tiff(*size, *entries, tail=tail)


def tiff_of(width: int, height: int, compression: int, strip: bytes, *, repeat: int = 1) -> bytes:
    """Return a grey TIFF whose strips are all the same bytes; `repeat` is their number."""
    begin = 8 + 2 + 12 * 9 + 4
    offsets = struct.pack("<I", begin) * repeat + struct.pack("<I", len(strip)) * repeat
    place, counts = begin + len(strip), begin + len(strip) + 4 * repeat
    single = repeat == 1
    return sized_tiff(
        width, height, (259, 3, 1, compression), (277, 3, 1, 1),
        (278, 4, 1, -(-height // repeat)), (273, 4, repeat, begin if single else place),
        (279, 4, repeat, len(strip) if single else counts), tail=strip + offsets,
    )  # fmt: skip


def app1(body: bytes) -> bytes:
    """Return an APP1 segment of a JPEG."""
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def jpeg_claim(width: int, height: int, frame: int, factors: bytes = b"\x22\x11\x11") -> bytes:
    """Return a JPEG's head and one empty scan."""
    parts = b"".join(bytes([n + 1, each, 0]) for n, each in enumerate(factors))
    head = struct.pack(">BHH", 8, height, width) + bytes([len(factors)]) + parts
    scan = bytes([len(factors)]) + b"".join(bytes([n + 1, 0]) for n in range(len(factors)))
    ends = b"\0\0\0" if frame == 0xC2 else b"\0\x3f\0"
    return (
        encoded(picture(), "JPEG")[: encoded(picture(), "JPEG").index(b"\xff\xc0")]
        + b"\xff" + bytes([frame]) + struct.pack(">H", len(head) + 2) + head
        + TABLES + b"\xff\xda" + struct.pack(">H", len(scan) + 5) + scan + ends + b"\0" * 99 + b"\xff\xd9"
    )  # fmt: skip


def tables(data: bytes) -> bytes:
    """Return the Huffman tables of a JPEG."""
    found, at = b"", 2
    while data[at + 1] != 0xDA:
        size = 2 + int.from_bytes(data[at + 2 : at + 4])
        found += data[at : at + size] if data[at + 1] == 0xC4 else b""
        at += size
    return found


TABLES = tables(encoded(picture(), "JPEG"))
BOMB = zeros(64 << 20)
LOOP = tiff((0x8769, 4, 1, 8), (0x0112, 3, 1, 6), after=8)  # every pointer leads to itself
JPEG = encoded(picture(), "JPEG")
PROGRESSIVE = encoded(picture(), "JPEG", progressive=True)
BMP_HEAD = "<IHHIIiiHHIIiiII"


def in_jpeg(middle: bytes) -> bytes:
    """Return a good JPEG with bytes after its first marker."""
    return JPEG[:2] + middle + JPEG[2:]


def bmp(
    width: int, height: int, bits: int, compression: int, body: bytes = b"", colours: int = 0
) -> bytes:
    """Return a BMP."""
    values = (
        0,
        0,
        0,
        54 + 4 * colours,
        40,
        width,
        height,
        1,
        bits,
        compression,
        0,
        0,
        0,
        colours,
        0,
    )
    return b"BM" + struct.pack(BMP_HEAD, *values) + body


def gif(width: int, height: int, *blocks: bytes) -> bytes:
    """Return a GIF of two colours."""
    return (
        b"GIF89a"
        + struct.pack("<HH", width, height)
        + b"\x80\0\0\0\0\0\xff\xff\xff"
        + b"".join(blocks)
        + b";"
    )


def gif_frame(width: int, height: int, data: bytes = b"\x02\x4c\x01\0") -> bytes:
    """Return a frame of a GIF."""
    return b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02" + data


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a WebP of these chunks."""
    body = b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def webp_size(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
    """Return the chunk of an extended WebP that has its size."""
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X", bytes([flags, 0, 0, 0]) + size


def lossless(width: int, height: int) -> bytes:
    """Return the data of a lossless WebP of one colour, which needs no bits a pixel."""
    bits = 0x2F | (width - 1) << 8 | (height - 1) << 22
    code = (
        1 << 0 | 0 << 1
    )  # each of five codes has one symbol: 1 bit "simple", 1 bit "one", 1 bit "short"
    at, value = 40 + 3, bits
    for _ in range(5):
        value |= code << at
        at += 4
    return value.to_bytes(at // 8 + 9, "little")


def icon(*images: bytes, count: int | None = None, side: int = 0) -> bytes:
    """Return an icon; `count` is what it claims."""
    ends = list(itertools.accumulate(map(len, images), initial=6 + 16 * len(images)))
    rows = [
        struct.pack("<BBBBHHII", side, side, 0, 0, 1, 32, len(image), at)
        for image, at in zip(images, ends, strict=False)
    ]
    head = struct.pack("<HHH", 0, 1, len(images) if count is None else count)
    return head + b"".join(rows) + b"".join(images)


def j2k_claim(width: int, height: int, tile: int, parts: int) -> bytes:
    """Return the head of a JPEG 2000 codestream."""
    size = (
        struct.pack(">HIIIIIIIIH", 0, width, height, 0, 0, tile, tile, 0, 0, parts)
        + b"\x07\1\1" * parts
    )
    cod = b"\xff\x52\0\x0c\0\0\0\1\0\5\4\4\0\1"
    qcd = b"\xff\x5c\0\x13\x40" + bytes(range(0x40, 0x50))
    return (
        b"\xff\x4f\xff\x51"
        + struct.pack(">H", len(size) + 2)
        + size
        + cod
        + qcd
        + b"\xff\x90\0\x0a\0\0\0\0\0\0\0\1\xff\x93\xff\xd9"
    )


def swapped(data: bytes, old: bytes, new: bytes) -> bytes:
    """Return a file with bytes that must be in it replaced."""
    assert old in data
    return data.replace(old, new)


def avif_claim(width: int, height: int) -> bytes:
    """Return a good AVIF that claims another size."""
    return swapped(encoded(picture(), "AVIF"), b"ispe\0\0\0\0" + struct.pack(">II", 48, 40),
                   b"ispe\0\0\0\0" + struct.pack(">II", width, height))  # fmt: skip


def animated(form: str, frames: int, **options: Any) -> bytes:
    """Return an animation of small frames that differ."""
    images = [Image.new("RGB", (4, 4), (n % 251, n % 7 * 40, 9)) for n in range(frames)]
    return encoded(images[0], form, save_all=True, append_images=images[1:], **options)


def tiff_chain(count: int, *, loops: bool = False) -> bytes:
    """Return a TIFF of so many directories."""
    page = 2 + 12 * 8 + 4
    entries = [
        (256, 4, 1, 8),
        (257, 4, 1, 8),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (278, 4, 1, 8),
        (279, 4, 1, 64),
    ]
    rows = struct.pack("<H", 8) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    ends = [8 + page * (n + 1) for n in range(count - 1)] + [8 if loops else 0]
    return b"II*\0\x08\0\0\0" + b"".join(rows + struct.pack("<I", end) for end in ends)


Maker = Callable[[], bytes]

KINDS: dict[str, dict[str, Maker]] = {
    "JPEG scans": {
        "60,000": lambda: PROGRESSIVE[:-2] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" * 60_000,
        "3,000": lambda: PROGRESSIVE[:-2] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" * 3000,
    },
    "JPEG claims": {
        f"{side} as {frame:x}, {factors.hex()}": lambda s=side, f=frame, h=factors: jpeg_claim(s, s, f, h)
        for side in (65_500, 16_000, 13_000, 9000)
        for frame in (0xC0, 0xC2)
        for factors in (b"\x11", b"\x22\x11\x11", b"\x11\x11\x11\x11", b"\x11\x44\x44", b"\x41\x14\x11")
    } | {
        "narrow": lambda: jpeg_claim(1, 65_500, 0xC2),
        "wide": lambda: jpeg_claim(65_500, 1, 0xC0),
        "zero height": lambda: b"\xff\xd8\xff\xc0\0\x0b\x08\0\0\0\x08\x01\x01\x11\0\xff\xda\0\x08\x01\x01\0\0\x3f\0",
    },
    "JPEG fill": {
        "0xff": lambda: in_jpeg(b"\xff" * 30_000_000),
        "zeros": lambda: in_jpeg(b"\0" * 30_000_000),
        "no marker": lambda: b"\xff\xd8" + b"\xff" * 30_000_000,
        "segments": lambda: in_jpeg(b"\xff\xee\0\2" * 3_000_000),
        "comments": lambda: in_jpeg(b"\xff\xfe\xff\xff" + b"x" * 65_533) * 60,
        "behind": lambda: JPEG + b"\xff" * 30_000_000,
        "in the scan": lambda: JPEG[:-2] + b"\xff" * 30_000_000 + b"\xff\xd9",
        "restarts": lambda: JPEG[:-2] + b"\xff\xd0" * 5_000_000 + b"\xff\xd9",
    },
    "EXIF": {
        "loop": lambda: in_jpeg(app1(b"Exif\0\0" + LOOP)),
        "500 loops": lambda: in_jpeg(app1(b"Exif\0\0" + LOOP) * 500),
        "4,000 segments": lambda: in_jpeg(app1(b"Exif\0\0" + LOOP * 300) * 4000),
        "large counts": lambda: in_jpeg(app1(b"Exif\0\0" + tiff(*[(n, 2, 2**31, 8) for n in range(5000)]))),
        "directories": lambda: in_jpeg(app1(b"Exif\0\0" + tiff(*[(n, 4, 2**28, 8) for n in range(5000)]))),
        "XMP": lambda: in_jpeg(app1(b"http://ns.adobe.com/xap/1.0/\0" + b"<a " * 20_000) * 60),
        "in a PNG": lambda: png(8, 8, chunk(b"eXIf", LOOP * 40_000), chunk(b"IDAT", zlib.compress(b"\0" * 200))),
        "many in a PNG": lambda: png(8, 8, chunk(b"eXIf", LOOP) * 20_000, chunk(b"IDAT", zlib.compress(b"\0" * 200))),
        "in a WebP": lambda: riff(webp_size(8, 8, 8), (b"VP8L", lossless(8, 8)), (b"EXIF", LOOP * 40_000)),
        "two pictures lie": lambda: in_jpeg(b"\xff\xe2\0\x2aMPF\0" + tiff((0xB001, 4, 1, 2**31), (0xB002, 7, 2**31, 8))),
        "5,000 pictures": lambda: in_jpeg(b"\xff\xe2\xff\xffMPF\0" + tiff((0xB000, 7, 4, 0x30303130), (0xB001, 4, 1, 4000), (0xB002, 7, 64_000, 50)) + b"\0" * 65_450),
    },
    "PNG claims": {
        "huge": lambda: png(HUGE, HUGE),
        "wide": lambda: png(HUGE, 1, chunk(b"IDAT", zeros(99))),
        "zero": lambda: png(0, 0),
        "no data": lambda: png(8, 8),
        "empty data": lambda: png(8, 8, chunk(b"IDAT", b"")),
        "two sizes": lambda: png(8, 8, chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 6, 0, 0, 0)), chunk(b"IDAT", BOMB)),
        "170 million lines": lambda: png(1, 170_000_000, chunk(b"IDAT", zeros(99))),
        "wrong crc": lambda: png(8, 8)[:-30] + b"\0" * 30,
        "bad depth": lambda: png(8, 8, depth=77),
        "palette missing": lambda: png(8, 8, chunk(b"IDAT", zeros(72)), color=3),
        "chunk length": lambda: png(8, 8)[:33] + b"\xff\xff\xff\xffIDAT",
    },
    "PNG pixels": {
        f"{width} x {height}, {depth} bits, {color}": lambda a=(width, height, depth, color, samples): png_lines(*a)
        for width, height, depth, color, samples in (
            (13_000, 13_000, 8, 2, 3), (13_000, 13_000, 8, 0, 1), (13_000, 13_000, 1, 0, 1), (9000, 9000, 16, 6, 4),
            (9000, 9000, 16, 0, 1), (100_000, 1400, 1, 0, 1), (1, 100_000, 8, 2, 3), (100_000, 1, 8, 2, 3),
        )
    } | {"interlaced": lambda: swapped(png(9000, 9000, chunk(b"IDAT", zeros(90_000_000)), color=0), b"\x08\0\0\0\0", b"\x08\0\0\0\1")},
    "JPEG pixels": {
        "100 of 16 million pixels": lambda: _scans(4000, 90),
        "12 of 200 million pixels": lambda: _scans(14_100, 2),
        "200 million pixels": lambda: flat("JPEG", "L", 14_100),
        "200 million pixels, progressive": lambda: flat("JPEG", "RGB", 14_100, progressive=True, quality=1),
        "100 million pixels of CMYK": lambda: flat("JPEG", "CMYK", 10_000, progressive=True),
    },
    "GIF pixels": {
        "169 million pixels": lambda: flat("GIF", "P", 13_000),
    },
    "WebP pixels": {
        "lossy, 49 million pixels": lambda: flat("WEBP", "RGB", 7000, method=0),
    },
    "AVIF pixels": {
        "49 million pixels": lambda: flat("AVIF", "RGB", 7000, speed=10),
        "49 million pixels that claim to be 1": lambda: swapped(flat("AVIF", "RGB", 7000, speed=10), b"ispe\0\0\0\0" + struct.pack(">II", 7000, 7000), b"ispe\0\0\0\0\0\0\0\1\0\0\0\1"),
    },
    "JPEG 2000 pixels": {
        "36 million pixels": lambda: flat("JPEG2000", "RGB", 6000),
        "100 million pixels of grey": lambda: flat("JPEG2000", "L", 10_000),
    },
    "PNG chunks": {
        "70,000 empty": lambda: png(8, 8, chunk(b"teXt", b"") * 70_000, chunk(b"IDAT", zeros(200))),
        "2,000,000 empty": lambda: png(8, 8, chunk(b"teXt", b"") * 2_000_000, chunk(b"IDAT", zeros(200))),
        "70,000 texts": lambda: png(8, 8, *[chunk(b"tEXt", b"k%d\0" % n) for n in range(70_000)], chunk(b"IDAT", zeros(200))),
        "80,000 of pixels": lambda: png(8, 8, chunk(b"IDAT", b"") * 80_000, chunk(b"IDAT", zeros(200))),
        "2,000,000 of pixels": lambda: png(8, 8, chunk(b"IDAT", b"") * 2_000_000, chunk(b"IDAT", zeros(200))),
        "behind": lambda: png(8, 8, chunk(b"IDAT", zeros(200)), chunk(b"teXt", b"") * 2_000_000),
        "zlib bomb": lambda: png(8, 8, chunk(b"IDAT", BOMB)),
        "icc bomb": lambda: png(8, 8, chunk(b"iCCP", b"a\0\0" + BOMB)),
        "text bomb": lambda: png(8, 8, chunk(b"zTXt", b"a\0\0" + BOMB)),
        "many text bombs": lambda: png(8, 8, *[chunk(b"zTXt", b"k%d\0\0" % n + BOMB) for n in range(40)]),
        "many bombs behind": lambda: png(8, 8, chunk(b"IDAT", zeros(200)), *[chunk(b"zTXt", b"k%d\0\0" % n + BOMB) for n in range(40)]),
        "international text bomb": lambda: png(8, 8, chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB)),
        "many small text bombs": lambda: png(8, 8, *[chunk(b"zTXt", b"k%d\0\0" % n + zeros(1 << 20)) for n in range(900)]),
    },
    "animations": {
        "GIF, 100,000 frames": lambda: gif(4, 4, gif_frame(4, 4) * 100_000),
        "GIF, 3,000 frames": lambda: animated("GIF", 3000),
        "PNG, 3,000 frames": lambda: animated("PNG", 3000),
        "WebP, 1,000 frames": lambda: animated("WEBP", 1000, lossless=True),
        "WebP, 100,000 frames": lambda: riff(webp_size(8, 8, 2), (b"ANIM", b"\0" * 6), *[(b"ANMF", b"\0" * 6 + b"\7\0\0\7\0\0" + b"\0" * 4 + b"VP8L" + struct.pack("<I", 18) + lossless(8, 8)[:18].ljust(18, b"\0"))] * 100_000),
        "WebP, huge frame": lambda: riff(webp_size(16_383, 16_383, 2), (b"ANIM", b"\0" * 6), (b"ANMF", b"\0" * 16)),
        "PNG lies": lambda: png(8, 8, chunk(b"acTL", struct.pack(">II", 2**31, 0))),
        "PNG without frames": lambda: png(8, 8, chunk(b"acTL", struct.pack(">II", 0, 0))),
        "TIFF, 10,000 pages": lambda: tiff_chain(10_000),
        "TIFF, a loop": lambda: tiff_chain(50, loops=True),
        "AVIF, 100 frames": lambda: encoded(picture(), "AVIF", save_all=True, append_images=[picture()] * 99, speed=10),
    },
    "GIF": {
        "huge": lambda: b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08\0;",
        "zero": lambda: b"GIF89a\0\0\0\0\0\0\0,\0\0\0\0\0\0\0\0\0\x02\0;",
        "frame outside": lambda: b"GIF89a\x08\0\x08\0\0\0\0,\xff\xff\xff\xff\xff\xff\xff\xff\0\x02\x01\0\0;",
        "large frame": lambda: gif(8, 8, gif_frame(13_000, 13_000)),
        "code size": lambda: b"GIF89a\x08\0\x08\0\0\0\0,\0\0\0\0\x08\0\x08\0\0\xff\x01\0\0;",
        "no frame": lambda: gif(8, 8),
        "comments": lambda: gif(8, 8, (b"!\xfe\xff" + b"x" * 255 + b"\0") * 30_000),
        "extensions": lambda: gif(8, 8, b"!\xf9\4\0\0\0\0\0" * 500_000),
        "endless extension": lambda: gif(8, 8, b"!\xff" + b"\xff" * 300_000),
    },
    "WebP": {
        f"{side}": lambda s=side: riff((b"VP8L", lossless(s, s))) for side in (16_383, 13_000, 7000, 5000, 2001)
    } | {
        "claim": lambda: riff(webp_size(16_383, 16_383), (b"VP8L", lossless(8, 8))),
        "two sizes": lambda: riff(webp_size(8, 8), (b"VP8L", lossless(16_000, 16_000))),
        "lossy claim": lambda: riff((b"VP8 ", b"\x10\0\0\x9d\x01\x2a\xff\x3f\xff\x3f" + b"\0" * 99)),
        "chunks": lambda: riff(webp_size(8, 8), *[(b"abcd", b"")] * 500_000, (b"VP8L", lossless(8, 8))),
    },
    "AVIF": {
        **{f"claims {side}": lambda s=side: avif_claim(s, s) for side in (32_768, 16_384, 7000, 1, 0)},
        "empty": lambda: b"\0\0\0\x14ftypavif\0\0\0\0avif",
        "boxes": lambda: b"\0\0\0\x14ftypavif\0\0\0\0avif" + b"\0\0\0\x08free" * 500_000,
        "box in box": lambda: b"\0\0\0\x14ftypavif\0\0\0\0avif" + b"".join(struct.pack(">I", 8 * n) + b"meta" for n in range(60_000, 0, -1)),
    },
    "TIFF claims": {
        "huge": lambda: sized_tiff(HUGE, HUGE, (273, 4, 1, 8), (279, 4, 1, 99)),
        "zero": lambda: sized_tiff(0, 0, (273, 4, 1, 8), (279, 4, 1, 99)),
        "13,000": lambda: sized_tiff(13_000, 13_000, (273, 4, 1, 8), (279, 4, 1, 99)),
        "no strips": lambda: sized_tiff(8, 8),
        "strips outside": lambda: sized_tiff(8, 8, (273, 4, 1, HUGE), (278, 4, 1, 8), (279, 4, 1, 64)),
        "many strips": lambda: sized_tiff(8, 8, (273, 4, 2**30, 8), (278, 4, 1, 1), (279, 4, 2**30, 8)),
        "100,000 strips": lambda: sized_tiff(8, 100_000, (259, 3, 1, 5), (273, 4, 100_000, 150), (278, 4, 1, 1), (279, 4, 100_000, 150), tail=b"\x08\0\0\0" * 200_000),
        "many bits": lambda: tiff((256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 2**31, 8), (277, 3, 1, 60_000)),
        "loop": lambda: LOOP,
        "tiles": lambda: sized_tiff(8, 8, (322, 4, 1, HUGE), (323, 4, 1, HUGE), (324, 4, 1, 8)),
        "tile zero": lambda: sized_tiff(8, 8, (322, 4, 1, 0), (323, 4, 1, 0), (324, 4, 1, 8)),
        "directories": lambda: tiff(*[(n, 4, 2**28, 8) for n in range(4000)]),
        "65,000 tags": lambda: tiff(*[(n, 1, 3, 8) for n in range(65_000)]),
        "65,000 long tags": lambda: tiff(*[(n, 4, 100_000, 8) for n in range(65_000)]),
        "float sizes": lambda: tiff((256, 11, 1, 0x7F800000), (257, 12, 1, 8), (273, 4, 1, 8)),
        "text sizes": lambda: tiff((256, 2, 4, 0x31313131), (257, 2, 4, 8), (273, 4, 1, 8)),
        "BigTIFF": lambda: b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**62) + b"\0" * 99,
        **{f"tile of {side}, compression {kind}": lambda s=side, k=kind: sized_tiff(8, 8, (259, 3, 1, k), (277, 3, 1, 1), (322, 4, 1, s), (323, 4, 1, s), (324, 4, 1, 8), (325, 4, 1, 4000), tail=b"\0" * 4000)
           for side in (60_000, 16_000) for kind in (1, 5, 8, 32773)},
    },
    "TIFF pixels": {
        "deflate": lambda: tiff_of(13_000, 13_000, 8, zeros(169_000_000)),
        "PackBits": lambda: tiff_of(8000, 8000, 32773, b"\x81\0" * 500_000),
        "LZW": lambda: flat("TIFF", "L", 13_000, compression="tiff_lzw"),
        "group 4": lambda: flat("TIFF", "1", 20_000, compression="group4"),
        "JPEG": lambda: flat("TIFF", "L", 9000, compression="jpeg"),
        "zstd": lambda: flat("TIFF", "RGB", 9000, compression="zstd"),
        "the same strip often": lambda: tiff_of(13_000, 13_000, 8, zeros(13_000 * 130), repeat=100),
        "the same strip of ends": lambda: tiff_of(8, 100_000, 5, b"\x80\x0b\x60" + b"\0" * 9, repeat=50_000),
    },
    "ICO": {
        "huge count": lambda: icon(JPEG, count=65_535),
        "65,000 entries": lambda: icon(*[b"\0"] * 65_000),
        "PNG bomb": lambda: icon(png(30_000, 30_000), side=8),
        "PNG of 13,000": lambda: icon(png_lines(13_000, 13_000, 8, 0, 1)),
        "PNG of 6,000": lambda: icon(png_lines(6000, 6000, 8, 2, 3)),
        "2,000 PNGs": lambda: icon(*[png_lines(256, 256, 8, 2, 3)] * 2000),
        "bitmap": lambda: icon(struct.pack("<IiiHHIIiiII", 40, 13_000, 26_000, 1, 32, 0, 0, 0, 0, 0, 0)),
    },
    "BMP": {
        "huge": lambda: bmp(HUGE, HUGE, 24, 0),
        "negative": lambda: bmp(-8, -HUGE, 24, 0),
        "13,000": lambda: bmp(13_000, 13_000, 24, 0),
        "colours": lambda: b"BM" + struct.pack(BMP_HEAD, 0, 0, 0, 54, 40, 8, 8, 1, 8, 0, 0, 0, 0, HUGE, HUGE),
        "header size": lambda: b"BM" + struct.pack("<IHHII", 0, 0, 0, 54, 2**32 - 1) + b"\0" * 99,
        "RLE": lambda: bmp(900, 900, 8, 1, b"\0\x02\xff\xff" * 5000, 2),
        "RLE, 13,000": lambda: bmp(13_000, 13_000, 8, 1, b"\0\0\0\0\xff\xff\xff\0" + b"\xff\0" * 400_000, 2),
        "RLE, moves": lambda: bmp(13_000, 13_000, 8, 1, b"\0\0\0\0\xff\xff\xff\0" + b"\0\x02\xff\0" * 400_000, 2),
    },
    "PPM": {
        "huge": lambda: b"P6\n%d %d\n255\n" % (HUGE, HUGE),
        "13,000": lambda: b"P6\n13000 13000\n255\n",
        "digits": lambda: b"P6\n" + b"9" * 5000 + b" 1\n255\n",
        "comment": lambda: b"P6\n#" + b"x" * 3_000_000,
        "comments": lambda: b"P6\n" + b"#\n" * 1_000_000 + b"9 9\n255\n",
        "negative": lambda: b"P6\n-8 -8\n255\n" + b"\0" * 192,
        "zero": lambda: b"P6\n0 0\n255\n",
        "plain": lambda: b"P3\n900 900\n255\n" + b"1 " * 1000,
        "plain, 13,000": lambda: b"P3\n13000 13000\n255\n" + b"1 " * 1_000_000,
        "plain bits": lambda: b"P1\n13000 13000\n" + b"1" * 3_000_000,
        "plain, 1 million": lambda: b"P3\n1000 1000\n255\n" + b"1 " * 3_000_000,
        "plain, comments": lambda: b"P3\n900 900\n255\n" + b"#\n" * 2_000_000,
        "plain token": lambda: b"P3\n9 9\n255\n" + b"1" * 3_000_000,
        "maxval": lambda: b"P5\n9 9\n0\n" + b"\0" * 81,
        "maxval 65,535": lambda: b"P5\n9000 9000\n65535\n" + b"\0" * 81,
        "maxval 3": lambda: b"P6\n5000 5000\n3\n" + b"\0" * 900_000,
    },
    "JPEG 2000": {
        "huge": lambda: j2k_claim(HUGE, HUGE, HUGE, 3),
        **{f"{side}, tiles of {tile}, {parts} parts": lambda a=(side, side, tile, parts): j2k_claim(*a)
           for side, tile, parts in ((13_000, 13_000, 3), (13_000, 13_000, 1), (6000, 6000, 3), (20_000, 1, 1), (8, 8, 16_384), (8, HUGE, 3), (6000, 64, 4))},
    },
}  # fmt: skip


def _scans(side: int, more: int) -> bytes:
    """Return a progressive JPEG of one colour, with its last scan repeated."""
    data = flat("JPEG", "L", side, progressive=True)
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * more + data[-2:]


def _flipped(data: bytes, other: bytes, draw: random.Random) -> bytes:
    broken = bytearray(data)
    reach = min(100, len(data)) if draw.random() < 0.5 else len(data)
    for _ in range(draw.randint(1, 4)):
        broken[draw.randrange(reach)] ^= 1 << draw.randrange(8)
    return bytes(broken)


def _field(data: bytes, other: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(min(len(data), 300))
    value = draw.choice(
        [
            b"\0\0\0\0",
            b"\xff\xff\xff\xff",
            b"\x7f\xff\xff\xff",
            b"\0\0\x3f\xff",
            b"\xff\x3f\0\0",
            b"\x40\x40",
        ]
    )
    return data[:at] + value + data[at + len(value) :]


def _spliced(data: bytes, other: bytes, draw: random.Random) -> bytes:
    at, end = draw.randrange(len(data)), draw.randrange(len(other))
    return data[:at] + other[end:]


def _repeated(data: bytes, other: bytes, draw: random.Random) -> bytes:
    at, end = sorted(draw.randrange(len(data)) for _ in range(2))
    return data[:at] + data[at:end] * draw.choice([2, 3, 100]) + data[end:]


def _truncated(data: bytes, other: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def _dropped(data: bytes, other: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + data[at + draw.randint(1, 32) :]


def _random(data: bytes, other: bytes, draw: random.Random) -> bytes:
    return data[: draw.choice([4, 12, 16, 30])] + draw.randbytes(draw.choice([0, 1, 20, 400, 5000]))


BREAKS = [_flipped, _field, _spliced, _repeated, _truncated, _dropped, _random]


def good_files() -> dict[str, bytes]:
    """Return a good file of every format that is read, by what it is called."""
    files = {form: encoded(picture(), form, **options) for form, options in FORMS.items()}
    for name, (form, options) in VARIANTS.items():
        image = (
            picture().convert("P", palette=Image.Palette.ADAPTIVE)
            if "bits" in options
            else picture()
        )
        files[name] = encoded(image, form, **options)
    return files


def broken_files(seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield broken copies of good files without end, with what was done to them."""
    draw, files = random.Random(seed), good_files()
    for number in itertools.count():
        name = list(files)[number // len(BREAKS) % len(files)]
        form, spoil = name.split()[0], BREAKS[number % len(BREAKS)]
        other = draw.choice([data for kind, data in files.items() if kind.split()[0] == form])
        yield f"{form}{spoil.__name__.replace('_', ' ')}", spoil(files[name], other, draw)


def hostile_files(*kinds: str) -> Iterator[tuple[str, str, bytes]]:
    """Yield kind, name and bytes of all files of some kinds, of all where none is named."""
    for kind, makers in KINDS.items():
        for name, make in makers.items():
            if not kinds or kind in kinds:
                yield kind, name, make()
