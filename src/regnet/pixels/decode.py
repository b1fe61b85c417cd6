"""Image bytes to 8-bit pixels, equal to Pillow's pipeline pixel for pixel.

The reference is `ImageOps.exif_transpose(Image.open(f)).convert("RGB")`. JPEGs that libjpeg-turbo
reads without a single warning go through simplejpeg, which gives the same pixels faster; Pillow
decides about all others. Three things differ from the reference on purpose: 16-bit grey keeps its
upper byte (Pillow clips it at 255), values without a known range are refused, and unreadable EXIF
data is ignored.
"""

import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final, cast

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from regnet.pixels.bit_depth import eight_bits, is_deep, require_known_depth, warn_if_dark
from regnet.pixels.decode_limits import DECODE_LIMITS, DecodeLimits, require_pixels
from regnet.pixels.formats import format_of
from regnet.pixels.jpeg_xl import jpeg_xl_size, open_jpeg_xl
from regnet.pixels.photo_cost import (
    Outline,
    claimed_size,
    jpeg_outline,
    memory_of,
    require_few_scans,
)
from regnet.pixels.protocol import Channels
from regnet.system.errors import ImageError

Pixels = NDArray[np.uint8]

_STRIP: Final = 1 << 20  # pixels converted at a time

Taking = Callable[[int], None]
"""Called with the bytes of memory that decoding will take, before it takes them; may raise."""


def decode_pixels(
    data: bytes,
    channels: Channels,
    *,
    limits: DecodeLimits = DECODE_LIMITS,
    taking: Taking = lambda memory: None,
) -> Pixels:
    """Return the image in encoded bytes upright: uint8 (H, W, 3), a view of any memory layout.

    Of an animation the first frame, alpha dropped. It is decoded here and now, so `limits.seconds`
    do not count, and its memory is limited by what the header claims: see `decoder.pixels_of` for
    bytes from anywhere. Safe to call from many threads. Raises `ImageError` with the reason.
    """
    outline = jpeg_outline(data)
    try:
        pixels = outline and _decode_jpeg(data, channels, limits, taking, outline)
        if outline is None or pixels is None:
            return _open_pixels(data, channels, limits, taking, outline)
    except MemoryError as exc:
        raise limits.out_of_memory(len(data)) from exc
    return upright(pixels, jpeg_orientation(data, outline))


def upright_pixels(image: Image.Image, channels: Channels) -> Pixels:
    """Return the pixels of a Pillow image of any mode, upright, as `decode_pixels` does.

    The image given is not changed. Raises `ImageError` where it cannot be loaded or converted.
    """
    require_pixels(*image.size)
    with _quiet():
        _load(image, f"image of mode {image.mode}")
        pixels = _pixels(image, f"image of mode {image.mode}", channels)
    warn_if_dark(image, pixels)
    return pixels


def _decode_jpeg(
    data: bytes, channels: Channels, limits: DecodeLimits, taking: Taking, outline: Outline
) -> Pixels | None:
    """Return a JPEG's pixels as they are stored; None if Pillow must decide."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        if colorspace in ("CMYK", "YCCK"):
            return None
        require_jpeg(data, outline, width, height, limits)
        taking(outline.memory(width * height))
        pixels: Pixels = simplejpeg.decode_jpeg(data, channels)
    except (ValueError, MemoryError):  # also for what libjpeg only warns about
        return None
    return pixels


def require_jpeg(
    data: bytes, outline: Outline, width: int, height: int, limits: DecodeLimits
) -> None:
    """Raise `ImageError` if a JPEG of that size is over a limit."""
    limits.require_size(width, height)
    require_few_scans(data, outline, width * height)
    limits.require_memory(outline.memory(width * height), len(data), width, height)


def jpeg_orientation(data: bytes, outline: Outline) -> object:
    """Return the orientation in a JPEG's EXIF or XMP data."""
    if not outline.has_app1:
        return 1
    try:
        with _quiet():
            return _orientation(_open(data, "JPEG", "Jpeg"))
    except ImageError:
        return 1  # simplejpeg could read it, so it goes on


