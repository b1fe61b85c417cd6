"""`regnet calibrate`: calibrated probabilities, and prediction sets of a given coverage."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from regnet.cli.console import print_result, write_html
from regnet.cli.options import Labelled, Report, Store
from regnet.cli.progress import counter
from regnet.system.option import Options, option

if TYPE_CHECKING:
    from regnet.calibration.calibrate import CalibrationReport


class _Fit(Options):
    coverage: float = option(0.9, "Probability that a set contains the true class, 0 to 1")
    method: Literal["aps", "lac"] = option(
        "aps", "aps: adaptive, single classes where confident; lac: the smallest sets"
    )
    seed: int = option(0, "Random seed that splits the photos")
    precision: Literal["f32", "int8"] = option("f32", "int8: calibrate the INT8 model")


class _Results(Report):
    output: Path = option(Path(), "Folder to write to", "-o", "DIR")
    force: bool = option(False, "Write the model even if held-out photos become less likely")


def calibrate(photos: Labelled, fit: _Fit, results: _Results, models: Store) -> bool:
    """Calibrate a model's probabilities and fit prediction sets.

    Temperature scaling and conformal prediction on labelled photos. Writes NAME-calibrated.xml,
    whose probabilities are calibrated wherever it is used; `regnet classify --sets` prints its
    prediction sets, and `--unknown` reports `unknown` unless the set is a single class.

    DATASET is as for `regnet evaluate`: photos that the model was not trained on, like those it
    will see. A quarter fits the temperature, a quarter the sets, and half are held out to measure
    both. A coverage of 90 % needs 576 photos to be useful.

    Exit status: 0 done; 1 some photos are unreadable, or coverage is below what chance allows, or
    held-out photos become less likely (nothing is written without --force); 2 could not run; 130
    interrupted.

      regnet calibrate bundled photos/
      regnet calibrate regnetx-3.2gf imagenet/val --coverage 0.95 -o models/
      regnet calibrate bundled val.zip --precision int8 --json > results.json
    """
    if not 0 < fit.coverage < 1:
        raise typer.BadParameter(f"--coverage {fit.coverage} is not between 0 and 1, such as 0.9")
    from regnet.calibration.calibrate import open_run

    with models.library() as library:
        run = open_run(
            library,
            photos.model,
            photos.dataset,
            precision=fit.precision,
            truth=photos.truth,
            subset=photos.subset,
        )
    with counter("calibrating", run.dataset.count, "images") as advance:
        report = run.calibrate(
            coverage=fit.coverage,
            method=fit.method,
            seed=fit.seed,
            folder=results.output,
            force=results.force,
            listeners=[lambda batch: advance(len(batch.sources))],
        )
    if results.html is not None:
        from regnet.calibration.page import calibration_page

        write_html(results.html, calibration_page(report))
    if results.json:
        print_result(report)
    else:
        typer.echo("\n".join(_lines(report)))
    return bool(report.unreadable) or not report.learnt.held_out.holds


def _lines(report: "CalibrationReport") -> Iterator[str]:
    from regnet.statistics.conformal import photos_wanted

    learnt, calibration = report.learnt, report.learnt.calibration
    held, before, after = learnt.held_out, learnt.held_out.before, learnt.held_out.after
    wanted = photos_wanted(calibration.coverage)
    few = f"; {wanted:,} or more are wanted for {100 * calibration.coverage:g} %"
    yield str(report.path)
    yield (
        f"  photos       {report.images:,}: {learnt.temperature_photos:,} set the temperature, "
        f"{learnt.threshold_photos:,} the sets, {held.coverage.images:,} checked both"
        f"{few if calibration.photos + calibration.held_out < wanted else ''}"
    )
    if report.unreadable:
        yield f"  unreadable   {report.unreadable:,}, left out:"
    for failure in report.failures[:10]:
        yield f"    {failure.source!r}: {failure.error}"
    yield f"  temperature  {calibration.temperature:.4f}: {_leaning(learnt.step)}"
    yield "  on the photos that checked       before    after"
    yield f"    calibration error (ECE)     {_percent(before.ece)}  {_percent(after.ece)}"
    yield f"    negative log-likelihood     {before.nll or 0:9.4f}{after.nll or 0:9.4f}"
    yield f"    top-1, unchanged            {_percent(before.top1.value)}"
    yield from _sets(report)
    yield (
        f"  file         read back and run on {report.written.photos} photos: probabilities are "
        f"softmax(logits / temperature) within {report.written.max_delta:.1e}"
    )


def _leaning(step: float) -> str:
    if step == 1:
        return "probabilities are right as they are, as far as the photos tell"
    return f"the model was {'less' if step < 1 else 'more'} sure than it was right"


def _percent(share: float | None) -> str:
    return f"{100 * (share or 0):7.2f} %"


def _sets(report: "CalibrationReport") -> Iterator[str]:
    held, calibration = report.learnt.held_out, report.learnt.calibration
    coverage, asked = held.coverage, 100 * calibration.coverage
    low, high = (100 * end for end in held.expected)
    verdict = f"{asked:g} % asked, {low:.1f} to {high:.1f} is within chance"
    if coverage.value > held.expected[1]:
        verdict = f"more than the {asked:g} % asked"
    if not held.holds:
        verdict = f"LESS than the {asked:g} % asked; chance allows {low:.1f}"
    yield f"  sets ({calibration.method}, {asked:g} %)"
    yield (
        f"    hold the truth for          {_percent(coverage.value)} of photos (95 % interval "
        f"{100 * coverage.low:.1f} to {100 * coverage.high:.1f}): {verdict}"
    )
    yield f"    classes in a set, mean      {held.mean_size:9.1f}"
    yield (
        f"    single class for            {_percent(held.single.value)} of photos, "
        f"right for {100 * held.right.value:.2f} % of these"
    )
    yield f"    single and wrong            {_percent(held.wrong.value)} of photos"
