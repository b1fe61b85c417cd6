"""What every command shares: consoles, exit codes, progress bars."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

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


def track(
    items: Iterable[T], description: str, count: Callable[[], int | None], unit: str
) -> Iterator[T]:
    """Yield items while a bar with the time left follows them on a terminal's standard error.

    `count` says how many there are, None if unknown; without a terminal it is not asked.
    """
    if not sys.stderr.isatty():
        yield from items
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
        yield from display.track(items, total=count(), description=description)
