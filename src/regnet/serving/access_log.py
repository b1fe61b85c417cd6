"""The log of a server: one line of JSON per request, without the results."""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from regnet.serving.exchange import Exchange
from regnet.system.json_text import json_text

_LONGEST_PATH: Final = 200  # characters


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
