"""Warnings of regnet's own, on standard error: each text once, on a line of its own."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from regnet.cli.console import say
from regnet.notices import RegNetWarning


@contextmanager
def notices_said() -> Iterator[None]:
    """Print each `RegNetWarning` of the block once; other warnings are shown as before."""
    said: set[str] = set()
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
            elif (text := str(message)) not in said:
                said.add(text)
                say(f"regnet: {text}")

        warnings.showwarning = show
        yield
