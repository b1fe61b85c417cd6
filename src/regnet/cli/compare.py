"""`regnet compare`: where two pipelines part, and by how much."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regnet.cli.console import EXIT_OK, EXIT_SOME_FAILED, interruptible, print_json, say, track
from regnet.cli.notices import skipped_files
from regnet.cli.options import AsJson, HtmlReport, Store, Truth, grouped
from regnet.cli.outputs import require_html, write_html
from regnet.cli.progress import download_display

if TYPE_CHECKING:
    from regnet.comparison.compare import ComparisonRecord, Gates
    from regnet.comparison.sides import Pair
    from regnet.comparison.tally import ComparedPhotos

SHOWN = 10  # photos that could not be read

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

  regnet compare bundled:omz bundled:pycls photos/ --html report.html

  regnet compare my.pyth:torch my.pyth:ir photos/ --max-flips 0 --max-delta 1e-5

  regnet compare bundled http://localhost:8000/v2/models/bundled photos/
"""


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command("compare", help=HELP)(grouped(compare))


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="The reference")],
    b: Annotated[str, typer.Argument(metavar="B", help="What is compared with it")],
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Photos, labelled or not")],
    truth: Truth = None,
    max_flips: Annotated[
        int | None, typer.Option(min=0, help="Exit with 1 if more top-1 classes differ")
    ] = None,
    max_delta: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Exit with 1 if a probability differs by more"),
    ] = None,
    as_json: AsJson = False,
    html: HtmlReport = None,
    *,
    store: Store,
) -> None:
    """Compare, print, and exit with 0, or 1 where a gate is exceeded or photos failed."""
    require_html(html)
    with interruptible():
        from regnet.comparison.compare import Gates
        from regnet.comparison.sides import open_pair
        from regnet.comparison.tally import open_photos

        models = store.library()
        with download_display() as on_event:
            pair = open_pair(a, b, library=replace(models, on_event=on_event))
        given = str(truth) if truth else None
        photos = open_photos(dataset, pair.labels, truth=given, offline=store.offline)
        gates = Gates(max_flips=max_flips, max_delta=max_delta)
        record = _compared(pair, photos, gates, partial(_report, as_json=as_json, html=html))
    failed = record.exceeded or record.comparison.unreadable
    raise typer.Exit(EXIT_SOME_FAILED if failed else EXIT_OK)


def _compared(
    pair: "Pair", photos: "ComparedPhotos", gates: "Gates", report: "Report"
) -> "ComparisonRecord":
    """Compare and report, also what was found until an interruption."""
    from regnet.comparison.compare import ComparisonRecord
    from regnet.comparison.tally import ComparisonTally

    tally = ComparisonTally(pair)
    record = partial(ComparisonRecord, pair=pair, photos=photos, gates=gates)
    try:
        tally.run(track(photos.items(), "comparing", photos.count, unit="photos"))
    except KeyboardInterrupt:
        if tally.photos:
            report(record(comparison=tally.result(), complete=False))
        raise
    found = record(comparison=tally.result())
    report(found)
    return found


Report = Callable[["ComparisonRecord"], None]


def _report(record: "ComparisonRecord", *, as_json: bool, html: Path | None) -> None:
    """Print the figures and write the page."""
    for source, error in record.comparison.errors[:SHOWN]:
        say(f"{source}: {error}")
    if html is not None:
        from regnet.comparison.page import comparison_page

        write_html(html, comparison_page(record))
    if as_json:
        print_json(record.to_dict() | {"skipped": skipped_files()})
        return
    from regnet.comparison.table import comparison_lines

    for line in comparison_lines(record):
        typer.echo(line)
