"""The report of `regnet compare`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regnet.comparison.differences import StageDifference
from regnet.comparison.sides import Side
from regnet.comparison.tally import DELTA_EDGES, Accuracy, FlippedPhoto
from regnet.comparison.verdict import ROUNDING, share_text
from regnet.inference.result import ClassScore
from regnet.network.labels import Labels, first_name
from regnet.pages import report as page
from regnet.pages.figures import ACCENT, MUTED, plain
from regnet.pages.thumbnails import thumbnails
from regnet.system.text import counted, percent, sentence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from regnet.comparison.compare import ComparisonRecord

_FLIPS = 48


def comparison_report(record: "ComparisonRecord") -> page.Report:
    """Return a comparison as a report; its page reads the photos of the flips again."""
    found = record.comparison
    gates = (f"gate exceeded: {phrase}" for phrase in record.exceeded)
    deltas = page.Plot(
        "deltas",
        partial(_draw_deltas, deltas=found.deltas),
        "Histogram of the photos' largest difference of a probability",
        f"Each photo counts once. Up to {ROUNDING:g}, in grey, is rounding of floating point.",
        width=7.2,
        height=3.0,
    )
    interrupted = "" if record.complete else ", interrupted: more were to come"
    return page.Report(
        f"A {record.pair.a.title} and B {record.pair.b.title}",
        [
            page.Section("", [page.Tiles(_tiles(record)), *gates]),
            _stages(record),
            page.Section("How much probabilities differ", [deltas]),
            _flips(record),
            *([_accuracy(found.accuracy)] if found.accuracy else []),
            *page.unreadable_section(found.errors, found.unreadable),
            page.Section("What was compared", [page.Facts(_facts(record))]),
        ],
        subtitle=f"{counted(found.agreement.images, 'photo')} of {Path(record.photos.path).name}"
        f"{interrupted}",
        verdict=record.verdict.text,
        command="regnet compare",
    )


def _tiles(record: "ComparisonRecord") -> list[page.Tile]:
    agreement, gates, verdict = record.comparison.agreement, record.gates, record.verdict
    rounding = f"by rounding: up to {ROUNDING:g} is allowed"
    tiles = [
        page.Tile(
            "First to differ",
            verdict.stage or "nothing",
            rounding if verdict.kind == "rounding" else "",
        ),
        page.Tile(
            "Top-1 equal",
            percent(agreement.top1.value),
            f"{agreement.top1.hits:,} photos; at least {percent(agreement.top1_at_least)} "
            "(95 % confidence)",
            *_gate(gates.max_flips, agreement.flipped, "flips"),
        ),
        page.Tile(
            "Largest difference",
            f"{agreement.max_delta:.2g}",
            "of a probability",
            *_gate(gates.max_delta, agreement.max_delta, ""),
        ),
    ]
    if record.comparison.accuracy is not None:
        test = record.comparison.accuracy.test
        chance = f"exact McNemar p = {test.p_value:.2g}"
        points = f"{100 * test.difference:+.2f}"
        tiles.append(page.Tile("Accuracy, B less A", points, "points of top-1", chance))
    return tiles


def _gate(limit: float | None, value: float, unit: str) -> tuple[str, page.Tone]:
    if limit is None:
        return "", "plain"
    text = f"{limit:g} {unit}".strip()
    return (f"more than {text}", "bad") if value > limit else (f"within {text}", "good")


def _stages(record: "ComparisonRecord") -> page.Section:
    columns = ("Stage", "Equal photos", "Equal values", "Largest", "Mean", "Remarks")
    return page.Section(
        "Stage by stage",
        [
            page.Table(columns, [_stage_row(stage) for stage in record.comparison.stages]),
            *map(sentence, record.notes),
        ],
        lead="Largest and mean differences are in levels of 0 to 255, logits, and probability.",
    )


def _stage_row(stage: StageDifference) -> tuple[page.Cell, ...]:
    nothing = page.Number(None)
    if stage.hidden is not None:
        return stage.stage, nothing, nothing, nothing, nothing, f"not seen ({stage.hidden})"
    photos = f"{stage.equal_photos:,} of {stage.photos:,}"
    equal = share_text(stage.equal_values, stage.values) if stage.values else "-"
    remark = ""
    if stage.sizes is not None:
        first, second = (f"{width} x {height}" for height, width in stage.sizes)
        remark = f"other size in {stage.other_size}, such as {first} and {second}"
    return (
        stage.stage,
        page.Bar(stage.equal_photos / stage.photos, photos),
        page.Bar(stage.equal_share, equal),
        page.Number(stage.largest if stage.values else None, ".3g"),
        page.Number(stage.mean if stage.values else None, ".3g"),
        remark,
    )


def _draw_deltas(drawing: "Figure", deltas: tuple[int, ...]) -> None:
    """Draw a bar for each power of ten."""
    axes = drawing.subplots()
    names = ["0", *(f"1e{power}" for power in range(-8, 0)), "1"]
    colours = [MUTED if edge <= ROUNDING * 1.001 else ACCENT for edge in DELTA_EDGES]
    bars = axes.bar(range(len(names)), deltas, 0.92, color=colours)
    axes.bar_label(bars, [f"{count:,}" if count else "" for count in deltas], padding=2)
    axes.set_xticks(range(len(names)), names)
    axes.set(xlabel="largest difference of a probability, up to", ylabel="photos")
    axes.margins(y=0.12)
    plain(axes)


def _flips(record: "ComparisonRecord") -> page.Section:
    flips, flipped = record.comparison.flips[:_FLIPS], record.comparison.agreement.flipped
    if not flips:
        return page.Section("Flips", ["Every photo has the same most probable class."])
    first = f" The {len(flips)} that A was surest of are shown." if len(flips) < flipped else ""
    photos = [_flip(flip, record.pair.labels) for flip in flips]
    return page.Section(
        "Flips",
        [page.Gallery(photos, thumbnails(record.photos.find), first=10)],
        lead=f"Photos with another most probable class: {flipped:,}.{first}",
    )


def _flip(flip: FlippedPhoto, labels: Labels) -> page.Photo:
    truth = [] if flip.truth is None else [f"truth: {first_name(labels[flip.truth].name)}"]
    answers = [f"A {_answer(flip.a)}", f"B {_answer(flip.b)}", f"margin {flip.margin:.3f}"]
    return page.Photo(flip.source, answers + truth)


def _answer(score: ClassScore) -> str:
    return f"{first_name(score.label)} {percent(score.probability, 1)}"


def _accuracy(accuracy: Accuracy) -> page.Section:
    test = accuracy.test
    rows = [
        ("A right", test.both, test.only_a, accuracy.a.hits),
        ("A wrong", test.only_b, test.neither, test.only_b + test.neither),
    ]
    columns = ("", "B right", "B wrong", "Photos")
    return page.Section(
        "Accuracy",
        [page.Table(columns, [(name, *map(page.Number, counts)) for name, *counts in rows])],
        lead=f"Exact McNemar p = {test.p_value:.3g}: how likely so uneven a split of the "
        f"{test.only_a + test.only_b:,} photos that just one has right is, were both equally good.",
    )


def _facts(record: "ComparisonRecord") -> list[tuple[str, str]]:
    agreement, accuracy = record.comparison.agreement, record.comparison.accuracy
    top1 = ""
    if accuracy is not None:
        test = accuracy.test
        top1 = (
            f"A {percent(accuracy.a.value)}, B {percent(accuracy.b.value)}; "
            f"{100 * test.difference:+.2f} points ({100 * test.low:+.2f} to "
            f"{100 * test.high:+.2f}, 95 %)"
        )
    return [
        *_side_facts("A", record.pair.a),
        *_side_facts("B", record.pair.b),
        ("Photos", record.photos.path),
        ("Top-1 accuracy", top1),
        ("KL(A || B)", f"{agreement.mean_kl:.3g} nats on average, {agreement.max_kl:.3g} at most"),
    ]


def _side_facts(name: str, side: Side) -> list[tuple[str, str]]:
    """Return what a side is, its protocol on a line of its own."""
    about = dict(side.about)
    protocol, assumed = about.pop("protocol", {}), about.pop("assumed", ())
    return [
        (name, side.title),
        (f"{name}, model", _listed(about)),
        (f"{name}, protocol", _listed(protocol)),
        (f"{name}, assumed", "; ".join(assumed)),
    ]


def _listed(values: Any) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in values.items())
