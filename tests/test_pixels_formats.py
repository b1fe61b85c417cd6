"""Which bytes and names are pictures, which of them are not read, and what their errors say."""

import io
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regnet.pixels.decode import decode_pixels, upright
from regnet.pixels.decode_limits import DecodeLimits
from regnet.pixels.formats import HEAD, checked_read, has_picture_suffix, is_picture, suffix_of
from regnet.system.errors import ImageError
from regnet.system.notices import RegNetWarning

FORMS = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "JPEG2000", "AVIF", "DIB"]


def picture() -> Image.Image:
    y, x = np.mgrid[:40, :48]
    return Image.fromarray(np.stack([x * 5, y * 6, x + y], axis=-1).astype(np.uint8))


def encoded(form: str, image: Image.Image | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    (image or picture()).save(file, form, **options)
    return file.getvalue()


def tiff(*tags: tuple[int, int]) -> bytes:
    """Return a TIFF's first directory alone."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode_pixels(data, "RGB")
    return str(caught.value)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_read_is_told_by_its_beginning(form: str) -> None:
    data = encoded(form)
    assert is_picture(data[:HEAD])
    assert decode_pixels(data, "RGB").shape[2] == 3


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_plain_and_binary_pnm_are_told(mode: str) -> None:
    assert is_picture(encoded("PPM", picture().convert(mode))[:HEAD])
    assert is_picture(b"P1\n# made by hand\n3 2\n1 0 1\n0 1 0\n")
    assert is_picture(b"P2 3 2 255 1 2 3 4 5 6")


OTHERS = [
    *(b"", b"\xff\xd8\xff", b"P1 2 3 four", b"P5 is a grade", b"P3 10 20 items", b"BM is a firm"),
    *(b"GIF8 is no version", b"RIFF\0\0\0\0WAVEfmt ", b"RIFF\0\0\0\0WEBPxxxx", b"II*\0\0\0\0\0"),
    *(b"\0\0\1\0" + bytes(60), b"\0\1\0\0" + bytes(60), b"%PDF-1.7", b"PK\x03\x04", b"\x7fELF"),
    *(b"<?xml version='1.0'?><note/>", b"<html><svg></svg></html>", b"%!PS-Adobe-3.0\n", b"SIMPLE"),
    *(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2mp41", b"\0\0\0\x14ftypqt  \0\0\0\0qt  "),
    *(b"\x28\0\0\0" + bytes(60), bytes(512), b'{"label": "cat"}', b"BMW;2004;red\n" * 9),
]


@pytest.mark.parametrize("head", OTHERS, ids=range(len(OTHERS)))
def test_other_files_are_no_pictures(head: bytes) -> None:
    assert not is_picture(head)


def test_no_module_of_python_is_a_picture() -> None:
    modules = list(Path(sys.prefix, "lib").rglob("*.py"))[:500]
    modules += list(Path(struct.__file__).parent.glob("*.py"))
    assert len(modules) > 50
    assert [path for path in modules if is_picture(path.read_bytes()[:HEAD])] == []


HEIF = b"\0\0\0\x1cftyp%s\0\0\0\0%s" + bytes(8)
UNREAD = {
    "camera RAW": [
        *(b"II*\0\x10\0\0\0CR\x02\0", b"IIRO\x08\0\0\0", b"IIU\0\x18\0\0\0", b"MMOR\0\0\0\x08"),
        *(b"FUJIFILMCCD-RAW 0201", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom"),
        tiff((254, 1), (256, 160), (257, 120), (262, 2), (330, 200)),  # a thumbnail in front
        tiff((254, 0), (256, 6000), (257, 4000), (262, 32803)),
        tiff((254, 1), (256, 160), (257, 120), (50706, 0x0401)),
    ],
    "Photoshop": [b"8BPS\0\1" + bytes(20)],
    "SVG": [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<?xml version='1.0'?>\n<svg width='9'>",
    ],
    "OpenEXR": [b"\x76\x2f\x31\x01\2\0\0\0"],
    "Radiance": [b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n"],
    "GIMP": [b"gimp xcf v011\0"],
    "DICOM": [bytes(128) + b"DICM\2\0"],
    "EPS": [b"%!PS-Adobe-3.0 EPSF-3.0\n"],
}


@pytest.mark.parametrize(("kind", "heads"), UNREAD.items())
def test_pictures_of_kinds_that_are_not_read_are_named(kind: str, heads: list[bytes]) -> None:
    for head in heads:
        assert is_picture(head)
        assert kind in reason(head)
        assert "which is not read: " in reason(head)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.NEF", "camera RAW"), ("a.tga", "TGA"), ("a.psd", "Photoshop"), ("a.dcm", "DICOM")],
)
def test_a_suffix_tells_what_is_not_read(name: str, kind: str) -> None:
    assert has_picture_suffix(name)
    for data in (b"\0" * 99, encoded("TIFF") if kind == "camera RAW" else b""):
        with pytest.raises(ImageError, match=f"{kind}.*, which is not read"):
            checked_read(name, lambda data=data: data)()  # type: ignore[misc]
    assert checked_read(name, lambda: encoded("JPEG"))() == encoded("JPEG")


def test_common_tiffs_are_no_camera_raw() -> None:
    pages = [picture(), picture().resize((24, 20))]
    data = encoded("TIFF", pages[0], save_all=True, append_images=pages[1:])
    assert decode_pixels(data, "RGB").shape == (40, 48, 3)
    assert decode_pixels(encoded("TIFF", tiffinfo={254: 0, 271: "NIKON"}), "RGB").shape[0] == 40


def test_suffixes() -> None:
    names = ["a.JPG", "a.tar.gz", ".hidden", "a.", "d.x/a", "a", "d/a.b.Jfif", ""]
    assert [suffix_of(name) for name in names] == [".jpg", ".gz", "", "", "", "", ".jfif", ""]


def test_bitmaps_without_a_file_header_are_read() -> None:
    whole = encoded("BMP")
    assert np.array_equal(decode_pixels(whole[14:], "RGB"), decode_pixels(whole, "RGB"))


NO_HEIC = "a HEIC photo, which is not read: install the extra 'heif', or save it as JPEG"
BRANDS = [(b"heic", b"mif1"), (b"mif1", b"heic"), (b"msf1", b"hevc"), (b"heix", b"mif1")]


@pytest.mark.parametrize(("major", "other"), BRANDS)
def test_heic_is_named_whatever_its_brand(
    major: bytes, other: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regnet.pixels.formats.find_spec", lambda name: None)
    head = HEIF % (major, major + other)
    assert is_picture(head)
    with pytest.warns(RegNetWarning, match="HEIC photos need the extra 'heif': .* install .*heif"):
        assert reason(head) == NO_HEIC


def test_jpeg_xl_is_named_bare_and_in_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regnet.pixels.formats.find_spec", lambda name: None)
    assert is_picture(b"\0\0\0\x0cJXL \r\n\x87\n")
    assert not is_picture(b"\xff\x0a and more")
    for head in (b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\x0a and more"):
        with pytest.warns(RegNetWarning, match="JPEG XL photos need the extra 'jxl': .* install"):
            assert "a JPEG XL picture, which is not read: install the extra 'jxl'" in reason(head)


def test_avif_is_avif_where_its_brand_is_not_the_first() -> None:
    data = encoded("AVIF")
    assert data[8:12] == b"avif"
    moved = data[:8] + b"mif1" + data[12:]
    assert np.array_equal(decode_pixels(moved, "RGB"), decode_pixels(data, "RGB"))
    assert "the AVIF" in reason(HEIF % (b"mif1", b"mif1avif"))


class TestHeic:
    """What the extra reads."""

    @pytest.fixture(autouse=True)
    def _extra(self) -> None:
        pytest.importorskip("pi_heif")

    def encode(self, image: Image.Image, **options: Any) -> bytes:
        heif = pytest.importorskip("pillow_heif")
        file = io.BytesIO()
        heif.from_pillow(image).save(file, quality=-1, chroma=444, **options)
        return file.getvalue()

    def test_pixels_equal_those_of_the_decoder(self, shared: Path) -> None:
        import pi_heif

        data = (shared / "cases" / "photos" / "mif1_brand.heic").read_bytes()
        own = pi_heif.open_heif(io.BytesIO(data)).to_pillow().convert("RGB")
        assert np.array_equal(decode_pixels(data, "RGB"), np.asarray(own))
        assert np.array_equal(decode_pixels(data, "BGR"), np.asarray(own)[..., ::-1])

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_its_own_transforms_turn_it_and_exif_does_not(self, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = self.encode(picture(), exif=exif.tobytes())  # which writes irot and imir
        plain = decode_pixels(self.encode(picture()), "RGB")
        expected = upright(plain, orientation)
        assert np.array_equal(decode_pixels(data, "RGB"), expected)
        value = data.index(b"\x01\x12\0\x03\0\0\0\1\0") + 9
        for other in range(1, 9):
            changed = data[:value] + bytes([other]) + data[value + 1 :]
            assert np.array_equal(decode_pixels(changed, "RGB"), expected)

    def test_10_bits_and_alpha_are_read(self) -> None:
        assert decode_pixels(self.encode(picture().convert("RGBA")), "RGB").shape == (40, 48, 3)

    def test_what_is_damaged_or_too_large_is_an_error(self) -> None:
        data = self.encode(picture())
        for cut in (40, 200, len(data) - 300):
            assert "the HEIC" in reason(data[:cut])
        with pytest.raises(ImageError, match="48 x 40 is over the limit of 1,000"):
            decode_pixels(data, "RGB", limits=DecodeLimits(pixels=1000))


def test_bigtiff_is_read() -> None:
    data = encoded("TIFF", big_tiff=True)
    assert data[:4] == b"II+\0"
    assert is_picture(data[:HEAD])
    assert decode_pixels(data, "RGB").shape == (40, 48, 3)
