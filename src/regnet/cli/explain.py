"""`regnet explain`: where in a photo a model sees a class."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from regnet.cli.console import in_utf8
from regnet.cli.options import Model, Store, require_photos
from regnet.cli.progress import track
from regnet.system.option import Options, argument, option
from regnet.system.row_writers import JsonRows
from regnet.system.text import visible

if TYPE_CHECKING:
    from regnet.explanation.overlay import ExplainedPhoto


class _Photos(Options):
    photos: tuple[str, ...] = argument("Photos, see above", "PHOTO...")
    classes: tuple[str, ...] = option(
        (),
        "Class to explain: name, wnid or number; repeatable [the most probable]",
        "--class",
        "-c",
        "CLASS",
    )
    top_k: int = option(1, "Most probable classes per photo", "-k", "K", min=1)


class _Output(Options):
    output: Path | None = option(None, "Folder for the overlays [this folder]", "-o", "DIR")
    opacity: float = option(0.55, "Opacity of the colours, 0 to 1", min=0, max=1)
    json: bool = option(False, "Print the maps as JSON; overlays only with -o")


def explain(photos: _Photos, model: Model, output: _Output, models: Store) -> bool:
    """Show where in photos a model sees a class.

    PHOTO is a file, a folder, a glob in quotes, an http(s) URL, an archive or -. For each photo and
    class an overlay is written: dark violet adds nothing to the class, light yellow as much as
    anything adds to the most probable class. What the network does not see is dim. These class
    activation maps are exact, except in bf16: a class's logit is the mean of its map plus its bias.

    Exit status: 0 done, 1 some photos failed, 2 could not run, 130 interrupted.

      regnet explain --model bundled cat.jpg
      regnet explain cat.jpg --top-k 3 -o overlays/
      regnet explain cat.jpg --class tabby --class 'remote control' --json
    """
    from regnet.data.sources import count_items
    from regnet.explanation.activation_maps import Explainer
    from regnet.explanation.overlay import explain_sources

    choice = model.chosen("explain")
    require_photos("explain", photos.photos)
    with models.library() as library:
        explainer = Explainer.load(
            choice.model, device=choice.device, precision=choice.precision, library=library
        )
    results = explain_sources(
        explainer,
        photos.photos,
        classes=[explainer.class_index(name) for name in photos.classes] or None,
        top_k=photos.top_k,
        folder=output.output or (None if output.json else Path()),
        opacity=output.opacity,
        offline=models.offline,
    )
    if not sys.stdout.isatty():  # else the lines themselves show how far it is
        results = track(results, "explaining", lambda: count_items(photos.photos), "photos")
    return (_print_json if output.json else _print_text)(results) > 0


def _print_json(results: "Iterable[ExplainedPhoto]") -> int:
    """Print a JSON array, one object per line, and return how many failed."""
    failed, rows = 0, JsonRows(in_utf8(sys.stdout))
    for photo in results:
        rows.write(photo.to_dict())
        failed += photo.error is not None
    rows.close()
    return failed


def _print_text(results: "Iterable[ExplainedPhoto]") -> int:
    """Print one line per class, and return how many photos failed."""
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
