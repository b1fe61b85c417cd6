"""The plots of the report of `regnet evaluate`."""

from typing import TYPE_CHECKING

import numpy as np

from regnet.evaluation.evaluate import Evaluation
from regnet.network.labels import first_name
from regnet.pages.figures import ACCENT, CARD, INK, LINE, MUTED, WARM, plain
from regnet.statistics.metrics import ClassMetrics, ReliabilityBin
from regnet.system.text import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator


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
    upper.legend(loc="upper left")
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


def draw_matrix(axes: "Axes", found: Evaluation, chosen: list[int]) -> None:
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
