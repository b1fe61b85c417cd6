"""Images at http and https addresses."""

import time
import weakref
from threading import Lock
from typing import TYPE_CHECKING, Final

from regnet.addresses import new_client
from regnet.data.archives import check_size
from regnet.errors import DownloadError, ImageError

if TYPE_CHECKING:
    import httpx

_TRANSIENT: Final = (408, 425, 429, 500, 502, 503, 504)
_MAX_WAIT: Final = 10.0  # seconds that a server's Retry-After can ask for


class Fetcher:
    """Fetches images; one pool of connections for all threads, opened with the first image.

    `timeout` is in seconds without a byte, `deadline` in seconds for one image in all; `attempts`
    counts tries in case of errors that may pass, `backoff` seconds after the first, then doubled.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        timeout: float = 20.0,
        deadline: float = 300.0,
        attempts: int = 3,
        backoff: float = 0.5,
    ) -> None:
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._deadline = deadline
        self._attempts = attempts
        self._backoff = backoff
        self._lock = Lock()
        self._client: httpx.Client | None = None

    def fetch(self, url: str) -> bytes:
        """Return the bytes at a URL; raises `ImageError` with the reason. Thread-safe."""
        import httpx

        # A ValueError is a host or path that cannot be encoded, or a length of no end.
        wrong = (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects, ValueError)
        end = time.monotonic() + self._deadline
        for attempt in range(1, self._attempts + 1):
            wait = self._backoff * 2 ** (attempt - 1)
            try:
                return self._once(url, end)
            except _TransientError as exc:
                reason, wait = str(exc), max(wait, min(exc.retry_after, _MAX_WAIT))
            except wrong as exc:
                raise ImageError(f"cannot fetch this address: {exc}") from exc
            except httpx.TimeoutException:
                reason = f"no answer within {self._timeout:g} seconds"
            except httpx.HTTPError as exc:
                reason = str(exc) or type(exc).__name__
            if attempt < self._attempts and time.monotonic() + wait < end:
                time.sleep(wait)
        raise ImageError(f"cannot fetch this address: {reason} ({self._attempts} attempts)")

    def _once(self, url: str, end: float) -> bytes:
        with self._opened().stream("GET", url) as response:
            if response.status_code in _TRANSIENT:
                raise _TransientError(response)
            if response.status_code != 200:
                raise ImageError(f"the server answered {_status(response)}")
            length = response.headers.get("Content-Length", "")
            check_size(int(length) if length.isdecimal() else 0, self._max_bytes)
            return self._body(response, end)

    def _body(self, response: "httpx.Response", end: float) -> bytes:
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > self._max_bytes:
                raise ImageError(f"more than the limit of {self._max_bytes:,} bytes for one image")
            if time.monotonic() > end:
                raise ImageError(f"not finished within {self._deadline:g} seconds")
        return bytes(body)

    def _opened(self) -> "httpx.Client":
        with self._lock:
            if self._client is None:
                try:
                    self._client = new_client(follow_redirects=True, timeout=self._timeout)
                except DownloadError as exc:
                    raise ImageError(f"cannot fetch any address: {exc}") from exc
                weakref.finalize(self, self._client.close)
            return self._client


class _TransientError(Exception):
    """An answer that may be another one later."""

    def __init__(self, response: "httpx.Response") -> None:
        super().__init__(f"the server answered {_status(response)}")
        after = response.headers.get("Retry-After", "")
        self.retry_after = float(after) if after.isdecimal() else 0.0


def _status(response: "httpx.Response") -> str:
    return f"{response.status_code} {response.reason_phrase}".strip()
