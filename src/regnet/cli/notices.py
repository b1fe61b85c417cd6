"""Warnings of regnet's own, on standard error: each text once, on a line of its own."""

import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, TextIO

from regnet.cli.console import say
from regnet.system.notices import DarkPhotoWarning, RegNetWarning, SkippedFilesWarning

_SHOWN: Final = 3  # photos that are warned of one by one
_skipped: Final[ContextVar[Counter[str]]] = ContextVar("skipped")


def skipped_files() -> dict[str, int]:
    """Return how many files of each kind were said to be skipped, for a command's JSON."""
    return dict(_skipped.get(Counter()))


@contextmanager
def notices_said() -> Iterator[None]:
    """Print each `RegNetWarning` of the block once; other warnings are shown as before.

    Of dark photos the first three are named, and the others are counted at the end.
    """
    said: set[object] = set()
    dark: set[object] = set()
    skipped: Counter[str] = Counter()
    _skipped.set(skipped)
    one_by_one = threading.Lock()  # photos are decoded, and warned of, in several threads
    with warnings.catch_warnings():
        warnings.simplefilter("always", RegNetWarning)
        others = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not isinstance(message, RegNetWarning):
                others(message, category, filename, lineno, file, line)
                return
            known = dark if isinstance(message, DarkPhotoWarning) else said
            with one_by_one:
                if message.key in known:
                    return
                known.add(message.key)
                if isinstance(message, SkippedFilesWarning):
                    skipped.update(message.counts)
                if known is said or len(dark) <= _SHOWN:
                    from regnet.inference.writers import visible

                    say(f"regnet: {visible(str(message))}")

        warnings.showwarning = show
        try:
            yield
        finally:
            if (more := len(dark) - _SHOWN) > 0:
                say(f"regnet: {more:,} more 16-bit photos are nearly black")
