"""The report of `regnet train`: how it learnt, and how good the model is."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from regnet.data.labelled import Dataset
from regnet.evaluation.evaluate import Evaluation
from regnet.evaluation.report import measured_section, result_sections, share_tile, subset_text
from regnet.inference.result import readable
from regnet.network.complexity import complexity
from regnet.network.spec import Spec, network_title
from regnet.pages import report as page
from regnet.pages.figures import ACCENT, INK, MUTED, WARM, legend_above, plain
from regnet.system.json_text import json_text
from regnet.system.text import percent, sentence
from regnet.training.history import EpochRecord, best_record
from regnet.training.recipe import Recipe
from regnet.training.task import Training

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from regnet.calibration.calibrate import FittedCalibration

Records = Sequence[EpochRecord]

_DOTS: Final = 30  # most epochs that have a dot each


def training_report(
    training: Training,
    *,
    spec: Spec,
    dataset: str,
    machine: str,
    started_from: str = "",
    evaluation: Evaluation | None = None,
    photos: Dataset | None = None,
    calibration: "FittedCalibration | None" = None,
) -> page.Report:
    """Return the report of a finished run.

    `started_from` is the initial model, "" for random weights. `photos` are those of the
    `evaluation`, read again for the gallery of mistakes.
    """
    recipe = training.recipe
    subset = evaluation and subset_text(evaluation)
    remarks = _remarks(training) + ([sentence(subset)] if subset else [])
    origin = started_from or f"random weights, seed {recipe.seed}"
    facts = _facts(training, spec, origin, dataset, machine)
    sections = [
        page.Section("", [page.Tiles(_tiles(training, evaluation, calibration))]),
        page.Section("", [*remarks, *_calibrated(calibration)]),
        page.Section("How it learnt", [page.Beside(_plots(training))]),
        *(result_sections(evaluation, photos) if evaluation else []),
        _epochs(training),
        page.Section("What was trained", [page.Facts(facts)]),
        _recipe(recipe),
        *([measured_section(evaluation)] if evaluation else []),
    ]
    return page.Report(
        f"{training.folder.resolve().name}, trained on {Path(dataset).name}",
        [section for section in sections if section.blocks],
        subtitle=f"{network_title(spec)}, {spec.classes:,} classes, recipe {recipe.name}; "
        f"{_progress(training)}",
        command="regnet train",
    )


def training_summary(training: Training) -> page.Report:
    """Return what the terminal says of a finished run: its model, and where the rest is."""
    read, count = training.val_read, training.val_photos
    validating = f"{count:,}" if read == count else f"{read:,} of {count:,}"
    accuracy = f"top-1 {percent(training.top1)}, top-5 {percent(training.top5)}"
    facts = [
        ("Photos", f"{training.train_photos:,} to train on, {validating} to validate on"),
        (
            "Epochs",
            f"{len(training.records):,} of {training.recipe.schedule.epochs:,}; the model is of "
            f"epoch {training.epoch:,}",
        ),
        ("Validation", "" if training.top1 is None else accuracy),
        ("Calibrated", "yes" if training.calibrated else "no"),
        ("Report", str(training.report or "")),
    ]
    lost = [(readable(photo.source), photo.error) for photo in training.unreadable]
    sections = [page.Section("", [page.Facts(facts)]), *page.unreadable_section(lost, len(lost))]
    return page.Report(str(training.model or training.weights), sections)


def _progress(training: Training) -> str:
    done, planned = len(training.records), training.recipe.schedule.epochs
    return f"ended after {done:,} of {planned:,} epochs" if done < planned else f"{done:,} epochs"


def duration(seconds: float) -> str:
    """Return a time in words, to two digits or more: 45 s, 12 min, 3 h 05 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def _tiles(
    training: Training, evaluation: Evaluation | None, calibration: "FittedCalibration | None"
) -> list[page.Tile]:
    records = training.records
    last, seconds = records[-1], sum(record.seconds for record in records)
    speed = sum(record.images_per_s * record.seconds for record in records) / (seconds or 1)
    tiles = [page.Tile("Training loss", f"{last.loss:.3f}", f"of epoch {last.epoch:,}")]
    if evaluation is not None:
        metrics = evaluation.scores.metrics
        tiles = [share_tile("Top-1", metrics.top1), share_tile("Top-5", metrics.top5)]
        if calibration is None:
            gap = "mean gap, confidence to accuracy"
            tiles.append(page.Tile("Calibration error", percent(metrics.ece), gap))
    if calibration is not None:
        held = calibration.held_out
        before = f"{percent(held.before.ece)} before calibration"
        tiles.append(page.Tile("Calibration error", percent(held.after.ece), before))
    counted = f"{last.epoch:,} epochs, validation not counted"
    return [
        *tiles,
        page.Tile("Training time", duration(seconds), counted),
        page.Tile("Speed", f"{speed:,.0f} /s", "images in training, on average"),
    ]