def _open_pixels(
    data: bytes, channels: Channels, limits: DecodeLimits, taking: Taking, outline: Outline | None
) -> Pixels:
    """Return an image's pixels as Pillow decodes them."""
    name, plugin = format_of(data)
    if name == "TIFF":
        require_known_depth(data)
    if outline is None and (size := claimed_size(data) or jpeg_xl_size(data)):
        limits.require_size(*size)
        least = memory_of(name, "RGB" if name in ("WEBP", "JPEG XL") else "L", *size)
        limits.require_memory(least, len(data), *size)
        if name == "JPEG XL":  # it is decoded as it is opened
            taking(least)

    def require_within_limits() -> None:
        limits.require_size(*image.size)
        memory = memory_of(name, image.mode, *image.size)
        if outline is not None:
            require_few_scans(data, outline, image.width * image.height)
            memory += outline.memory_of_scans(image.width * image.height)
        limits.require_memory(memory, len(data), *image.size)
        taking(memory)

    with _quiet():
        image = _open(data, name, plugin)
        require_within_limits()
        _load(image, name)
        if name == "ICO":  # it may hold more than its header says
            require_within_limits()
        pixels = _pixels(image, name, channels, data)
    warn_if_dark(image, pixels, data)
    return pixels


def _pixels(image: Image.Image, name: str, channels: Channels, data: bytes = b"") -> Pixels:
    """Return the pixels of a loaded image upright; `data` are its file's bytes, if known."""
    orientation = _orientation(image)
    with _readable(name):
        pixels = _rgb(image, data)
    return upright(pixels if channels == "RGB" else pixels[..., ::-1], orientation)


def _open(data: bytes, name: str, plugin: str) -> Image.Image:
    """Return the image with its header read and its pixels not yet decoded."""
    from io import BytesIO

    if name == "JPEG XL":
        with _readable(name):
            return open_jpeg_xl(data)
    if name == "HEIC":
        with _readable(name):
            plugins = import_module(f"{plugin}.as_plugin")
            return cast(Image.Image, plugins.HeifImageFile(BytesIO(data)))
    module = import_module(f"PIL.{plugin}ImagePlugin")
    kind = getattr(module, f"{'Dib' if name == 'DIB' else plugin}ImageFile")
    with _readable(name):
        try:
            return cast(Image.Image, kind(BytesIO(data)))  # Image.open has a limit of its own
        except (SyntaxError, IndexError, TypeError, struct.error) as exc:
            raise ImageError(f"the {name} header is corrupt or truncated") from exc


def _load(image: Image.Image, name: str) -> None:
    with _readable(name):
        image.load()


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


def _rgb(image: Image.Image, data: bytes) -> Pixels:
    """Return the pixels of an image of any mode, converted in strips, which saves memory."""
    if is_deep(image):
        image = eight_bits(image, data)
    if image.mode == "P" and "transparency" in image.info:
        image = image.copy()  # alpha is dropped, but Pillow would warn about it
        del image.info["transparency"]
    width, height = image.size
    if width * height <= _STRIP:
        return np.asarray(image.convert("RGB"))
    pixels = np.empty((height, width, 3), np.uint8)
    lines = max(1, _STRIP // width)
    for top in range(0, height, lines):
        strip = image.crop((0, top, width, min(top + lines, height)))
        pixels[top : top + lines] = np.asarray(strip.convert("RGB"))
    return pixels


class _DecodingThreads(threading.local):
    """The module pattern of a warnings filter: matches every module, in threads that decode.

    Filters are global to the process; with `warnings.catch_warnings`, which changes them for all
    threads, only one thread could decode at a time.
    """

    depth = 0

    def match(self, module: str) -> bool:
        """Return whether this thread is decoding."""
        return self.depth > 0


_DECODING: Final = _DecodingThreads()
_FILTER: Final[Any] = ("ignore", None, Warning, _DECODING, 0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide Pillow's warnings in this thread: only its errors count."""
    filters: Any = warnings.filters
    if not filters or filters[0] is not _FILTER:  # others may have set theirs since
        filters[:] = [_FILTER, *(other for other in filters if other is not _FILTER)]
    _DECODING.depth += 1
    try:
        yield
    finally:
        _DECODING.depth -= 1


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turn whatever a parser raises on hostile data into an `ImageError` with the reason."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as exc:
        raise ImageError(f"too many pixels, a decompression bomb? ({exc})") from exc
    except Exception as exc:  # Pillow's parsers raise a dozen kinds
        text = str(exc).lower()
        truncated = any(words in text for words in ("truncated", "unexpected end", "eof"))
        if truncated or isinstance(exc, EOFError):
            raise ImageError(f"the {name} is truncated") from exc
        raise ImageError(
            f"the {name} is corrupt or of an unsupported kind ({exc or type(exc).__name__})"
        ) from exc
