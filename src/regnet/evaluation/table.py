"""An evaluation as lines of text for people."""

from collections.abc import Iterator

from regnet.evaluation.evaluate import Evaluation
from regnet.network.labels import first_name
from regnet.statistics.metrics import ClassMetrics, Share

_CONFUSED = 8
_WEAKEST = 8
_FAILURES = 10


def evaluation_lines(found: Evaluation) -> Iterator[str]:
    """Yield the lines of the table."""
    yield from _headline(found)
    if found.scores.metrics.images:
        yield ""
        yield from _figures(found)
        yield from _confused(found)
        yield from _weakest(found)
    yield from _failures(found)


def percent(value: float | None, digits: int = 2) -> str:
    """Return a share as percent; a dash for none."""
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def protocol_text(found: Evaluation) -> str:
    """Return the protocol's name and sizes."""
    protocol = found.model.preprocess
    return f"{protocol.name} (resize {protocol.resize}, crop {protocol.crop})"


def subset_text(found: Evaluation) -> str | None:
    """Return what is to be said where some of the model's classes have no images."""
    if not found.missing:
        return None
    return (
        f"{len(found.missing):,} of the model's {len(found.labels):,} classes have no images here; "
        "probabilities are over all classes, none is masked"
    )


def card_text(found: Evaluation) -> str:
    """Return how the figures stand to the card's."""
    card = found.card
    if card.accuracy is None:
        return f"not compared with the card: {card.reason}"
    parts = []
    for name, value, within in (
        ("top-1", card.accuracy.top1, card.top1_within),
        ("top-5", card.accuracy.top5, card.top5_within),
    ):
        if value is not None:
            verdict = "within the interval" if within else "OUTSIDE the interval"
            parts.append(f"{name} {value:.2f} %, {verdict}")
    return f"card ({card.accuracy.dataset}, {card.accuracy.protocol}): {'; '.join(parts)}"


def speed_text(found: Evaluation) -> str:
    """Return images a second and what was taken from an earlier run."""
    scores = found.scores
    parts = [] if scores.images_per_s is None else [f"{scores.images_per_s:,.0f} images/s"]
    if scores.resumed:
        parts.append(f"{scores.resumed:,} images scored by the run before")
    return ", ".join(parts)


def _headline(found: Evaluation) -> Iterator[str]:
    metrics, choice = found.scores.metrics, found.choice
    yield f"{found.model.name} ({choice.runs_on}, {choice.precision}) on {found.dataset}"
    yield f"protocol {protocol_text(found)}"
    unreadable = "counted as wrong" if found.strict else "not counted"
    failed = found.scores.unreadable
    yield (
        f"{metrics.images:,} images of {len(found.classes):,} classes"
        + (f", {failed:,} unreadable ({unreadable})" if failed else "")
        + (f"; {speed}" if (speed := speed_text(found)) else "")
    )
    if text := subset_text(found):
        yield text


def _figures(found: Evaluation) -> Iterator[str]:
    metrics, card = found.scores.metrics, found.card
    published = card.accuracy
    yield _share_line(
        "top-1", metrics.top1, published.top1 if published else None, card.top1_within
    )
    yield _share_line(
        "top-5", metrics.top5, published.top5 if published else None, card.top5_within
    )
    macro = (metrics.macro_precision, metrics.macro_recall, metrics.macro_f1)
    names = ("precision", "recall", "F1")
    means = "   ".join(f"{n} {percent(v)}" for n, v in zip(names, macro, strict=True))
    yield f"  mean   {means}"
    if metrics.ece is not None:
        yield f"  ECE    {percent(metrics.ece):>7}   NLL {metrics.nll:.4f}"
    if published:
        yield f"  card   {published.dataset}, protocol {published.protocol}"
    else:
        yield f"  {card_text(found)}"


def _share_line(name: str, share: Share, card: float | None, within: bool | None) -> str:
    interval = f"{percent(share.low)} to {percent(share.high)}"
    verdict = f"   card {card:.2f} %: {'inside' if within else 'OUTSIDE'}" if card else ""
    return f"  {name}  {percent(share.value):>7}   95 % interval {interval}{verdict}"


def _confused(found: Evaluation) -> Iterator[str]:
    pairs = found.scores.metrics.confused[:_CONFUSED]
    if pairs:
        yield ""
        yield "most confused"
    for pair in pairs:
        truth, predicted = (first_name(found.labels[i].name) for i in (pair.truth, pair.predicted))
        yield f"  {pair.count:6,} x  {truth}, taken for {predicted}"


def _weakest(found: Evaluation) -> Iterator[str]:
    seen = [one for one in found.scores.metrics.classes if one.support]
    if len(seen) < 2:
        return
    yield ""
    yield "weakest classes     recall  precision         F1   images"
    for one in sorted(seen, key=_strength)[:_WEAKEST]:
        cells = "".join(f"{percent(v, 1):>11}" for v in (one.precision, one.f1))
        name = first_name(found.labels[one.index].name)[:17]
        yield f"  {name:17} {percent(one.recall, 1):>6}{cells}  {one.support:7,}"


def _strength(one: ClassMetrics) -> tuple[float, int]:
    return one.f1 or 0.0, one.index


def _failures(found: Evaluation) -> Iterator[str]:
    scores = found.scores
    if scores.unreadable:
        yield ""
        yield f"unreadable: {scores.unreadable:,}"
    for failure in scores.failures[:_FAILURES]:
        yield f"  {visible(failure.source)}: {visible(failure.error)}"


def visible(text: str) -> str:
    """Return a text whose control characters are written out, so that none reaches a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
