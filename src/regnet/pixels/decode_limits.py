"""What decoding one photo may take at most: memory, seconds, pixels."""

from dataclasses import dataclass, fields
from typing import Final

from regnet.system.errors import ImageError, LimitError, shown

MAX_SIDE: Final = 100_000
"""Pixels of a photo's longer side, whatever the other limits are."""

TOO_LONG: Final = "decoding took longer than the limit of"
TOO_MUCH: Final = "more than the limit of"

_SMALL: Final = 0.35  # of the memory, for a file of no bytes
_EACH_BYTE: Final = 250  # more bytes of memory, for each byte of a file


@dataclass(frozen=True, kw_only=True)
class DecodeLimits:
    """The limits of decoding one photo; raises `LimitError` where one is no positive number.

    `memory` is in bytes, and a small file has less: 35 % of it and 250 for each of its own bytes.
    `seconds` are those of a processor. `pixels` are claimed by the header; None is without limit.
    """

    memory: int = 2_000_000_000
    seconds: float = 8.0
    pixels: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name == "pixels":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise LimitError(f"the limit {field.name}={shown(value)} must be above 0")

    def memory_of(self, length: int) -> int:
        """Return the bytes of memory for a file of that many bytes."""
        return min(self.memory, int(_SMALL * self.memory) + _EACH_BYTE * length)

    def require_size(self, width: int, height: int) -> None:
        """Raise `ImageError` for an image of no pixels, a side too long or too many pixels."""
        require_pixels(width, height)
        if max(width, height) > MAX_SIDE:
            raise ImageError(
                f"too many pixels: {width} x {height} has a side over the limit of {MAX_SIDE:,}"
            )
        if self.pixels is not None and width * height > self.pixels:
            raise ImageError(
                f"too many pixels: {width} x {height} is over the limit of {self.pixels:,} "
                "(--max-pixels)"
            )

    def require_memory(self, needed: int, length: int, width: int, height: int) -> None:
        """Raise `ImageError` if an image in so many bytes needs more memory than it may take."""
        if needed > self.memory_of(length):
            raise self.out_of_memory(
                length, f"{width} x {height} pixels takes about {needed / 1e6:,.0f} MB,"
            )

    def out_of_memory(self, length: int, what: str = "it takes") -> ImageError:
        """Return the error of a file of that many bytes that takes more memory than it may."""
        return ImageError(
            f"decoding {what} {TOO_MUCH} {self.memory_of(length) / 1e6:,.0f} MB of memory for a "
            f"file of {length:,} bytes (--max-memory)"
        )


DECODE_LIMITS: Final = DecodeLimits()
"""Those that hold where no others are given."""


def require_pixels(width: int, height: int) -> None:
    """Raise `ImageError` for an image without pixels."""
    if not width or not height:
        raise ImageError(f"an image of {width} x {height} has no pixels")
