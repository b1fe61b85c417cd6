"""The report of `regnet evaluate`."""

from pathlib import Path

from regnet.data.labelled import Dataset
from regnet.evaluation.evaluate import Evaluation
from regnet.evaluation.plots import draw_matrix, draw_recalls, draw_reliability
from regnet.evaluation.table import (
    card_text,
    percent,
    protocol_text,
    speed_text,
    subset_text,
)
from regnet.inference.result import readable
from regnet.network.labels import first_name
from regnet.pages.figures import svg
from regnet.pages.html import (
    Bar,
    Html,
    Number,
    Photo,
    Section,
    Tile,
    Tone,
    assumed_facts,
    facts,
    figure,
    gallery,
    note,
    page,
    side_by_side,
    table,
    tiles,
)
from regnet.pages.thumbnails import thumbnail_of
from regnet.statistics.metrics import ClassMetrics, Confusion, ReliabilityBin, Share
from regnet.system.version import TOOL_VERSION

_MATRIX = 18  # classes in the confusion plot
_PAIRS = 18


def evaluation_page(found: Evaluation, dataset: Dataset) -> str:
    """Return the report's HTML; the photos of the worst mistakes are read again."""
    metrics = found.scores.metrics
    sections = [Section("", (tiles(_tiles(found)), *_remarks(found)))]
    if metrics.images > found.scores.unreadable * found.strict:
        sections += [
            plots_section(found),
            confusion_section(found),
            mistakes_section(found, dataset),
            classes_section(found),
        ]
    if found.scores.unreadable:
        sections.append(unreadable_section(found))
    sections.append(Section("How this was measured", (facts(measured_facts(found)),)))
    return page(
        f"{found.model.name} on {Path(readable(found.dataset)).name}",
        sections,
        subtitle=f"{metrics.images:,} images of {len(found.classes):,} classes, "
        f"protocol {protocol_text(found)}",
        foot=f"regnet {TOOL_VERSION}, regnet evaluate",
    )


def _tiles(found: Evaluation) -> list[Tile]:
    metrics, card = found.scores.metrics, found.card
    accuracy = card.accuracy
    speed = found.scores.images_per_s
    return [
        share_tile("Top-1", metrics.top1, accuracy.top1 if accuracy else None, card.top1_within),
        share_tile("Top-5", metrics.top5, accuracy.top5 if accuracy else None, card.top5_within),
        Tile("Calibration error", percent(metrics.ece), "mean gap, confidence to accuracy"),
        Tile(
            "Speed",
            "-" if speed is None else f"{speed:,.0f} /s",
            f"images, {found.choice.runs_on} {found.choice.precision}, decoding included",
        ),
    ]


def share_tile(name: str, share: Share, card: float | None, within: bool | None) -> Tile:
    """Return the tile of an accuracy, beside the card's in percent where there is one."""
    interval = f"{100 * share.low:.2f} to {percent(share.high)} (95 %)"
    if card is None or not share.images:
        return Tile(name, percent(share.value), interval)
    place = "inside" if within else "outside"
    tone: Tone = "good" if within else "bad"
    return Tile(name, percent(share.value), interval, f"card {card:.2f} %: {place}", tone)


def _remarks(found: Evaluation) -> list[Html]:
    texts = [subset_text(found), None if found.card.accuracy else card_text(found)]
    return [note(f"{text[0].upper()}{text[1:]}.") for text in texts if text]


def plots_section(found: Evaluation) -> Section:
    """Return the section of plots: reliability, and the recalls of the classes."""
    metrics = found.scores.metrics
    reliability = svg(
        "reliability",
        lambda drawing: draw_reliability(drawing, metrics.bins),
        height=4.4,
        label="Reliability diagram: accuracy against confidence in 15 bins",
    )
    recalls = svg(
        "recall",
        lambda drawing: draw_recalls(drawing, metrics.classes),
        height=4.4,
        label="Histogram of recall and precision of the classes",
    )
    return Section(
        "Calibration, and how classes differ",
        (
            side_by_side(
                figure(reliability, _reliability_caption(metrics.bins)),
                figure(recalls, "How many classes have a recall, or a precision, of so much."),
            ),
        ),
    )


def _reliability_caption(bins: tuple[ReliabilityBin, ...]) -> str:
    gap = sum(b.images * (b.confidence - b.accuracy) for b in bins if b.confidence is not None
              and b.accuracy is not None)  # fmt: skip
    if abs(gap) < 0.01 * sum(b.images for b in bins):
        verdict = "On the whole the model is as sure as it is right."
    elif gap > 0:
        verdict = "On the whole the model is surer than it is right."
    else:
        verdict = "On the whole the model is more often right than it is sure."
    return f"How often the model is right when it is so sure: on the line it is fair. {verdict}"


