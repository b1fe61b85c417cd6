"""The limits of a server, and the errors that name them."""

import pytest

from regnet.serving import refusals
from regnet.serving.limits import Limits
from regnet.serving.refusals import Refused, TooMany
from regnet.system.errors import LimitError, RegNetError


def test_the_limits_without_options_fit_each_other() -> None:
    limits = Limits()
    assert limits.batch <= limits.queue
    assert limits.body <= limits.queue_bytes


@pytest.mark.parametrize("name", ["body", "pixels", "batch", "queue", "queue_bytes", "seconds"])
@pytest.mark.parametrize("value", [0, -1, True, float("nan"), float("inf"), 1 << 62, "9", None])
def test_a_limit_is_a_number_above_0(name: str, value: object) -> None:
    with pytest.raises(LimitError, match=rf"^{name} must be a "):
        Limits(**{name: value})  # type: ignore[arg-type]


def test_only_seconds_may_be_a_fraction() -> None:
    assert Limits(seconds=0.5).seconds == 0.5
    with pytest.raises(LimitError, match=r"pixels must be a whole number .* not 0\.5"):
        Limits(pixels=0.5)  # type: ignore[arg-type]


def test_limits_that_refuse_what_another_allows_are_refused() -> None:
    with pytest.raises(LimitError, match=r"queue must be at least batch \(9\), not 8"):
        Limits(queue=8, batch=9)
    with pytest.raises(LimitError, match=r"queue_bytes must be at least body \(11\), not 10"):
        Limits(queue_bytes=10, body=11)


def test_each_refusal_has_a_status_of_its_own() -> None:
    kinds = [kind for kind in vars(refusals).values() if isinstance(kind, type)]
    statuses = {kind.status for kind in kinds if issubclass(kind, Refused) and kind is not Refused}
    assert statuses == {400, 401, 403, 404, 408, 413, 415, 422, 429, 503, 504}
    error = TooMany("wait", limit="queue", retry_after=2.5)
    assert isinstance(error, RegNetError)
    assert (str(error), error.limit, error.retry_after) == ("wait", "queue", 2.5)
