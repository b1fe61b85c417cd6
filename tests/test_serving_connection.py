"""What a connection lets through: heads, bodies and crowds, over real sockets."""

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

import uvicorn
import uvloop

from regnet.serving import connection as module
from regnet.serving.connection import MAX_HEAD, connection_class

MOST = 1 << 20
Address = tuple[str, int]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the length of the body; /early does not read it, /slow takes its time."""
    size, more = 0, scope["path"] != "/early"
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await asyncio.sleep(0.5 if scope["path"] == "/slow" else 0)
    body = b"%d" % size
    headers = [(b"content-length", b"%d" % len(body))]
    status = 413 if scope["path"] == "/early" else 200
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def listening(slowest: float = 20.0) -> Iterator[tuple[Address, list[str]]]:
    """Give the address of a server in a thread, and the reasons of what it refuses."""
    refused: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        http_class = connection_class(slowest=slowest, most=MOST, failed=refused.append)
        server = uvicorn.Server(
            uvicorn.Config(echo, http=http_class, lifespan="off", log_config=None, ws="none")
        )
        thread = threading.Thread(target=lambda: uvloop.run(server.serve([listener])))
        thread.start()
        yield listener.getsockname(), refused
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def address() -> Iterator[Address]:
    with listening() as (where, _):
        yield where


def statuses(where: Address, *pieces: bytes, pause: float = 0.0) -> list[int]:
    """Send pieces and return the statuses of all answers until the server closes."""
    found = []
    with socket.create_connection(where, timeout=30) as client:
        for piece in pieces:
            try:
                client.sendall(piece)
            except OSError:  # refused already
                break
            time.sleep(pause)
        reader = client.makefile("rb")
        while line := reader.readline():
            found.append(int(line.split()[1]))
            length = int(http.client.parse_headers(reader)["content-length"])
            assert len(reader.read(length)) == length
    return found


def head(*lines: bytes, method: bytes = b"GET") -> bytes:
    return b"\r\n".join([method + b" / HTTP/1.1", b"Host: x", *lines, b"", b""])


LAST = b"Connection: close"
LARGE = b"X: " + b"y" * MAX_HEAD
CHUNKED = head(b"Transfer-Encoding: chunked", method=b"POST")
TINY = [b"a:b"] * (MAX_HEAD // 32)


def test_a_head_within_the_limit_is_taken(address: Address) -> None:
    assert statuses(address, head(b"X: " + b"y" * (MAX_HEAD - 200), LAST)) == [200]
    assert statuses(address, head(*TINY[: len(TINY) // 2], LAST)) == [200]


@pytest.mark.parametrize(
    "sent",
    [
        head(LARGE),
        head(LARGE * 3),
        head(b"X" * MAX_HEAD + b": y"),
        head(*TINY),
        b"GET /" + b"x" * MAX_HEAD + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        head() + head(LARGE),
        head(b"Transfer-Encoding: chunked", method=b"POST")
        + b"0\r\n"
        + b"\r\n".join(TINY)
        + b"\r\n\r\n",
    ],
    ids=["large", "larger", "name", "many tiny ones", "path", "second", "after the body"],
)
@pytest.mark.parametrize("size", [1 << 20, 4000], ids=["at once", "in pieces"])
def test_a_head_over_the_limit_ends_the_connection(
    address: Address, sent: bytes, size: int
) -> None:
    pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
    assert statuses(address, *pieces)[-1] == 431


def test_a_head_without_end_is_refused_however_slowly_it_comes(address: Address) -> None:
    pieces = [head()[:-2], *[b"X: " + b"y" * 9000] * 20]
    assert statuses(address, *pieces, pause=0.01) == [431]


def test_heads_after_large_bodies_are_not_counted_with_them(address: Address) -> None:
    post = head(b"Content-Length: 300000", method=b"POST") + bytes(300_000)
    assert statuses(address, post * 2 + head(b"X: " + b"y" * 30_000, LAST)) == [200, 200, 200]


@pytest.mark.parametrize("last", [LAST, b"X: y"])
def test_an_early_answer_arrives_though_the_client_still_sends(
    address: Address, last: bytes
) -> None:
    sent = head(b"Content-Length: 1000000", last, method=b"POST").replace(b"/ ", b"/early ", 1)
    found = statuses(address, sent, *[bytes(100_000)] * 10, head(LAST), pause=0.005)
    assert found == [413] if last == LAST else [413, 200]


def test_a_body_that_goes_on_after_its_answer_is_cut_off(address: Address) -> None:
    sent = CHUNKED.replace(b"/ ", b"/early ", 1)
    chunk = b"%x\r\n%b\r\n" % (1 << 16, bytes(1 << 16))
    with socket.create_connection(address, timeout=30) as client, pytest.raises(ConnectionError):
        client.sendall(sent)
        for _ in range(3 * MOST >> 16):
            client.sendall(chunk)
            time.sleep(0.001)


def test_what_is_garbage_is_refused_once(address: Address) -> None:
    assert statuses(address, b"\x16\x03\x01" * 9) == [400]
    assert statuses(address, head(b"Content-Length: x")) == [400]
    assert statuses(address, CHUNKED + b"zz\r\n") == [400]


def test_another_protocol_is_not_spoken_but_answered(address: Address) -> None:
    asked = head(b"Connection: Upgrade", b"Upgrade: h2c")
    with socket.create_connection(address, timeout=30) as client:
        client.sendall(asked)
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        client.sendall(head() * 9)
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_where_there_are_too_many_the_one_that_waits_longest_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 3)
    with listening() as (where, refused):
        clients = []
        for _ in range(4):
            clients.append(socket.create_connection(where, timeout=30))
            time.sleep(0.05)
        assert clients[0].recv(1 << 16).startswith(b"HTTP/1.1 503 ")
        assert refused == ["connections"]
        for client in clients[1:]:
            client.sendall(head(LAST))
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        for client in clients:
            client.close()


def test_a_request_that_does_not_arrive_is_given_up() -> None:
    with listening(slowest=0.3) as (where, refused):
        start = time.monotonic()
        assert statuses(where, head()[:-2]) == [408]
        assert statuses(where, b"\r\n") == []
        assert statuses(where, head(b"Content-Length: 9", method=b"POST") + b"x") == []
        assert time.monotonic() - start < 10
        assert refused == ["seconds"]
