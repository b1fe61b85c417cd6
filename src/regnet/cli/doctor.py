"""`regnet doctor`: what is wrong with a data set, before training on it."""

from functools import partial
from pathlib import Path

import typer

from regnet.cli.console import show
from regnet.cli.options import Report, Truth
from regnet.cli.progress import counter
from regnet.system.option import Options, argument, option


class _Photos(Truth):
    dataset: str | None = argument("The photos, see above", "DATASET", None)
    installation: bool = option(False, "Examine this installation instead", "--self")
    val: str | None = option(None, "Validation photos that lie elsewhere", "DATASET")


class _Checks(Options):
    resize: int = option(256, "Short side after the resize, in pixels", "PIXELS")
    crop: int = option(224, "Side of the centre crop, in pixels", "PIXELS")
    near: bool = option(True, "Also find near copies [--near]", "--near/--exact-only")
    strict: bool = option(False, "Exit with 1 for warnings, too")


class _Results(Report):
    html: Path | None = option(None, "Also write a report with the photos found", "FILE")
    files: int = option(100, "Files per finding in --json", min=0)


def doctor(photos: _Photos, checks: _Checks, results: _Results) -> bool:
    """Find what is wrong with a data set, before training on it.

    DATASET has one folder per class (DATASET/cat/1.jpg), or splits with class folders in them
    (DATASET/train/cat, DATASET/val/cat): a folder, a zip or tar archive, a folder in one
    (data.zip/images), or a glob for several ('train-*.zip').

    Finds unreadable photos, copies and near copies (also across splits and classes), splits taken
    for classes, missing classes, imbalance, tiny and blank photos, and what the centre crop cuts
    off. Errors waste a training run, warnings make it worse, notes are good to know.

    With --self: what is installed and what is not, with the commands that add it; what the CPU can
    do, and whether anything makes regnet slower than it could be.

    Exit status: 0 no errors, 1 errors (with --strict: or warnings), 2 could not run, 130
    interrupted.

      regnet doctor photos/ --html report.html
      regnet doctor 'tiny-imagenet-200.*.zip' --resize 64 --crop 64
      regnet doctor train.zip --val val.zip --json > findings.json
      regnet doctor --self
    """
    if photos.installation:
        return _doctor_self(results)
    if photos.dataset is None:
        raise typer.BadParameter("name a data set, or --self", param_hint="DATASET")
    from regnet.doctor.examine import examine
    from regnet.doctor.report import doctor_report
    from regnet.doctor.tree import open_tree

    tree = open_tree(photos.dataset, photos.val, truth=photos.truth)
    with counter("looking", len(tree), "photos") as bar:
        examination = examine(
            tree,
            resize=checks.resize,
            crop=checks.crop,
            near=checks.near,
            advance=lambda count, stage: bar(count if stage == "looking" else 0, stage),
        )
    show(
        partial(doctor_report, examination, tree),
        partial(examination.to_dict, files=results.files),
        as_json=results.json,
        html=results.html,
    )
    severities = {finding.severity for finding in examination.findings}
    return "error" in severities or (checks.strict and "warning" in severities)


def _doctor_self(results: _Results) -> bool:
    from regnet.conversion.cache_folder import CacheFolder
    from regnet.doctor.installation import examine_self, self_report
    from regnet.system.cache import cache_dir

    found = examine_self(CacheFolder(cache_dir()))
    show(partial(self_report, found), found.to_dict, as_json=results.json, html=results.html)
    return bool(found.faults)
