"""What models assume, on standard error: one line for each, however often it is opened."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from regnet.assumptions import AssumptionWarning
from regnet.cli.console import say


@contextmanager
def assumptions_said() -> Iterator[None]:
    """Print each `AssumptionWarning` of the block once; other warnings are shown as before."""
    said: set[tuple[str, tuple[str, ...]]] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", AssumptionWarning)
        others = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not isinstance(message, AssumptionWarning):
                others(message, category, filename, lineno, file, line)
            elif (known := (message.weights, message.assumed)) not in said:
                from regnet.writers import visible

                said.add(known)
                say(f"regnet: {visible(str(message))}")

        warnings.showwarning = show
        yield
