"""The report of `regnet train`: while a run goes on, and of what came out of it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from regnet.calibration.calibrate import Learnt
from regnet.data.labelled import Dataset
from regnet.evaluation import report as evaluated
from regnet.evaluation.evaluate import Evaluation
from regnet.inference.result import readable
from regnet.network.complexity import complexity
from regnet.network.spec import Spec, network_title
from regnet.pages.figures import svg
from regnet.pages.html import (
    Cell,
    Number,
    Section,
    Tile,
    assumed_facts,
    facts,
    figure,
    note,
    page,
    side_by_side,
    table,
    tiles,
)
from regnet.system.json_text import json_text
from regnet.system.text import percent
from regnet.system.version import TOOL_VERSION
from regnet.training.history import EpochRecord, best_record
from regnet.training.plots import draw_accuracies, draw_losses, draw_schedule, draw_speeds
from regnet.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A training run as its report shows it, finished or not.

    `epoch` is the one whose weights were deployed, counted from 1; 0 while there are none.
    `started_from` and `teacher` are models, "" for random weights and for none; `assumed` has the
    sentences about them. `remarks` are to be seen first, such as those on the data.
    """

    name: str
    spec: Spec
    recipe: Recipe
    records: tuple[EpochRecord, ...]
    dataset: str
    train_photos: int
    val_photos: int
    machine: str
    finished: bool
    epoch: int = 0
    started_from: str = ""
    teacher: str = ""
    assumed: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def best(self) -> EpochRecord | None:
        """The best epoch, as `best_record` has it."""
        return best_record(self.records)

    @property
    def seconds(self) -> float:
        """Of training, without validation."""
        return sum(record.seconds for record in self.records)

    @property
    def images_per_s(self) -> float | None:
        """Of the whole training; None before its first epoch."""
        images = sum(record.images_per_s * record.seconds for record in self.records)
        return images / self.seconds if self.seconds else None


def training_page(
    run: TrainingRun,
    *,
    evaluation: Evaluation | None = None,
    photos: Dataset | None = None,
    calibration: Learnt | None = None,
) -> str:
    """Return the report's HTML: of the epochs so far, and of the deployed model's `evaluation`.

    `photos` are those it was evaluated on, read again for the gallery of mistakes; `calibration` is
    what calibrating it taught. Raises `MissingExtraError` without the extra `report`.
    """
    sections = [Section("", (tiles(_tiles(run, evaluation, calibration)),))]
    if remarks := [*_remarks(run, evaluation), *_calibrated(calibration)]:
        sections.append(Section("", tuple(map(note, remarks))))
    sections.append(_curves(run))
    if evaluation is not None:
        sections += evaluated.result_sections(evaluation, photos)
    if run.records:
        sections.append(_epochs(run))
    sections += [
        Section("What was trained", (facts(_facts(run)),)),
        _recipe(run.recipe),
    ]
    if evaluation is not None:
        sections.append(evaluated.measured_section(evaluation))
    return page(
        f"{run.name}, trained on {Path(readable(run.dataset)).name}",
        sections,
        subtitle=f"{network_title(run.spec)}, {run.spec.classes:,} classes, "
        f"recipe {run.recipe.name}; {_progress(run)}",
        foot=f"regnet {TOOL_VERSION}, regnet train",
    )


def _progress(run: TrainingRun) -> str:
    """Return how far the run is, in words."""
    done, planned = len(run.records), run.recipe.schedule.epochs
    if not run.finished:
        return f"{done:,} of {planned:,} epochs so far"
    if done < planned:
        return f"ended after {done:,} of {planned:,} epochs"
    return f"{done:,} epochs"


