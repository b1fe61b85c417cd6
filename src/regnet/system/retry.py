"""When to try again: exponential back-off with jitter, and what servers ask for."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import TypeVar

T = TypeVar("T")


class FinalError(Exception):
    """To ask this server again is of no use. `integrity`: it sent, or would send, wrong bytes.

    `unreachable`: there was no connection at all.
    """

    def __init__(self, why: str, *, integrity: bool = False, unreachable: bool = False) -> None:
        super().__init__(why)
        self.integrity = integrity
        self.unreachable = unreachable


class BrokenError(Exception):
    """A failure that may pass; ask again, after `asked` seconds if that is given."""

    def __init__(self, why: str, *, asked: float | None = None, unreachable: bool = False) -> None:
        super().__init__(why)
        self.asked = asked
        self.unreachable = unreachable


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Waits `base`, 2 `base`, 4 `base` ... seconds, `longest` at most, each shortened by chance.

    A server is given up after `attempts` failures in a row that brought little, or
    `connect_attempts` if it cannot even be reached. A server's Retry-After is honoured up to
    `longest_asked` seconds.
    """

    attempts: int = 5
    connect_attempts: int = 3
    base: float = 0.5
    longest: float = 30.0
    longest_asked: float = 60.0
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random

    def run(self, attempt: Callable[[], T], *, end: float = inf) -> T:
        """Return what an attempt returns; what may pass is tried again until `end` (monotonic).

        Raises `FinalError`.
        """
        failures = 0
        while True:
            try:
                return attempt()
            except BrokenError as exc:
                failures += 1
                delay = self.delay(failures, exc.asked)
                self.check(exc, failures, enough=time.monotonic() + delay > end)
                self.sleep(delay)

    def check(self, exc: BrokenError, failures: int, *, enough: bool = False) -> None:
        """Raise `FinalError` after too many failures (1..) in a row, or if it is `enough`."""
        if enough or failures >= (self.connect_attempts if exc.unreachable else self.attempts):
            why = f"{exc} ({failures} attempt{'s' * (failures > 1)})"
            raise FinalError(why, unreachable=exc.unreachable) from exc

    def delay(self, failures: int, asked: float | None = None) -> float:
        """Return the seconds to wait after so many failures (1..) in a row."""
        longest = min(self.longest, self.base * 2.0 ** (failures - 1))
        waited = longest * (0.5 + 0.5 * self.chance())
        return max(waited, min(asked or 0.0, self.longest_asked))


def seconds_asked(header: str | None, *, now: datetime | None = None) -> float | None:
    """Return the seconds a Retry-After header asks for; None where it says nothing sensible."""
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    from email.utils import parsedate_to_datetime

    try:
        until = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())
