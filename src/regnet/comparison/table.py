"""A comparison as lines of text for people; the last one is the verdict."""

from collections.abc import Iterator

from regnet.comparison.compare import ComparisonRecord
from regnet.comparison.differences import StageDifference
from regnet.comparison.verdict import percent
from regnet.network.labels import first_name

_FLIPS = 10


def comparison_lines(record: ComparisonRecord) -> Iterator[str]:
    """Yield the lines of the table."""
    yield from _headline(record)
    yield ""
    yield f"{'':13} {'equal photos':>14} {'equal values':>13} {'largest':>10} {'mean':>10}"
    for stage in record.comparison.stages:
        yield _stage_line(stage)
    yield ""
    yield from _top1_lines(record)
    yield from _accuracy_lines(record)
    yield ""
    for phrase in record.exceeded:
        yield f"gate exceeded: {phrase}"
    yield record.verdict.text


def _headline(record: ComparisonRecord) -> Iterator[str]:
    unreadable = record.comparison.unreadable
    yield f"A  {record.pair.a.title}"
    yield f"B  {record.pair.b.title}"
    text = f"{record.comparison.agreement.images} photos of {record.photos.path}"
    if unreadable:
        text += f", {unreadable} more could not be read"
    if not record.complete:
        text += "; interrupted, more were to come"
    yield text
    for note in record.notes:
        yield f"note: {note}"


def _stage_line(stage: StageDifference) -> str:
    if stage.hidden is not None:
        return f"{stage.stage:13} not seen ({stage.hidden})"
    text = f"{stage.stage:13} {f'{stage.equal_photos} of {stage.photos}':>14}"
    if stage.values:
        equal = percent(stage.equal_values, stage.values)
        text += f" {equal:>13} {stage.largest:10.3g} {stage.mean:10.3g}"
        text += "  levels" if stage.unit == "levels" else ""
    return f"{text} {sizes_text(stage)}".rstrip()


def sizes_text(stage: StageDifference) -> str:
    """Return how many photos have other sizes at a stage, with an example; "" where none has."""
    if stage.sizes is None:
        return ""
    first, second = (f"{width} x {height}" for height, width in stage.sizes)
    return f"other size in {stage.other_size}, such as {first} and {second}"


def _top1_lines(record: ComparisonRecord) -> Iterator[str]:
    agreement, flips = record.comparison.agreement, record.comparison.flips
    yield (
        f"top-1 equal on {agreement.top1.hits} of {agreement.images} photos "
        f"({100 * agreement.top1.value:.2f} %; at least {100 * agreement.top1_at_least:.2f} % "
        "with 95 % confidence)"
    )
    yield f"KL(A || B) {agreement.mean_kl:.3g} nats on average, {agreement.max_kl:.3g} at most"
    if not flips:
        return
    more = f", the {_FLIPS} that A was surest of" if len(flips) > _FLIPS else ""
    yield f"flips ({agreement.flipped}{more}):"
    for flip in flips[:_FLIPS]:
        a, b = (f"{first_name(s.label)} {s.probability:.3f}" for s in (flip.a, flip.b))
        yield f"  {flip.source}: A {a}, B {b} (margin {flip.margin:.3f})"


def _accuracy_lines(record: ComparisonRecord) -> Iterator[str]:
    accuracy = record.comparison.accuracy
    if accuracy is None:
        return
    test = accuracy.test
    yield (
        f"top-1 accuracy: A {100 * accuracy.a.value:.2f} %, B {100 * accuracy.b.value:.2f} %; "
        f"difference {difference_text(record)}"
    )
    yield (
        f"right in A alone {test.only_a}, in B alone {test.only_b}: "
        f"exact McNemar p = {test.p_value:.3g}"
    )


def difference_text(record: ComparisonRecord) -> str:
    """Return B's accuracy less A's in points, with its 95 % interval; "" without labels."""
    if (accuracy := record.comparison.accuracy) is None:
        return ""
    test = accuracy.test
    return (
        f"{100 * test.difference:+.2f} points "
        f"({100 * test.low:+.2f} to {100 * test.high:+.2f}, 95 %)"
    )
