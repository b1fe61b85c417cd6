"""`regnet doctor`: what is wrong with a data set, before training on it."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from regnet.cli.classify import undo_sorting
from regnet.cli.console import print_json, require_writable, say, show
from regnet.cli.options import Report, Store, Truth, require_sources
from regnet.cli.progress import counter
from regnet.inference.predictors import parse_ir_choice
from regnet.system.errors import OutputError
from regnet.system.option import Options, argument, option
from regnet.system.text import visible

if TYPE_CHECKING:
    from regnet.inference.classify import Classifier


class _Photos(Truth):
    dataset: str | None = argument("The photos, see above", "DATASET", None)
    installation: bool = option(False, "Examine this installation instead", "--self")
    val: str | None = option(None, "Validation photos that lie elsewhere", "DATASET")


class _Labels(Store):
    model: str | None = option(
        None, "Also check the labels by the features of this model", "-m", "MODEL"
    )
    fix_list: Path | None = option(
        None, "Write photos with doubtful labels to FILE, as CSV [--model bundled]", "FILE"
    )
    next: int | None = option(
        None, "Instead choose N photos of an unlabelled DATASET to label next", "N", min=1
    )
    apply: Path | None = option(
        None, "Instead give photos the classes suggested in FILE, which you reviewed", "FILE"
    )
    undo: bool = option(False, "Instead undo all moves of --apply")

    def __post_init__(self) -> None:
        if self.apply and self.undo:
            raise OutputError("--apply and --undo contradict each other: choose one")
        if (self.apply or self.undo) and (self.model or self.fix_list or self.next):
            raise OutputError(
                f"--{'apply' if self.apply else 'undo'} looks at no photo: leave out --model, "
                "--fix-list and --next"
            )


class _Checks(Options):
    resize: int = option(256, "Short side after the resize, in pixels", "PIXELS")
    crop: int = option(224, "Side of the centre crop, in pixels", "PIXELS")
    near: bool = option(True, "Also find near copies [--near]", "--near/--exact-only")
    strict: bool = option(False, "Exit with 1 for warnings, too")


class _Results(Report):
    html: Path | None = option(None, "Also write a report with the photos found", "FILE")
    files: int = option(100, "Files per finding in --json", min=0)


def doctor(photos: _Photos, labels: _Labels, checks: _Checks, results: _Results) -> bool:
    """Find what is wrong with a data set, before training on it.

    DATASET has one folder per class (DATASET/cat/1.jpg), or splits with class folders in them
    (DATASET/train/cat, DATASET/val/cat): a folder, a zip or tar archive, a folder in one
    (data.zip/images), or a glob for several ('train-*.zip').

    Finds unreadable photos, copies and near copies (also across splits and classes), splits taken
    for classes, missing classes, imbalance, tiny and blank photos, and what the centre crop cuts
    off. Errors waste a training run, warnings make it worse, notes are good to know.

    With --model also wrong labels, odd photos, classes that can hardly be told apart, and photos
    too dark or too bright. With --next the photos that a model is unsure of, unlike each other.
    --fix-list writes the wrong labels as CSV; delete the rows that are right, and --apply moves the
    photos of the others to the suggested class folder (or writes a corrected label file).

    With --self: what is installed and what is not, with the commands that add it; what the CPU can
    do, and whether anything makes regnet slower than it could be.

    Exit status: 0 no errors, 1 errors (with --strict: or warnings), 2 could not run, 130
    interrupted.

      regnet doctor photos/ --html report.html
      regnet doctor 'tiny-imagenet-200.*.zip' --resize 64 --crop 64
      regnet doctor train.zip --val val.zip --json > findings.json
      regnet doctor photos/ --model bundled --fix-list wrong.csv
      regnet doctor photos/ --apply wrong.csv
      regnet doctor unlabelled/ --model mine.xml --next 50
      regnet doctor --self
    """
    if photos.installation:
        return _doctor_self(results)
    if photos.dataset is None:
        raise typer.BadParameter("name a data set, or --self", param_hint="DATASET")
    if labels.undo:
        return undo_sorting(Path(photos.dataset), relabelled=True)
    if labels.apply is not None:
        return _apply(photos, labels.apply, results)
    if labels.next is not None:
        return _next_photos(photos.dataset, labels.next, labels, results)
    from regnet.doctor.examine import examine
    from regnet.doctor.labels import write_fix_list
    from regnet.doctor.report import doctor_report
    from regnet.doctor.tree import open_tree

    tree = open_tree(photos.dataset, photos.val, truth=photos.truth)
    require_writable(labels.fix_list)
    classifier = _classifier(labels) if labels.model or labels.fix_list else None
    total = len(tree) * (1 if classifier is None else 2)
    with counter("looking", total, "photos") as bar:
        examination = examine(
            tree,
            resize=checks.resize,
            crop=checks.crop,
            near=checks.near,
            classifier=classifier,
            advance=lambda count, stage: bar(0 if stage == "comparing" else count, stage),
        )
    if labels.fix_list is not None:
        write_fix_list(labels.fix_list, examination.suspects or ())
        say(f"{labels.fix_list}: written")
    show(
        partial(doctor_report, examination, tree),
        partial(examination.to_dict, files=results.files),
        as_json=results.json,
        html=results.html,
    )
    severities = {finding.severity for finding in examination.findings}
    return "error" in severities or (checks.strict and "warning" in severities)


def _apply(photos: _Photos, fix_list: Path, results: _Results) -> bool:
    if photos.val is not None or results.html is not None:
        raise OutputError(
            "--apply takes a single DATASET and makes no report: leave out --val and --html"
        )
    from regnet.doctor.fixes import apply_fixes

    applied = apply_fixes(photos.dataset or "", fix_list, truth=photos.truth)
    for one in applied.failed:
        say(visible(f"{fix_list}, line {one.line}: {one.file}: {one.error}"))
    if results.json:
        print_json(applied.to_dict())
    else:
        print(visible(applied.summary()))  # noqa: T201
    return bool(applied.failed)


def _classifier(labels: _Labels) -> "Classifier":
    """Return the model whose features are used."""
    choice = parse_ir_choice(labels.model or "bundled", "doctor", precisions=("f32",))
    return labels.classifier(choice)


def _next_photos(dataset: str, count: int, labels: _Labels, results: _Results) -> bool:
    require_sources("doctor", [dataset])
    from regnet.data.sources import count_items
    from regnet.doctor.next_photos import next_photos, next_report

    classifier = _classifier(labels)
    with counter("classifying", count_items([dataset]), "photos") as advance:
        result = next_photos(classifier, dataset, count, advance=advance)
    show(partial(next_report, result), result.to_dict, as_json=results.json, html=results.html)
    return result.unreadable > 0


def _doctor_self(results: _Results) -> bool:
    from regnet.conversion.cache_folder import CacheFolder
    from regnet.doctor.installation import examine_self, self_report
    from regnet.system.cache import cache_dir

    found = examine_self(CacheFolder(cache_dir()))
    show(partial(self_report, found), found.to_dict, as_json=results.json, html=results.html)
    return bool(found.faults)
