"""`regnet calibrate`: honest probabilities, and sets that hold the truth as often as asked."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from regnet.cli.console import EXIT_OK, EXIT_SOME_FAILED, counter, interruptible, print_json
from regnet.cli.notices import skipped_files
from regnet.cli.options import (
    AsJson,
    HtmlReport,
    LabelledPhotos,
    Model,
    OutputFolder,
    Store,
    Subset,
    Truth,
    grouped,
)
from regnet.cli.outputs import require_html, write_html
from regnet.cli.progress import download_display

if TYPE_CHECKING:
    from regnet.calibration.calibrate import CalibrationReport, HeldOut, Learnt

HELP = """Make a model's probabilities honest, and learn prediction sets, from labelled photos.

Writes a copy of the model, NAME-calibrated.xml, that gives calibrated probabilities wherever it \
is used; `regnet classify --sets` then prints the classes that hold the truth with the probability \
asked for, and `--unknown` says so where that is not a single class.

MODEL is a card's name, `bundled`, an IR (.xml) or a checkpoint. DATASET is as for `regnet \
evaluate`: photos that the model was not trained on, and like those it will see. A quarter of them \
sets the temperature, a quarter the sets, and half only check both. A coverage of 90 % takes 576 \
photos to be of use.

Exit status: 0 done; 1 some photos could not be read, or the sets hold the truth less often than \
asked, or the temperature makes held-out photos less likely and nothing was written without \
--force; 2 could not run; 130 interrupted.

Examples:

  regnet calibrate bundled photos/

  regnet calibrate regnetx-3.2gf imagenet/val --coverage 0.95 -o models/

  regnet calibrate bundled val.zip --precision int8 --json > figures.json
"""


def _coverage(value: float) -> float:
    if not 0 < value < 1:
        raise typer.BadParameter(f"{value} is not between 0 and 1, such as 0.9")
    return value


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command("calibrate", help=HELP)(grouped(calibrate))


def calibrate(
    model: Model,
    dataset: LabelledPhotos,
    coverage: Annotated[
        float,
        typer.Option(callback=_coverage, help="How often a set shall hold the truth, 0 to 1"),
    ] = 0.9,
    method: Annotated[
        Literal["aps", "lac"],
        typer.Option(help="aps fits each photo: single classes where sure; lac: smallest sets"),
    ] = "aps",
    seed: Annotated[int, typer.Option(help="Splits the photos")] = 0,
    precision: Annotated[
        Literal["f32", "int8"], typer.Option(help="int8: calibrate the INT8 model")
    ] = "f32",
    truth: Truth = None,
    subset: Subset = False,
    output: OutputFolder = Path(),
    force: Annotated[
        bool,
        typer.Option("--force", help="Write the model even if held-out photos get less likely"),
    ] = False,
    as_json: AsJson = False,
    html: HtmlReport = None,
    *,
    store: Store,
) -> None:
    """Calibrate and exit with 0, or 1 if photos were unreadable or the sets hold too little."""
    require_html(html)
    models = store.library()
    with interruptible():
        from regnet.calibration.calibrate import open_run

        with download_display() as on_event:
            run = open_run(
                replace(models, on_event=on_event),
                model,
                dataset,
                precision=precision,
                truth=truth,
                subset=subset,
            )
        with counter("calibrating", run.dataset.count, "images") as advance:
            report = run.calibrate(
                coverage=coverage,
                method=method,
                seed=seed,
                folder=output,
                force=force,
                listeners=[lambda batch: advance(len(batch.sources))],
            )
        if html is not None:
            from regnet.calibration.page import calibration_page

            write_html(html, calibration_page(report))
    if as_json:
        print_json(report.to_dict() | {"skipped": skipped_files()})
    else:
        typer.echo(_as_text(report))
    good = report.learnt.held_out.holds and not report.unreadable
    raise typer.Exit(EXIT_OK if good else EXIT_SOME_FAILED)


def _as_text(report: "CalibrationReport") -> str:
    learnt = report.learnt
    lines = [
        str(report.path),
        f"  photos       {report.images:,}: {learnt.temperature_photos:,} set the temperature, "
        f"{learnt.threshold_photos:,} the sets, {learnt.held_out.coverage.images:,} checked both"
        f"{_few(learnt)}",
        *_failures(report),
        f"  temperature  {learnt.calibration.temperature:.4f}: {_leaning(learnt.step)}",
        *_quality(learnt.held_out),
        *_sets(report),
        f"  file         read back and run on {report.written.photos} photos: probabilities are "
        f"softmax(logits / temperature) within {report.written.max_delta:.1e}",
    ]
    return "\n".join(lines)


def _few(learnt: "Learnt") -> str:
    """Return how many photos are wanted if there are fewer."""
    from regnet.statistics.conformal import photos_wanted

    calibration = learnt.calibration
    wanted = photos_wanted(calibration.coverage)
    few = calibration.photos + calibration.held_out < wanted
    return f"; {wanted:,} or more are wanted for {100 * calibration.coverage:g} %" if few else ""


def _failures(report: "CalibrationReport") -> Iterator[str]:
    if report.unreadable:
        yield f"  unreadable   {report.unreadable:,}, left out:"
    for failure in report.failures[:10]:
        yield f"    {failure.source!r}: {failure.error}"


def _leaning(step: float) -> str:
    if step == 1:
        return "probabilities are right as they are, as far as the photos tell"
    return f"the model was {'less' if step < 1 else 'more'} sure than it was right"


def _quality(held: "HeldOut") -> Iterator[str]:
    """Yield lines of the probabilities before and after, on the held-out photos."""
    before, after = held.before, held.after
    yield "  on the photos that checked       before    after"
    yield f"    calibration error (ECE)     {_percent(before.ece)}  {_percent(after.ece)}"
    yield f"    negative log-likelihood     {before.nll or 0:9.4f}{after.nll or 0:9.4f}"
    yield f"    top-1, unchanged            {_percent(before.top1.value)}"


def _percent(share: float | None) -> str:
    return f"{100 * (share or 0):7.2f} %"


def _sets(report: "CalibrationReport") -> Iterator[str]:
    held, calibration = report.learnt.held_out, report.learnt.calibration
    found, asked = held.coverage, 100 * calibration.coverage
    low, high = (100 * end for end in held.expected)
    verdict = f"{asked:g} % asked, {low:.1f} to {high:.1f} is within chance"
    if found.value > held.expected[1]:
        verdict = f"more than the {asked:g} % asked"
    if not held.holds:
        verdict = f"LESS than the {asked:g} % asked; chance allows {low:.1f}"
    yield f"  sets ({calibration.method}, {asked:g} %)"
    yield (
        f"    hold the truth for          {_percent(found.value)} of photos (95 % interval "
        f"{100 * found.low:.1f} to {100 * found.high:.1f}): {verdict}"
    )
    yield f"    classes in a set, mean      {held.mean_size:9.1f}"
    yield (
        f"    single class for            {_percent(held.single.value)} of photos, "
        f"right for {100 * held.right.value:.2f} % of these"
    )
    yield f"    single and wrong            {_percent(held.wrong.value)} of photos"
