"""What the paper found, compared with records: confirmed, contradicted or not separated.

Source: Radosavovic et al., Designing Network Design Spaces (arXiv 2003.13678), section 3.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from regnet.statistics.bootstrap import FEWEST, Interval
from regnet.system.text import percent

if TYPE_CHECKING:
    from regnet.space.analysis import Analysis

Verdict = Literal["confirmed", "contradicted", "not separated"]
Unit = Literal["points", "rank correlation", "bottleneck ratio"]
Kind = Literal["as good", "at least as good", "better"]

MARGIN: Final = 0.25  # means within so many standard deviations of the errors count as equal
_ALIKE: Final = 1.1  # median MACs within this ratio count as equal
_NEAR_CHANCE: Final = 0.95  # of the error of guessing

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
    """The differences of two spaces: `mean` error and `area` under the EDF, first minus second.

    Errors are in [0, 1]; the area is the EDF's mean height between the least error of all spaces
    and their median, in [0, 1]. `spread` is the standard deviation of a space's errors.
    """

    first: str
    second: str
    mean: Interval
    area: Interval
    spread: float

    @property
    def separated(self) -> bool:
        """Whether the interval of the mean errors' difference excludes 0."""
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

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "first": self.first,
            "second": self.second,
            "mean_error": self.mean.to_dict(),
            "edf_height": self.area.to_dict(),
            "separated": self.separated,
            "sentence": self.sentence,
        }


def points(interval: Interval) -> str:
    """Return the ends of an interval of errors as percentage points."""
    return f"{100 * interval.low:+.2f} to {100 * interval.high:+.2f}"


@dataclass(frozen=True)
class Finding:
    """A finding of the paper with what was measured, the verdict and its reason.

    `measured` is in `unit`; "points" stands for a difference of mean errors in [-1, 1].
    """

    claim: str
    measured: Interval
    unit: Unit
    verdict: Verdict
    reason: str


def space_findings(differences: Mapping[tuple[str, str], Difference]) -> Iterator[Finding]:
    """Yield the findings on the mean errors of spaces; differences are by (first, second)."""
    for space, kind, other in _CLAIMS:
        if (difference := differences.get((space, other))) is not None:
            mean = difference.mean
            verdict, reason = _judged(kind, mean, MARGIN * difference.spread)
            yield Finding(_claim(space, kind, other), mean, "points", verdict, reason)


def untested(spaces: set[str]) -> list[str]:
    """Return the findings on spaces that are not both among `spaces`."""
    return [_claim(*one) for one in _CLAIMS if not {one[0], one[2]} <= spaces]


def line_findings(correlations: Mapping[str, Interval]) -> Iterator[Finding]:
    """Yield the findings that a lower e_fit goes with a lower error, by space."""
    for space, measured in correlations.items():
        verdict: Verdict = "not separated"
        if not measured.holds(0.0):
            verdict = "confirmed" if measured.low > 0 else "contradicted"
        claim = f"{space}: nearer to a quantised line is better"
        yield Finding(claim, measured, "rank correlation", verdict, _side(measured))


def ratio_findings(best: Mapping[str, Interval]) -> Iterator[Finding]:
    """Yield the findings that a bottleneck ratio of 1 is best, by space."""
    for space, measured in best.items():
        verdict: Verdict = "not separated" if measured.holds(1.0) else "contradicted"
        if measured.low == measured.high == 1.0:
            verdict = "confirmed"
        claim = f"{space}: a bottleneck ratio of 1 is best"
        reason = f"95 % of the best values are {measured.low:g} to {measured.high:g}"
        yield Finding(claim, measured, "bottleneck ratio", verdict, reason)


def _claim(space: str, kind: Kind, other: str) -> str:
    return f"{space} is {kind} {'than' if kind == 'better' else 'as'} {other}"


def _judged(kind: Kind, mean: Interval, margin: float) -> tuple[Verdict, str]:
    """Return the verdict on a difference of mean errors, below 0 if the first is better."""
    ends = f"{100 * margin:.2f} points"
    if mean.high < 0 and kind != "as good":
        return "confirmed", _side(mean)
    if kind == "as good" and -margin <= mean.low and mean.high <= margin:
        return "confirmed", f"the interval is within {ends} of 0"
    if kind == "at least as good" and mean.high <= margin:
        return "confirmed", f"the interval ends within {ends} of 0"
    if not mean.holds(0.0):
        return "contradicted", _side(mean)
    return "not separated", _side(mean) + ("" if kind == "better" else f", and reaches over {ends}")


def _side(interval: Interval) -> str:
    if interval.holds(0.0):
        return "the interval holds 0"
    return f"the interval is {'above' if interval.low > 0 else 'below'} 0"


def remarks(found: "Analysis") -> list[str]:
    """Return what limits the figures: failures, mixtures, few networks, chance, in sentences."""
    return [*_remarks_on_runs(found), *_remarks_on_networks(found), *_resolution(found)]


def _remarks_on_runs(found: "Analysis") -> Iterator[str]:
    if found.failed:
        counts = Counter(run.space for run in found.failed)
        names = ", ".join(f"{count:,} of {space}" for space, count in counts.items())
        yield (
            f"{len(found.failed):,} of {found.runs:,} runs have no result ({names}) and are in no "
            "figure; what they would have come to is not known."
        )
    if len(found.settings) > 1:
        yield (
            f"The runs are of {len(found.settings)} settings, mixed by request: spaces differ by "
            "their settings too."
        )


def _remarks_on_networks(found: "Analysis") -> Iterator[str]:
    if few := [one.space for one in found.spaces if len(one.population) < FEWEST]:
        yield (
            f"{', '.join(few)}: fewer than {FEWEST} networks with a result, too few for an "
            "interval or a verdict."
        )
    macs = {s.space: float(np.median(s.population.costs("macs"))) for s in found.spaces}
    least, most = min(macs, key=macs.__getitem__), max(macs, key=macs.__getitem__)
    if macs[most] > _ALIKE * macs[least]:
        yield (
            f"The spaces' networks do not cost the same: the median is {macs[least] / 1e6:.1f} "
            f"MMACs in {least} and {macs[most] / 1e6:.1f} in {most}, and errors differ by that too."
        )
    guessing = 1 - 1 / min(setting.classes for setting in found.settings)
    for one in found.spaces:
        if near := int((one.population.errors >= _NEAR_CHANCE * guessing).sum()):
            yield (
                f"{one.space}: {near:,} of {len(one.population):,} networks are hardly better than "
                f"guessing ({percent(guessing, 1)} error): they learnt next to nothing."
            )
    repeated = [n.errors for s in found.spaces for n in s.population.networks if len(n.errors) > 1]
    if repeated:
        deviation = float(np.sqrt(np.mean([np.var(errors, ddof=1) for errors in repeated])))
        yield (
            f"{len(repeated):,} networks were trained with several seeds and count once, with "
            "their mean error; the standard deviation between the seeds of a network is "
            f"{100 * deviation:.2f} points."
        )


def _resolution(found: "Analysis") -> Iterator[str]:
    halves = [(one.mean.high - one.mean.low) / 2 for one in found.differences]
    if halves:
        yield (
            "With this number of networks, mean errors less than about "
            f"{100 * float(np.median(halves)):.1f} points apart cannot be separated."
        )
    if len(halves) > 1:
        yield (
            f"Each interval is right in 95 of 100 sweeps; of the {len(halves)} of pairs of spaces "
            "some may be wrong."
        )
