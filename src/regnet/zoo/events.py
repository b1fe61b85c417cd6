"""What a download reports while it runs."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

INTERVAL = 0.1  # seconds between events of progress

Happening = Literal["waiting", "start", "progress", "retry", "looked", "done", "failed"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One step of a download: `bytes` of `total` are here, `seconds_left` at the present rate.

    "waiting" (another process is fetching the file), "start" (a server answered), "progress"
    (ten times a second at most), "retry" (`message` says why), "looked" (nobody published a hash of
    the file, so that it was looked into: `message`), "done" (`path`), "failed".
    """

    event: Happening
    model: str
    bytes: int = 0
    total: int | None = None
    seconds_left: float | None = None
    url: str | None = None
    path: str | None = None
    message: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the event as plain JSON values, without those that are not known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


OnEvent = Callable[[Event], None]


def ignore(event: object) -> None:
    """Report to nobody."""


class Reporter:
    """Turns the steps of one download into events, and measures the rate."""

    def __init__(self, model: str, on_event: OnEvent) -> None:
        self._model = model
        self._on_event = on_event
        self._began = self._last = 0.0
        self._offset = 0

    def send(self, event: Happening, **values: Any) -> None:
        """Report one step."""
        self._on_event(Event(event=event, model=self._model, **values))

    def start(self, url: str, size: int, total: int | None) -> None:
        """Report that a server answered; `size` bytes are here already."""
        self._began = self._last = time.monotonic()
        self._offset = size
        self.send("start", bytes=size, total=total, url=url)

    def progress(self, size: int, total: int | None) -> None:
        """Report how much is here, unless that was done a moment ago."""
        now = time.monotonic()
        if now - self._last < INTERVAL:
            return
        self._last = now
        received, seconds_left = size - self._offset, None
        if total is not None and received > 0:
            seconds_left = round((total - size) * (now - self._began) / received, 1)
        self.send("progress", bytes=size, total=total, seconds_left=seconds_left)
