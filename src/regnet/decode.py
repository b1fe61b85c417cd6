"""Image bytes to 8-bit pixels, equal to Pillow's pipeline pixel for pixel.

The reference is `ImageOps.exif_transpose(Image.open(f)).convert("RGB")`. JPEGs that libjpeg-turbo
reads without a single warning go through simplejpeg, which gives the same pixels faster; Pillow
decides about all others. Some things differ from the reference, on purpose: grey of 16 bits keeps
its upper byte (Pillow clips it at 255), values of no known range are refused, and EXIF data that
cannot be read is ignored.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any, Final, cast

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from regnet.bit_depth import eight_bits, is_deep, require_known_depth, warn_if_dark
from regnet.errors import ImageError
from regnet.formats import HEIC, format_of, heic_package, unread_error
from regnet.jpeg_markers import Outline, outline, require_few_scans
from regnet.protocol import Channels

Pixels = NDArray[np.uint8]

MAX_PIXELS: Final = 2 * 89_478_485
"""Images of more pixels are refused before they are decoded: the limit is Pillow's own."""

MAX_SIDE: Final = 100_000
"""So are images with a longer side."""


def decode_pixels(data: bytes, channels: Channels, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Return the image in encoded bytes upright: uint8 (H, W, 3), a view of any memory layout.

    Of an animation the first frame, alpha dropped. Safe to call from many threads.
    Raises `ImageError` with the reason; above `max_pixels` nothing is decoded.
    """
    found = jpeg_outline(data)
    pixels = None if found is None else _decode_jpeg(data, channels, max_pixels, found)
    if found is None or pixels is None:
        return _open_pixels(data, channels, max_pixels, found)
    return upright(pixels, jpeg_orientation(data, found))


def jpeg_outline(data: bytes) -> Outline | None:
    """Return the outline of a JPEG, None for other data; raises `ImageError` if it is too long."""
    return outline(data) if data[:3] == b"\xff\xd8\xff" else None


def upright_pixels(image: Image.Image, channels: Channels) -> Pixels:
    """Return the pixels of a Pillow image of any mode, upright, as `decode_pixels` does.

    The image given is not changed. Raises `ImageError` where it cannot be loaded or converted.
    """
    _require_pixels(*image.size)
    with _quiet():
        _load(image, f"image of mode {image.mode}")
        pixels = _pixels(image, f"image of mode {image.mode}", channels)
    warn_if_dark(image, pixels)
    return pixels


def _decode_jpeg(data: bytes, channels: Channels, max_pixels: int, found: Outline) -> Pixels | None:
    """Return a JPEG's pixels as they are stored; None where Pillow must decide."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        if colorspace in ("CMYK", "YCCK"):
            return None
        _check_size(width, height, max_pixels)
        require_few_scans(data, found, width * height)
        pixels: Pixels = simplejpeg.decode_jpeg(data, channels)
    except (ValueError, MemoryError):  # also for what libjpeg only warns about
        return None
    return pixels


def jpeg_orientation(data: bytes, found: Outline) -> object:
    """Return the orientation in a JPEG's EXIF or XMP data."""
    if not found.has_app1:
        return 1
    try:
        with _quiet():
            return _orientation(_open(data, "JPEG", "Jpeg"))
    except ImageError:
        return 1  # simplejpeg could read it, so it goes on


def _open_pixels(data: bytes, channels: Channels, max_pixels: int, found: Outline | None) -> Pixels:
    name, plugin = format_of(data)
    if name == "TIFF":
        require_known_depth(data)
    with _quiet():
        image = _open(data, name, plugin)
        _check_size(*image.size, max_pixels)
        if found is not None:
            require_few_scans(data, found, image.width * image.height)
        _load(image, name)
        _check_size(*image.size, max_pixels)  # an icon may hold more than its header says
        pixels = _pixels(image, name, channels, data)
    warn_if_dark(image, pixels, data)
    return pixels


def _pixels(image: Image.Image, name: str, channels: Channels, data: bytes = b"") -> Pixels:
    """Return the pixels of a loaded image upright; `data` are its file's bytes, if known."""
    orientation = _orientation(image)
    with _readable(name):
        pixels = np.asarray(_to_rgb(image, data))
    return upright(pixels if channels == "RGB" else pixels[..., ::-1], orientation)


def _open(data: bytes, name: str, plugin: str) -> Image.Image:
    """Return the image with its header read and its pixels not yet decoded."""
    from io import BytesIO

    if name == "HEIC":
        with _readable(name):
            return cast(Image.Image, _heic_plugin().HeifImageFile(BytesIO(data)))
    import_module(f"PIL.{plugin}ImagePlugin")
    with _readable(name):
        return Image.open(BytesIO(data), formats=[name])


def _heic_plugin() -> ModuleType:
    """Return what reads HEIC; raises `ImageError` where it is not installed."""
    if (package := heic_package()) is None:
        raise unread_error(HEIC)
    return import_module(f"{package}.as_plugin")


def _load(image: Image.Image, name: str) -> None:
    with _readable(name):
        image.load()


def _require_pixels(width: int, height: int) -> None:
    if not width or not height:
        raise ImageError(f"an image of {width} x {height} has no pixels")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    _require_pixels(width, height)
    if max(width, height) > MAX_SIDE:
        raise ImageError(
            f"too many pixels: {width} x {height} has a side over the limit of {MAX_SIDE:,}"
        )
    if width * height > max_pixels:
        raise ImageError(
            f"too many pixels: {width} x {height} is over the limit of {max_pixels:,} "
            "(a decompression bomb?)"
        )


def _orientation(image: Image.Image) -> object:
    """Return the orientation that an image's EXIF data says, 1 to 8, or whatever is there."""
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # hostile metadata raises anything; the pixels are good without
        return 1


def upright(pixels: Pixels, orientation: object) -> Pixels:
    """Return a view turned by an EXIF orientation, that of `ImageOps.exif_transpose`."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _to_rgb(image: Image.Image, data: bytes) -> Image.Image:
    if image.mode == "RGB":
        return image
    if is_deep(image):
        return eight_bits(image, data).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.copy()  # alpha is dropped, but Pillow would warn about it
        del image.info["transparency"]
    return image.convert("RGB")


class _Silenced:
    """A pattern of a warnings filter that matches every module in the threads that decode.

    Filters are global to the process; `warnings.catch_warnings` would change them for all threads,
    so only one thread could decode at a time.
    """

    def __init__(self) -> None:
        self._depth = threading.local()

    def match(self, module: str) -> bool:
        """Tell whether this thread is decoding."""
        return getattr(self._depth, "now", 0) > 0

    @contextmanager
    def here(self) -> Iterator[None]:
        """Silence this thread."""
        self._depth.now = getattr(self._depth, "now", 0) + 1
        try:
            yield
        finally:
            self._depth.now -= 1


_SILENCED: Final = _Silenced()
_FILTER: Final[Any] = ("ignore", None, Warning, _SILENCED, 0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Pillow's warnings from the user: its errors are all that counts."""
    filters: Any = warnings.filters
    if not filters or filters[0] is not _FILTER:  # others may have set theirs since
        filters[:] = [_FILTER, *(other for other in filters if other is not _FILTER)]
    with _SILENCED.here():
        yield


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turn whatever a parser raises on hostile data into an `ImageError` with the reason."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as exc:
        raise ImageError(f"too many pixels, a decompression bomb? ({exc})") from exc
    except UnidentifiedImageError as exc:
        raise ImageError(f"the {name} header is corrupt or truncated") from exc
    except MemoryError as exc:
        raise ImageError(f"not enough memory to decode the {name}") from exc
    except Exception as exc:  # Pillow's parsers raise a dozen kinds
        raise ImageError(_reason(name, exc)) from exc


def _reason(name: str, exc: Exception) -> str:
    text = str(exc).lower()
    if isinstance(exc, EOFError) or any(s in text for s in ("truncated", "unexpected end", "eof")):
        return f"the {name} is truncated"
    return f"the {name} is corrupt or of an unsupported kind ({exc or type(exc).__name__})"
