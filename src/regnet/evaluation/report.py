"""The report of `regnet evaluate`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from regnet.data.labelled import Dataset
from regnet.network.labels import first_name
from regnet.pages import report as page
from regnet.pages.figures import ACCENT, CARD, INK, LINE, MUTED, WARM, legend_above, plain
from regnet.pages.thumbnails import thumbnails
from regnet.statistics.metrics import ClassMetrics, Confusion, ReliabilityBin, Share
from regnet.system.text import percent, sentence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from regnet.evaluation.evaluate import Evaluation

_MATRIX = 18  # classes in the confusion plot
_PAIRS = 18


def evaluation_report(found: "Evaluation", dataset: Dataset | None) -> page.Report:
    """Return an evaluation as a report; its page reads photos of `dataset`, if given, again."""
    metrics = found.scores.metrics
    subset = subset_text(found)
    return page.Report(
        f"{found.model.name} on {Path(found.dataset).name}",
        [
            page.Section("", [page.Tiles(_tiles(found)), *([sentence(subset)] if subset else [])]),
            *result_sections(found, dataset),
            measured_section(found),
        ],
        subtitle=f"{metrics.images:,} images of {len(found.classes):,} classes, "
        f"protocol {_protocol(found)}",
        command="regnet evaluate",
    )


def result_sections(found: "Evaluation", photos: Dataset | None) -> list[page.Section]:
    """Return the sections on calibration, confusions, mistakes (with `photos`) and classes."""
    sections = []
    scores = found.scores
    if scores.metrics.images > scores.unreadable * found.strict:
        mistakes = [] if photos is None else [_mistakes(found, photos)]
        sections = [_calibration(found), _confusions(found), *mistakes, _classes(found)]
    how = "counted as wrong" if found.strict else "not counted"
    failures = [(failure.source, failure.error) for failure in scores.failures]
    return [*sections, *page.unreadable_section(failures, scores.unreadable, how)]


def share_tile(
    name: str, share: Share, card: float | None = None, within: bool | None = None
) -> page.Tile:
    """Return the tile of an accuracy, compared with the card's (in percent) if it has one."""
    interval = f"{100 * share.low:.2f} to {percent(share.high)} (95 %)"
    if card is None or not share.images:
        return page.Tile(name, percent(share.value), interval)
    tone: page.Tone = "good" if within else "bad"
    verdict = f"card {card:.2f} %: {'inside' if within else 'OUTSIDE'}"
    return page.Tile(name, percent(share.value), interval, verdict, tone)


def subset_text(found: "Evaluation") -> str | None:
    """Return the remark on classes of the model without images; None if all have some."""
    if not found.missing:
        return None
    return (
        f"{len(found.missing):,} of the model's {len(found.labels):,} classes have no images here; "
        "probabilities are over all classes, none is masked"
    )


def measured_section(found: "Evaluation") -> page.Section:
    """Return how the figures were measured."""
    metrics, model, scores = found.scores.metrics, found.model, found.scores
    means = (metrics.macro_precision, metrics.macro_recall, metrics.macro_f1)
    macro = zip(("precision", "recall", "F1"), means, strict=True)
    accuracy = f"top-1 {metrics.top1.hits:,} of {metrics.top1.images:,} images, Wilson's interval"
    resumed = f"{scores.resumed:,} images from the interrupted run" if scores.resumed else ""
    card = found.card.accuracy
    compared = f"{card.dataset}, protocol {card.protocol}" if card else "not compared"
    pairs = [
        ("Model", f"{model.name}, weights {model.precision}, licence {model.licence}"),
        ("Engine", f"{found.choice.runs_on}, computing in {found.choice.precision}"),
        ("Protocol", f"{_protocol(found)}, {model.preprocess.interpolation}"),
        ("Assumed", "; ".join(model.assumed)),
        ("Data set", found.dataset),
        ("Accuracy", accuracy),
        ("Means over classes", ", ".join(f"{name} {percent(mean)}" for name, mean in macro)),
        ("NLL", "-" if metrics.nll is None else f"{metrics.nll:.4f} nats"),
        ("Card", ": ".join(filter(None, (compared, found.card.reason)))),
        ("Resumed", resumed),
        ("Images' fingerprint", found.fingerprint),
        ("Weights' sha384", model.weights_sha384),
    ]
    return page.Section("How the model was measured", [page.Facts(pairs)])


