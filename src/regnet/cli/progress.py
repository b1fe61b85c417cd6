"""How downloads show on standard error: bars on a terminal, a few plain lines elsewhere."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from regnet.cli.console import say, shows_motion, stderr
from regnet.zoo.events import Event, OnEvent

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@contextmanager
def download_display() -> Iterator[OnEvent]:
    """Give a listener for the events of downloads, in any thread, that shows their progress.

    On a terminal each file has a bar with the time left; elsewhere a line says what is fetched
    from where, and another that it came. Troubles are lines in both. What is in the cache already
    shows nothing, and loads nothing.
    """
    if not shows_motion():
        yield one_at_a_time(_Lines().show)
        return
    bars = _Bars()
    try:
        yield bars.show
    finally:
        bars.close()


def one_at_a_time(listener: OnEvent) -> OnEvent:
    """Return a listener that several threads may call at once."""
    lock = threading.Lock()

    def listen(event: Event) -> None:
        with lock:
            listener(event)

    return listen


def _trouble(event: Event) -> str:
    return ": ".join(text for text in (event.model, event.url, event.message) if text)


def _megabytes(count: int | None) -> str:
    return "" if count is None else f" {count / 1e6:,.1f} MB"


class _Lines:
    """Says when a file starts to come from a server, what went wrong, and that it came."""

    def __init__(self) -> None:
        self._hosts: dict[str, str] = {}

    def show(self, event: Event) -> None:
        if event.event in ("retry", "waiting", "looked"):
            say(_trouble(event))
        elif event.event == "start":
            self._start(event)
        elif event.event == "done" and event.model in self._hosts:
            say(f"{event.model}: downloaded{_megabytes(event.total)}")

    def _start(self, event: Event) -> None:
        host = (event.url or "").partition("//")[2].partition("/")[0]
        if self._hosts.get(event.model) == host:  # taken up again, as the line before said
            return
        self._hosts[event.model] = host
        here = f", {_megabytes(event.bytes).strip()} are here already" if event.bytes else ""
        say(f"{event.model}: downloading{_megabytes(event.total)} from {host}{here}")


class _Bars:
    """One bar for each file that is coming; the display lives only while there is one."""

    def __init__(self) -> None:
        self._display: Progress | None = None
        self._bars: dict[str, TaskID] = {}
        self._closed = False
        self._lock = threading.Lock()

    def show(self, event: Event) -> None:
        """Show an event, of any thread."""
        with self._lock:
            self._show(event)

    def _show(self, event: Event) -> None:
        if event.event in ("retry", "waiting", "looked"):
            say(_trouble(event))
        elif event.event == "start" and event.model not in self._bars:
            self._add(event.model)
        bar = self._bars.get(event.model)
        if self._display is None or bar is None:
            return
        if event.event in ("start", "progress", "done"):
            self._display.update(bar, completed=event.bytes, total=event.total)
        if event.event in ("done", "failed"):
            self._remove(event.model)

    def close(self) -> None:
        """Stop for good: threads that an interrupted command leaves behind show nothing more."""
        with self._lock:
            self._closed = True
            self._stop()

    def _add(self, model: str) -> None:
        if self._closed:
            return
        if self._display is None:
            self._display = _new_display()
            self._display.start()
        self._bars[model] = self._display.add_task(model)

    def _remove(self, model: str) -> None:
        del self._bars[model]
        if not self._bars:
            self._stop()

    def _stop(self) -> None:
        display, self._display, self._bars = self._display, None, {}
        if display is not None:
            display.stop()


def _new_display() -> "Progress":
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    # Lines on standard output pass through the display only where they meet it on the terminal:
    # it would send them to standard error.
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=stderr(),
        redirect_stdout=sys.stdout.isatty(),
    )
