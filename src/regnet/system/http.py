"""Requests over HTTP: bounded in time, their failures sorted by what to do about them."""

import re
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from regnet.system.errors import DownloadError, reason_of
from regnet.system.retry import BrokenError, FinalError, seconds_asked

if TYPE_CHECKING:
    import ssl

    import httpx

MAX_REDIRECTS = 10
CONNECT_SECONDS = 10.0

_COUNT = r"\d{1,18}"  # bytes; longer numbers are nonsense, and Python refuses the longest
_RANGE = re.compile(rf"bytes ({_COUNT})-({_COUNT})/({_COUNT}|\*)", re.ASCII)
_UNSATISFIED = re.compile(rf"bytes \*/({_COUNT})", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long an answer may take.

    `stall` is the longest wait for a byte in seconds. Every `seconds`, from the request to the last
    byte, the connection is cut for the reason `why` unless it `goes_well`: a server that sends a
    byte now and then, of a header too, could keep us for ever.
    """

    stall: float
    seconds: float
    why: str
    goes_well: Callable[[], bool] = lambda: False


class Lines:
    """Connections to servers: one at a time for each thread, kept for the thread's next request."""

    def __init__(self, new: "Callable[[], httpx.Client] | None" = None) -> None:
        self._new = new
        self._lock = threading.Lock()
        self._of_thread = threading.local()
        self._clients = ExitStack()
        self.close = weakref.finalize(self, self._clients.close)

    @contextmanager
    def ask(
        self, url: str, patience: Patience, headers: dict[str, str] | None = None, **body: bytes
    ) -> "Iterator[httpx.Response]":
        """Give the answer at the end of the redirects, to a GET or with a `content` to a POST.

        Its body is not encoded, and not read yet. A lost connection, also while the body is read,
        raises `BrokenError`; an address or redirect that cannot be, an encoded body and the end of
        the patience raise `FinalError`. Raises `DownloadError` if the environment sets a proxy or
        certificates that cannot be used.
        """
        import httpx

        line = self._line()
        timeout = httpx.Timeout(patience.stall, connect=min(CONNECT_SECONDS, patience.stall))
        method = "POST" if body else "GET"
        try:
            with line.cut_after(patience):
                response = line.send(method, url, headers=headers, timeout=timeout, **body)
                with closing(response):
                    # A few bytes of an encoded body can stand for the whole memory.
                    coding = response.headers.get("Content-Encoding", "identity")
                    if coding.strip().lower() not in ("", "identity"):
                        raise FinalError(
                            f"it sends {coding[:40]!r}-encoded bytes, though asked not to"
                        )
                    yield response
        except httpx.ConnectError as exc:
            raise BrokenError(f"no connection: {reason_of(exc)}", unreachable=True) from exc
        except httpx.ConnectTimeout as exc:
            raise BrokenError("no connection in time", unreachable=True) from exc
        except httpx.TimeoutException as exc:
            raise BrokenError(f"nothing came for {patience.stall:g} s") from exc
        except httpx.TransportError as exc:
            raise BrokenError(f"the connection broke: {str(exc) or type(exc).__name__}") from exc

    def _line(self) -> "_Line":
        line: _Line | None = getattr(self._of_thread, "line", None)
        if line is None:
            client = self._new or self._new_client
            with self._lock:
                line = self._of_thread.line = _Line(self._clients.enter_context(client()))
        return line

    def _new_client(self) -> "httpx.Client":
        import httpx

        headers = {"User-Agent": "regnet-vision", "Accept-Encoding": "identity"}
        limits = httpx.Limits(max_connections=1)
        try:
            return httpx.Client(verify=self._certificates, headers=headers, limits=limits)
        except ImportError as exc:
            raise DownloadError(
                "the environment sets a SOCKS proxy, which needs another package: "
                "pip install 'httpx[socks]', or unset ALL_PROXY, HTTPS_PROXY and HTTP_PROXY"
            ) from exc
        except (httpx.InvalidURL, ValueError, OSError) as exc:
            raise DownloadError(
                f"the environment sets a proxy or certificates that cannot be used: {exc}; correct "
                "or unset ALL_PROXY, HTTPS_PROXY, HTTP_PROXY, NO_PROXY, SSL_CERT_FILE and "
                "SSL_CERT_DIR"
            ) from exc

    @cached_property
    def _certificates(self) -> "ssl.SSLContext":
        """Those of all threads: reading them takes longer than most requests."""
        import httpx

        return httpx.create_ssl_context()


class _Line:
    """One connection at a time, which is cut from another thread."""

    def __init__(self, client: "httpx.Client") -> None:
        self._client = client
        self._stream: Any = None

    def send(self, method: str, url: str, **request: Any) -> "httpx.Response":
        """Return the answer at the end of the redirects. Raises `FinalError`."""
        import httpx

        extensions = {"trace": self._note}
        try:
            asked = self._client.build_request(method, url, **request, extensions=extensions)
            for _ in range(MAX_REDIRECTS):
                response = self._client.send(asked, stream=True, follow_redirects=False)
                if response.next_request is None:
                    return response
                response.close()
                before, asked = asked.url.scheme, response.next_request
                if asked.url.scheme not in ("http", "https"):
                    raise FinalError(f"it redirects to {asked.url.scheme}, which is not followed")
                if (before, asked.url.scheme) == ("https", "http"):
                    raise FinalError("it redirects from https to http, which is not followed")
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError) as exc:
            # A ValueError is a host or path that cannot be encoded, or a length without end.
            raise FinalError(f"not an http address: {exc}") from exc
        raise FinalError(f"more than {MAX_REDIRECTS} redirects")

    @contextmanager
    def cut_after(self, patience: Patience) -> Iterator[None]:
        """Cut the connection when the patience ends; raises `FinalError` then."""
        done, cut = threading.Event(), threading.Event()

        def watch() -> None:
            while not done.wait(patience.seconds):
                if cut.is_set() or not patience.goes_well():
                    cut.set()
                    self._cut()

        threading.Thread(target=watch, name="patience", daemon=True).start()
        try:
            yield
        except Exception as exc:
            if cut.is_set():
                raise FinalError(patience.why) from exc
            raise
        finally:
            done.set()
        if cut.is_set():
            raise FinalError(patience.why)

    def _note(self, event: str, info: dict[str, Any]) -> None:
        """Remember the newest connection; called at each step of a request."""
        if hasattr(stream := info.get("return_value"), "get_extra_info"):
            self._stream = stream

    def _cut(self) -> None:
        """Shut the connection down: whoever waits for it finds its end."""
        if self._stream is not None:
            with suppress(OSError):  # that of TLS would take its own thread's state away
                socket.socket.shutdown(self._stream.get_extra_info("socket"), socket.SHUT_RDWR)


