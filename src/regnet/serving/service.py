"""What the handlers of a server share: its models, limits, metrics and log."""

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Final, TextIO, TypeVar

from regnet.serving.access import Token, Visitors
from regnet.serving.exchange import Exchange, Held
from regnet.serving.limits import Limits
from regnet.serving.metrics import ServerMetrics
from regnet.serving.models import Models
from regnet.serving.refusals import too_late
from regnet.system.json_text import json_text

_LONGEST_PATH: Final = 200  # characters

Result = TypeVar("Result")

_SMALL: Final = 256 << 10  # bytes that are worked on at once


class AccessLog:
    """Writes lines of JSON to a stream, by default standard error. Thread-safe."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def event(self, name: str, **fields: Any) -> None:
        """Write an event of the server itself."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json_text({"time": time, "event": name, **fields}, separators=(",", ":")) + "\n"
        stream = self._stream or sys.stderr
        with self._lock:
            stream.write(line)
            stream.flush()

    def request(self, exchange: Exchange, seconds: float) -> None:
        """Write a request and its answer, without its query and its images."""
        scope = exchange.scope
        client = scope.get("client")
        fields: dict[str, Any] = {
            "id": exchange.id,
            "client": client[0] if client else None,
            "method": scope["method"],
            "path": scope["path"][:_LONGEST_PATH],
            "status": exchange.status,
            "ms": round(seconds * 1e3, 2),
            "bytes_in": exchange.bytes_in,
            "bytes_out": exchange.bytes_out,
        }
        if exchange.model is not None:
            fields["model"] = exchange.model
            fields["images"] = exchange.images
        if (timing := exchange.timing) is not None:
            fields["decode_ms"] = round(timing.decode_ms, 2)
            fields["queue_ms"] = round(timing.queue_ms, 2)
            fields["infer_ms"] = round(timing.infer_ms, 2)
            fields["batch"] = timing.batch
        if exchange.reason is not None:
            fields["reason"] = exchange.reason
        if exchange.error is not None:
            fields["error"] = exchange.error
        self.event("request", **fields)

    @contextmanager
    def of_libraries(self) -> Iterator[None]:
        """Write warnings of libraries to this log while the block runs."""
        handler = _Handler(self)
        root = logging.getLogger()
        root.addHandler(handler)
        try:
            yield
        finally:
            root.removeHandler(handler)


class _Handler(logging.Handler):
    """Writes what libraries log as events."""

    def __init__(self, log: AccessLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message and its error."""
        fields = {"source": record.name, "message": record.getMessage()}
        if record.exc_info:
            fields["error"] = logging.Formatter().formatException(record.exc_info)
        self._log.event(record.levelname.lower(), **fields)


@dataclass(kw_only=True)
class Service:
    """One server.

    Without a `token`, `visitors` decides who is answered. `model_control` lets clients load and
    unload models; `draining` is set when the server stops.
    """

    models: Models
    limits: Limits
    metrics: ServerMetrics
    log: AccessLog
    token: Token | None = None
    visitors: Visitors = field(default_factory=lambda: Visitors("127.0.0.1"))
    model_control: bool = False
    draining: bool = False
    held: Held = field(init=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    def __post_init__(self) -> None:
        limits = self.limits
        large = max(limits.body, limits.queue_bytes * 3 // 4)
        self.held = Held(limits.queue_bytes, large)

    async def in_turn(
        self, function: Callable[[], Result], *, size: int, exchange: Exchange
    ) -> Result:
        """Return the result of a function that works on `size` bytes, such as a large JSON text.

        Large work goes in a thread, one at a time and at most half of the time: Python in a thread
        holds up all others. Raises `TooLate` if its turn has not come at the deadline.
        """
        if size < _SMALL:
            return function()
        try:
            async with asyncio.timeout_at(exchange.deadline):
                await self._turn.acquire()
        except TimeoutError as exc:
            raise too_late(self.limits.seconds) from exc
        start = perf_counter()
        try:
            return await asyncio.to_thread(function)
        finally:
            loop = asyncio.get_running_loop()
            loop.call_later(perf_counter() - start, self._turn.release)

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here."""
        return self.models.ready and not self.draining
