"""What a server takes at most, of one request and of all together."""

from dataclasses import dataclass, fields

from regnet.pixels.decode_limits import DecodeLimits
from regnet.system.errors import LimitError, shown
from regnet.system.option import option


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Every limit of a server; what is over one is refused, and the answer names it.

    Raises `LimitError` where one is no positive number, or they contradict each other.
    """

    body: int = option(32 << 20, "MiB per request, else 413", "--max-body", unit=2**20, min=1)
    pixels: int = option(
        50_000_000, "Megapixels per image, else 422", "--max-pixels", unit=1e6, min=0.001
    )
    request_pixels: int = option(
        200_000_000, "Megapixels per request, else 413", "--max-request-pixels", unit=1e6, min=0.001
    )
    decode_seconds: float = option(
        10.0, "Seconds to decode one image", "--max-decode", "SECONDS", min=0.01
    )
    decode_memory: int = option(
        2_000_000_000,
        "Memory in MB to decode one image; small files have less",
        "--max-memory",
        unit=1e6,
        min=1,
    )
    batch: int = option(64, "Images per request, else 413", "--max-batch", min=1)
    queue: int = option(128, "Images of a model that wait or run, else 429", min=1)
    queue_bytes: int = option(
        512 << 20, "MiB of in-flight requests, else 429", "--queue-mib", unit=2**20, min=1
    )
    seconds: float = option(
        30.0,
        "Seconds per request, from arrival to answer, else 504",
        "--timeout",
        "SECONDS",
        min=0.01,
    )

    def __post_init__(self) -> None:
        for field in fields(self):
            self._require_positive(field.name, whole=field.type in (int, "int"))
        for least, most in (("batch", "queue"), ("body", "queue_bytes")):
            if getattr(self, least) > getattr(self, most):
                raise LimitError(
                    f"the limit {most}={getattr(self, most)} is below {least}="
                    f"{getattr(self, least)}: a request that is allowed could never be taken"
                )

    @property
    def decoding(self) -> DecodeLimits:
        """Those of one image."""
        return DecodeLimits(
            memory=self.decode_memory, seconds=self.decode_seconds, pixels=self.pixels
        )

    def _require_positive(self, name: str, *, whole: bool) -> None:
        value = getattr(self, name)
        kinds = (int,) if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < 1 << 62:
            kind = "whole number" if whole else "number"
            raise LimitError(f"the limit {name}={shown(value)} must be a {kind} above 0")
