"""Photos small enough to be part of a page."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from PIL import Image

from regnet.pixels.preprocess import ImageLike, rgb_pixels
from regnet.system.errors import ImageError

SIDE = 192


class Readable(Protocol):
    """A photo whose encoded bytes are read when they are wanted."""

    def read(self) -> bytes:
        """Return the bytes; raises `ImageError`."""


def thumbnails(
    find: Callable[[Sequence[str]], Mapping[str, Readable]],
) -> Callable[[Sequence[str]], dict[str, str | None]]:
    """Return a gallery's `pictures`: `find` gets names, and the photos found are read again."""
    return lambda names: {name: thumbnail_of(photo) for name, photo in find(names).items()}


def thumbnail_of(photo: Readable | None) -> str | None:
    """Return the thumbnail of a photo that is read now, None where it is gone."""
    if photo is None:
        return None
    try:
        return thumbnail(photo.read())
    except ImageError:
        return None


def thumbnail(image: ImageLike, *, side: int = SIDE) -> str | None:
    """Return a photo's middle square as a data address, JPEG of at most `side` pixels square.

    None where it cannot be read.
    """
    try:
        photo = Image.fromarray(rgb_pixels(image))
    except ImageError:
        return None
    short = min(photo.size)
    left, top = (photo.width - short) // 2, (photo.height - short) // 2
    square = photo.crop((left, top, left + short, top + short))
    if short > side:
        square = square.resize((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    square.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
