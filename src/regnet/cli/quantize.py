"""`regnet quantize`: an INT8 model, with how far it agrees with the original."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from regnet.cli.console import EXIT_OK, EXIT_SOME_FAILED, interruptible, print_json, say, track
from regnet.cli.notices import skipped_files
from regnet.cli.options import AsJson, HtmlReport, Model, OutputFolder, Store, grouped
from regnet.cli.outputs import require_html, write_html
from regnet.cli.progress import download_display

if TYPE_CHECKING:
    from regnet.quantization.quantize import Quantization
    from regnet.quantization.trial import Speed

T = TypeVar("T")

SHOWN = 10

HELP = """Make an INT8 model of a converted one, and measure how far they agree.

MODEL is a card's name, `bundled`, an IR (.xml) or a checkpoint. --calibration is any folder, \
archive or pattern of photos, without labels, like those the model will see: 300 of them set the \
ranges. Up to 2,000 others (of --agreement, if given) are split in two: one half chooses how many \
of the most sensitive layers stay in FP32 so that the top class is that of FP32 on \
--min-agreement of photos, the other half certifies that choice, once.

Writes NAME-int8.xml and .bin; `--precision int8` then finds it beside the model. Needs the extra \
`quantize`.

Exit status: 0 done; 1 some photos could not be read, or the model is no gain (most of it stays in \
FP32, or it is slower than bf16) and nothing was written without --force; 2 could not run (nothing \
is written); 130 interrupted.

Examples:

  regnet quantize bundled --calibration photos/

  regnet quantize models/regnetx-3.2gf.xml --calibration imagenet/train -o models/

  regnet quantize my.safetensors --calibration train/ --agreement val/ --min-agreement 0.98

  regnet quantize bundled --calibration photos/ --html report.html
"""


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command("quantize", help=HELP)(grouped(quantize))


def quantize(
    model: Model,
    calibration: Annotated[
        str, typer.Option(metavar="FOLDER", help="Photos that set the ranges", show_default=False)
    ],
    agreement: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Photos to check with; default: others of these"),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Photos to calibrate with")] = 300,
    checks: Annotated[int, typer.Option(min=1, help="Photos to check with, at most")] = 2000,
    min_agreement: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="How often the top class must be that of f32"),
    ] = 0.99,
    force: Annotated[
        bool,
        typer.Option("--force", help="Write the model even if it is slower or mostly FP32"),
    ] = False,
    output: OutputFolder = Path(),
    as_json: AsJson = False,
    html: HtmlReport = None,
    *,
    store: Store,
) -> None:
    """Quantize and say what was measured."""
    require_html(html)
    models = store.library()
    with interruptible():
        with download_display() as on_event:
            models = replace(models, on_event=on_event)
            models.ir(model)
        from regnet.quantization.quantize import quantize as make

        found = make(
            model,
            calibration,
            agreement=agreement,
            samples=samples,
            checks=checks,
            min_agreement=min_agreement,
            folder=output,
            force=force,
            library=models,
            watch=_watch,
        )
        if html is not None:
            from regnet.quantization.page import quantization_page

            write_html(html, quantization_page(found, agreement or calibration))
    for reason in found.no_gain:
        say(f"{reason}. Written because of --force")
    if as_json:
        print_json(found.to_dict() | {"skipped": skipped_files()})
    else:
        typer.echo("\n".join(_lines(found)))
    raise typer.Exit(EXIT_SOME_FAILED if found.unreadable else EXIT_OK)


def _watch(items: Iterable[T], what: str, count: int) -> Iterator[T]:
    """Show how far the work is on a terminal."""
    return track(items, what, lambda: count, unit="")


def _lines(found: "Quantization") -> Iterator[str]:
    certificate, agreed = found.certificate, found.agreement
    yield str(found.path)
    yield (
        f"  photos     {certificate.calibration_photos:,} set the ranges, "
        f"{found.chosen_on:,} chose the layers, {agreed.images:,} certify{_skipped(found)}"
    )
    for failure in found.unreadable[:SHOWN]:
        yield f"    unreadable: {failure.source!r}: {failure.error}"
    yield (
        f"  agreement  top class as in f32 on {_percent(agreed.top1.value)} of photos (at least "
        f"{_percent(agreed.top1_at_least)} with 95 % confidence); KL {agreed.mean_kl:.2g} nats"
    )
    yield from _flips(found)
    yield from _restored(found)
    yield f"  speed      {_speed(found.speed)}"


def _skipped(found: "Quantization") -> str:
    kinds = {"unreadable": len(found.unreadable), "exact copies": found.duplicates}
    skipped = [f"{count:,} {kind}" for kind, count in kinds.items() if count]
    return f"; skipped {', '.join(skipped)}" if skipped else ""


def _flips(found: "Quantization") -> Iterator[str]:
    """Say how sure f32 was where INT8 has another class."""
    margins = [flip.margin for flip in found.agreement.flips]
    if margins:
        yield (
            f"  flips      {found.agreement.flipped}: f32's two best classes were apart by "
            f"{median(margins):.3f} in the median, {max(margins):.3f} at most"
        )


def _restored(found: "Quantization") -> Iterator[str]:
    if not found.restored or found.agreement_before is None or found.speed_before is None:
        return
    before = found.agreement_before.top1.value
    yield (
        f"  restored   {len(found.restored)} of {found.layers} layers stay in FP32; with all in "
        f"INT8 it agrees on {_percent(before)}:"
    )
    yield f"             {', '.join(found.restored)}"
    yield f"  all INT8   {_speed(found.speed_before)}"


def _speed(speed: "Speed") -> str:
    beside = f"{speed.vs_f32:.2f} x f32"
    if speed.vs_bf16 is not None:
        beside += f", {speed.vs_bf16:.2f} x bf16"
    return f"{speed.int8:,.0f} images/s, {beside}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