def _protocol(found: "Evaluation") -> str:
    protocol = found.model.preprocess
    how = "resize" if protocol.fit == "crop" else protocol.fit
    return f"{protocol.name} ({how} {protocol.resize}, crop {protocol.crop})"


def _tiles(found: "Evaluation") -> list[page.Tile]:
    metrics, card, speed = found.scores.metrics, found.card, found.scores.images_per_s
    top1, top5 = (card.accuracy.top1, card.accuracy.top5) if card.accuracy else (None, None)
    return [
        share_tile("Top-1", metrics.top1, top1, card.top1_within),
        share_tile("Top-5", metrics.top5, top5, card.top5_within),
        page.Tile("Calibration error", percent(metrics.ece), "mean gap, confidence to accuracy"),
        page.Tile(
            "Speed",
            "-" if speed is None else f"{speed:,.0f} /s",
            f"images, {found.choice.runs_on} {found.choice.precision}, decoding included",
        ),
    ]


def _calibration(found: "Evaluation") -> page.Section:
    metrics = found.scores.metrics
    reliability = page.Plot(
        "reliability",
        partial(draw_reliability, bins=metrics.bins),
        "Reliability diagram: accuracy against confidence in 15 bins",
        f"On the line, confidence equals accuracy. {_confidence(metrics.bins)}",
        height=4.4,
    )
    recalls = page.Plot(
        "recall",
        partial(draw_recalls, classes=metrics.classes),
        "Histogram of recall and precision of the classes",
        "How many classes have each recall and precision.",
        height=4.4,
    )
    return page.Section(
        "Calibration, and how classes differ", [page.Beside([reliability, recalls])]
    )


def _confidence(bins: tuple[ReliabilityBin, ...]) -> str:
    """Return whether the model is over- or underconfident on the whole."""
    gap = sum(b.images * (b.confidence - b.accuracy) for b in bins if b.confidence is not None
              and b.accuracy is not None)  # fmt: skip
    if abs(gap) < 0.01 * sum(b.images for b in bins):
        return "On the whole, mean confidence equals accuracy."
    return f"On the whole, the model is {'over' if gap > 0 else 'under'}confident."


def _confusions(found: "Evaluation") -> page.Section:
    metrics = found.scores.metrics
    if not metrics.confused:
        return page.Section("Confused classes", ["No image was taken for another class."])
    chosen = _most_confused(metrics.confused, metrics.classes)
    matrix = page.Plot(
        "confusion",
        lambda canvas: draw_matrix(canvas.subplots(), found, chosen),
        "Confusion matrix of the classes that are confused most",
        "Share of a row's images that were taken for the column's class.",
        width=7.2,
        height=1.5 + 0.27 * len(chosen),
    )
    rows = [
        (
            _name(found, pair.truth),
            _name(found, pair.predicted),
            page.Number(pair.count),
            page.Bar(pair.count / metrics.classes[pair.truth].support),
        )
        for pair in metrics.confused[:_PAIRS]
    ]
    columns = ("Truth", "Taken for", "Images", "Of the class")
    return page.Section("Confused classes", [matrix, page.Table(columns, rows)])


def _name(found: "Evaluation", index: int) -> str:
    return first_name(found.labels[index].name)


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
    counts = {(pair.truth, pair.predicted): pair.count for pair in pairs}

    def confusions(a: int, b: int) -> int:
        return counts.get((a, b), 0) + counts.get((b, a), 0)

    order, left = chosen[:1], chosen[1:]
    while left:
        order.append(max(left, key=partial(confusions, order[-1])))
        left.remove(order[-1])
    return order


def _mistakes(found: "Evaluation", dataset: Dataset) -> page.Section:
    worst = found.scores.worst
    if not worst:
        return page.Section("Worst mistakes", ["There are none."])
    photos = [
        page.Photo(
            mistake.source,
            (
                f"{_name(found, mistake.predicted)} {percent(mistake.probability, 1)}",
                f"truth: {_name(found, mistake.truth)} {percent(mistake.of_truth, 1)}",
            ),
        )
        for mistake in worst
    ]
    return page.Section(
        "Worst mistakes",
        [page.Gallery(photos, thumbnails(dataset.find), first=4)],
        lead="The most confident wrong predictions. Some of the labels may be wrong.",
    )


