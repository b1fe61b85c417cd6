"""What `--allow-url` opens: photos at addresses that clients name, and nothing of our own network.

Each host is resolved once, all its addresses must be public, and the connection goes to one of
these very addresses: a name that stands for another address a moment later gains nothing. TLS
still verifies the name. Redirects go through the same door. Nothing is taken from the environment:
neither proxies nor certificates nor passwords.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

import httpx

from regnet.errors import ImageError
from regnet.serving.public_addresses import Address, is_public

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]
"""Host and port to addresses, the best first; raises `OSError`."""

_LONGEST: Final = 2048  # characters of an address
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_TRIES: Final = 3  # addresses of a host
_REQUESTS: Final = 16  # of clients, whose photos are in memory at once
_CONNECTIONS: Final = 16
_CONNECT_SECONDS: Final = 3.0
_HEADERS: Final = {
    "User-Agent": "regnet-vision",
    "Accept": "image/*",
    "Accept-Encoding": "identity",
    "Connection": "close",
}


@dataclass
class _Left:
    """Bytes that the photos of a request may still have together."""

    size: int
    limit: int

    def take(self, size: int) -> None:
        self.size -= size
        if self.size < 0:
            raise ImageError(f"over the limit of {self.limit:,} bytes for the photos of a request")


class RemotePhotos:
    """Fetches photos from the public internet, for one asyncio loop.

    `max_bytes` is for all photos of a request together, `seconds` for each of them, `redirects`
    the most that are followed. `resolve`, `may_connect` and `verify` are for tests.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        seconds: float = 10.0,
        redirects: int = 3,
        resolve: Resolve | None = None,
        may_connect: Callable[[Address], bool] = is_public,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self._max_bytes, self._seconds, self._redirects = max_bytes, seconds, redirects
        self._may_connect = may_connect
        self._resolve = resolve or self._ask_system
        self._threads = ThreadPoolExecutor(4, "resolve")
        self._requests = asyncio.Semaphore(_REQUESTS)
        self._connections = asyncio.Semaphore(_CONNECTIONS)
        # No connection is kept: it would be found by its address, whomever its certificate named.
        self._transport = httpx.AsyncHTTPTransport(
            verify=verify, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
        )

    async def fetch_all(self, urls: Sequence[str], *, deadline: float) -> list[bytes | ImageError]:
        """Return the photos at addresses in their order, or why one is not there.

        `deadline` is by the loop's clock.
        """
        try:
            async with asyncio.timeout_at(deadline):
                await self._requests.acquire()
        except TimeoutError:
            return [_failed("too many others wait for photos from the network") for _ in urls]
        try:
            left = _Left(self._max_bytes, self._max_bytes)
            return await asyncio.gather(*(self._photo(url, left, deadline) for url in urls))
        finally:
            self._requests.release()

    async def close(self) -> None:
        """Let go of connections and threads."""
        await self._transport.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _photo(self, url: str, left: _Left, deadline: float) -> bytes | ImageError:
        try:
            async with asyncio.timeout_at(deadline), self._connections:
                async with asyncio.timeout(self._seconds):
                    return await self._follow(_parsed(url), left)
        except TimeoutError:
            return _failed("not finished in time")
        except ImageError as exc:
            return _failed(exc)
        except httpx.HTTPError as exc:
            return _failed(str(exc) or type(exc).__name__)

    async def _follow(self, url: httpx.URL, left: _Left) -> bytes:
        for _ in range(1 + self._redirects):
            found = await self._get(url, left)
            if isinstance(found, bytes):
                return found
            url = _redirected(url, found)
        raise ImageError(f"more than {self._redirects} redirects")

    async def _get(self, url: httpx.URL, left: _Left) -> bytes | str:
        """Return the photo at an address, or the address that it redirects to."""
        async with self._opened(url) as response:
            if response.status_code in _REDIRECTS:
                return str(response.headers.get("Location", ""))
            if response.status_code != 200:
                raise ImageError(f"the server answered {response.status_code}")
            return await _body(response, left)

    @contextlib.asynccontextmanager
    async def _opened(self, url: httpx.URL) -> AsyncIterator[httpx.Response]:
        response = await self._connected(url, await self._addresses(url))
        try:
            yield response
        finally:
            await response.aclose()

    async def _connected(self, url: httpx.URL, addresses: Sequence[Address]) -> httpx.Response:
        """Return the answer of the first address that there is a connection to."""
        failure: Exception = ImageError("no connection")
        for address in addresses[:_TRIES]:
            try:
                return await self._transport.handle_async_request(_request(url, address))
            except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
                failure = exc
        raise failure

    async def _addresses(self, url: httpx.URL) -> Sequence[Address]:
        """Return the addresses of a host, all of which may be connected to."""
        try:
            found = await self._resolve(url.raw_host.decode("ascii"), _port(url))
        except (OSError, ValueError) as exc:  # ValueError: a host that cannot be encoded
            raise ImageError("its host is not known") from exc
        if not found or not all(map(self._may_connect, found)):
            raise ImageError("its host is not on the public internet")
        return found

    async def _ask_system(self, host: str, port: int) -> Sequence[Address]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return [ip_address(where[0]) for *_, where in found]


def _failed(reason: object) -> ImageError:
    return ImageError(f"cannot fetch this address: {reason}")


def _parsed(text: str) -> httpx.URL:
    """Return an address that may be gone to; raises `ImageError`."""
    if len(text) > _LONGEST:
        raise ImageError(f"it is longer than {_LONGEST} characters")
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as exc:
        raise ImageError("it is none") from exc
    if url.scheme not in ("http", "https") or not url.host:
        raise ImageError("it is none of http:// or https://")
    if url.userinfo:
        raise ImageError("it holds a user name or password")
    if not 0 < _port(url) < 65536:
        raise ImageError("its port is none")
    return url


def _redirected(url: httpx.URL, location: str) -> httpx.URL:
    try:
        found = _parsed(str(url.join(location)))
    except (httpx.InvalidURL, ValueError) as exc:
        raise ImageError("it redirects to what is no address") from exc
    except ImageError as exc:
        raise ImageError(f"it redirects to another address: {exc}") from exc
    if url.scheme == "https" and found.scheme == "http":
        raise ImageError("it redirects from https to http")
    return found


def _port(url: httpx.URL) -> int:
    return url.port if url.port is not None else {"http": 80, "https": 443}[url.scheme]


def _request(url: httpx.URL, address: Address) -> httpx.Request:
    """Return the request for a host's address; the host stays in its head and in TLS."""
    return httpx.Request(
        "GET",
        url.copy_with(host=str(address), fragment=None),
        headers={**_HEADERS, "Host": url.netloc.decode("ascii")},
        extensions={
            "sni_hostname": url.raw_host.decode("ascii"),
            "timeout": {"connect": _CONNECT_SECONDS},
        },
    )


async def _body(response: httpx.Response, left: _Left) -> bytes:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise ImageError("the server sends it compressed, which was not asked for")
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and len(length) < 19 and int(length) > left.size:
        left.take(int(length))
    body = bytearray()
    async for chunk in response.aiter_raw():
        left.take(len(chunk))
        body += chunk
    return bytes(body)
