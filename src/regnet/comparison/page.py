"""The report of `regnet compare`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regnet.comparison.compare import ComparisonRecord
from regnet.comparison.differences import StageDifference
from regnet.comparison.sides import Side
from regnet.comparison.table import difference_text, sizes_text
from regnet.comparison.tally import DELTA_EDGES, Accuracy, FlippedPhoto
from regnet.comparison.tally import ComparedPhoto as SourcePhoto
from regnet.comparison.verdict import ROUNDING, percent
from regnet.inference.result import ClassScore
from regnet.network.labels import first_name
from regnet.pages.figures import ACCENT, MUTED, plain, svg
from regnet.pages.html import (
    Bar,
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
    table,
    tiles,
)
from regnet.pages.thumbnails import thumbnail_of
from regnet.system.version import TOOL_VERSION

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FLIPS = 48


def comparison_page(record: ComparisonRecord) -> str:
    """Return the report's HTML; the photos of the flips are read again."""
    sections = [
        Section("", (tiles(_tiles(record)),), lead=_sentence(record.verdict.text)),
        _stages(record),
        _deltas(record),
        _flips(record),
    ]
    if record.comparison.accuracy is not None:
        sections.append(_accuracy(record.comparison.accuracy))
    if record.comparison.unreadable:
        sections.append(_unreadable(record))
    sections.append(Section("What was compared", (facts(_facts(record)),)))
    images = record.comparison.agreement.images
    broken_off = "" if record.complete else ", interrupted: more were to come"
    return page(
        f"A {record.pair.a.title} and B {record.pair.b.title}",
        sections,
        subtitle=f"{images:,} photos of {Path(record.photos.path).name}{broken_off}",
        foot=f"regnet {TOOL_VERSION}, regnet compare",
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _tiles(record: ComparisonRecord) -> list[Tile]:
    found, gates = record.comparison, record.gates
    agreement = found.agreement
    least = f"at least {100 * agreement.top1_at_least:.2f} % (95 % confidence)"
    share = f"{100 * agreement.top1.value:.2f} %"
    delta = f"{agreement.max_delta:.2g}"
    verdict = record.verdict
    shown = [
        Tile("First to differ", verdict.stage or "nothing", _kind(verdict.kind)),
        Tile("Top-1 equal", share, least, *_gate(gates.max_flips, agreement.flipped, "flips")),
        Tile(
            "Largest difference", delta, "of a probability",
            *_gate(gates.max_delta, agreement.max_delta, ""),
        ),
    ]  # fmt: skip
    if found.accuracy is not None:
        points = f"{100 * found.accuracy.test.difference:+.2f}"
        chance = f"exact McNemar p = {found.accuracy.test.p_value:.2g}"
        shown.append(Tile("Accuracy, B less A", points, "points of top-1", chance))
    return shown


def _kind(kind: str) -> str:
    return {"rounding": f"by rounding: up to {ROUNDING:g} is allowed"}.get(kind, "")


def _gate(allowed: float | None, found: float, unit: str) -> tuple[str, Tone]:
    if allowed is None:
        return "", "plain"
    text = f"{allowed:g} {unit}".strip()
    return (f"more than {text}", "bad") if found > allowed else (f"within {text}", "good")


def _stages(record: ComparisonRecord) -> Section:
    columns = ("Stage", "Equal photos", "Equal values", "Largest", "Mean", "Remarks")
    rows = [_stage_row(stage) for stage in record.comparison.stages]
    notes = tuple(note(_sentence(text)) for text in record.notes)
    return Section(
        "Stage by stage",
        (table(columns, rows), *notes),
        lead="Largest and mean differences are in levels of 0 to 255, logits, and probability.",
    )


def _stage_row(stage: StageDifference) -> Sequence[Any]:
    if stage.hidden is not None:
        nothing = Number("-", None)
        return stage.stage, nothing, nothing, nothing, nothing, f"not seen ({stage.hidden})"
    equal = percent(stage.equal_values, stage.values) if stage.values else "-"
    return (
        stage.stage,
        Bar(f"{stage.equal_photos:,} of {stage.photos:,}", stage.equal_photos / stage.photos),
        Bar(equal, stage.equal_share),
        Number(f"{stage.largest:.3g}", stage.largest) if stage.values else Number("-", None),
        Number(f"{stage.mean:.3g}", stage.mean) if stage.values else Number("-", None),
        sizes_text(stage),
    )


def _deltas(record: ComparisonRecord) -> Section:
    drawing = svg(
        "deltas",
        lambda canvas: _draw_deltas(canvas, record.comparison.deltas),
        width=7.2,
        height=3.0,
        label="Histogram of the photos' largest difference of a probability",
    )
    caption = f"Each photo counts once. Up to {ROUNDING:g}, in grey, is rounding of floating point."
    return Section("How much probabilities differ", (figure(drawing, caption),))


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


def _flips(record: ComparisonRecord) -> Section:
    flips = record.comparison.flips[:_FLIPS]
    if not flips:
        return Section("Flips", (note("Every photo has the same most probable class."),))
    found = record.photos.find([flip.source for flip in flips])
    shown = [_flip(flip, record, found.get(flip.source)) for flip in flips]
    flipped = record.comparison.agreement.flipped
    first = f" The {len(flips)} that A was surest of are shown." if len(flips) < flipped else ""
    lead = f"Photos with another most probable class: {flipped:,}.{first}"
    return Section("Flips", (gallery(shown),), lead=lead)


def _flip(flip: FlippedPhoto, record: ComparisonRecord, photo: SourcePhoto | None) -> Photo:
    lines = [f"A {_said(flip.a)}", f"B {_said(flip.b)}"]
    if flip.truth >= 0:
        lines.append(f"truth: {first_name(record.pair.labels[flip.truth].name)}")
    return Photo(thumbnail_of(photo), tuple(lines), flip.source)


def _said(score: ClassScore) -> str:
    return f"{first_name(score.label)} {100 * score.probability:.1f} %"


def _accuracy(accuracy: Accuracy) -> Section:
    test = accuracy.test
    rows = [
        ("A right", _count(test.both), _count(test.only_a), _count(accuracy.a.hits)),
        ("A wrong", _count(test.only_b), _count(test.neither), _count(test.only_b + test.neither)),
    ]
    return Section(
        "Accuracy",
        (table(("", "B right", "B wrong", "Photos"), rows),),
        lead=f"Exact McNemar p = {test.p_value:.3g}: how likely so uneven a split of the "
        f"{test.only_a + test.only_b:,} photos that just one has right is, were both equally good.",
    )


def _count(number: int) -> Number:
    return Number(f"{number:,}", number)


def _unreadable(record: ComparisonRecord) -> Section:
    found = record.comparison
    first = f" The first {len(found.errors)}:" if len(found.errors) < found.unreadable else ""
    return Section(
        "Unreadable photos",
        (table(("Photo", "Reason"), found.errors),),
        lead=f"Photos that could not be read and were left out: {found.unreadable:,}.{first}",
    )


def _facts(record: ComparisonRecord) -> list[tuple[str, str]]:
    found = record.comparison
    pairs = [*_side_facts("A", record.pair.a), *_side_facts("B", record.pair.b)]
    pairs.append(("Photos", record.photos.path))
    if found.accuracy is not None:
        a, b = (f"{100 * share.value:.2f} %" for share in (found.accuracy.a, found.accuracy.b))
        pairs.append(("Top-1 accuracy", f"A {a}, B {b}; {difference_text(record)}"))
    kl = f"{found.agreement.mean_kl:.3g} nats on average, {found.agreement.max_kl:.3g} at most"
    pairs.append(("KL(A || B)", kl))
    return pairs


def _side_facts(name: str, side: Side) -> list[tuple[str, str]]:
    """Return what a side is, its protocol on a line of its own."""
    about = {
        key: str(value) for key, value in side.about.items() if key not in ("protocol", "assumed")
    }
    pairs = [(name, side.title), (f"{name}, model", _listed(about))]
    if "protocol" in side.about:
        pairs.append((f"{name}, protocol", _listed(side.about["protocol"])))
    return [*pairs, *assumed_facts(side.about.get("assumed", ()), f"{name}, assumed")]


def _listed(values: Any) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in values.items())