def check_status(response: "httpx.Response", *fine: int) -> None:
    """Raise `BrokenError` for a status that may pass, `FinalError` for others but the fine ones."""
    status = response.status_code
    if status in fine:
        return
    why = f"HTTP {status} {response.reason_phrase}".rstrip()
    if status in (408, 425, 429) or status >= 500:
        raise BrokenError(why, asked=seconds_asked(response.headers.get("Retry-After")))
    raise FinalError(why)


def body_of(
    response: "httpx.Response", limit: int, taking: Callable[[int], None] = lambda size: None
) -> bytes:
    """Return the whole body. Raises `FinalError` if it has more bytes than the limit.

    `taking` is called with the bytes that it has or may have, before they are read.
    """
    body = bytearray()
    if (size := content_length(response) or 0) > limit:
        raise FinalError(f"{size:,} bytes are over the limit of {limit:,}")
    taking(size)
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > limit:
            raise FinalError(f"it sends more than the limit of {limit:,} bytes")
        if len(body) > size:  # it did not say
            taking(size := 2 * len(body))
    return bytes(body)


def content_length(response: "httpx.Response") -> int | None:
    """Return the length in bytes that a response states."""
    text = response.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(_COUNT, text, re.ASCII) else None


def is_delimited(response: "httpx.Response") -> bool:
    """Tell whether an early end of the body can be told from its end."""
    chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    return chunked or content_length(response) is not None or response.http_version == "HTTP/2"


def content_range(response: "httpx.Response") -> tuple[int, int, int | None] | None:
    """Return first byte, last byte and total (None: unstated) of a 206; None if it has no range."""
    text = response.headers.get("Content-Range", "")
    if found := _RANGE.fullmatch(text.strip()):
        first, last, total = found.groups()
        return int(first), int(last), None if total == "*" else int(total)
    return None


def unsatisfied_total(response: "httpx.Response") -> int | None:
    """Return the size of the whole file that a 416 states."""
    found = _UNSATISFIED.fullmatch(response.headers.get("Content-Range", "").strip())
    return int(found[1]) if found else None