def duration(seconds: float) -> str:
    """Return a time in words, to two digits or more: 45 s, 12 min, 3 h 05 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def _tiles(
    run: TrainingRun, evaluation: Evaluation | None, calibration: Learnt | None
) -> list[Tile]:
    shown = _validated(run) if evaluation is None else _measured(evaluation)
    error = _calibration_error(evaluation, calibration)
    speed = run.images_per_s
    shown += [error] if error else []
    return [
        *shown,
        Tile("Training time", duration(run.seconds) if run.records else "-", _time_note(run)),
        Tile(
            "Speed", "-" if speed is None else f"{speed:,.0f} /s", "images in training, on average"
        ),
    ]


def _measured(evaluation: Evaluation) -> list[Tile]:
    metrics = evaluation.scores.metrics
    return [
        evaluated.share_tile("Top-1", metrics.top1),
        evaluated.share_tile("Top-5", metrics.top5),
    ]


def _validated(run: TrainingRun) -> list[Tile]:
    """Return what validation says, and the loss of the last epoch."""
    if not run.records:
        return []
    best, last = run.best, run.records[-1]
    loss = Tile("Training loss", f"{last.loss:.3f}", f"of epoch {last.epoch:,}")
    if best is None or best.val_top1 is None:
        return [loss]
    now = f"; {percent(last.val_top1)} in epoch {last.epoch:,}" if best is not last else ""
    return [
        Tile("Validation top-1", percent(best.val_top1), f"best, epoch {best.epoch:,}{now}"),
        Tile("Validation top-5", percent(best.val_top5), "of the same epoch"),
        loss,
    ]


def _calibration_error(evaluation: Evaluation | None, calibration: Learnt | None) -> Tile | None:
    if calibration is not None:
        held = calibration.held_out
        before = f"{percent(held.before.ece)} before calibration"
        return Tile("Calibration error", percent(held.after.ece), before)
    if evaluation is None:
        return None
    error = percent(evaluation.scores.metrics.ece)
    return Tile("Calibration error", error, "mean gap, confidence to accuracy")


def _time_note(run: TrainingRun) -> str:
    done, left = len(run.records), run.recipe.schedule.epochs - len(run.records)
    if run.finished or not done:
        return f"{done:,} epochs, validation not counted"
    recent = run.records[-5:]
    seconds = left * sum(record.seconds for record in recent) / len(recent)
    return f"{done:,} epochs; as fast as now, {left:,} more take {duration(seconds)}"


def _remarks(run: TrainingRun, evaluation: Evaluation | None) -> list[str]:
    texts = list(run.remarks)
    patience = run.recipe.schedule.patience
    if run.finished and patience and len(run.records) < run.recipe.schedule.epochs:
        texts.append(f"Validation did not get better in {patience:,} epochs, which ended the run.")
    if run.epoch and run.epoch != len(run.records):
        texts.append(
            f"The model has the weights of epoch {run.epoch:,}, chosen by validation: on the "
            "photos that chose it, it looks a little better than it is."
        )
    if evaluation is not None and (text := evaluated.subset_text(evaluation)):
        texts.append(f"{text[0].upper()}{text[1:]}.")
    return texts


def _calibrated(learnt: Learnt | None) -> list[str]:
    """Return the sentence on a calibration."""
    if learnt is None:
        return []
    held = learnt.held_out
    return [
        f"Calibrated with temperature {learnt.calibration.temperature:.3f}: on "
        f"{held.coverage.images:,} photos held out, the error of its probabilities is "
        f"{percent(held.after.ece)} (before: {percent(held.before.ece)}), and sets meant to hold "
        f"the true class for {100 * learnt.calibration.coverage:g} % do for "
        f"{percent(held.coverage.value)}, with {held.mean_size:.1f} classes on average."
    ]


def _curves(run: TrainingRun) -> Section:
    if not run.records:
        return Section("How it learnt", (note("No epoch is finished yet."),))
    plots = (
        ("loss", "Loss by epoch", draw_losses, _loss_caption(run)),
        ("top1", "Share of right answers by epoch", draw_accuracies, _accuracy_caption(run)),
        ("rate", "Learning rate and crop size by epoch", draw_schedule, _schedule_caption(run)),
        ("speed", "Images a second by epoch", draw_speeds, "Reading and augmenting included."),
    )
    figures = [
        figure(svg(name, partial(draw, records=run.records), label=label), caption)
        for name, label, draw, caption in plots
    ]
    return Section("How it learnt", (side_by_side(*figures),))


def _loss_caption(run: TrainingRun) -> str:
    smoothing = run.recipe.loss.label_smoothing
    labels = f" and of labels smoothed by {smoothing:g}" if smoothing else ""
    return f"Training loss is of augmented photos{labels}: it may be the higher one."


def _accuracy_caption(run: TrainingRun) -> str:
    if run.best is None or run.best.val_top1 is None:
        return "Of augmented training photos; there was no validation."
    averaged = ", of averaged weights" if run.recipe.averages.ema else ""
    return f"Validation is of what would be deployed{averaged}; the circle is the best epoch."


def _schedule_caption(run: TrainingRun) -> str:
    crops = {record.crop for record in run.records}
    if len(crops) > 1:
        return "At the end of each epoch, and the side of its training crops."
    return f"At the end of each epoch; its training crops have {crops.pop()} pixels a side."


def _epochs(run: TrainingRun) -> Section:
    columns: dict[str, Callable[[EpochRecord], Cell]] = {
        "Epoch": partial(_epoch_name, run),
        "Rate": lambda r: Number(f"{r.lr:.3g}", r.lr),
        "Crop": lambda r: Number(str(r.crop), r.crop),
        "Loss": lambda r: _number(r.loss),
        "Top-1": lambda r: _percent(r.train_top1),
        "Val. loss": lambda r: _number(r.val_loss),
        "Val. top-1": lambda r: _percent(r.val_top1),
        "Val. top-5": lambda r: _percent(r.val_top5),
        "Images/s": lambda r: Number(f"{r.images_per_s:,.0f}", r.images_per_s),
        "Time": lambda r: Number(duration(r.seconds), r.seconds),
    }  # fmt: skip
    if any(record.skipped for record in run.records):
        columns["Skipped"] = lambda r: Number(f"{r.skipped:,}", r.skipped)
    rows: list[list[Cell]] = [[cell(r) for cell in columns.values()] for r in reversed(run.records)]
    return Section(
        "Every epoch",
        (table(tuple(columns), rows),),
        lead="The last one first; metrics.csv has the same with all digits.",
    )


def _epoch_name(run: TrainingRun, record: EpochRecord) -> str:
    names = [f"{record.epoch:,}"]
    names += ["best"] if record is run.best and record.val_top1 is not None else []
    names += ["deployed"] if record.epoch == run.epoch else []
    return ", ".join(names)


def _number(value: float | None) -> Number:
    return Number("-" if value is None else f"{value:.4f}", value)


def _percent(value: float | None) -> Number:
    return Number(percent(value), value)


def _facts(run: TrainingRun) -> list[tuple[str, str]]:
    cost = complexity(run.spec, image_size=run.recipe.input.crop)
    crop = run.recipe.input.crop
    skipped = max((record.skipped for record in run.records), default=0)
    pairs = [
        ("Network", network_title(run.spec)),
        ("Stages", _stages(run.spec)),
        ("Size", f"{cost.params:,} parameters, {cost.macs / 1e9:.4g} GMACs at {crop} x {crop}"),
        ("Started from", run.started_from or f"random weights, seed {run.recipe.seed}"),
        ("Teacher", run.teacher),
        *assumed_facts(run.assumed),
        ("Data set", readable(run.dataset)),
        ("Photos", f"{run.train_photos:,} to train, {run.val_photos:,} to validate"),
        ("Unreadable", f"at most {skipped:,} in an epoch, skipped" if skipped else ""),
        ("Epochs", _progress(run)),
        ("Machine", run.machine),
    ]
    return [(name, value) for name, value in pairs if value]


def _stages(spec: Spec) -> str:
    stages = ", ".join(f"{s.depth} x {s.width} (groups of {s.group_width})" for s in spec.stages)
    squeeze = "" if spec.se_ratio is None else f"; squeeze-excite of {spec.se_ratio:g}"
    return f"{stages}; stem {spec.stem_width}, stride {spec.stem_stride}{squeeze}"


def _recipe(recipe: Recipe) -> Section:
    """Return every value of a recipe, a line a part."""
    values: dict[str, Any] = asdict(recipe)
    pairs = [("name", values.pop("name")), ("seed", str(values.pop("seed")))]
    pairs.append(("teachers", ", ".join(values.pop("teachers")) or "none"))
    for part, table_ in values.items():
        pairs.append((part, ", ".join(f"{k} {json_text(v)}" for k, v in table_.items())))
    batch = recipe.schedule.batch
    return Section(
        "The recipe",
        (facts(pairs),),
        lead=f"A learning rate of {recipe.lr:g} after the warm-up, for {batch:,} images a step. "
        "The file recipe.toml of the run has the same values.",
    )
