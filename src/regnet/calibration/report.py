"""The report of `regnet calibrate`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from regnet.calibration.calibrate import CalibrationReport, FittedCalibration, HeldOut
from regnet.evaluation.report import draw_reliability
from regnet.pages import report as page
from regnet.pages.figures import ACCENT, WARM, plain
from regnet.statistics.conformal import photos_wanted
from regnet.statistics.metrics import Metrics
from regnet.system.text import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def calibration_report(result: CalibrationReport) -> page.Report:
    """Return a calibration as a report."""
    held, calibration = result.learnt.held_out, result.learnt.calibration
    sizes = page.Plot(
        "sizes",
        partial(_draw_sizes, held=held),
        "Histogram of the number of classes in a set",
        f"On average {held.mean_size:.1f} classes; single ones stand out.",
        width=7.2,
        height=3.0,
    )
    diagrams = [_reliability("before", held.before), _reliability("after", held.after)]
    failures = [(failure.source, failure.error) for failure in result.failures]
    return page.Report(
        f"{result.metadata.name}, calibrated on {Path(result.dataset).name}",
        [
            page.Section("", [page.Tiles(_tiles(result.learnt))]),
            page.Section(
                "Confidence and accuracy",
                [page.Beside(diagrams)],
                lead="On the held-out photos. On the line, confidence equals accuracy.",
            ),
            page.Section(
                "How many classes a set has",
                [sizes],
                lead="A set of one class is an answer; with --unknown all others are unknown.",
            ),
            *page.unreadable_section(failures, result.unreadable),
            page.Section("How this was measured", [page.Facts(_facts(result))]),
        ],
        subtitle=f"{result.images:,} photos, half of them held out; sets by "
        f"{calibration.method} for {100 * calibration.coverage:g} %",
        verdict=str(result.path),
        command="regnet calibrate",
    )


def _tiles(learnt: FittedCalibration) -> list[page.Tile]:
    held, calibration = learnt.held_out, learnt.calibration
    low, high = (100 * end for end in held.expected)
    verdict = f"{100 * calibration.coverage:g} % asked, {low:.1f} to {high:.1f} is within chance"
    if not held.holds:
        verdict = f"LESS than the {verdict}"
    elif held.coverage.value > held.expected[1]:
        verdict = f"more than the {verdict}"
    before = f"before: {percent(held.before.ece)}"
    return [
        page.Tile("Calibration error", percent(held.after.ece), before),
        page.Tile(
            "Coverage of the sets",
            percent(held.coverage.value),
            f"contain the true class; 95 % interval {100 * held.coverage.low:.1f} to "
            f"{100 * held.coverage.high:.1f}",
            verdict,
            "good" if held.holds else "bad",
        ),
        page.Tile("Classes in a set", f"{held.mean_size:.1f}", f"of {len(held.sizes) - 1:,}, mean"),
        page.Tile(
            "A single class",
            percent(held.single.value),
            f"right for {percent(held.right.value)} of these; top-1 of all is "
            f"{percent(held.before.top1.value)}",
        ),
    ]


def _reliability(when: str, metrics: Metrics) -> page.Plot:
    return page.Plot(
        f"reliability-{when}",
        partial(draw_reliability, bins=metrics.bins),
        f"Reliability diagram {when} calibration: accuracy against confidence",
        f"{when.capitalize()}: calibration error {percent(metrics.ece)}, NLL {_nll(metrics)} nats.",
        height=4.4,
    )


def _nll(metrics: Metrics) -> str:
    return "-" if metrics.nll is None else f"{metrics.nll:.4f}"


def _draw_sizes(drawing: "Figure", held: HeldOut) -> None:
    """Draw a bar for every size that occurs."""
    axes = drawing.subplots()
    most = max(size for size, count in enumerate(held.sizes) if count)
    shares = [count / held.coverage.images for count in held.sizes[: most + 1]]
    colours = [ACCENT if size == 1 else WARM for size in range(most + 1)]
    axes.bar(range(most + 1), [100 * share for share in shares], 0.92, color=colours)
    axes.set(xlabel="classes in the set", ylabel="% of photos", xlim=(-0.6, most + 0.6))
    plain(axes)


def _facts(result: CalibrationReport) -> list[tuple[str, str]]:
    learnt, held, model = result.learnt, result.learnt.held_out, result.metadata
    calibration = learnt.calibration
    photos = (
        f"{learnt.temperature_photos:,} set the temperature, {learnt.threshold_photos:,} the sets, "
        f"{held.coverage.images:,} checked both; drawn with seed {result.seed}"
    )
    if calibration.photos + calibration.held_out < photos_wanted(calibration.coverage):
        wanted = f"{photos_wanted(calibration.coverage):,} or more"
        photos += f". {wanted} are recommended for {100 * calibration.coverage:g} %"
    leaning = "the model was well calibrated, as far as the photos tell"
    if learnt.step != 1:
        leaning = f"the model was {'under' if learnt.step < 1 else 'over'}confident"
    return [
        ("Model", f"{model.name}, weights {model.precision}, licence {model.licence}"),
        ("Assumed", "; ".join(model.assumed)),
        ("Data set", result.dataset),
        ("Photos", photos),
        ("Temperature", f"{calibration.temperature:.4f}: {leaning}"),
        ("NLL", f"{_nll(held.after)} nats; before: {_nll(held.before)}"),
        ("Threshold", f"{calibration.threshold:.6g}"),
        ("Single and wrong", f"{percent(held.wrong.value)} of the photos"),
        (
            "Check of the file",
            f"on {result.written.photos} photos its probabilities are softmax(logits / "
            f"temperature) within {result.written.max_delta:.1e}",
        ),
        ("Photos' fingerprint", result.fingerprint),
        ("Weights' sha384", model.weights_sha384),
    ]
