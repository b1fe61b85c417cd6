"""The plots of the report of `regnet train`: what changed from epoch to epoch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from regnet.pages.figures import ACCENT, INK, MUTED, WARM, plain
from regnet.training.history import EpochRecord, best_record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Records = Sequence[EpochRecord]

_DOTS: Final = 30  # epochs up to which each has its dot


def draw_losses(canvas: "Figure", records: Records) -> None:
    """Draw the loss in training and in validation."""
    axes = canvas.subplots()
    _line(axes, records, "loss", ACCENT, label="training")
    _line(axes, records, "val_loss", WARM, label="validation")
    _finish(axes, records, "loss, nats")


def draw_accuracies(canvas: "Figure", records: Records) -> None:
    """Draw top-1 in training, top-1 and top-5 in validation, and a circle around the best."""
    axes = canvas.subplots()
    _line(axes, records, "val_top5", WARM, label="validation top-5", style=":", times=100)
    _line(axes, records, "val_top1", WARM, label="validation top-1", times=100)
    _line(axes, records, "train_top1", ACCENT, label="training top-1", times=100)
    axes.set_ylim(bottom=0)
    best = best_record(records)
    if best and best.val_top1 is not None:
        _mark(axes, best.epoch, 100 * best.val_top1, left=2 * best.epoch > len(records))
    _finish(axes, records, "% right")


def draw_schedule(canvas: "Figure", records: Records) -> None:
    """Draw the learning rate, and below it the side of the crops where it changes."""
    crops = [record.crop for record in records]
    if len(set(crops)) == 1:
        _draw_rate(canvas.subplots(), records)
        return
    upper, lower = canvas.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _draw_rate(upper, records)
    edges = [0.5, *(record.epoch + 0.5 for record in records)]
    lower.stairs(crops, edges, color=WARM, linewidth=1.8, baseline=None)
    lower.set_yticks(sorted(set(crops)))
    _finish(lower, records, "crop, pixels")
    upper.set_xlabel("")


def _draw_rate(axes: "Axes", records: Records) -> None:
    _line(axes, records, "lr", ACCENT)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylim(bottom=0)
    _finish(axes, records, "learning rate")


def draw_speeds(canvas: "Figure", records: Records) -> None:
    """Draw the images a second."""
    axes = canvas.subplots()
    _line(axes, records, "images_per_s", MUTED)
    axes.set_ylim(bottom=0)
    _finish(axes, records, "images a second")


def _line(
    axes: "Axes",
    records: Records,
    name: str,
    colour: str,
    *,
    label: str = "",
    style: str = "-",
    times: float = 1,
) -> None:
    """Draw a line through the epochs that have a value."""
    known = [(r.epoch, times * y) for r in records if (y := getattr(r, name)) is not None]
    if not known:
        return
    epochs, values = zip(*known, strict=True)
    marker = "o" if len(known) <= _DOTS else ""
    axes.plot(
        epochs, values, color=colour, label=label, linestyle=style, linewidth=1.8, marker=marker,
        markersize=3.5,
    )  # fmt: skip


def _mark(axes: "Axes", x: float, y: float, *, left: bool) -> None:
    """Draw a circle around a point, with its value below, to the left or right."""
    axes.plot([x], [y], "o", markersize=8, markerfacecolor="none", markeredgecolor=INK)
    axes.annotate(
        f"{y:.1f} %", (x, y), (0, -9), textcoords="offset points", va="top",
        ha="right" if left else "left", color=INK, fontsize=9,
    )  # fmt: skip


def _finish(axes: "Axes", records: Records, what: str) -> None:
    from matplotlib.ticker import MaxNLocator

    count = len(records)
    pad = max(0.02 * count, 0.5)
    axes.set(xlabel="epoch", ylabel=what, xlim=(1 - pad, count + pad))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(loc="best")
    plain(axes)
