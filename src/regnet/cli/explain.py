"""`regnet explain`: where in a photo a model sees a class."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regnet.cli.classify import DEFAULT_MODEL
from regnet.cli.console import EXIT_OK, EXIT_SOME_FAILED, interruptible, track, utf8_stdout
from regnet.cli.options import Store, grouped
from regnet.cli.progress import download_display
from regnet.inference.writers import visible
from regnet.ir.metadata import InferencePrecision
from regnet.system.row_writers import JsonRows

if TYPE_CHECKING:
    from regnet.explanation.explain import ExplainedPhoto

HELP = """Show where in photos a model sees a class: class activation maps.

A PHOTO is a file, a folder, a glob in quotes, an http(s) address, an archive, or -. For each, and \
each class, an overlay is written: the photo with colours from dark violet (adds nothing to the \
class) to light yellow (as much as anything adds to the most probable class, or to this one if it \
is more). What the network does not see is dim.

The maps are exact: a class's logit is the mean of its map plus its bias. --json prints them, and \
writes overlays only if -o is given.

Exit status: 0 all explained, 1 some photos failed (the output says why), 2 could not run.

Examples:

  regnet explain --model bundled cat.jpg

  regnet explain cat.jpg --top-k 3 -o overlays/

  regnet explain cat.jpg --class tabby --class 'remote control' --json
"""


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command("explain", help=HELP)(grouped(explain))


def explain(
    photos: Annotated[
        list[str], typer.Argument(metavar="PHOTO...", help="Photos, see above", show_default=False)
    ],
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="Card name, `bundled`, an IR (.xml) or a checkpoint"),
    ] = DEFAULT_MODEL,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            "-c",
            metavar="NAME|INDEX",
            help="Class to explain, by name, wnid or number; repeatable (default: the most "
            "probable)",
        ),
    ] = None,
    top_k: Annotated[
        int, typer.Option("--top-k", "-k", min=1, help="Most probable classes a photo")
    ] = 1,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder for overlays (default: this)"),
    ] = None,
    opacity: Annotated[
        float, typer.Option(min=0, max=1, help="Of the colours over the photo")
    ] = 0.55,
    as_json: Annotated[bool, typer.Option("--json", help="Print the maps as JSON")] = False,
    precision: Annotated[
        InferencePrecision, typer.Option(help="As in `regnet classify`; bf16 is not exact")
    ] = "f32",
    *,
    store: Store,
) -> None:
    """Explain the photos and exit with 0, or 1 if some failed."""
    models = store.library()
    folder = output or (None if as_json else Path())
    with interruptible():
        from regnet.explanation.activation_maps import Explainer
        from regnet.explanation.explain import explain_sources

        with download_display() as on_event:
            found = replace(models, on_event=on_event)
            explainer = Explainer.load(model, precision=precision, library=found)
        numbers = [explainer.class_index(name) for name in classes] if classes else None
        results = explain_sources(
            explainer,
            photos,
            classes=numbers,
            top_k=top_k,
            folder=folder,
            opacity=opacity,
            offline=store.offline,
        )
        failed = (_print_json if as_json else _print_text)(_tracked(results, photos))
    raise typer.Exit(EXIT_SOME_FAILED if failed else EXIT_OK)


def _tracked(results: Iterable["ExplainedPhoto"], photos: list[str]) -> Iterable["ExplainedPhoto"]:
    from regnet.data.sources import count_items

    return track(results, "explaining", lambda: count_items(photos), unit="photos")


def _print_json(results: Iterable["ExplainedPhoto"]) -> int:
    """Print a JSON array, an object a line, and return how many failed."""
    failed, rows = 0, JsonRows(utf8_stdout())
    for photo in results:
        rows.write(photo.to_dict())
        failed += photo.error is not None
    rows.close()
    return failed


def _print_text(results: Iterable["ExplainedPhoto"]) -> int:
    """Print a line a class, and return how many photos failed."""
    failed = 0
    for photo in results:
        typer.echo(visible(photo.source))
        if photo.error is not None:
            failed += 1
            typer.echo(f"    error: {visible(photo.error)}")
        for explanation, path in zip(photo.explanations, photo.overlays, strict=True):
            score, mean = explanation.label, float(explanation.map.mean(dtype="f8"))
            typer.echo(
                f"  {100 * score.probability:5.1f} %  {score.label}: "
                f"logit {explanation.logit:.3f} = {mean:.3f} (mean of the map) "
                f"{explanation.bias:+.3f} (bias)  {path}"
            )
    return failed
