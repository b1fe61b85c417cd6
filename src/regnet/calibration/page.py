"""The report of `regnet calibrate`."""

from pathlib import Path
from typing import TYPE_CHECKING

from regnet.calibration.calibrate import CalibrationReport, HeldOut
from regnet.evaluation.plots import draw_reliability
from regnet.inference.result import readable
from regnet.pages.figures import ACCENT, WARM, plain, svg
from regnet.pages.html import (
    Html,
    Section,
    Tile,
    Tone,
    assumed_facts,
    facts,
    figure,
    page,
    side_by_side,
    table,
    tiles,
)
from regnet.statistics.metrics import Metrics, Share
from regnet.system.text import percent
from regnet.system.version import TOOL_VERSION

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def calibration_page(report: CalibrationReport) -> str:
    """Return the report's HTML."""
    held = report.learnt.held_out
    sections = [
        Section("", (tiles(_tiles(report)),)),
        Section(
            "Is the model as sure as it is right?",
            (side_by_side(_reliability("before", held.before), _reliability("after", held.after)),),
            lead="On the photos that nothing was learnt from. On the line, it is fair.",
        ),
        Section(
            "How many classes a set has",
            (_sizes(held),),
            lead="A set of one class is an answer; with --unknown all others are unknown.",
        ),
    ]
    if report.unreadable:
        sections.append(_unreadable(report))
    sections.append(Section("How this was measured", (facts(_facts(report)),)))
    return page(
        f"{report.metadata.name}, calibrated on {Path(readable(report.dataset)).name}",
        sections,
        subtitle=f"{report.images:,} photos, half of them held out; sets by "
        f"{report.learnt.calibration.method} for {_whole(report.learnt.calibration.coverage)}",
        foot=f"regnet {TOOL_VERSION}, regnet calibrate",
    )


def _whole(share: float) -> str:
    return f"{100 * share:g} %"


def _interval(share: Share) -> str:
    return f"{100 * share.low:.2f} to {percent(share.high)} (95 %)"


def _tiles(report: CalibrationReport) -> list[Tile]:
    learnt, held = report.learnt, report.learnt.held_out
    tone: Tone = "good" if held.holds else "bad"
    asked = _whole(learnt.calibration.coverage)
    verdict = f"{asked} asked: {'held' if held.holds else 'not held'}"
    return [
        Tile("Calibration error", percent(held.after.ece), f"before: {percent(held.before.ece)}"),
        Tile(
            "Sets hold the truth", percent(held.coverage.value), _interval(held.coverage),
            verdict, tone,
        ),
        Tile("Classes in a set", f"{held.mean_size:.1f}", f"of {len(held.sizes) - 1:,}, mean"),
        Tile(
            "A single class", percent(held.single.value),
            f"right for {percent(held.right.value)} of these; top-1 of all is "
            f"{percent(held.before.top1.value)}",
        ),
    ]  # fmt: skip


def _reliability(when: str, metrics: Metrics) -> Html:
    drawing = svg(
        f"reliability-{when}",
        lambda canvas: draw_reliability(canvas, metrics.bins),
        height=4.4,
        label=f"Reliability diagram {when} calibration: accuracy against confidence",
    )
    nll = "-" if metrics.nll is None else f"{metrics.nll:.4f}"
    caption = f"{when.capitalize()}: calibration error {percent(metrics.ece)}, NLL {nll} nats."
    return figure(drawing, caption)


def _sizes(held: HeldOut) -> Html:
    drawing = svg(
        "sizes",
        lambda canvas: _draw_sizes(canvas, held),
        width=7.2,
        height=3.0,
        label="Histogram of the number of classes in a set",
    )
    return figure(drawing, f"On average {held.mean_size:.1f} classes; single ones stand out.")


def _draw_sizes(drawing: "Figure", held: HeldOut) -> None:
    """Draw a bar for every size that occurs."""
    axes = drawing.subplots()
    most = max(size for size, count in enumerate(held.sizes) if count)
    shares = [count / held.coverage.images for count in held.sizes[: most + 1]]
    colours = [ACCENT if size == 1 else WARM for size in range(most + 1)]
    axes.bar(range(most + 1), [100 * share for share in shares], 0.92, color=colours)
    axes.set(xlabel="classes in the set", ylabel="% of photos", xlim=(-0.6, most + 0.6))
    plain(axes)


def _unreadable(report: CalibrationReport) -> Section:
    rows = [(readable(failure.source), readable(failure.error)) for failure in report.failures]
    return Section(
        "Unreadable photos",
        (table(("Photo", "Reason"), rows),),
        lead=f"{report.unreadable:,} photos could not be read and were left out.",
    )


def _facts(report: CalibrationReport) -> list[tuple[str, str]]:
    learnt, held, model = report.learnt, report.learnt.held_out, report.metadata
    low, high = held.expected
    return [
        ("Model", f"{model.name}, weights {model.precision}, licence {model.licence}"),
        *assumed_facts(model.assumed),
        ("File", str(report.path)),
        ("Data set", readable(report.dataset)),
        (
            "Photos",
            f"{learnt.temperature_photos:,} set the temperature, {learnt.threshold_photos:,} the "
            f"sets, {held.coverage.images:,} checked; drawn with seed {report.seed}",
        ),
        ("Temperature", f"{learnt.calibration.temperature:.6g}"),
        ("Threshold", f"{learnt.calibration.threshold:.6g}"),
        ("Coverage by chance", f"{100 * low:.2f} to {percent(high)} of such checks, 95 % of times"),
        ("Single and wrong", f"{percent(held.wrong.value)} of the photos"),
        (
            "Check of the file",
            f"on {report.written.photos} photos its probabilities are softmax(logits / "
            f"temperature) within {report.written.max_delta:.1e}",
        ),
        ("Photos' fingerprint", report.fingerprint),
        ("Weights' sha384", model.weights_sha384),
    ]
