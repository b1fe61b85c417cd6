"""What every command shares: exit statuses, standard output and error, warnings, files to write."""

import io
import os
import shutil
import signal
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from regnet.system.errors import OutputError
from regnet.system.json_text import json_text
from regnet.system.notices import DarkPhotoWarning, RegNetWarning, SkippedFilesWarning

if TYPE_CHECKING:
    from rich.console import Console

    from regnet.pages.report import Report

EXIT_SOME_FAILED: Final = 1
EXIT_COULD_NOT_RUN: Final = 2
EXIT_INTERRUPTED: Final = 130

_SHOWN: Final = 3  # dark photos that are named
_skipped: Final[ContextVar[Counter[str]]] = ContextVar("skipped")


def stderr() -> "Console":
    """Return a console on standard error, for progress and messages."""
    from rich.console import Console

    return Console(stderr=True)


def terminal_width() -> int | None:
    """Return the columns of the terminal that standard output is; None if it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_table(rows: Sequence[Sequence[str]], *, left: Sequence[int]) -> None:
    """Print rows, the first of which names the columns; those of `left` are texts, not figures."""
    from regnet.pages.terminal import aligned

    figures = [number not in left for number in range(len(rows[0]))]
    for line in aligned(rows, figures, terminal_width()):
        print(line)  # noqa: T201


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print names and texts as two columns; without a text no line."""
    from regnet.pages.terminal import aligned

    for line in aligned([fact for fact in facts if fact[1]], (False, False)):
        print(line)  # noqa: T201


def shows_motion() -> bool:
    """Return whether standard error is a terminal on which a line can move."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def say(message: str) -> None:
    """Print one plain line on standard error."""
    print(message, file=sys.stderr)  # noqa: T201


def in_utf8(stream: TextIO) -> TextIO:
    """Set a standard stream to UTF-8, as JSON and CSV are whatever the terminal, and return it."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    return stream


def print_json(value: Any, *, indent: int | None = None) -> None:
    """Print a value as JSON on standard output: one line, or more with `indent`."""
    print(json_text(value, indent=indent), file=in_utf8(sys.stdout), flush=True)


def print_result(result: Any) -> None:
    """Print a result's `to_dict()` as JSON, with the files that were skipped."""
    print_json(result.to_dict() | {"skipped": dict(_skipped.get(Counter()))})


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
    heard: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: heard.append(number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        for one in heard:
            signal.raise_signal(one)


def require_writable(path: Path | None) -> None:
    """Raise `OutputError` if a file cannot be written; None: no file requested."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise OutputError(f"cannot write {path}: it is a folder, or its folder does not exist")


def require_html(path: Path | None) -> None:
    """Raise as `require_writable`, or `MissingExtraError` if reports cannot be made."""
    require_writable(path)
    if path is not None:
        from regnet.pages.html import require_report

        require_report()


def show(
    report: "Callable[[], Report]",
    values: Callable[[], Mapping[str, Any]],
    *,
    as_json: bool = False,
    html: Path | None = None,
) -> None:
    """Write a result's page if one is wanted, and print the result: `values` as JSON, or text."""
    if html is not None:
        from regnet.pages.html import write_report

        write_report(html, report())
        say(f"{html}: written")
    if as_json:
        print_json({**values(), "skipped": dict(_skipped.get(Counter()))})
        return
    from regnet.pages.terminal import report_lines

    for line in report_lines(report(), terminal_width()):
        print(line)  # noqa: T201


@contextmanager
def notices_said() -> Iterator[None]:
    """Print each `RegNetWarning` of the block once; show other warnings as before.

    The first three dark photos are named; the others are counted at the end.
    """
    said: set[object] = set()
    dark: set[object] = set()
    skipped = Counter[str]()
    _skipped.set(skipped)
    one_by_one = threading.Lock()  # photos are decoded, and warned of, in several threads
    with warnings.catch_warnings():
        warnings.simplefilter("always", RegNetWarning)
        show_other = warnings.showwarning

        def show(message: Warning | str, *where: Any, **more: Any) -> None:
            if not isinstance(message, RegNetWarning):
                show_other(message, *where, **more)
                return
            known = dark if isinstance(message, DarkPhotoWarning) else said
            with one_by_one:
                if message.key in known:
                    return
                known.add(message.key)
                if isinstance(message, SkippedFilesWarning):
                    skipped.update(message.counts)
                if known is said or len(dark) <= _SHOWN:
                    from regnet.system.text import visible

                    say(f"regnet: {visible(str(message))}")

        warnings.showwarning = show
        try:
            yield
        finally:
            if (more := len(dark) - _SHOWN) > 0:
                say(f"regnet: {more:,} more 16-bit photos are nearly black")