def _remarks(training: Training) -> list[str]:
    remarks, done = list(training.remarks), len(training.records)
    patience = training.recipe.schedule.patience
    if patience and done < training.recipe.schedule.epochs:
        remarks.append(f"Validation did not improve in {patience:,} epochs, which ended the run.")
    if training.epoch != done:
        remarks.append(
            f"The model has the weights of epoch {training.epoch:,}, chosen by validation: on the "
            "photos that chose it, it looks a little better than it is."
        )
    return remarks


def _calibrated(calibration: "FittedCalibration | None") -> list[str]:
    if calibration is None:
        return []
    held, fitted = calibration.held_out, calibration.calibration
    return [
        f"Calibrated with temperature {fitted.temperature:.3f}: on "
        f"{held.coverage.images:,} held-out photos, the error of its probabilities is "
        f"{percent(held.after.ece)} (before: {percent(held.before.ece)}), and sets meant to hold "
        f"the true class for {100 * fitted.coverage:g} % do for "
        f"{percent(held.coverage.value)}, with {held.mean_size:.1f} classes on average."
    ]


def _plots(training: Training) -> list[page.Plot]:
    records, recipe = training.records, training.recipe
    smoothing = recipe.loss.label_smoothing
    labels = f" and of labels smoothed by {smoothing:g}" if smoothing else ""
    top1 = "Of augmented training photos; there was no validation."
    if any(record.val_top1 is not None for record in records):
        averaged = ", of averaged weights" if recipe.averages.ema else ""
        top1 = f"Validation is of what would be deployed{averaged}; the circle is the best epoch."
    crops = {record.crop for record in records}
    rate = "At the end of each epoch, and the side of its training crops."
    if len(crops) == 1:
        rate = f"At the end of each epoch; its training crops have {crops.pop()} pixels a side."
    loss = f"Training loss is of augmented photos{labels}: it may be the higher one."
    plots = (
        ("loss", "Loss by epoch", _draw_losses, loss),
        ("top1", "Share of right answers by epoch", _draw_accuracies, top1),
        ("rate", "Learning rate and crop size by epoch", _draw_schedule, rate),
        ("speed", "Images a second by epoch", _draw_speeds, "Reading and augmenting included."),
    )
    return [
        page.Plot(name, partial(draw, records=records), label, caption)
        for name, label, draw, caption in plots
    ]


def _epochs(training: Training) -> page.Section:
    best = best_record(training.records)

    def name(record: EpochRecord) -> str:
        names = [f"{record.epoch:,}"]
        names += ["best"] if record is best and record.val_top1 is not None else []
        names += ["deployed"] if record.epoch == training.epoch else []
        return ", ".join(names)

    columns: dict[str, Callable[[EpochRecord], page.Cell]] = {
        "Epoch": name,
        "Rate": lambda r: page.Number(r.lr, ".3g"),
        "Crop": lambda r: page.Number(r.crop, "d"),
        "Loss": lambda r: page.Number(r.loss, ".4f"),
        "Top-1": lambda r: page.Number(r.train_top1, ".2%"),
        "Val. loss": lambda r: page.Number(r.val_loss, ".4f"),
        "Val. top-1": lambda r: page.Number(r.val_top1, ".2%"),
        "Val. top-5": lambda r: page.Number(r.val_top5, ".2%"),
        "Images/s": lambda r: page.Number(r.images_per_s),
        "Time": lambda r: duration(r.seconds),
    }
    if any(record.skipped for record in training.records):
        columns["Skipped"] = lambda r: page.Number(r.skipped)
    rows = [[cell(record) for cell in columns.values()] for record in reversed(training.records)]
    return page.Section(
        "Every epoch",
        [page.Table(tuple(columns), rows)],
        lead="The last one first; metrics.csv has the same with all digits.",
    )


