"""Images at http(s) addresses."""

import time
from dataclasses import dataclass, field

from regnet.system.errors import DownloadError, ImageError
from regnet.system.http import Lines, Patience, body_of, check_status
from regnet.system.in_flight import wait_for_room
from regnet.system.retry import FinalError, Retry


@dataclass(frozen=True, kw_only=True)
class Fetcher:
    """Fetches images by http; each thread keeps its connection, opened with its first image.

    `timeout` is in seconds without a byte, `deadline` in seconds for one image, retries included.
    """

    max_bytes: int
    timeout: float = 20.0
    deadline: float = 300.0
    retry: Retry = field(default=Retry(attempts=3, longest_asked=10.0))
    _lines: Lines = field(default_factory=Lines)

    def fetch(self, url: str) -> bytes:
        """Return the bytes at a URL; raises `ImageError` with the reason. Thread-safe."""
        end = time.monotonic() + self.deadline
        try:
            return self.retry.run(lambda: self._once(url, end), end=end)
        except (FinalError, DownloadError) as exc:
            raise ImageError(f"cannot fetch this address: {exc}") from exc

    def _once(self, url: str, end: float) -> bytes:
        patience = Patience(
            stall=self.timeout,
            seconds=max(0.0, end - time.monotonic()),
            why=f"not finished within {self.deadline:g} seconds",
        )
        with self._lines.ask(url, patience) as response:
            check_status(response, 200)
            return body_of(response, self.max_bytes, wait_for_room)
