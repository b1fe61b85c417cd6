"""The limits of a server, for one request and for all together."""

from dataclasses import dataclass
from typing import Annotated

from regnet.pixels.decode_limits import DecodeLimits
from regnet.system.checked import Checked, within
from regnet.system.errors import LimitError
from regnet.system.option import option

_POSITIVE = within(gt=0, lt=1 << 62)


@dataclass(frozen=True, kw_only=True)
class Limits(Checked, error=LimitError):
    """Every limit of a server; a request that exceeds one is refused with its name.

    Raises `LimitError` for a limit that is not a positive number, or that contradicts another.
    """

    body: Annotated[int, _POSITIVE] = option(
        32 << 20, "MiB per request, else 413", "--max-body", unit=2**20, min=1
    )
    pixels: Annotated[int, _POSITIVE] = option(
        50_000_000, "Megapixels per image, else 422", "--max-pixels", unit=1e6, min=0.001
    )
    request_pixels: Annotated[int, _POSITIVE] = option(
        200_000_000, "Megapixels per request, else 413", "--max-request-pixels", unit=1e6, min=0.001
    )
    decode_seconds: Annotated[float, _POSITIVE] = option(
        10.0, "Seconds to decode one image", "--max-decode", "SECONDS", min=0.01
    )
    decode_memory: Annotated[int, _POSITIVE] = option(
        2_000_000_000,
        "Memory in MB to decode one image; small files have less",
        "--max-memory",
        unit=1e6,
        min=1,
    )
    batch: Annotated[int, _POSITIVE] = option(
        64, "Images per request, else 413", "--max-batch", min=1
    )
    queue: Annotated[int, _POSITIVE] = option(
        128, "Images of a model that wait or run, else 429", min=1
    )
    queue_bytes: Annotated[int, _POSITIVE] = option(
        512 << 20, "MiB of in-flight requests, else 429", "--queue-mib", unit=2**20, min=1
    )
    seconds: Annotated[float, _POSITIVE] = option(
        30.0,
        "Seconds per request, from arrival to answer, else 504",
        "--timeout",
        "SECONDS",
        min=0.01,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for low, high in (("batch", "queue"), ("body", "queue_bytes")):
            least = getattr(self, low)
            self._require(getattr(self, high) >= least, high, f"at least {low} ({least})")

    @property
    def decoding(self) -> DecodeLimits:
        """The limits of one image."""
        return DecodeLimits(
            memory=self.decode_memory, seconds=self.decode_seconds, pixels=self.pixels
        )
