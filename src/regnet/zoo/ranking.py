"""Models in the order of their published accuracy, and which of them are worth their cost."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from regnet.network.complexity import Complexity, complexity
from regnet.system.errors import MissingExtraError, OutputError, UnknownModelError
from regnet.system.output_file import naming
from regnet.zoo.card import Card

_DATASET = "ImageNet-1k val"


@dataclass(frozen=True)
class Candidate:
    """A card under one of its protocols, and what it costs there.

    `latency` is what was measured on this machine for one image, in milliseconds.
    """

    card: Card
    latency: float | None = None

    @cached_property
    def cost(self) -> Complexity:
        """The counted cost of one image."""
        return complexity(self.card.build_spec(), image_size=self.card.preprocess.crop)

    @property
    def spent(self) -> float:
        """What one image costs: the latency if it was measured, else the MACs."""
        return self.cost.macs if self.latency is None else self.latency

    @property
    def top1(self) -> float | None:
        """The published accuracy on ImageNet-1k in percent, where there is one."""
        best = self.card.headline
        return best.top1 if best and best.dataset == _DATASET else None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a model may cost at most, its licence, and its accuracy in percent; None: any."""

    params: int | None = None
    macs: int | None = None
    licence: str | None = None
    at_least: float | None = None

    def allow(self, candidate: Candidate) -> bool:
        """Tell whether a candidate is within the limits."""
        cost, licence = candidate.cost, candidate.card.licence.id
        return (
            (self.params is None or cost.params <= self.params)
            and (self.macs is None or cost.macs <= self.macs)
            and (self.licence is None or licence.lower() == self.licence.lower())
            and (self.at_least is None or (candidate.top1 or 0) >= self.at_least)
        )


def within(limits: Limits, cards: Iterable[Card]) -> list[Candidate]:
    """Return the cards within limits, in their order; raises `UnknownModelError` if there is none.

    A licence that no card has is an error that lists those they have.
    """
    candidates = [Candidate(card) for card in cards]
    licences = sorted({candidate.card.licence.id for candidate in candidates})
    if limits.licence and limits.licence.lower() not in map(str.lower, licences):
        raise UnknownModelError(
            f"no model has the licence {limits.licence!r}; there are {', '.join(licences)}"
        )
    if not (allowed := list(filter(limits.allow, candidates))):
        raise UnknownModelError("no model is within these limits: loosen one of them")
    return allowed


def ranked(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the candidates with a published accuracy, the most accurate first, then the cheapest.

    The accuracies are of several protocols: differences of some tenths of a point mean nothing.
    """
    measured = [(candidate.top1, candidate) for candidate in candidates if candidate.top1]
    return [c for _, c in sorted(measured, key=lambda pair: (-pair[0], pair[1].spent))]


def pareto_front(ranked: Iterable[Candidate]) -> list[Candidate]:
    """Return those of a ranking to which no other is equal or better in both accuracy and cost."""
    front: list[Candidate] = []
    for candidate in ranked:
        if not front or candidate.spent < front[-1].spent:
            front.append(candidate)
    return front


def plot(ranking: list[Candidate], path: Path) -> None:
    """Write accuracy against cost, the front named, as what the path's ending says: svg, png, pdf.

    Raises `OutputError`, and `MissingExtraError` without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator
    except ImportError as exc:
        raise MissingExtraError("a plot", "report") from exc
    figure = Figure(figsize=(12, 8), layout="constrained")
    axes, front = figure.subplots(), pareto_front(ranking)
    if path.suffix[1:].lower() not in figure.canvas.get_supported_filetypes():
        raise OutputError(f"cannot write {path}: name a file that ends in .svg, .png or .pdf")
    unit, title = 1.0, "milliseconds for an image on this machine (f32, all cores)"
    if not ranking or ranking[0].latency is None:
        unit, title = 1e9, "MACs, billions"
    others = [candidate for candidate in ranking if candidate not in front]
    for group, style, colour in ((others, "o", "0.7"), (front[::-1], "o-", "C0")):
        costs = [candidate.spent / unit for candidate in group]
        top1 = [candidate.top1 or 0 for candidate in group]
        axes.plot(costs, top1, style, drawstyle="steps-post", color=colour)
    for candidate in front:
        place = candidate.spent / unit, candidate.top1 or 0
        axes.annotate(
            candidate.card.title,
            place,
            xytext=(-6, 3),
            textcoords="offset points",
            ha="right",
            fontsize=8,
        )
    axes.set(xscale="log", xlabel=title, ylabel="top-1 on ImageNet-1k, percent")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.margins(x=0.12)
    axes.grid(visible=True, alpha=0.3)
    with naming(path):
        figure.savefig(path)
