"""Encoded images to pixels: equal to Pillow's, or an error that says why."""

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from regnet.pixels import decode as decode_module
from regnet.pixels.decode import Pixels, decode_pixels, upright_pixels
from regnet.pixels.decode_limits import DecodeLimits
from regnet.pixels.formats import FORMATS
from regnet.pixels.protocol import Channels
from regnet.system.errors import ImageError


def decode(data: bytes, *, channels: Channels = "BGR", max_pixels: int | None = None) -> Pixels:
    return decode_pixels(data, channels, limits=DecodeLimits(pixels=max_pixels))


def noise(width: int = 37, height: int = 29, bands: int = 3, seed: int = 1) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return pixels[..., 0] if bands == 1 else pixels


def smooth(width: int = 61, height: int = 47) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 4, y * 5, x + y], axis=-1).astype(np.uint8))


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def reference(data: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        return np.asarray(image.convert("RGB"))


def check(data: bytes) -> np.ndarray:
    expected = reference(data)
    rgb, bgr = decode(data, channels="RGB"), decode(data)
    assert rgb.dtype == np.uint8
    assert np.array_equal(rgb, expected)
    assert np.array_equal(bgr, expected[..., ::-1])
    return rgb


def exif(orientation: object) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


JPEGS = {
    "plain": {},
    "progressive": {"progressive": True},
    "444": {"subsampling": 0},
    "422": {"subsampling": 1},
    "420": {"subsampling": 2},
    "440": {"subsampling": "4:2:0", "quality": 30},
    "best": {"quality": 100, "subsampling": 0},
    "restart markers": {"restart_marker_blocks": 2},
    "rgb": {"keep_rgb": True},
    "comment and icc": {"comment": b"hello", "icc_profile": b"x" * 70_000},
}


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize("size", [(61, 47), (16, 16), (1, 1), (3, 200)])
def test_jpegs_equal_pillow(options: dict[str, Any], size: tuple[int, int]) -> None:
    check(encoded(smooth(*size), "JPEG", **options))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_equal_pillow(mode: str) -> None:
    check(encoded(smooth().convert(mode), "JPEG"))


def test_photos_equal_pillow(photos: list[Path]) -> None:
    for path in photos[::4]:
        check(path.read_bytes())


IMAGES = {
    "grey": (Image.fromarray(noise(bands=1)), "PNG", {}),
    "grey alpha": (Image.fromarray(noise(bands=2)), "PNG", {}),
    "rgb": (Image.fromarray(noise()), "PNG", {}),
    "rgba": (Image.fromarray(noise(bands=4)), "PNG", {}),
    "one bit": (Image.fromarray(noise(bands=1)).convert("1"), "PNG", {}),
    "palette": (smooth().convert("P", palette=Image.Palette.ADAPTIVE, colors=17), "PNG", {}),
    "transparent index": (smooth().convert("P"), "PNG", {"transparency": 3}),
    "transparency table": (smooth().convert("P"), "PNG", {"transparency": bytes(range(256))}),
    "transparent colour": (smooth(), "PNG", {"transparency": (4, 5, 6)}),
    "one pixel": (smooth(1, 1), "PNG", {}),
    "gif": (smooth().convert("P"), "GIF", {}),
    "bmp": (smooth(), "BMP", {}),
    "bmp palette": (smooth().convert("P"), "BMP", {}),
    "ppm": (smooth(), "PPM", {}),
    "pgm": (smooth().convert("L"), "PPM", {}),
    "ico": (smooth(64, 64), "ICO", {"sizes": [(64, 64)]}),
    "tiff": (smooth(), "TIFF", {}),
    "tiff lzw": (smooth(), "TIFF", {"compression": "tiff_lzw"}),
    "tiff jpeg": (smooth(), "TIFF", {"compression": "jpeg"}),
    "tiff cmyk": (smooth().convert("CMYK"), "TIFF", {}),
    "tiff lab": (Image.fromarray(noise()).convert("LAB"), "TIFF", {}),
    "tiff float": (Image.fromarray(noise(bands=1).astype(np.float32)), "TIFF", {}),
    "tiff int": (Image.fromarray(noise(bands=1).astype(np.int32)), "TIFF", {}),
    "webp": (smooth(), "WEBP", {}),
    "webp lossless alpha": (Image.fromarray(noise(bands=4)), "WEBP", {"lossless": True}),
    "jpeg 2000": (smooth(), "JPEG2000", {}),
}


@pytest.mark.parametrize(("image", "form", "options"), IMAGES.values(), ids=IMAGES)
def test_images_of_every_kind_equal_pillow(
    image: Image.Image, form: str, options: dict[str, Any]
) -> None:
    check(encoded(image, form, **options))


def test_avif_equals_pillow() -> None:
    pytest.importorskip("PIL._avif", reason="this Pillow was built without AVIF")
    check(encoded(smooth(), "AVIF"))


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_images_are_turned_upright(form: str, orientation: int) -> None:
    data = encoded(smooth(), form, exif=exif(orientation))
    shape = check(data).shape
    assert shape == ((61, 47, 3) if orientation in (5, 6, 7, 8) else (47, 61, 3))


def test_xmp_turns_images_upright() -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert check(encoded(smooth(), "JPEG", xmp=xmp)).shape == (61, 47, 3)


@pytest.mark.parametrize(
    "segment",
    [
        b"Exif\0\0",
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0\x01\0\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\xff\xff\xff\xff\0\x06\0\0\0\0\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04abc\0\0\0\0\0",
        b'http://ns.adobe.com/xap/1.0/\0tiff:Orientation="9',
    ],
)
def test_corrupt_exif_neither_warns_nor_hides_the_picture(segment: bytes) -> None:
    plain = encoded(smooth(), "JPEG")
    app1 = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
    assert np.array_equal(decode(plain[:2] + app1 + plain[2:]), decode(plain))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_grey_of_16_bits_keeps_its_upper_byte(form: str) -> None:
    values = np.array([[0, 255, 256, 1000, 32768, 65535]], np.uint16)
    got = decode(encoded(Image.fromarray(values), form), channels="RGB")
    assert got.tolist() == [[[v] * 3 for v in (0, 0, 1, 3, 128, 255)]]


def test_big_endian_grey_of_16_bits_keeps_its_upper_byte() -> None:
    image = Image.frombytes("I;16B", (2, 1), b"\x80\x01\x01\xff")
    for got in (decode(encoded(image, "TIFF")), upright_pixels(image, "BGR")):
        assert got[0, :, 0].tolist() == [128, 1]


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("GIF", {}),
        ("GIF", {"disposal": 2, "transparency": 1}),
        ("WEBP", {"lossless": True}),
        ("PNG", {}),
        ("PNG", {"default_image": True}),
        ("TIFF", {}),
    ],
)
def test_animations_give_their_first_frame(form: str, options: dict[str, Any]) -> None:
    frames = [Image.new("RGB", (20, 10), color) for color in ("red", "lime", "blue")]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert (check(data) == (255, 0, 0)).all()


