"""What the paper found, against what records show: confirmed, contradicted, or not separated.

Source: Radosavovic et al., Designing Network Design Spaces (arXiv 2003.13678), section 3.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from regnet.statistics.bootstrap import Interval

Verdict = Literal["confirmed", "contradicted", "not separated"]
Unit = Literal["points", "rank correlation", "bottleneck ratio"]
Kind = Literal["as good", "at least as good", "better"]

MARGIN: Final = 0.25  # standard deviations of a space's errors, within which means are the same

_CLAIMS: Final[tuple[tuple[str, Kind, str], ...]] = (
    ("anynetx-b", "as good", "anynetx-a"),
    ("anynetx-c", "as good", "anynetx-b"),
    ("anynetx-c", "as good", "anynetx-a"),
    ("anynetx-d", "at least as good", "anynetx-c"),
    ("anynetx-e", "at least as good", "anynetx-d"),
    ("anynetx-e", "at least as good", "anynetx-c"),
    ("regnet", "better", "anynetx-a"),
    ("regnet", "better", "anynetx-e"),
    ("regnetx", "better", "anynetx-a"),
    ("regnetx", "better", "anynetx-e"),
    ("regnetx", "better", "regnet"),
)


@dataclass(frozen=True)
class Difference:
    """How two spaces differ: `mean` error and `area` under the EDF, first minus second.

    Errors are in [0, 1]; the area is the EDF's mean height between the best error of all spaces and
    their median, in [0, 1]. `spread` is the standard deviation of a space's errors.
    """

    first: str
    second: str
    mean: Interval
    area: Interval
    spread: float

    @property
    def separated(self) -> bool:
        """Whether the interval of the mean errors' difference leaves out 0."""
        return not self.mean.holds(0.0)

    @property
    def sentence(self) -> str:
        """The difference of mean errors in words."""
        size, limits = f"{100 * abs(self.mean.value):.2f} points", points(self.mean)
        if not self.separated:
            return (
                f"{self.first} and {self.second} are not separated: the mean errors differ by "
                f"{size}, and the interval holds 0 ({limits})."
            )
        word = "less" if self.mean.value < 0 else "more"
        return f"{self.first} has {size} {word} error on average than {self.second} ({limits})."


def points(interval: Interval, digits: int = 2) -> str:
    """Return the ends of an interval of errors as percentage points."""
    return f"{100 * interval.low:+.{digits}f} to {100 * interval.high:+.{digits}f}"


@dataclass(frozen=True)
class Finding:
    """A finding of the paper: what was measured of it, the verdict, and the verdict's reason.

    `measured` is in `unit`, "points" a difference of mean errors in [-1, 1].
    """

    claim: str
    measured: Interval
    unit: Unit
    verdict: Verdict
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def space_findings(differences: Mapping[tuple[str, str], Difference]) -> Iterator[Finding]:
    """Yield the findings on the mean errors of spaces; differences are by (first, second)."""
    for space, kind, other in _CLAIMS:
        if (found := differences.get((space, other))) is not None:
            yield _on_means(space, kind, other, found)


def untested(spaces: set[str]) -> list[str]:
    """Return the findings on spaces of which one or both are not among these."""
    return [_claim(*one) for one in _CLAIMS if not {one[0], one[2]} <= spaces]


def line_findings(correlations: Mapping[str, Interval]) -> Iterator[Finding]:
    """Yield the findings that e_fit and error go together, by space."""
    for space, found in correlations.items():
        yield Finding(
            f"{space}: nearer to a quantised line is better",
            found,
            "rank correlation",
            _above_zero(found),
            _REASONS[_above_zero(found)],
        )


def ratio_findings(best: Mapping[str, Interval]) -> Iterator[Finding]:
    """Yield the findings that a bottleneck ratio of 1 is best, by space."""
    for space, found in best.items():
        verdict: Verdict = "not separated" if found.holds(1.0) else "contradicted"
        if found.low == found.high == 1.0:
            verdict = "confirmed"
        yield Finding(
            f"{space}: a bottleneck ratio of 1 is best",
            found,
            "bottleneck ratio",
            verdict,
            f"95 % of the best values are {found.low:g} to {found.high:g}",
        )


def _claim(space: str, kind: Kind, other: str) -> str:
    return f"{space} is {kind} {'than' if kind == 'better' else 'as'} {other}"


def _on_means(space: str, kind: Kind, other: str, found: Difference) -> Finding:
    margin = MARGIN * found.spread
    verdict, reason = _judged(kind, found.mean, margin)
    return Finding(_claim(space, kind, other), found.mean, "points", verdict, reason)


def _judged(kind: Kind, mean: Interval, margin: float) -> tuple[Verdict, str]:
    """Return the verdict on a difference of mean errors, below 0 where the first is better."""
    ends = f"{100 * margin:.2f} points"
    if mean.high < 0 and kind != "as good":
        return "confirmed", "the interval is below 0"
    if kind == "as good" and -margin <= mean.low and mean.high <= margin:
        return "confirmed", f"the interval is within {ends} of 0"
    if kind == "at least as good" and mean.high <= margin:
        return "confirmed", f"the interval ends within {ends} of 0"
    if mean.low > 0 or mean.high < 0:
        return "contradicted", f"the interval is {'above' if mean.low > 0 else 'below'} 0"
    if kind == "better":
        return "not separated", "the interval holds 0"
    return "not separated", f"the interval holds 0, and reaches over {ends}"


_REASONS: Final[dict[Verdict, str]] = {
    "confirmed": "the interval is above 0",
    "contradicted": "the interval is below 0",
    "not separated": "the interval holds 0",
}


def _above_zero(found: Interval) -> Verdict:
    if found.low > 0:
        return "confirmed"
    return "contradicted" if found.high < 0 else "not separated"
