"""Words and numbers as people read them."""

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable
from typing import Final

BAR: Final = "\N{FULL BLOCK}"
"""A twentieth of a bar of probability."""
_UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_COUNT: Final = re.compile(r"(\d+(?:\.\d+)?)([KMG]?)", re.IGNORECASE)
_SEPARATOR: Final = re.compile(r'"?sep=([,;|\t])"?\s*\n(?=\s*\S)', re.IGNORECASE)


def megabytes(count: int) -> str:
    """Return a number of bytes in MB, without the unit."""
    return f"{count / 1e6:,.1f}"


def parse_count(text: str) -> int | None:
    """Return a number such as 20M or 1.5G; None where a text is none."""
    match = _COUNT.fullmatch(text.strip())
    return round(float(match[1]) * _UNITS[match[2].upper()]) if match else None


def text_of(data: bytes) -> str:
    """Return the text of a file: UTF-8, or UTF-16 with a byte order mark, as of Windows PowerShell.

    Raises `UnicodeDecodeError`.
    """
    utf16 = data.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
    return data.decode("utf-16" if utf16 else "utf-8-sig")


def separated(text: str) -> tuple[str, str]:
    """Return the separator that the first line of a CSV names for Excel, `sep=;`, and the lines.

    The separator is "" where the first line names none.
    """
    match = _SEPARATOR.match(text)
    return (match[1], text[match.end() :]) if match else ("", text)


def percent(share: float | None, digits: int = 2) -> str:
    """Return a share in [0, 1] as percent; a dash for None."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: 1 photo, 2 photos."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def meant_by(word: str, known: Iterable[str]) -> str:
    """Return a question that names the known words most like a word; empty if none is like it."""
    from difflib import get_close_matches

    *more, last = get_close_matches(word, [*known], n=4, cutoff=0.6) or [""]
    return f"did you mean {' or '.join(filter(None, (', '.join(more), last)))}?" if last else ""


def sentence(text: str) -> str:
    """Return a phrase with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def last_line(error: Exception) -> str:
    """Return the last line of an error's message, short enough for a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return visible(lines[-1].lstrip("- "))[:300] if lines else type(error).__name__


def visible(text: str) -> str:
    """Return a text with control characters written out, so that none reaches a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
