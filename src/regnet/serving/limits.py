"""What a server takes at most, of one request and of all together."""

from dataclasses import dataclass, fields

from regnet.pixels.decode_limits import DecodeLimits
from regnet.system.errors import LimitError, shown


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Every limit of a server; what is over one is refused, and the answer names it.

    Raises `LimitError` where one is no positive number, or they contradict each other.
    """

    body: int = 32 << 20
    """Bytes of one request."""
    pixels: int = 50_000_000
    """Of one image, by its header, before it is decoded."""
    request_pixels: int = 200_000_000
    """Of all images of one request, by their headers."""
    decode_memory: int = 2_000_000_000
    """Bytes of memory for decoding one image; a small file has less, see `DecodeLimits`."""
    decode_seconds: float = 10.0
    """For decoding one image that may take long; then its decoder is ended."""
    batch: int = 64
    """Images in one request."""
    queue: int = 128
    """Images waiting or running, all requests of a model together."""
    queue_bytes: int = 512 << 20
    """Bytes of those images, as they were sent."""
    seconds: float = 30.0
    """For one request, from its arrival to its answer."""

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
