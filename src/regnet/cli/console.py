"""What every command shares: consoles, exit codes, progress bars."""

import io
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from regnet.system.json_text import json_text

if TYPE_CHECKING:
    from rich.console import Console

EXIT_OK = 0
EXIT_SOME_FAILED = 1
EXIT_COULD_NOT_RUN = 2
EXIT_INTERRUPTED = 130

T = TypeVar("T")


def stderr() -> "Console":
    """Return a console on standard error, for progress and messages."""
    from rich.console import Console

    return Console(stderr=True)


def stdout() -> "Console":
    """Return a console on standard output, for results that people read."""
    from rich.console import Console

    return Console()


def shows_motion() -> bool:
    """Return whether standard error is a terminal on which a line can move."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def say(message: str) -> None:
    """Print one plain line on standard error."""
    print(message, file=sys.stderr)  # noqa: T201


def in_utf8(stream: TextIO) -> TextIO:
    """Set a standard stream to UTF-8, as JSON and CSV are whatever the terminal, and return it."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    return stream


def utf8_stdout() -> TextIO:
    """Return standard output in UTF-8."""
    return in_utf8(sys.stdout)


def print_json(value: Any, *, indent: int | None = None) -> None:
    """Print a value as JSON on standard output: one line, or more with `indent`."""
    print(json_text(value, indent=indent), file=utf8_stdout(), flush=True)


@contextmanager
def interruptible() -> Iterator[None]:
    """End the process at once on Ctrl-C: threads may be waiting for a server that is silent."""
    try:
        yield
    except KeyboardInterrupt:
        say("regnet: interrupted")
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(EXIT_INTERRUPTED)


@contextmanager
def signals_wait() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for the block: a library that is being imported may lose them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


Advance = Callable[..., None]


@contextmanager
def counter(description: str, total: int | None, unit: str) -> Iterator[Advance]:
    """Give `advance(count, description=None)`, which moves a bar on with the time left.

    The bar is on a terminal's standard error; elsewhere nothing is shown. `total` None is unknown.
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

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=stderr(),
        transient=True,
    ) as display:
        task = display.add_task(description, total=total)
        yield lambda count, description=None: display.update(
            task, advance=count, description=description
        )


def track(
    items: Iterable[T], description: str, count: Callable[[], int | None], unit: str
) -> Iterator[T]:
    """Yield items while a bar follows them; `count` says how many, and is asked if one is shown."""
    total = count() if sys.stderr.isatty() else None
    with counter(description, total, unit) as advance:
        for item in items:
            yield item
            advance(1)
