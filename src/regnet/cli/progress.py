"""Progress on standard error: a bar over items, and the downloads of models."""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from regnet.cli.console import say, shows_motion, stderr
from regnet.system.addresses import host_of
from regnet.system.text import megabytes
from regnet.zoo.events import Event, OnEvent

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

T = TypeVar("T")
Advance = Callable[..., None]

_BESIDE_BAR: Final = 52
"""Columns of a line of progress without its bar, for counts of six digits."""
_TROUBLES: Final = ("retry", "waiting", "looked")


@contextmanager
def counter(description: str, total: int | None, unit: str) -> Iterator[Advance]:
    """Give `advance(count, description=None)`, which moves a bar on with the time left.

    Without a terminal nothing is shown. `total` None: unknown.
    """
    if not sys.stderr.isatty():
        yield lambda count, description=None: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = stderr()
    name, done, left = TextColumn("{task.description}"), MofNCompleteColumn(), TimeRemainingColumn()
    columns = [name, done, left]
    if (room := console.width - _BESIDE_BAR) > 0:
        bar = BarColumn(min(room, 40))
        columns = [name, bar, done, TextColumn(unit), left, TextColumn("left")]
    with Progress(*columns, console=console, transient=True) as display:
        task = display.add_task(description, total=total)
        yield lambda count, description=None: display.update(
            task, advance=count, description=description
        )


def track(
    items: Iterable[T], description: str, count: Callable[[], int | None] | int, unit: str = ""
) -> Iterator[T]:
    """Yield items while a bar follows them; a function for `count` is called if one is shown."""
    total = count() if callable(count) and sys.stderr.isatty() else count
    with counter(description, total if isinstance(total, int) else None, unit) as advance:
        for item in items:
            yield item
            advance(1)


@contextmanager
def download_display() -> Iterator[OnEvent]:
    """Give a listener for the events of downloads, in any thread, that shows their progress.

    On a terminal each file has a bar with the time left; elsewhere one line says what is downloaded
    from where, and another that it is complete. Troubles are lines in both. Nothing is shown, or
    imported, for a file that is in the cache.
    """
    bars = _Bars() if shows_motion() else None
    lock = threading.Lock()
    try:
        yield one_at_a_time(bars.show if bars else _Lines().show, lock)
    finally:
        if bars:
            with lock:
                bars.close()


def one_at_a_time(listener: OnEvent, lock: "threading.Lock | None" = None) -> OnEvent:
    """Return a listener that several threads may call at once."""
    lock = lock or threading.Lock()

    def listen(event: Event) -> None:
        with lock:
            listener(event)

    return listen


class _Troubles:
    """Says what went wrong, the same reason in a row once."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], str] = {}

    def say(self, event: Event) -> None:
        host, message = host_of(event.url or ""), event.message or ""
        said = self._said.get((event.model, host))
        if said is None or said not in message:
            self._said[event.model, host] = message.partition("; trying again")[0]
            say(": ".join(text for text in (event.model, host, message) if text))


def _megabytes(count: int | None) -> str:
    return "" if count is None else f" {megabytes(count)} MB"


class _Lines:
    """Says when a file starts to come from a server, what went wrong, and that it is complete."""

    def __init__(self) -> None:
        self._hosts: dict[str, str] = {}
        self._troubles = _Troubles()

    def show(self, event: Event) -> None:
        if event.event in _TROUBLES:
            self._troubles.say(event)
        elif event.event == "start":
            host = host_of(event.url or "")
            if self._hosts.get(event.model) != host:  # else it resumes, as the last line said
                here = f",{_megabytes(event.bytes)} are here already" if event.bytes else ""
                say(f"{event.model}: downloading{_megabytes(event.total)} from {host}{here}")
            self._hosts[event.model] = host
        elif event.event == "done" and event.model in self._hosts:
            say(f"{event.model}: downloaded{_megabytes(event.total)}")


class _Bars:
    """One bar per file that is coming; the display lives only while there is one."""

    def __init__(self) -> None:
        self._display: Progress | None = None
        self._bars: dict[str, TaskID] = {}
        self._closed = False
        self._troubles = _Troubles()

    def show(self, event: Event) -> None:
        if event.event in _TROUBLES:
            self._troubles.say(event)
        elif event.event == "start" and event.model not in self._bars and not self._closed:
            if self._display is None:
                self._display = _new_display()
                self._display.start()
            self._bars[event.model] = self._display.add_task(event.model)
        bar = self._bars.get(event.model)
        if self._display is None or bar is None:
            return
        if event.event in ("start", "progress", "done"):
            self._display.update(bar, completed=event.bytes, total=event.total)
        if event.event in ("done", "failed"):
            del self._bars[event.model]
            if not self._bars:
                self._stop()

    def close(self) -> None:
        """Stop for good: threads that an interrupted command leaves behind show nothing more."""
        self._closed = True
        self._stop()

    def _stop(self) -> None:
        display, self._display, self._bars = self._display, None, {}
        if display is not None:
            display.stop()


def _new_display() -> "Progress":
    from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    # Lines on standard output pass through the display only where they meet it on the terminal:
    # it would send them to standard error.
    description, bar, _, left = Progress.get_default_columns()
    return Progress(
        description,
        bar,
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("left"),
        left,
        console=stderr(),
        redirect_stdout=sys.stdout.isatty(),
    )
