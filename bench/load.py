"""A load generator for `bench/serve.py`, in a process of its own: photos in, figures out.

    python bench/load.py '{"url": "http://127.0.0.1:8000", "photos": "FOLDER", "seconds": 5}'

With `clients` that many send a photo, wait for its answer and `pause` seconds (0) and send the
next; with `rate` photos
are sent at random moments (Poisson), so many a second, whether or not earlier ones are answered,
and latency counts from the moment at which one was due. Each request has an id, which must come
back once. The last line is one JSON object; times are in seconds.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

_HEAD = (
    b"POST /v1/classify HTTP/1.1\r\nHost: %s\r\nContent-Type: image/jpeg\r\n"
    b"X-Request-Id: %d\r\nContent-Length: %d\r\n\r\n"
)
_KEEP_EVERY = 23  # answers whose content is kept to be checked


@dataclass
class Found:
    """What became of the requests: (second it was due, latency, status) of each answer."""

    answers: list[tuple[float, float, int]] = field(default_factory=list)
    sent: int = 0
    lost: int = 0
    wrong: int = 0
    kept: list[tuple[int, bytes]] = field(default_factory=list)


class Connection(asyncio.Protocol):
    """One connection with at most one request on its way."""

    def __init__(self, load: "Load") -> None:
        self.load = load
        self.transport: Any = None
        self.number = -1  # of the request on its way
        self.due = 0.0
        self.head: bytes | None = None
        self.body = bytearray()
        self.missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what to write to."""
        self.transport = transport

    def send(self, number: int, due: float) -> None:
        """Send a photo."""
        self.number, self.due = number, due
        photo = self.load.photos[number % len(self.load.photos)]
        self.transport.writelines([_HEAD % (self.load.host, number, len(photo)), photo])

    def data_received(self, data: bytes) -> None:
        """Take a piece of an answer."""
        if self.head is None:
            self.body += data
            end = self.body.find(b"\r\n\r\n")
            if end < 0:
                return
            self.head = bytes(self.body[:end]).lower() + b"\r\n"
            del self.body[: end + 4]
            self.missing = int(self.value(b"content-length")) - len(self.body)
        else:
            self.body += data
            self.missing -= len(data)
        if self.missing <= 0:
            self.answered()

    def value(self, name: bytes) -> bytes:
        """Return a header of the answer."""
        assert self.head is not None
        _, _, rest = self.head.partition(b"\r\n" + name + b": ")
        return rest.partition(b"\r\n")[0]

    def answered(self) -> None:
        """Take note of a whole answer."""
        assert self.head is not None
        head, body, number = self.head, bytes(self.body), self.number
        right = self.missing == 0 and self.value(b"x-request-id") == b"%d" % number
        closes = self.value(b"connection") == b"close"
        self.head, self.number = None, -1
        self.body.clear()
        self.load.answered(self, number, int(head[9:12]), right, body)
        if closes:
            self.transport.close()
        else:
            self.load.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say that it has ended."""
        self.load.gone(self)


class Load:
    """Requests to one server."""

    def __init__(self, order: dict[str, Any]) -> None:
        address = urlsplit(order["url"])
        self.host = address.netloc.encode()
        self.at = (address.hostname, address.port)
        files = sorted(p for p in Path(order["photos"]).iterdir() if p.is_file())
        self.photos = [file.read_bytes() for file in files]
        self.found = Found()
        self.clients: int | None = order.get("clients")
        self.rate: float | None = order.get("rate")
        self.pause: float = order.get("pause", 0.0)
        self.seconds: float = order["seconds"]
        self.until = 0.0
        self.idle: deque[Connection] = deque()
        self.all: set[Connection] = set()
        self.refused = 0

    async def run(self) -> Found:
        """Send for the time that was ordered, then wait for the answers."""
        start = time.perf_counter()
        self.until = start + self.seconds
        if self.clients is not None:
            await asyncio.gather(*(self.connect() for _ in range(self.clients)))
            for connection in list(self.all):
                self.free(connection)
            await asyncio.sleep(max(0.0, self.until - time.perf_counter()))
        else:
            await self.at_random(start)
        await self.answers()
        for connection in self.all:
            connection.transport.abort()
        return self.found

    async def at_random(self, start: float) -> None:
        """Send photos at random moments."""
        assert self.rate is not None
        draw, due = random.Random(0), start
        while (due := due + draw.expovariate(self.rate)) < self.until:
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            elif self.found.sent % 16 == 0:
                await asyncio.sleep(0)  # late: let answers be read too
            if not self.idle:
                await self.connect()
            if self.idle:
                self.send(self.idle.popleft(), due)

    async def connect(self) -> None:
        """Open one more connection."""
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: Connection(self), *self.at)
        except OSError:
            self.refused += 1
            return
        self.all.add(connection)
        if self.clients is None:
            self.idle.append(connection)

    def free(self, connection: Connection) -> None:
        """Use a connection again."""
        now = time.perf_counter()
        if self.clients is None:
            self.idle.append(connection)
        elif now < self.until:
            if self.pause:
                asyncio.get_running_loop().call_later(self.pause, self.send_now, connection)
            else:
                self.send(connection, now)

    def send_now(self, connection: Connection) -> None:
        """Send the next photo, which is due now."""
        self.send(connection, time.perf_counter())

    def send(self, connection: Connection, due: float) -> None:
        """Send the next photo."""
        number = self.found.sent
        self.found.sent += 1
        connection.send(number, due)

    def answered(
        self, connection: Connection, number: int, status: int, right: bool, body: bytes
    ) -> None:
        """Take note of an answer."""
        found = self.found
        found.answers.append((connection.due, time.perf_counter() - connection.due, status))
        found.wrong += not right
        if status == 200 and number % _KEEP_EVERY == 0:
            found.kept.append((number % len(self.photos), body))

    def gone(self, connection: Connection) -> None:
        """Take note of a connection that has ended; a client opens another."""
        self.all.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        self.found.lost += connection.number >= 0
        if self.clients is not None and time.perf_counter() < self.until and not self.refused:
            asyncio.get_running_loop().create_task(self.again())

    async def again(self) -> None:
        """Let a client go on with a new connection."""
        before = set(self.all)
        await self.connect()
        for connection in self.all - before:
            if connection.number < 0:
                self.free(connection)

    async def answers(self) -> None:
        """Wait for what is on its way, at most a minute."""
        for _ in range(6000):
            if all(connection.number < 0 for connection in self.all):
                return
            await asyncio.sleep(0.01)


def shares(values: list[float]) -> dict[str, float]:
    """Return the median, the 99th percentile and the most of latencies."""
    if not values:
        return {}
    values = sorted(values)
    return {
        "p50": values[len(values) // 2],
        "p99": values[int(len(values) * 0.99)],
        "max": values[-1],
    }


def summary(load: Load, found: Found, *, skip: float) -> dict[str, Any]:
    """Return the figures; what was due in the first `skip` seconds warms up and is not in rates."""
    begin = load.until - load.seconds + skip
    span = load.seconds - skip
    counted = [answer for answer in found.answers if answer[0] >= begin]
    good_then = sum(
        1
        for due, took, status in found.answers
        if status == 200 and begin <= due + took < load.until
    )
    return {
        "sent": found.sent,
        "answered": len(found.answers),
        "unanswered": found.sent - len(found.answers),
        "lost": found.lost,
        "wrong": found.wrong,
        "statuses": dict(Counter(str(status) for *_, status in found.answers)),
        "rate": good_then / span,
        "sent_rate": len(counted) / span,
        "good": shares([took for _, took, status in counted if status == 200]),
        "refused": shares([took for _, took, status in counted if status == 429]),
        "kept": [(number, json.loads(body)["predictions"][0]) for number, body in found.kept[:400]],
        "cpu_s": time.process_time(),
    }


def main() -> None:
    """Do what the one argument orders, print one JSON line."""
    order = json.loads(sys.argv[1])
    load = Load(order)
    found = uvloop.run(load.run())
    print(json.dumps(summary(load, found, skip=order.get("skip", 0.0))))


if __name__ == "__main__":
    main()
