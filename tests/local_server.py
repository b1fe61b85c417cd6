"""A real HTTP server on this machine that misbehaves as told, and logs what it was asked."""

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

PIECE = 1 << 15


@dataclass
class Request:
    """One logged request: what was asked, and what was sent of the file."""

    path: str
    range: str | None
    if_range: str | None
    status: int = 0
    sent: int = 0


class QuietServer(ThreadingHTTPServer):
    """A server that says nothing of clients that hang up."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


Behaviour = Callable[["Handler", bytes], None]


class LocalServer:
    """Serves `files` (by path); each request takes the next of `script`, then behaves well."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.script: list[Behaviour] = []
        self.log: list[Request] = []
        self.validators = True
        self.etags = True
        self.tag: str | None = None
        self.last_modified = 1_000_000_000
        self.lock = threading.Lock()
        self.released = threading.Event()
        self._server = QuietServer(("127.0.0.1", 0), Handler)
        self._server.local = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def url(self, path: str) -> str:
        return f"{self.base}/{path}"

    @property
    def sent(self) -> int:
        """Bytes of files sent in all."""
        return sum(request.sent for request in self.log)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        local: LocalServer = self.server.local  # type: ignore[attr-defined]
        self.local = local
        self.logged = Request(
            self.path.lstrip("/"), self.headers.get("Range"), self.headers.get("If-Range")
        )
        with local.lock:
            local.log.append(self.logged)
            behave = local.script.pop(0) if local.script else well
        content = local.files.get(self.logged.path)
        if content is None and behave is well:
            behave = status(404)
        try:
            behave(self, content or b"")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def head(self, code: int, *headers: tuple[str, object]) -> None:
        self.logged.status = code
        self.send_response(code)
        for name, value in headers:
            self.send_header(name, str(value))
        self.end_headers()

    def body(self, content: bytes) -> None:
        for start in range(0, len(content), PIECE):
            piece = content[start : start + PIECE]
            self.wfile.write(piece)
            self.logged.sent += len(piece)

    def validators(self, content: bytes) -> list[tuple[str, object]]:
        if not self.local.validators:
            return []
        modified = formatdate(self.local.last_modified, usegmt=True)
        tag = self.local.tag or etag(content)
        tags: list[tuple[str, object]] = [("ETag", tag)] if self.local.etags else []
        return [*tags, ("Last-Modified", modified)]

    def wanted(self, content: bytes) -> int:
        """First byte asked for, 0 where the file is not the one the client has a part of."""
        first = int((self.logged.range or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if self.logged.if_range not in (None, *(v for _, v in self.validators(content))):
            return 0
        return first

    def log_message(self, *args: object) -> None:
        pass


def etag(content: bytes) -> str:
    return f'"{hash(content) & 0xFFFFFFFF:x}-{len(content)}"'


def reply(handler: Handler, content: bytes, first: int, *, declared: int | None = None) -> bytes:
    """Send the head of a good answer and return the body that belongs to it."""
    rest = content[first:]
    length = len(rest) if declared is None else declared
    headers = [("Content-Length", length), *handler.validators(content)]
    if first == 0:
        handler.head(200, *headers)
    else:
        span = f"bytes {first}-{len(content) - 1}/{len(content)}"
        handler.head(206, ("Content-Range", span), *headers)
    return rest


def well(handler: Handler, content: bytes) -> None:
    first = handler.wanted(content)
    if first >= len(content) > 0:
        handler.head(416, ("Content-Range", f"bytes */{len(content)}"), ("Content-Length", 0))
    else:
        handler.body(reply(handler, content, first))


def status(code: int, *headers: tuple[str, object]) -> Behaviour:
    return lambda handler, content: handler.head(code, ("Content-Length", 0), *headers)


def redirect(url: str) -> Behaviour:
    return status(302, ("Location", url))


def dies_after(count: int) -> Behaviour:
    """Send so many bytes of what was asked, then hang up."""

    def behave(handler: Handler, content: bytes) -> None:
        handler.body(reply(handler, content, handler.wanted(content))[:count])
        handler.close_connection = True

    return behave


def stalls_after(count: int) -> Behaviour:
    """Send so many bytes, then nothing until the test releases the server."""

    def behave(handler: Handler, content: bytes) -> None:
        handler.body(reply(handler, content, handler.wanted(content))[:count])
        handler.local.released.wait(60)
        handler.close_connection = True

    return behave


def drips(seconds: float = 0.02, *, head: bool = False) -> Behaviour:
    """Send a byte at a time, of a head that never ends or of the file."""

    def behave(handler: Handler, content: bytes) -> None:
        handler.close_connection = True
        rest = b"HTTP/1.1 200 OK\r\nX-" if head else reply(handler, content, 0)
        for byte in rest + b"x" * 10_000:
            handler.wfile.write(bytes([byte]))
            if handler.local.released.wait(seconds):
                return

    return behave


def slowly(seconds: float) -> Behaviour:
    def behave(handler: Handler, content: bytes) -> None:
        rest = reply(handler, content, handler.wanted(content))
        for start in range(0, len(rest), len(rest) // 10):
            handler.body(rest[start : start + len(rest) // 10])
            time.sleep(seconds / 10)

    return behave


def claims_length(declared: int) -> Behaviour:
    """State a wrong Content-Length, send everything, hang up."""

    def behave(handler: Handler, content: bytes) -> None:
        handler.body(reply(handler, content, handler.wanted(content), declared=declared))
        handler.close_connection = True

    return behave


def ignores_range(handler: Handler, content: bytes) -> None:
    handler.body(reply(handler, content, 0))


def ignores_if_range(handler: Handler, content: bytes) -> None:
    handler.logged.if_range = None
    well(handler, content)


def sends(other: bytes) -> Behaviour:
    """Serve other bytes than the file's."""
    return lambda handler, content: well(handler, other)


def chunked(extra: bytes = b"", *, cut: int | None = None) -> Behaviour:
    """Send the whole file in chunks of unstated total, with something more, or cut off."""

    def behave(handler: Handler, content: bytes) -> None:
        handler.head(200, ("Transfer-Encoding", "chunked"), *handler.validators(content))
        whole = (content + extra)[:cut]
        for start in range(0, len(whole), PIECE):
            piece = whole[start : start + PIECE]
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            handler.logged.sent += len(piece)
        if cut is None:
            handler.wfile.write(b"0\r\n\r\n")
        else:
            handler.close_connection = True

    return behave


def misplaced_range(handler: Handler, content: bytes) -> None:
    """Answer a Range with another one."""
    rest = content[1:]
    span = f"bytes 1-{len(content) - 1}/{len(content)}"
    handler.head(206, ("Content-Range", span), ("Content-Length", len(rest)))
    handler.body(rest)


def short_range(count: int) -> Behaviour:
    """Answer a Range with fewer bytes than asked for, as servers may."""

    def behave(handler: Handler, content: bytes) -> None:
        first = handler.wanted(content)
        piece = content[first : first + count]
        span = f"bytes {first}-{first + len(piece) - 1}/{len(content)}"
        headers = [("Content-Length", len(piece)), *handler.validators(content)]
        handler.head(206, ("Content-Range", span), *headers)
        handler.body(piece)

    return behave


def without_length(*, cut: int | None = None) -> Behaviour:
    """Answer as HTTP/1.0: the end of the connection is the end of the file."""

    def behave(handler: Handler, content: bytes) -> None:
        handler.head(200, ("Connection", "close"))
        handler.body(content[:cut])
        handler.close_connection = True

    return behave
