"""What every command shares: consoles, exit codes, progress bars."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

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


def say(message: str) -> None:
    """Print one plain line on standard error."""
    print(message, file=sys.stderr)  # noqa: T201


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
def progress(*, unit: str = "", transient: bool = True) -> Iterator["Progress"]:
    """Give a progress display on standard error with rate and time left; silent when piped."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = stderr()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        transient=transient,
        disable=not console.is_terminal,
    ) as display:
        yield display


def track(items: Iterable[T], description: str, total: int | None, unit: str = "") -> Iterator[T]:
    """Yield items while a bar on a terminal's standard error follows them."""
    if not sys.stderr.isatty():
        yield from items
        return
    with progress(unit=unit) as display:
        yield from display.track(items, total=total, description=description)
