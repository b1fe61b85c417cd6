"""`regnet evaluate`: the accuracy of a model on labelled photos."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from regnet.cli.console import require_writable, say, show
from regnet.cli.options import Execution, Labelled, Report, Store, require_sources
from regnet.cli.progress import Advance, counter
from regnet.inference.predictors import EngineName, parse_choice
from regnet.system.option import Options, option

if TYPE_CHECKING:
    from regnet.evaluation.scoring import Listener, ScoredBatch


class _Engine(Execution):
    engine: EngineName | None = option(None, "Engine [onnx for .onnx files, else ir]")
    protocol: Literal["omz", "pycls"] | None = option(
        None, "How photos are resized and cropped [the model's]"
    )


class _Scoring(Options):
    strict: bool = option(False, "Count an unreadable photo as a wrong answer")
    fresh: bool = option(False, "Restart instead of resuming an interrupted run")


class _Results(Report):
    predictions: Path | None = option(
        None, "Write every prediction to FILE: .csv, .json, .jsonl or .parquet", "FILE"
    )


def evaluate(
    photos: Labelled, engine: _Engine, scoring: _Scoring, results: _Results, models: Store
) -> bool:
    """Measure a model's accuracy on labelled photos.

    DATASET is a folder, a zip or tar archive, a folder in one (data.zip/val), webdataset shards or
    Parquet: one folder per class, named by wnid or label, or a flat folder with a label file beside
    the photos or given with --truth. MODEL may also be an ONNX file.

    Reports top-1 and top-5 with 95 % intervals, accuracy per class, confused classes and
    calibration, and compares with the card. An interrupted run resumes.

    Exit status: 0 done, 1 some photos are unreadable, 2 could not run, 130 interrupted.

      regnet evaluate bundled photos/
      regnet evaluate regnetx-3.2gf imagenet/val --html report.html
      regnet evaluate bundled val.zip --subset --predictions rows.parquet
    """
    choice = parse_choice(photos.model, **vars(engine))
    require_sources("evaluate", [photos.dataset])
    require_writable(results.predictions)
    from regnet.evaluation.evaluate import open_run
    from regnet.evaluation.predictions_file import open_predictions, predictions_format
    from regnet.evaluation.report import evaluation_report

    if results.predictions is not None:
        predictions_format(results.predictions)  # before the photos are scored
    with models.library() as library:
        run = open_run(
            choice, photos.dataset, library=library, truth=photos.truth, subset=photos.subset
        )
    with run.journal(fresh=scoring.fresh) as journal, ExitStack() as stack:
        bar = stack.enter_context(counter("evaluating", run.dataset.count, "images"))
        listeners = [_running_top1(bar)]
        if results.predictions is not None:
            rows = open_predictions(results.predictions, run.predictor.metadata.labels)
            listeners.append(stack.enter_context(rows))
        evaluation = run.evaluate(journal, strict=scoring.strict, listeners=listeners)
        stack.close()
        if results.predictions is not None:
            say(f"{results.predictions}: written")
        show(
            partial(evaluation_report, evaluation, run.dataset),
            evaluation.to_dict,
            as_json=results.json,
            html=results.html,
        )
    return evaluation.scores.unreadable > 0


def _running_top1(advance: Advance) -> "Listener":
    """Return a listener that moves the bar on and shows the top-1 so far."""
    hits = seen = 0

    def show(batch: "ScoredBatch") -> None:
        nonlocal hits, seen
        hits, seen = hits + batch.hits, seen + len(batch.readable)
        advance(len(batch.sources), f"top-1 {100 * hits / seen:.2f} %" if seen else None)

    return show
