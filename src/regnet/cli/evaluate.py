"""`regnet evaluate`: how good a model is on labelled photos."""

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from regnet.cli.console import (
    EXIT_OK,
    EXIT_SOME_FAILED,
    Advance,
    counter,
    interruptible,
    say,
)
from regnet.cli.options import (
    AsJson,
    HtmlReport,
    LabelledPhotos,
    Model,
    Store,
    Subset,
    Truth,
    grouped,
)
from regnet.cli.outputs import require_html, require_writable, show
from regnet.cli.progress import download_display
from regnet.inference.predictors import Choice, EngineName
from regnet.ir.metadata import InferencePrecision

if TYPE_CHECKING:
    from regnet.evaluation.scoring import Listener, ScoredBatch

HELP = """Measure a model's accuracy on labelled photos.

MODEL is a card's name, `bundled`, an IR (.xml), an ONNX file or a checkpoint. DATASET is a \
folder, a zip or tar archive, a folder in one (data.zip/val), webdataset shards or Parquet: one \
folder per class, named by wnid or label, or flat with a file of labels beside the photos or given \
with --truth.

Reports top-1 and top-5 with 95 % intervals, figures of each class, confused classes and \
calibration, and compares with the card. An interrupted run goes on where it was.

Exit status: 0 all scored, 1 some photos could not be read, 2 could not run, 130 interrupted.

Examples:

  regnet evaluate bundled photos/

  regnet evaluate regnetx-3.2gf imagenet/val --protocol omz --html report.html

  regnet evaluate bundled val.zip --precision int8 --json > figures.json

  regnet evaluate regnetx-3.2gf imagenette/val --subset --predictions rows.parquet
"""


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command("evaluate", help=HELP)(grouped(evaluate))


def evaluate(
    model: Model,
    dataset: LabelledPhotos,
    engine: Annotated[
        EngineName | None,
        typer.Option(help="Default: onnx for .onnx files, else ir (OpenVINO)"),
    ] = None,
    precision: Annotated[
        InferencePrecision, typer.Option(help="What the engine computes in; f32 is exact")
    ] = "f32",
    protocol: Annotated[
        Literal["omz", "pycls"] | None,
        typer.Option(help="How photos are resized and cropped; default: the model's own"),
    ] = None,
    truth: Truth = None,
    subset: Subset = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Count an unreadable photo as a wrong answer")
    ] = False,
    as_json: AsJson = False,
    html: HtmlReport = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write every prediction: .csv, .json, .jsonl or .parquet"
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over instead of going on with a broken-off run")
    ] = False,
    *,
    store: Store,
) -> None:
    """Evaluate and exit with 0, or 1 if some photos could not be read."""
    choice = Choice(model=model, engine=engine, precision=precision, protocol=protocol)
    require_html(html)
    require_writable(predictions)
    models = store.library()
    with interruptible():
        from regnet.evaluation.evaluate import open_run
        from regnet.evaluation.predictions_file import open_predictions, predictions_format
        from regnet.evaluation.report import evaluation_report

        if predictions is not None:
            predictions_format(predictions)  # before the photos are scored
        with download_display() as on_event:
            run = open_run(
                choice,
                dataset,
                library=replace(models, on_event=on_event),
                truth=truth,
                subset=subset,
            )
        with run.journal(fresh=fresh) as journal, ExitStack() as stack:
            bar = stack.enter_context(counter("evaluating", run.dataset.count, "images"))
            listeners = [_running_top1(bar)]
            if predictions is not None:
                labels = run.predictor.metadata.labels
                listeners.append(stack.enter_context(open_predictions(predictions, labels)))
            found = run.evaluate(journal, strict=strict, listeners=listeners)
            stack.close()
            if predictions is not None:
                say(f"{predictions}: written")
            show(
                partial(evaluation_report, found, run.dataset),
                found.to_dict,
                as_json=as_json,
                html=html,
            )
    raise typer.Exit(EXIT_SOME_FAILED if found.scores.unreadable else EXIT_OK)


def _running_top1(advance: Advance) -> "Listener":
    """Return what moves the bar on and shows the top-1 until now."""
    hits = seen = 0

    def show(batch: "ScoredBatch") -> None:
        nonlocal hits, seen
        hits, seen = hits + batch.hits, seen + len(batch.readable)
        running = f"top-1 {100 * hits / seen:.2f} %" if seen else None
        advance(len(batch.sources), running)

    return show