def _classes(found: "Evaluation") -> page.Section:
    """Return the section with a row for each class, the worst first, then those without images."""
    seen = [one for one in found.scores.metrics.classes if one.support or one.predicted]
    ordered = sorted(seen, key=lambda one: (not one.support, one.f1 or 0.0, one.index))
    rows = [
        (
            found.labels[one.index].name,
            page.Bar(one.recall),
            page.Bar(one.precision),
            page.Bar(one.f1),
            page.Number(one.support),
            page.Number(one.predicted),
        )
        for one in ordered
    ]
    columns = ("Class", "Recall", "Precision", "F1", "Images", "Predicted")
    return page.Section("Every class, weakest first", [page.Table(columns, rows, sortable=True)])


def draw_reliability(drawing: "Figure", bins: tuple[ReliabilityBin, ...]) -> None:
    """Draw accuracy against confidence, and how many images there are of each confidence."""
    upper, lower = drawing.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    width = 1 / len(bins)
    for left, confidence, accuracy in ((b.low + width / 2, b.confidence, b.accuracy) for b in bins):
        if confidence is None or accuracy is None:
            continue
        upper.bar(left, accuracy, width * 0.92, color=ACCENT)
        ends = (left - 0.46 * width, left + 0.46 * width)
        upper.plot(ends, (confidence, confidence), color=WARM, linewidth=2.5)
    upper.plot((0, 1), (0, 1), color=INK, linewidth=1, linestyle=(0, (4, 3)))
    upper.bar(0, 0, color=ACCENT, label="accuracy")
    upper.plot([], [], color=WARM, linewidth=2.5, label="mean probability")
    legend_above(upper)
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    lower.bar(
        [b.low + width / 2 for b in bins], [b.images for b in bins], width * 0.92, color=MUTED
    )
    lower.set(xlabel="highest probability", ylabel="images")
    lower.yaxis.set_major_locator(_few_whole_numbers(2))
    for axes in (upper, lower):
        plain(axes)


def draw_recalls(drawing: "Figure", classes: tuple[ClassMetrics, ...]) -> None:
    """Draw histograms of the recall and the precision of the classes that have images."""
    seen = [one for one in classes if one.support]
    edges = np.linspace(0, 1, 21)
    upper, lower = drawing.subplots(2, 1, sharex=True, sharey=True)
    for axes, name, colour, values in (
        (upper, "recall", ACCENT, [one.recall or 0.0 for one in seen]),
        (lower, "precision", WARM, [one.precision or 0.0 for one in seen]),
    ):
        axes.hist(values, edges, color=colour, rwidth=0.92)
        mean = float(np.mean(values))
        axes.axvline(mean, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.text(
            0.01, 0.95, f"{name}, mean {percent(mean, 1)}", transform=axes.transAxes, va="top"
        )
        axes.set(xlim=(0, 1), ylabel="classes")
        axes.yaxis.set_major_locator(_few_whole_numbers(4))
        plain(axes)
    top = upper.get_ylim()[1]
    upper.set_ylim(0, 1.25 * top)
    lower.set_xlabel("share")


def _few_whole_numbers(count: int) -> "MaxNLocator":
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(count, integer=True)


def draw_matrix(axes: "Axes", found: "Evaluation", chosen: list[int]) -> None:
    """Draw a square for each pair of classes that was confused, and for what was right."""
    from matplotlib.patches import Rectangle

    metrics = found.scores.metrics
    counts = {(pair.truth, pair.predicted): pair.count for pair in metrics.confused}
    counts |= {(index, index): metrics.classes[index].hits for index in chosen}
    size = len(chosen)
    for y, truth in enumerate(chosen):
        for x, predicted in enumerate(chosen):
            support = metrics.classes[truth].support
            share = counts.get((truth, predicted), 0) / support if support else 0.0
            if share:
                colour = ACCENT if x == y else WARM
                box = Rectangle((x, y), 1, 1, facecolor=colour, alpha=0.12 + 0.88 * share)
                axes.add_patch(box)
            if share >= 0.02:
                ink = CARD if share > 0.65 else INK
                axes.text(
                    x + 0.5, y + 0.52, f"{100 * share:.0f}", color=ink, ha="center", va="center",
                    fontsize=8,
                )  # fmt: skip
    names = [_short(first_name(found.labels[index].name)) for index in chosen]
    middles = [place + 0.5 for place in range(size)]
    axes.set(xlim=(0, size), ylim=(size, 0), xlabel="taken for", ylabel="truth")
    axes.set_xticks(middles, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(middles, names)
    axes.set_xticks(range(size + 1), minor=True)
    axes.set_yticks(range(size + 1), minor=True)
    axes.grid(True, which="minor", color=LINE)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _short(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:18].rstrip()}…"
