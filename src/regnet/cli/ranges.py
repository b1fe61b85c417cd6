"""Ranges of figures as options write them, such as 360M:400M."""

import re
from typing import Annotated

import typer

from regnet.system.errors import SpaceError

Range = Annotated[str | None, typer.Option(metavar="LOW:HIGH", help="Limits, ends included")]

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)([KMG]?)", re.IGNORECASE)


def bounds(text: str | None) -> tuple[int, int] | None:
    """Return the ends of a range such as 360M:400M; raises `SpaceError`."""
    if text is None:
        return None
    low, colon, high = text.partition(":")
    least, most = _count(low, 0), _count(high, 2**63 - 1)
    if not colon or least is None or most is None or least > most:
        raise SpaceError(f"{text!r} is no range: write LOW:HIGH, such as 360M:400M or :5M")
    return least, most


def _count(text: str, absent: int) -> int | None:
    """Return a number such as 1.5G, `absent` for an empty text, None for what is none."""
    if not text.strip():
        return absent
    if (found := _NUMBER.fullmatch(text.strip())) is None:
        return None
    return round(float(found[1]) * _UNITS[found[2].upper()])
