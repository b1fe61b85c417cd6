"""`regnet teach`: a classifier of one's own classes in seconds."""

from functools import partial
from pathlib import Path

from regnet.cli.console import show
from regnet.cli.options import MODEL, Report, Store, Truth, require_sources
from regnet.cli.progress import track
from regnet.inference.predictors import parse_ir_choice
from regnet.system.option import argument, option


class _Photos(Truth):
    dataset: str = argument("Photos, one folder per class", "FOLDER")
    add: Path | None = option(
        None, "Add FOLDER's photos as one more class to this taught model", "MODEL.xml"
    )


class _Features(Store):
    model: str | None = option(None, f"{MODEL} [bundled]", "-m", "MODEL")


class _Results(Report):
    output: Path = option(..., "Write FILE.xml and FILE.bin", "-o", "FILE")
    force: bool = option(False, "Replace FILE if it exists")


def teach(photos: _Photos, features: _Features, results: _Results) -> bool:
    """Make a classifier of your own classes, without training.

    FOLDER has one folder of photos per class, from one photo each. The model's features stay as
    they are; a new head is computed from them in closed form (linear discriminant analysis) and
    written with them as one model, which every command takes.

    The expected accuracy is measured by leaving each photo out in turn. With 200 photos or more
    the model is calibrated, too: `regnet classify --sets` and `--unknown` work.

    With --add, FOLDER holds the photos of one new class, named like the folder; the old photos are
    not needed.

    Exit status: 0 done, 1 some photos are unreadable, 2 could not run, 130 interrupted.

      regnet teach photos/ -o mine.xml
      regnet classify --model mine.xml new-photos/
      regnet teach --add mine.xml spoons/ -o more.xml
    """
    from regnet.data.sources import count_items
    from regnet.features.teach import teach as make
    from regnet.features.teach_report import teach_report
    from regnet.system.errors import UnknownModelError

    if photos.add is not None and features.model is not None:
        raise UnknownModelError("--add names the model: leave out --model")
    model = parse_ir_choice(features.model or "bundled", "teach", precisions=("f32",)).model
    require_sources("teach", [photos.dataset])
    with features.library() as library:
        result = make(
            photos.dataset,
            results.output,
            model=model,
            add=photos.add,
            truth=photos.truth,
            force=results.force,
            library=library,
            show=partial(
                track,
                description="embedding",
                count=lambda: count_items([photos.dataset]),
                unit="photos",
            ),
        )
    show(
        partial(teach_report, result),
        result.to_dict,
        as_json=results.json,
        html=results.html,
    )
    return bool(result.failures)
