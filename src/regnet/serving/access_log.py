"""The log of a server: JSON, one line a request, without what the images show."""

import json
import sys
import threading
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from regnet.serving.exchange import Exchange

_LONGEST_PATH: Final = 200  # characters
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))


class AccessLog:
    """Writes lines of JSON to a stream, standard error where none is given. Thread-safe."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def event(self, name: str, **fields: Any) -> None:
        """Write what happened to the server itself."""
        self._write({"time": _now(), "event": name, **fields})

    def request(self, exchange: Exchange, seconds: float) -> None:
        """Write what became of a request; neither its query nor its images are in it."""
        scope = exchange.scope
        client = scope.get("client")
        fields: dict[str, Any] = {
            "time": _now(),
            "event": "request",
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
        self._write(fields)

    def _write(self, fields: dict[str, Any]) -> None:
        line = _ENCODER.encode(fields) + "\n"
        stream = self._stream or sys.stderr
        with self._lock:
            stream.write(line)
            stream.flush()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