def test_multi_picture_jpegs_give_their_first_picture() -> None:
    data = encoded(smooth(), "MPO", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    assert check(data).shape == (47, 61, 3)


def test_alpha_is_dropped_not_blended() -> None:
    image = Image.new("RGBA", (2, 2), (200, 100, 50, 0))
    assert decode(encoded(image, "PNG"), channels="RGB")[0, 0].tolist() == [200, 100, 50]


def test_trailing_bytes_do_no_harm() -> None:
    for form in ("JPEG", "PNG", "GIF"):
        data = encoded(smooth(), form)
        assert np.array_equal(decode(data + b"\0" * 999), decode(data))


@pytest.mark.parametrize("data", [b"", b"\xff", b"not an image", b"\0" * 100, b"%!PS-Adobe-3.0"])
def test_what_is_no_image_is_said_so(data: bytes) -> None:
    reason = "not an image of a known format .*JPEG.*HEIC" if data else "the file is empty"
    with pytest.raises(ImageError, match=reason):
        decode(data)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000"])
def test_truncated_files_are_errors(form: str) -> None:
    data = encoded(Image.fromarray(noise(200, 200)), form)
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(ImageError, match=f"the {form} .*(truncated|corrupt)"):
            decode(data[: int(len(data) * share)])


def test_truncated_jpegs_are_called_truncated() -> None:
    data = encoded(Image.fromarray(noise(200, 200)), "JPEG")
    with pytest.raises(ImageError, match="the JPEG is truncated"):
        decode(data[:-500])


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize("size", [(20_000, 10_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_decompression_bombs_are_refused_by_their_header(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=r"too many pixels|pixels takes about|corrupt"):
        decode(png_header(*size) + b"\0" * 100)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO"])
def test_the_limit_of_pixels_is_named(form: str) -> None:
    data = encoded(smooth(40, 30), form, **({"sizes": [(40, 30)]} if form == "ICO" else {}))
    assert decode(data, max_pixels=1200).shape == (30, 40, 3)
    with pytest.raises(ImageError, match="too many pixels: 40 x 30 is over the limit of 1,199"):
        decode(data, max_pixels=1199)


def test_large_images_neither_fail_nor_warn() -> None:
    assert Image.MAX_IMAGE_PIXELS == 89_478_485
    image = Image.new("1", (9_500, 9_500))
    assert decode(encoded(image, "PNG")).shape == (9_500, 9_500, 3)
    assert Image.MAX_IMAGE_PIXELS == 89_478_485


def test_the_formats_are_a_fixed_list() -> None:
    assert set(FORMATS) == {
        *("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000", "AVIF", "ICO", "PPM")
    }


def test_ghostscript_formats_are_never_opened() -> None:
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(ImageError, match="an EPS drawing, which is not read"):
        decode(data)


def test_simple_jpegs_never_reach_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_module, "_open", lambda *_: pytest.fail("Pillow was asked"))
    assert decode(encoded(smooth(), "JPEG")).shape == (47, 61, 3)
    assert decode(encoded(smooth().convert("L"), "JPEG", progressive=True)).shape == (47, 61, 3)


def test_many_threads_decode_alike_and_leave_the_filters() -> None:
    kinds = [encoded(image, form, **options) for image, form, options in IMAGES.values()]
    kinds += [encoded(smooth(), "JPEG", exif=exif(n)) for n in range(1, 9)]
    alone = [decode(data) for data in kinds]
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(decode, kinds * 4))
    for one, other in zip(alone * 4, together, strict=True):
        assert np.array_equal(one, other)
    assert warnings.filters == before


def test_pillow_images_that_cannot_be_loaded_are_image_errors() -> None:
    data = encoded(Image.fromarray(noise(200, 200)), "PNG")
    with pytest.raises(ImageError, match=r"truncated|corrupt"):
        upright_pixels(Image.open(io.BytesIO(data[:2000])), "RGB")
    with pytest.raises(ImageError, match="unsupported"):
        upright_pixels(Image.new("La", (2, 2)), "RGB")


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "CMYK", "I;16"])
@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_pillow_images_without_pixels_are_image_errors(mode: str, size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=f"an image of {size[0]} x {size[1]} has no pixels"):
        upright_pixels(Image.new(mode, size), "RGB")
