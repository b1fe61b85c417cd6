"""Waits between tries, and what Retry-After headers say."""

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regnet.system.retry import Retry, seconds_asked

NOW = datetime(2025, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("-7", None),
        ("7.5", None),
        ("soon", None),
        ("٣", None),
        ("Wed, 01 Jan 2025 12:00:30 GMT", 30.0),
        ("Wed, 01 Jan 2025 11:00:00 GMT", 0.0),
        ("Wed, 01 Jan 2025 13:00:30 +0100", 30.0),
        ("Wed, 99 Jan 2025 12:00:30 GMT", None),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2025 00:00:00 +99999999999999999999", None),
        ("9" * 5000, math.inf),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert seconds_asked(header, now=NOW) == seconds


@given(st.text())
def test_any_header_is_read_without_error(header: str) -> None:
    assert (seconds_asked(header, now=NOW) or 0.0) >= 0.0


NUMBERS = st.sampled_from(["0", "1", "24", "60", "-1", "2025", "9" * 10, "9" * 20, "9" * 5000])


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_any_date_is_read_without_error(day: str, year: str, hour: str, zone: str) -> None:
    header = f"Mon, {day} Jan {year} {hour}:00:00 +{zone}"
    assert (seconds_asked(header, now=NOW) or 0.0) >= 0.0


@given(st.integers(1, 500), st.floats(0, 1), st.none() | st.floats(0, 1e9))
def test_a_wait_is_bounded_and_as_long_as_asked(
    failures: int, chance: float, asked: float | None
) -> None:
    retry = Retry(chance=lambda: chance)
    delay = retry.delay(failures, asked)
    assert 0.25 <= delay <= 60.0
    assert delay >= min(asked or 0.0, 60.0)


def test_waits_double_up_to_the_longest() -> None:
    retry = Retry(chance=lambda: 1.0)
    assert [retry.delay(n) for n in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert Retry(chance=lambda: 0.0).delay(3) == 1.0
