"""`regnet calibrate`: calibrated probabilities, and prediction sets of a given coverage."""

from functools import partial
from pathlib import Path
from typing import Literal

import typer

from regnet.cli.console import show
from regnet.cli.options import Labelled, Report, Store, require_sources
from regnet.cli.progress import counter
from regnet.inference.predictors import parse_ir_choice
from regnet.statistics.conformal import Fit
from regnet.system.option import option


class _Fit(Fit):
    precision: Literal["f32", "int8"] | None = option(None, "int8: calibrate the INT8 model [f32]")


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
    choice = parse_ir_choice(
        photos.model, "calibrate", precisions=("f32", "int8"), precision=fit.precision
    )
    require_sources("calibrate", [photos.dataset])
    from regnet.calibration.calibrate import open_run
    from regnet.calibration.report import calibration_report

    with models.library() as library:
        run = open_run(
            library,
            choice.model,
            photos.dataset,
            precision="int8" if choice.precision == "int8" else "f32",
            truth=photos.truth,
            subset=photos.subset,
        )
    with counter("calibrating", run.dataset.count, "images") as advance:
        report = run.calibrate(
            fit,
            folder=results.output,
            force=results.force,
            listeners=[lambda batch: advance(len(batch.sources))],
        )
    show(
        partial(calibration_report, report),
        report.to_dict,
        as_json=results.json,
        html=results.html,
    )
    return bool(report.unreadable) or not report.learnt.held_out.holds
