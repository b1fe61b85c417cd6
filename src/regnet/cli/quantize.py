"""`regnet quantize`: an INT8 model, and how often it agrees with the original."""

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import typer

from regnet.cli.console import print_result, say, write_html
from regnet.cli.options import MODEL, Report, Store
from regnet.cli.progress import track
from regnet.cli.runs import SHOWN, percent
from regnet.system.option import Options, argument, option

if TYPE_CHECKING:
    from regnet.quantization.quantize import Quantization
    from regnet.quantization.trial import Speed


class _Source(Options):
    model: str = argument(MODEL, "MODEL")
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
    with models.library() as library:
        library.ir(model.model)
    from regnet.quantization.quantize import quantize as make

    result = make(
        model.model,
        model.calibration,
        **vars(checks),
        folder=results.output,
        force=results.force,
        library=library,
        watch=lambda items, what, count: track(items, what, count),
    )
    if results.html is not None:
        from regnet.quantization.page import quantization_page

        write_html(results.html, quantization_page(result, checks.agreement or model.calibration))
    for reason in result.no_gain:
        say(f"{reason}. Written because of --force")
    if results.json:
        print_result(result)
    else:
        typer.echo("\n".join(_lines(result)))
    return bool(result.unreadable)


def _lines(result: "Quantization") -> Iterator[str]:
    agreement = result.agreement
    kinds = {"unreadable": len(result.unreadable), "exact copies": result.duplicates}
    skipped = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
    yield str(result.path)
    yield (
        f"  photos     {result.certificate.calibration_photos:,} set the ranges, "
        f"{result.chosen_on:,} chose the layers, {agreement.images:,} certify"
        f"{f'; skipped {skipped}' if skipped else ''}"
    )
    for failure in result.unreadable[:SHOWN]:
        yield f"    unreadable: {failure.source!r}: {failure.error}"
    yield (
        f"  agreement  top class as in f32 on {percent(agreement.top1.value)} of photos (at least "
        f"{percent(agreement.top1_at_least)} with 95 % confidence); KL {agreement.mean_kl:.2g} nats"
    )
    if margins := [flip.margin for flip in agreement.flips]:
        yield (
            f"  flips      {agreement.flipped}: f32's two best classes were apart by "
            f"{median(margins):.3f} in the median, {max(margins):.3f} at most"
        )
    if result.restored and result.agreement_before and result.speed_before:
        yield (
            f"  restored   {len(result.restored)} of {result.layers} layers stay in FP32; with all "
            f"in INT8 it agrees on {percent(result.agreement_before.top1.value)}:"
        )
        yield f"             {', '.join(result.restored)}"
        yield f"  all INT8   {_speed(result.speed_before)}"
    yield f"  speed      {_speed(result.speed)}"


def _speed(speed: "Speed") -> str:
    beside = f"{speed.vs_f32:.2f} x f32"
    if speed.vs_bf16 is not None:
        beside += f", {speed.vs_bf16:.2f} x bf16"
    return f"{speed.int8:,.0f} images/s, {beside}"