def confusion_section(found: Evaluation) -> Section:
    """Return the section of the classes that are taken for each other."""
    pairs = found.scores.metrics.confused
    if not pairs:
        return Section("Confused classes", (note("No image was taken for another class."),))
    chosen = _most_confused(pairs, found.scores.metrics.classes)
    drawing = svg(
        "confusion",
        lambda canvas: draw_matrix(canvas.subplots(), found, chosen),
        width=7.2,
        height=1.5 + 0.27 * len(chosen),
        label="Confusion matrix of the classes that are confused most",
    )
    rows = [
        (
            first_name(found.labels[pair.truth].name),
            first_name(found.labels[pair.predicted].name),
            Number(f"{pair.count:,}", pair.count),
            _bar(pair.count / found.scores.metrics.classes[pair.truth].support),
        )
        for pair in pairs[:_PAIRS]
    ]
    return Section(
        "Confused classes",
        (
            figure(drawing, "Share of a row's images that were taken for the column's class."),
            table(("Truth", "Taken for", "Images", "Of the class"), rows),
        ),
        lead="The classes in the pairs that are confused most.",
    )


def _most_confused(pairs: tuple[Confusion, ...], classes: tuple[ClassMetrics, ...]) -> list[int]:
    """Return the classes of the most confused pairs, those that are confused side by side."""
    seen = [one.index for one in classes if one.support]
    if len(seen) <= _MATRIX:
        return sorted({*seen, *(pair.predicted for pair in pairs)})[: 2 * _MATRIX]
    chosen: list[int] = []
    for pair in pairs:
        new = [index for index in (pair.truth, pair.predicted) if index not in chosen]
        if len(chosen) + len(new) > _MATRIX:
            break
        chosen += new
    return _side_by_side(chosen, pairs)


def _side_by_side(chosen: list[int], pairs: tuple[Confusion, ...]) -> list[int]:
    """Return classes so that each is followed by the one left that it is confused with most."""
    counts = {(pair.truth, pair.predicted): pair.count for pair in pairs}

    def between(a: int, b: int) -> int:
        return counts.get((a, b), 0) + counts.get((b, a), 0)

    order, left = chosen[:1], chosen[1:]
    while left:
        following = max(left, key=lambda index: between(order[-1], index))
        order.append(following)
        left.remove(following)
    return order


def mistakes_section(found: Evaluation, dataset: Dataset) -> Section:
    """Return the section of the surest mistakes, with their photos."""
    worst = found.scores.worst
    items = dataset.find([mistake.source for mistake in worst])
    photos = []
    for mistake in worst:
        said, truth = (
            first_name(found.labels[index].name) for index in (mistake.predicted, mistake.truth)
        )
        item = items.get(mistake.source)
        lines = (
            f"{said} {percent(mistake.probability, 1)}",
            f"truth: {truth} {percent(mistake.of_truth, 1)}",
        )
        photos.append(Photo(thumbnail_of(item), lines, readable(mistake.source)))
    return Section(
        "Worst mistakes",
        (gallery(photos),) if photos else (note("There are none."),),
        lead="The wrong answers of highest probability. Some are the label's mistake.",
    )


def classes_section(found: Evaluation) -> Section:
    """Return the section with a row for each class, the worst first."""
    seen = [one for one in found.scores.metrics.classes if one.support or one.predicted]
    ordered = sorted(seen, key=lambda one: (one.f1 if one.f1 is not None else 2.0, one.index))
    rows = [
        (
            found.labels[one.index].name,
            _bar(one.recall),
            _bar(one.precision),
            _bar(one.f1),
            Number(f"{one.support:,}", one.support),
            Number(f"{one.predicted:,}", one.predicted),
        )
        for one in ordered
    ]
    columns = ("Class", "Recall", "Precision", "F1", "Images", "Predicted")
    return Section(
        "Every class",
        (table(columns, rows, sortable=True),),
        lead="Weakest first; a click on a column's name sorts by it.",
    )


def _bar(share: float | None) -> Bar:
    return Bar(percent(share, 1), share)


def unreadable_section(found: Evaluation) -> Section:
    """Return the section of photos that could not be read."""
    scores = found.scores
    rows = [(readable(failure.source), readable(failure.error)) for failure in scores.failures]
    how = "They count as wrong answers." if found.strict else "They are in no figure."
    first = f" The first {len(rows)} are listed." if len(rows) < scores.unreadable else ""
    return Section(
        "Unreadable images",
        (table(("Image", "Reason"), rows),),
        lead=f"{scores.unreadable:,} images could not be read. {how}{first}",
    )


def measured_facts(found: Evaluation) -> list[tuple[str, str]]:
    """Return how it was measured, as names and values."""
    metrics, model = found.scores.metrics, found.model
    share = f"top-1 {metrics.top1.hits:,} of {metrics.top1.images:,} images, Wilson's interval"
    means = (metrics.macro_precision, metrics.macro_recall, metrics.macro_f1)
    macro = ", ".join(
        f"{n} {percent(v)}" for n, v in zip(("precision", "recall", "F1"), means, strict=True)
    )
    return [
        ("Model", f"{model.name}, weights {model.precision}, licence {model.licence}"),
        ("Engine", f"{found.choice.runs_on}, computing in {found.choice.precision}"),
        ("Protocol", f"{protocol_text(found)}, {model.preprocess.interpolation}"),
        *assumed_facts(model.assumed),
        ("Data set", readable(found.dataset)),
        ("Accuracy", share),
        ("Means over classes", macro),
        ("NLL", "-" if metrics.nll is None else f"{metrics.nll:.4f} nats"),
        ("Card", card_text(found)),
        ("Speed", speed_text(found) or "-"),
        ("Images' fingerprint", found.fingerprint),
        ("Weights' sha384", model.weights_sha384),
    ]
