"""One GET over HTTP: redirects, statuses and failures, sorted by what to do about them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from regnet.zoo.retry import seconds_asked

if TYPE_CHECKING:
    import httpx

MAX_REDIRECTS = 10
CONNECT_SECONDS = 10.0

_COUNT = r"\d{1,18}"  # bytes; longer numbers are nonsense, and Python refuses the longest
_RANGE = re.compile(rf"bytes ({_COUNT})-({_COUNT})/({_COUNT}|\*)", re.ASCII)
_UNSATISFIED = re.compile(rf"bytes \*/({_COUNT})", re.ASCII)


class MirrorError(Exception):
    """This mirror is of no use; go to the next. `integrity`: it sent, or would send, wrong bytes.

    `unreachable`: there was no connection at all.
    """

    def __init__(self, why: str, *, integrity: bool = False, unreachable: bool = False) -> None:
        super().__init__(why)
        self.integrity = integrity
        self.unreachable = unreachable


class BrokenError(Exception):
    """The transfer broke off and may be taken up again, after `asked` seconds if that is given."""

    def __init__(self, why: str, *, asked: float | None = None, unreachable: bool = False) -> None:
        super().__init__(why)
        self.asked = asked
        self.unreachable = unreachable


class StartOverError(Exception):
    """What is here does not fit what the server has; begin anew."""


@contextmanager
def get(
    client: "httpx.Client", url: str, headers: dict[str, str], *, stall: float
) -> Iterator["httpx.Response"]:
    """Give the response (200, 206 or 416) at the end of the redirects, its body not yet read.

    No byte for `stall` seconds, a lost connection and statuses that pass raise `BrokenError`; other
    statuses `MirrorError`. The same goes for failures while the body is read.
    """
    import httpx

    timeout = httpx.Timeout(stall, connect=min(CONNECT_SECONDS, stall))
    try:
        response = _follow(client, url, headers, timeout)
        try:
            _check_status(response)
            yield response
        finally:
            response.close()
    except httpx.ConnectError as exc:
        raise BrokenError(f"no connection: {exc}", unreachable=True) from exc
    except httpx.ConnectTimeout as exc:
        raise BrokenError("no connection in time", unreachable=True) from exc
    except httpx.TimeoutException as exc:
        raise BrokenError(f"nothing came for {stall:g} s") from exc
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as exc:
        raise MirrorError(f"not an http address: {exc}") from exc
    except httpx.TransportError as exc:
        raise BrokenError(f"the connection broke: {exc}") from exc


def _follow(
    client: "httpx.Client", url: str, headers: dict[str, str], timeout: "httpx.Timeout"
) -> "httpx.Response":
    request = client.build_request("GET", url, headers=headers, timeout=timeout)
    for _ in range(MAX_REDIRECTS):
        scheme = request.url.scheme
        response = client.send(request, stream=True, follow_redirects=False)
        if response.next_request is None:
            return response
        response.close()
        request = response.next_request
        if request.url.scheme not in ("http", "https"):
            raise MirrorError(f"it redirects to {request.url.scheme}, which is not followed")
        if scheme == "https" and request.url.scheme == "http":
            raise MirrorError("it redirects from https to http, which is not followed")
    raise MirrorError(f"more than {MAX_REDIRECTS} redirects")


def _check_status(response: "httpx.Response") -> None:
    status = response.status_code
    if status in (200, 206, 416):
        return
    why = f"HTTP {status} {response.reason_phrase}".rstrip()
    if status in (408, 425, 429) or status >= 500:
        raise BrokenError(why, asked=seconds_asked(response.headers.get("Retry-After")))
    raise MirrorError(why)


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
