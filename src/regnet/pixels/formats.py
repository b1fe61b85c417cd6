"""Formats of pictures, told by their first bytes or by their suffix: those read and those not."""

import re
import struct
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Final, Literal, NamedTuple

from regnet.system.errors import ImageError
from regnet.system.notices import RegNetWarning

HEAD: Final = 512
"""Bytes from the beginning of a file that are enough to tell a picture from other files."""

IMAGE_SUFFIXES: Final = frozenset(
    (".avif", ".bmp", ".dib", ".gif", ".ico", ".j2k", ".jp2", ".jpe", ".jpeg", ".jpg", ".jfif")
) | {".pbm", ".pgm", ".pjpeg", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
"""Files of these suffixes are pictures without a look inside."""

# Format, offset and value of its magic number, Pillow plugin. Formats without a magic number (TGA),
# that run other programs (EPS) or that are documents are left out.
_MAGIC: Final = (
    ("JPEG", 0, b"\xff\xd8\xff", "Jpeg"),
    ("PNG", 0, b"\x89PNG\r\n\x1a\n", "Png"),
    ("GIF", 0, b"GIF8", "Gif"),
    ("WEBP", 8, b"WEBP", "WebP"),
    ("BMP", 0, b"BM", "Bmp"),
    ("TIFF", 0, b"II*\0", "Tiff"),
    ("TIFF", 0, b"MM\0*", "Tiff"),
    ("TIFF", 0, b"II+\0", "Tiff"),
    ("TIFF", 0, b"MM\0+", "Tiff"),
    ("JPEG2000", 0, b"\xff\x4f\xff\x51", "Jpeg2K"),
    ("JPEG2000", 0, b"\0\0\0\x0cjP  \r\n\x87\n", "Jpeg2K"),
    ("ICO", 0, b"\0\0\1\0", "Ico"),
    *(("PPM", 0, b"P%d" % n + space, "Ppm") for n in range(1, 7) for space in (b" ", b"\n", b"\r")),
    *(("PPM", 0, b"P%d\t" % n, "Ppm") for n in range(1, 7)),
)
_AVIF_BRANDS: Final = {b"avif", b"avis"}
_HEIC_BRANDS: Final = {
    *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"),
    *(b"mif1", b"mif2", b"msf1", b"avci", b"avcs"),
}
FORMATS: Final = (*dict.fromkeys(name for name, *_ in _MAGIC), "AVIF")
"""The formats that are read without an extra."""


class Unread(NamedTuple):
    """A kind of picture that is not read: its name, and what to do instead.

    One with an `extra` is read where one of its `packages` is installed, as the format `title`.
    """

    name: str
    advice: str
    extra: str = ""
    packages: tuple[str, ...] = ()
    title: str = ""


HEIC: Final = Unread(
    "a HEIC photo",
    "install the extra 'heif', or save it as JPEG",
    extra="heif",
    packages=("pi_heif", "pillow_heif"),
    title="HEIC",
)
JPEG_XL: Final = Unread(
    "a JPEG XL picture",
    "install the extra 'jxl', or export it as PNG or JPEG",
    extra="jxl",
    packages=("imagecodecs",),
    title="JPEG XL",
)
_RAW: Final = Unread("a camera RAW file", "export it as JPEG or as TIFF of 8 or 16 bits")
_EXPORT: Final = "export it as PNG or JPEG"
_DRAWING: Final = "render it to PNG"

_UNREAD_SUFFIXES: Final = {
    **dict.fromkeys((".heic", ".heif", ".hif", ".heics", ".heifs", ".avci"), HEIC),
    **dict.fromkeys(
        (
            *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc"),
            *(".mef", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2"),
            *(".srf", ".srw", ".x3f"),
        ),
        _RAW,
    ),
    **dict.fromkeys((".psd", ".psb"), Unread("a Photoshop document", _EXPORT)),
    **dict.fromkeys((".svg", ".svgz"), Unread("an SVG drawing", _DRAWING)),
    **dict.fromkeys((".eps", ".epsf"), Unread("an EPS drawing", _DRAWING)),
    ".jxl": JPEG_XL,
    **dict.fromkeys((".jxr", ".wdp", ".hdp"), Unread("a JPEG XR picture", _EXPORT)),
    ".exr": Unread("an OpenEXR picture", _EXPORT),
    ".xcf": Unread("a GIMP document", _EXPORT),
    **{
        f".{name}": Unread(f"a picture of the kind {name.upper()}", _EXPORT)
        for name in (
            *("bpg", "dds", "emf", "flif", "icns", "pam", "pcx", "pfm", "qoi", "sgi", "tga"),
            *("wmf", "xbm", "xpm"),
        )
    },
    **dict.fromkeys((".dcm", ".dicom"), Unread("a DICOM file", _EXPORT)),
}

_UNREAD_MAGIC: Final = (
    (8, b"CR\x02\0", _RAW),
    (4, b"ftypcrx ", _RAW),
    *((0, magic, _RAW) for magic in (b"IIRO", b"IIRS", b"MMOR", b"IIU\0\x18\0\0\0", b"FOVb")),
    *((0, magic, _RAW) for magic in (b"FUJIFILMCCD-RAW", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR")),
    (0, b"8BPS\0\1\0\0", _UNREAD_SUFFIXES[".psd"]),
    (0, b"8BPS\0\2\0\0", _UNREAD_SUFFIXES[".psd"]),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", JPEG_XL),
    (0, b"II\xbc\1", _UNREAD_SUFFIXES[".jxr"]),
    (0, b"\x76\x2f\x31\x01", _UNREAD_SUFFIXES[".exr"]),
    (0, b"#?RADIANCE\n", Unread("a Radiance HDR picture", _EXPORT)),
    (0, b"#?RGBE\n", Unread("a Radiance HDR picture", _EXPORT)),
    (0, b"gimp xcf ", _UNREAD_SUFFIXES[".xcf"]),
    (0, b"DDS \x7c\0\0\0", _UNREAD_SUFFIXES[".dds"]),
    (0, b"qoif\0", _UNREAD_SUFFIXES[".qoi"]),
    (128, b"DICM", _UNREAD_SUFFIXES[".dcm"]),
    (0, b"<svg", _UNREAD_SUFFIXES[".svg"]),
)
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

_SVG: Final = re.compile(rb"\s*<\?xml[^>]*>.*<svg[\s>]", re.DOTALL)
_EPS: Final = re.compile(rb"%!PS-Adobe-\d\.\d EPSF")


def suffix_of(name: str) -> str:
    """Return a name's suffix in lower case, "" without one."""
    last = name.rpartition("/")[2]  # pathlib would intern each name
    at = last.rfind(".")
    return last[at:].lower() if 0 < at < len(last) - 1 else ""


def has_picture_suffix(name: str) -> bool:
    """Tell whether a name has the suffix of a picture, of a kind that is read or not."""
    suffix = suffix_of(name)
    return suffix in IMAGE_SUFFIXES or suffix in _UNREAD_SUFFIXES


def is_picture(head: bytes) -> bool:
    """Tell a picture, of a kind that is read or not, from the first `HEAD` bytes of a file.

    For files whose suffix says nothing, so strict: text and other binary files are not taken.
    """
    if unread_picture(head) is not None:
        return True
    found = _format_of(head)
    return found is not None and _CERTAIN.get(found[0], bool)(head)


def unread_picture(head: bytes) -> Unread | None:
    """Return which kind of picture begins so that is not read; None of other files."""
    if _brands(head) & _HEIC_BRANDS and not _brands(head) & _AVIF_BRANDS:
        return HEIC
    for at, magic, kind in _UNREAD_MAGIC:
        if head[at : at + len(magic)] == magic:
            return kind
    if _SVG.match(head):
        return _UNREAD_SUFFIXES[".svg"]
    return _UNREAD_SUFFIXES[".eps"] if _EPS.match(head) else None


def format_of(data: bytes) -> tuple[str, str]:
    """Return a picture's format (of `FORMATS`, DIB, HEIC, JPEG XL) and its plugin of Pillow.

    Raises `ImageError` for other files; it names kinds of pictures that are not read.
    """
    if not data:
        raise ImageError("the file is empty")
    if (unread := refused(data)) is not None:
        raise unread_error(unread)
    if extra := _of_extra(data):
        return extra.title, package_of(extra) or ""
    if (found := _format_of(data)) is None:
        raise ImageError(f"not an image of a known format ({', '.join(FORMATS)}, HEIC, JPEG XL)")
    if found[0] == "TIFF" and is_camera_raw(data):
        raise unread_error(_RAW)
    return found


def refused(data: bytes) -> Unread | None:
    """Return which kind of picture this is that is not read in this installation."""
    unread = _of_extra(data) or unread_picture(data[:HEAD])
    return None if unread and package_of(unread) else unread


def _of_extra(data: bytes) -> Unread | None:
    """Return which kind of picture this is that an extra reads."""
    if data[:2] == b"\xff\x0a":  # too short to tell a picture from any file by it
        return JPEG_XL
    unread = unread_picture(data[:HEAD])
    return unread if unread and unread.extra else None


def package_of(kind: Unread) -> str | None:
    """Return the installed package that reads a kind, None without one; imports nothing."""
    return next((name for name in kind.packages if find_spec(name)), None)


def unread_error(kind: Unread) -> ImageError:
    """Return the error of a picture of a kind that is not read; warn if an extra would read it."""
    if kind.extra:
        name_extra(kind)
    return ImageError(f"{kind.name}, which is not read: {kind.advice}")


def name_extra(kind: Unread) -> None:
    """Warn that a kind needs an extra, with the command that adds it."""
    from regnet.system.installation import this_installation

    command = this_installation().command(kind.extra)
    text = f"{kind.title} photos need the extra {kind.extra!r}: {command}"
    warnings.warn(text, RegNetWarning, stacklevel=4)


def checked_read(name: str, read: Callable[[], bytes]) -> Callable[[], bytes]:
    """Return a reader that raises `ImageError` if a file's suffix and content say it is not read.

    Camera RAW files are often TIFF with a thumbnail in front, which must not pass for the photo.
    """
    kind = _UNREAD_SUFFIXES.get(suffix_of(name))
    return read if kind is None or kind.extra else lambda: _checked(kind, read())


def _checked(kind: Unread, data: bytes) -> bytes:
    found = _format_of(data)
    if found is None or (kind is _RAW and found[0] == "TIFF"):
        raise unread_error(unread_picture(data[:HEAD]) or kind)
    return data


def _format_of(data: bytes) -> tuple[str, str] | None:
    if _brands(data) & _AVIF_BRANDS:
        return "AVIF", "Avif"
    for name, at, magic, plugin in _MAGIC:
        if data[at : at + len(magic)] == magic:
            return name, plugin
    return ("DIB", "Bmp") if is_bare_bitmap(data) else None


def _brands(data: bytes) -> set[bytes]:
    """Return the brands of a file of the ISO base media format, empty for other files."""
    if data[4:8] != b"ftyp":
        return set()
    size = min(int.from_bytes(data[:4]), HEAD)
    return {data[8:12], *(data[at : at + 4] for at in range(16, size - 3, 4))}


def is_bare_bitmap(data: bytes) -> bool:
    """Tell a bitmap without the header of a file, as some .dib are."""
    return data[:4] == b"\x28\0\0\0" and _is_bitmap_info(data)


def _is_bitmap_info(info: bytes) -> bool:
    """Tell whether these bytes begin with a plausible header of a bitmap (BITMAPINFOHEADER)."""
    if len(info) < 40:
        return False
    size, width, height, planes, bits, compression = struct.unpack_from("<IiiHHI", info)
    plausible = size in (40, 52, 56, 64, 108, 124) and planes == 1 and compression <= 6
    return plausible and width > 0 and height != 0 and bits in (0, 1, 2, 4, 8, 16, 24, 32)


def _is_bmp(head: bytes) -> bool:
    if is_bare_bitmap(head):
        return True
    core = head[14:18] == b"\x0c\0\0\0" and head[22:24] == b"\1\0"
    return head[6:10] == b"\0\0\0\0" and (core or _is_bitmap_info(head[14:]))


def _is_tiff(head: bytes) -> bool:
    order: Literal["little", "big"] = "little" if head[:1] == b"I" else "big"
    if head[2:4] in (b"+\0", b"\0+"):
        return int.from_bytes(head[4:6], order) == 8
    return len(head) >= 8 and int.from_bytes(head[4:8], order) >= 8


def _is_icon(head: bytes) -> bool:
    if len(head) < 22:
        return False
    count, reserved = int.from_bytes(head[4:6], "little"), head[9]
    planes, bits, size, offset = struct.unpack_from("<HHII", head, 10)
    plausible = planes <= 1 and bits in (0, 1, 4, 8, 16, 24, 32) and reserved == 0
    return plausible and 1 <= count <= 256 and size > 0 and offset >= 6 + 16 * count


_SPACE: Final = rb"(?:\s|#[^\n]*\n)+"
_PNM: Final = (
    re.compile(rb"P1" + _SPACE + rb"\d{1,6}" + _SPACE + rb"\d{1,6}\s[\s01]*\Z"),
    re.compile(rb"P4" + _SPACE + rb"\d{1,6}" + _SPACE + rb"\d{1,6}\s"),
    re.compile(rb"P[2356](?:" + _SPACE + rb"\d{1,6}){2}" + _SPACE + rb"\d{1,5}\s"),
)

_CERTAIN: Final[dict[str, Callable[[bytes], bool]]] = {
    "JPEG": lambda head: len(head) > 3 and (0xC0 <= head[3] <= 0xCF or 0xDB <= head[3] <= 0xFE),
    "GIF": lambda head: head[:6] in (b"GIF87a", b"GIF89a"),
    "WEBP": lambda head: head[:4] == b"RIFF" and head[12:15] == b"VP8",
    "BMP": _is_bmp,
    "TIFF": _is_tiff,
    "ICO": _is_icon,
    "PPM": lambda head: any(pattern.match(head) for pattern in _PNM),
}
"""What else a beginning must have for a format whose magic number is short."""


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
