"""Rows of text as a table, for the benchmarks' own output."""

from collections.abc import Sequence

from regnet.pages.terminal import aligned


def grid(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as text, the first column left, the others right."""
    return "\n".join(aligned(rows, [False, *[True] * (len(rows[0]) - 1)]))
