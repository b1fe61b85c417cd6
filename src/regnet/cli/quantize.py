"""`regnet quantize`: an INT8 model, and how often it agrees with the original."""

from functools import partial
from pathlib import Path

from regnet.cli.console import say, show
from regnet.cli.options import AS_OPTION, MODEL, Report, Store, require_sources
from regnet.cli.progress import track
from regnet.inference.predictors import parse_ir_choice
from regnet.system.option import Options, argument, option


class _Source(Options):
    model: str = argument(MODEL, "MODEL", ..., *AS_OPTION)
    calibration: str = option(..., "Calibration photos", "PHOTOS")


class _Checks(Options):
    samples: int = option(300, "Number of calibration photos", min=1)
    agreement: str | None = option(
        None, "Photos to measure agreement on [others of --calibration]", "PHOTOS"
    )
    checks: int = option(2000, "Maximum number of photos to measure agreement on", min=1)
    min_agreement: float = option(
        0.99, "Minimum share of photos whose top class is that of FP32", min=0.0, max=1.0
    )


class _Results(Report):
    output: Path = option(Path(), "Folder to write to", "-o", "DIR")
    force: bool = option(False, "Write the model even if it is slower or mostly FP32")


def quantize(model: _Source, checks: _Checks, results: _Results, models: Store) -> bool:
    """Convert a model to INT8 and measure its agreement with FP32.

    --calibration is a folder, archive or glob of photos like those the model will see; they need no
    labels. Up to 2,000 others (of --agreement, if given) are split in two: one half chooses how
    many of the most sensitive layers are restored to FP32 to reach --min-agreement, the other half
    certifies that choice, once.

    Writes NAME-int8.xml and .bin, which `--precision int8` then finds. Needs the extra `quantize`.

    Exit status: 0 done; 1 some photos are unreadable, or the model is no gain (mostly FP32, or
    slower than bf16; nothing is written without --force); 2 could not run; 130 interrupted.

      regnet quantize bundled --calibration photos/ --html report.html
      regnet quantize my.xml --calibration imagenet/train -o models/
      regnet quantize my.xml --calibration train/ --agreement val/
    """
    choice = parse_ir_choice(model.model, "quantize", precisions=("f32",))
    for photos in filter(None, (model.calibration, checks.agreement)):
        require_sources("quantize", [photos])
    with models.library() as library:
        library.ir(choice.model)
    from regnet.quantization.quantize import quantize as make
    from regnet.quantization.report import quantization_report

    result = make(
        choice.model,
        model.calibration,
        **vars(checks),
        folder=results.output,
        force=results.force,
        library=library,
        watch=lambda items, what, count: track(items, what, count),
    )
    report = partial(quantization_report, result, checks.agreement or model.calibration)
    show(report, result.to_dict, as_json=results.json, html=results.html)
    for reason in result.no_gain:
        say(f"{reason}. Written because of --force")
    return bool(result.unreadable)
