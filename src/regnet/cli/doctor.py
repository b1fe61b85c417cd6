"""`regnet doctor`: what is wrong with a data set, before a training is wasted on it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regnet.cli.console import (
    EXIT_OK,
    EXIT_SOME_FAILED,
    Advance,
    counter,
    interruptible,
    print_json,
)
from regnet.cli.notices import skipped_files
from regnet.cli.options import Truth
from regnet.cli.outputs import require_html, write_html

if TYPE_CHECKING:
    from regnet.doctor.examine import Listener

HELP = """Find what is wrong with a data set before a training is wasted on it.

DATASET is a folder a class (DATASET/cat/1.jpg), or splits with class folders in them \
(DATASET/train/cat, DATASET/val/cat, DATASET/test/cat): a folder, a zip or tar archive, a folder \
in one (data.zip/images), or a pattern for several ('train-*.zip').

Finds unreadable photos, copies and near copies (also across splits and classes), splits taken for \
classes, classes missing from a split, imbalance, tiny and blank photos, and what the centre crop \
cuts off. Errors would waste a training, warnings would make it worse, notes are good to know.

Exit status: 0 no errors, 1 errors (with --strict: or warnings), 2 could not run, 130 interrupted.

Examples:

  regnet doctor photos/

  regnet doctor photos/ --html report.html

  regnet doctor 'tiny-imagenet-200.*.zip' --resize 64 --crop 64

  regnet doctor train.zip --val val.zip --json > findings.json
"""


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command("doctor", help=HELP)(doctor)


def doctor(
    dataset: Annotated[str, typer.Argument(help="The photos, see above", show_default=False)],
    val: Annotated[
        str | None, typer.Option(metavar="DATASET", help="Validation photos that lie elsewhere")
    ] = None,
    truth: Truth = None,
    resize: Annotated[int, typer.Option(help="Short side after the resize, in pixels")] = 256,
    crop: Annotated[int, typer.Option(help="Side of the centre crop, in pixels")] = 224,
    near: Annotated[
        bool, typer.Option("--near/--exact-only", help="Look for nearly the same pictures, too")
    ] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for warnings, too")] = False,
    files: Annotated[int, typer.Option(min=0, help="Files listed of each finding in --json")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print all as one JSON object")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a report with the photos found")
    ] = None,
) -> None:
    """Examine and exit with 0, or 1 if a training would be wasted."""
    require_html(html)
    with interruptible():
        from regnet.doctor.examine import examine
        from regnet.doctor.table import examination_lines
        from regnet.doctor.tree import open_tree

        tree = open_tree(dataset, val, truth=truth)
        with counter("looking", len(tree), "photos") as bar:
            found = examine(tree, resize=resize, crop=crop, near=near, advance=_moving(bar))
        if html is not None:
            from regnet.doctor.page import doctor_page

            write_html(html, doctor_page(found, tree))
    if as_json:
        print_json(found.to_dict(files=files) | {"skipped": skipped_files()})
    else:
        for line in examination_lines(found):
            print(line)  # noqa: T201
    severities = {finding.severity for finding in found.findings}
    bad = "error" in severities or (strict and "warning" in severities)
    raise typer.Exit(EXIT_SOME_FAILED if bad else EXIT_OK)


def _moving(bar: Advance) -> "Listener":
    """Return what moves the bar on with each photo, and says when they are compared."""
    return lambda count, stage: bar(count if stage == "looking" else 0, stage)
