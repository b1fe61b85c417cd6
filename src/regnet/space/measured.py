"""Networks with their measured latency, and which of them are the best for their latency."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from regnet.space.candidates import Candidate


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A network and its latency; `predicted_ms` is the prediction made before measuring, if any.

    A published network has its `name` and the `published_error`, in percent.
    """

    network: Candidate
    ms: float
    predicted_ms: float | None = None
    name: str = ""
    published_error: float | None = None

    @property
    def error(self) -> float:
        """The top-1 error in percent: published, or else predicted."""
        return self.network.error if self.published_error is None else self.published_error


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A published network, and the most accurate found that is as fast, None where none is.

    Such was `sought` where the published one is within the budget.
    """

    published: Measured
    better: Measured | None
    sought: bool

    @property
    def beaten(self) -> bool:
        """Whether what was found is predicted at least as accurate as the other was published."""
        return self.better is not None and self.better.error <= self.published.error


def front(measured: Iterable[Measured]) -> list[Measured]:
    """Return those that none as fast is more accurate than, the fastest first."""
    found: list[Measured] = []
    for one in sorted(measured, key=lambda m: (m.ms, m.error)):
        if not found or one.error < found[-1].error:
            found.append(one)
    return found


def rival(one: Measured, own: Sequence[Measured], budget: float) -> Rival:
    """Return a published network beside the most accurate of `own` that is as fast."""
    as_fast = [other for other in own if other.ms <= one.ms]
    better = min(as_fast, key=lambda other: other.error, default=None)
    return Rival(published=one, better=better, sought=one.ms <= budget)