def _facts(
    training: Training, spec: Spec, origin: str, dataset: str, machine: str
) -> list[tuple[str, str]]:
    crop = training.recipe.input.crop
    cost = complexity(spec, image_size=crop)
    skipped = max(record.skipped for record in training.records)
    stages = ", ".join(f"{s.depth} x {s.width} (groups of {s.group_width})" for s in spec.stages)
    squeeze = "" if spec.se_ratio is None else f"; squeeze-excite of {spec.se_ratio:g}"
    return [
        ("Network", network_title(spec)),
        ("Stages", f"{stages}; stem {spec.stem_width}, stride {spec.stem_stride}{squeeze}"),
        ("Size", f"{cost.params:,} parameters, {cost.macs / 1e9:.4g} GMACs at {crop} x {crop}"),
        ("Started from", origin),
        ("Teacher", ", ".join(training.recipe.teachers)),
        ("Assumed", "; ".join(training.assumed)),
        ("Data set", dataset),
        ("Photos", f"{training.train_photos:,} to train, {training.val_photos:,} to validate"),
        ("Unreadable", f"at most {skipped:,} in an epoch, skipped" if skipped else ""),
        ("Epochs", _progress(training)),
        ("Machine", machine),
    ]


def _recipe(recipe: Recipe) -> page.Section:
    """Return every value of a recipe, one line per part."""
    values: dict[str, Any] = recipe.to_dict()
    pairs = [("name", values.pop("name")), ("seed", str(values.pop("seed")))]
    pairs.append(("teachers", ", ".join(values.pop("teachers")) or "none"))
    for part, table in values.items():
        pairs.append((part, ", ".join(f"{k} {json_text(v)}" for k, v in table.items())))
    batch = recipe.schedule.batch
    return page.Section(
        "The recipe",
        [page.Facts(pairs)],
        lead=f"A learning rate of {recipe.lr:g} after the warm-up, for {batch:,} images a step. "
        "The file recipe.toml of the run has the same values.",
    )


def _draw_losses(canvas: "Figure", records: Records) -> None:
    axes = canvas.subplots()
    _line(axes, records, "loss", ACCENT, label="training")
    _line(axes, records, "val_loss", WARM, label="validation")
    _finish(axes, records, "loss, nats")


def _draw_accuracies(canvas: "Figure", records: Records) -> None:
    """Draw training top-1, validation top-1 and top-5, and a circle around the best."""
    axes = canvas.subplots()
    _line(axes, records, "val_top5", WARM, label="validation top-5", linestyle=":", times=100)
    _line(axes, records, "val_top1", WARM, label="validation top-1", times=100)
    _line(axes, records, "train_top1", ACCENT, label="training top-1", times=100)
    axes.set_ylim(bottom=0)
    best = best_record(records)
    if best and best.val_top1 is not None:
        at = best.epoch, 100 * best.val_top1
        axes.plot(*at, "o", markersize=8, markerfacecolor="none", markeredgecolor=INK)
        side = "right" if 2 * best.epoch > len(records) else "left"
        below: dict[str, Any] = {"xytext": (0, -9), "textcoords": "offset points", "va": "top"}
        axes.annotate(f"{at[1]:.1f} %", at, ha=side, color=INK, fontsize=9, **below)
    _finish(axes, records, "% right")


def _draw_schedule(canvas: "Figure", records: Records) -> None:
    """Draw the learning rate, and below it the side of the crops if it changes."""
    crops = [record.crop for record in records]
    if changes := len(set(crops)) > 1:
        axes, lower = canvas.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        edges = [0.5, *(record.epoch + 0.5 for record in records)]
        lower.stairs(crops, edges, color=WARM, linewidth=1.8, baseline=None)
        lower.set_yticks(sorted(set(crops)))
        _finish(lower, records, "crop, pixels")
    else:
        axes = canvas.subplots()
    _line(axes, records, "lr", ACCENT)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylim(bottom=0)
    _finish(axes, records, "learning rate")
    if changes:
        axes.set_xlabel("")


def _draw_speeds(canvas: "Figure", records: Records) -> None:
    axes = canvas.subplots()
    _line(axes, records, "images_per_s", MUTED)
    axes.set_ylim(bottom=0)
    _finish(axes, records, "images a second")


def _line(
    axes: "Axes", records: Records, name: str, colour: str, *, times: float = 1, **style: Any
) -> None:
    """Draw a line through the epochs that have a value."""
    known = [(r.epoch, times * y) for r in records if (y := getattr(r, name)) is not None]
    if known:
        epochs, values = zip(*known, strict=True)
        marker = "o" if len(known) <= _DOTS else ""
        axes.plot(
            epochs, values, color=colour, linewidth=1.8, marker=marker, markersize=3.5, **style
        )


def _finish(axes: "Axes", records: Records, what: str) -> None:
    from matplotlib.ticker import MaxNLocator

    count = len(records)
    pad = max(0.02 * count, 0.5)
    axes.set(xlabel="epoch", ylabel=what, xlim=(1 - pad, count + pad))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    if len(axes.get_legend_handles_labels()[1]) > 1:
        legend_above(axes)
    plain(axes)
