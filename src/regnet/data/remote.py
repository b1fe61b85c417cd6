"""Images at http and https addresses."""

import time

from regnet.system.errors import DownloadError, ImageError
from regnet.system.http import Lines, Patience, body_of, check_status
from regnet.system.in_flight import wait_for_room
from regnet.system.retry import FinalError, Retry


class Fetcher:
    """Fetches images; each thread keeps its connection, opened with its first image.

    `timeout` is in seconds without a byte, `deadline` in seconds for one image in all; `retry` says
    when errors that may pass are tried again.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        timeout: float = 20.0,
        deadline: float = 300.0,
        retry: Retry | None = None,
    ) -> None:
        self._max_bytes, self._timeout, self._deadline = max_bytes, timeout, deadline
        self._retry = retry or Retry(attempts=3, longest_asked=10.0)
        self._lines = Lines()

    def fetch(self, url: str) -> bytes:
        """Return the bytes at a URL; raises `ImageError` with the reason. Thread-safe."""
        end = time.monotonic() + self._deadline
        try:
            return self._retry.run(lambda: self._once(url, end), end=end)
        except (FinalError, DownloadError) as exc:
            raise ImageError(f"cannot fetch this address: {exc}") from exc

    def _once(self, url: str, end: float) -> bytes:
        patience = Patience(
            stall=self._timeout,
            seconds=max(0.0, end - time.monotonic()),
            why=f"not finished within {self._deadline:g} seconds",
        )
        with self._lines.ask(url, patience) as response:
            check_status(response, 200)
            return body_of(response, self._max_bytes, wait_for_room)
