"""`regnet compare`: where two pipelines part, and by how much."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regnet.cli.console import EXIT_OK, EXIT_SOME_FAILED, interruptible, say, track
from regnet.cli.options import CacheDir, Mirrors, Offline, library
from regnet.cli.progress import download_display

if TYPE_CHECKING:
    from regnet.compare import ComparisonRecord, Gates
    from regnet.comparison import Photo, Photos
    from regnet.sides import Pair

SHOWN = 10  # flips and errors in the text

HELP = """Compare two models, engines, precisions or protocols on photos, stage by stage.

A and B are each MODEL[:engine][:precision][:protocol]: a card's name, `bundled`, an IR (.xml), an \
ONNX file or a checkpoint; the engine ir, onnx or torch; the precision f32, bf16 or int8; the \
protocol omz or pycls. One of them may be a running server, http://HOST:PORT/v2/models/NAME.

DATASET is what `regnet evaluate` takes, and then accuracies are compared too, or any photos that \
`regnet classify` takes.

It compares the pixels after decoding, resizing and cropping, logits, probabilities and top-1 \
classes, and names the first stage that differs.

Exit status: 0 compared, and the gates hold; 1 a gate is exceeded or some photos could not be \
read; 2 could not run; 130 interrupted (what was found until then is printed).

Examples:

  regnet compare bundled bundled:bf16 photos/

  regnet compare bundled:omz bundled:pycls photos/ --json

  regnet compare my.pyth:torch my.pyth:ir photos/ --max-flips 0 --max-delta 1e-5

  regnet compare bundled http://localhost:8000/v2/models/bundled photos/
"""


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command("compare", help=HELP)(compare)


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="The reference")],
    b: Annotated[str, typer.Argument(metavar="B", help="What is compared with it")],
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Photos, labelled or not")],
    truth: Annotated[
        Path | None, typer.Option(metavar="FILE", help="True classes, where not beside the photos")
    ] = None,
    max_flips: Annotated[
        int | None, typer.Option(min=0, help="Exit with 1 if more top-1 classes differ")
    ] = None,
    max_delta: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Exit with 1 if a probability differs by more"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON")] = False,
    cache_dir: CacheDir = None,
    offline: Offline = False,
    mirror: Mirrors = None,
) -> None:
    """Compare, print, and exit with 0, or 1 where a gate is exceeded or photos failed."""
    with interruptible():
        from regnet.compare import Gates
        from regnet.comparison import open_photos
        from regnet.sides import open_pair

        models = library(cache_dir, offline, mirror)
        with download_display() as on_event:
            pair = open_pair(a, b, library=replace(models, on_event=on_event))
        photos = open_photos(dataset, pair.labels, truth=str(truth) if truth else None)
        gates = Gates(max_flips=max_flips, max_delta=max_delta)
        record = _compared(pair, photos, gates, as_json)
    failed = record.exceeded or record.comparison.unreadable
    raise typer.Exit(EXIT_SOME_FAILED if failed else EXIT_OK)


def _compared(pair: "Pair", photos: "Photos", gates: "Gates", as_json: bool) -> "ComparisonRecord":
    """Compare and print, also what was found until an interruption."""
    from regnet.compare import ComparisonRecord
    from regnet.comparison import ComparisonTally

    tally = ComparisonTally(pair)
    tracked: Iterator[Photo] = track(photos.items(), "comparing", photos.count, unit="photos")
    try:
        tally.run(tracked)
    except KeyboardInterrupt:
        if tally.photos:
            partial = ComparisonRecord(
                pair=pair,
                photos=photos,
                comparison=tally.result(),
                gates=gates,
                complete=False,
            )
            _print(partial, as_json)
        raise
    record = ComparisonRecord(pair=pair, photos=photos, comparison=tally.result(), gates=gates)
    _print(record, as_json)
    return record


def _print(record: "ComparisonRecord", as_json: bool) -> None:
    for source, error in record.comparison.errors[:SHOWN]:
        say(f"{source}: {error}")
    typer.echo(json.dumps(record.to_dict(), indent=2) if as_json else as_text(record))


def as_text(record: "ComparisonRecord") -> str:
    """Return a comparison as people read it; its last line is the verdict."""
    agreement = record.comparison.agreement
    unreadable = record.comparison.unreadable
    lines = [
        f"A  {record.pair.a.title}",
        f"B  {record.pair.b.title}",
        f"{agreement.images} photos of {record.photos.path}"
        + (f", {unreadable} more could not be read" if unreadable else "")
        + ("" if record.complete else "; interrupted, more were to come"),
        *(f"note: {note}" for note in record.notes),
        "",
        *_stage_lines(record),
        "",
        *_top1_lines(record),
        *_accuracy_lines(record),
        "",
        *(f"gate exceeded: {phrase}" for phrase in record.exceeded),
        record.verdict.text,
    ]
    return "\n".join(lines)


def _stage_lines(record: "ComparisonRecord") -> list[str]:
    from regnet.verdict import percent

    lines = [f"{'':13} {'equal photos':>14} {'equal values':>13} {'largest':>10} {'mean':>10}"]
    for stage in record.comparison.stages:
        if stage.hidden is not None:
            lines.append(f"{stage.stage:13} not seen ({stage.hidden})")
            continue
        text = f"{stage.stage:13} {f'{stage.equal_photos} of {stage.photos}':>14}"
        if stage.values:
            equal = percent(stage.equal_values, stage.values)
            text += f" {equal:>13} {stage.largest:10.3g} {stage.mean:10.3g}"
            text += "" if stage.unit != "levels" else "  levels"
        if stage.other_size and stage.sizes:
            first, second = (f"{width} x {height}" for height, width in stage.sizes)
            text += f" other size in {stage.other_size}, such as {first} and {second}"
        lines.append(text)
    return lines


def _top1_lines(record: "ComparisonRecord") -> list[str]:
    agreement, flips = record.comparison.agreement, record.comparison.flips
    lines = [
        f"top-1 equal on {agreement.top1.hits} of {agreement.images} photos "
        f"({100 * agreement.top1.value:.2f} %; at least {100 * agreement.top1_at_least:.2f} % "
        "with 95 % confidence)",
        f"KL(A || B) {agreement.mean_kl:.3g} on average, {agreement.max_kl:.3g} at most",
    ]
    if flips:
        shown = flips[:SHOWN]
        more = f", the {SHOWN} that A was surest of" if len(flips) > SHOWN else ""
        lines.append(f"flips ({agreement.flipped}{more}):")
        for flip in shown:
            a, b = (f"{_short(s.label)} {s.probability:.3f}" for s in (flip.a, flip.b))
            lines.append(f"  {flip.source}: A {a}, B {b} (margin {flip.margin:.3f})")
    return lines


def _short(label: str) -> str:
    return label.split(",")[0]


def _accuracy_lines(record: "ComparisonRecord") -> list[str]:
    accuracy = record.comparison.accuracy
    if accuracy is None:
        return []
    test = accuracy.test
    return [
        f"top-1 accuracy: A {100 * accuracy.a.value:.2f} %, B {100 * accuracy.b.value:.2f} %; "
        f"difference {100 * test.difference:+.2f} points "
        f"({100 * test.low:+.2f} to {100 * test.high:+.2f})",
        f"right in A alone {test.only_a}, in B alone {test.only_b}: "
        f"exact McNemar p = {test.p_value:.3g}",
    ]
