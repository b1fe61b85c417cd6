"""What decoding one photo may take at most: memory, seconds, pixels."""

from dataclasses import dataclass
from typing import Annotated, Final

from regnet.system.checked import Checked, within
from regnet.system.errors import ImageError, LimitError
from regnet.system.option import option

MAX_SIDE: Final = 100_000  # pixels of a photo's longer side, whatever the other limits are
TOO_LONG: Final = "decoding took longer than the limit of"
TOO_MUCH: Final = "more than the limit of"

_SMALL: Final = 0.35  # of the memory, for a file of no bytes
_EACH_BYTE: Final = 250  # more bytes of memory, for each byte of a file


@dataclass(frozen=True, kw_only=True)
class DecodeLimits(Checked, error=LimitError):
    """The limits of decoding one photo. Raises `LimitError`.

    `memory` is in bytes; a small file may take less: 35 % of it and 250 for each of its own bytes.
    `seconds` are processor time. `pixels` are those that the header claims; None: no limit.
    """

    memory: Annotated[int, within(gt=0)] = option(
        2_000_000_000,
        "Memory in MB to decode one image; small files have less",
        "--max-memory",
        unit=1e6,
        min=1,
    )
    seconds: Annotated[float, within(gt=0)] = option(
        8.0, "Seconds to decode one image", "--max-decode", "SECONDS", min=0.01
    )
    pixels: Annotated[int, within(gt=0)] | None = None

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


DECODE_LIMITS: Final = DecodeLimits()  # those that hold where no others are given


def require_pixels(width: int, height: int) -> None:
    """Raise `ImageError` for an image without pixels."""
    if not width or not height:
        raise ImageError(f"an image of {width} x {height} has no pixels")
