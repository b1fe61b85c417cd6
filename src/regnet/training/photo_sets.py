"""The photos of a run: to learn from and to validate with, and what is wrong with them."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path, PurePath

import numpy as np

from regnet.data.class_folders import TrainingFolders, folder_labels, training_folders
from regnet.data.dataset import open_dataset
from regnet.data.labelled import Dataset, LabelledItem, present_and_missing
from regnet.doctor.findings import Finding, errors_of, quoted, worst_first
from regnet.doctor.quick import held_out_of, quick_findings
from regnet.network.labels import Labels
from regnet.system.errors import DatasetError, TrainingError
from regnet.training.leaks import leak_findings


@dataclass(frozen=True, kw_only=True)
class PhotoSets:
    """Photos to learn from and, None where there are none, to validate with.

    `path` is the training photos'; `held_out` says whether the others were taken from them.
    `findings` are the doctor's, none of them an error.
    """

    path: str
    labels: Labels
    train: tuple[LabelledItem, ...]
    validation: Dataset | None
    held_out: bool
    fingerprint: str
    findings: tuple[Finding, ...]


def open_photo_sets(
    dataset: str | Path,
    val: str | Path | None,
    labels: Labels | None,
    *,
    seed: int,
    truth: str | Path | None = None,
) -> PhotoSets:
    """Return the photos of a data set and its splits, or of `val`, else a tenth held out by `seed`.

    `truth` is a file of labels of the data set, which then has no splits.
    Raises `DatasetError` where they cannot be opened or do not fit the `labels`, `TrainingError`
    where training on them would be a waste.
    """
    truth = None if truth is None else Path(truth).expanduser()
    whole = TrainingFolders(str(dataset))
    folders = whole if truth else _folders(dataset, known=labels is not None)
    _refuse_empty_splits(dataset, folders.empty_splits, with_val=val is not None)
    if val is not None:
        folders = replace(folders, val=str(val))
    path, val = folders.train, folders.val
    empty = () if labels else folders.empty
    listed = labels is not None or folders.listed  # classes without photos are found below
    labels = labels or folder_labels(path, truth)
    _require_classes(path, labels)
    opened = open_dataset(path, labels, truth=truth, subset=listed)
    items = tuple(opened.items())
    other = None if val is None else open_dataset(val, labels, subset=True)
    findings = (*_unused(folders), *_findings(labels, items, other, empty))
    if other is None:
        items, held = hold_out(items, seed=seed)
        other = HeldOut(held, opened, classes=len(labels)) if held else None
    return PhotoSets(
        path=path,
        labels=labels,
        train=items,
        validation=other,
        held_out=val is None,
        fingerprint=opened.fingerprint + (other.fingerprint if val is not None and other else ""),
        findings=findings,
    )


def _folders(dataset: str | Path, *, known: bool) -> TrainingFolders:
    """Return the places of training and validation photos; `known` classes need no folders."""
    try:
        return training_folders(dataset)
    except DatasetError:
        if not known:
            raise
        return TrainingFolders(str(dataset))


def _refuse_empty_splits(dataset: str | Path, roles: Sequence[str], *, with_val: bool) -> None:
    """Raise `DatasetError` for splits without a photo; `--val` may stand for one."""
    if empty := [role for role in roles if not (with_val and role == "val")]:
        raise DatasetError(
            f"{dataset}: the {' and the '.join(empty)} split has no photos: add photos, or remove "
            "its folder"
        )


def _unused(folders: TrainingFolders) -> tuple[Finding, ...]:
    """Return the note on the folders that are not used, if there are any."""
    validates = _apart(folders.val or "", folders.train)
    unused = [name for name in folders.unused if name not in validates]
    if not unused:
        return ()
    used = " and ".join(path for path in (folders.train, folders.val) if path)
    are = "is" if len(unused) == 1 else "are"
    return (
        Finding(
            "unused-folders",
            "note",
            f"Trains on {used}; {quoted(unused)} {are} not used.",
            "Measure the model on a test split with `regnet evaluate` afterwards.",
            count=len(unused),
        ),
    )


def _apart(path: str, other: str) -> tuple[str, ...]:
    """Return the parts of a path below the folders that it shares with another."""
    parts, others = PurePath(path).parts, PurePath(other).parts
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(parts, others, strict=False))
    return parts[sum(1 for _ in shared) :]


def _require_classes(path: str, labels: Labels) -> None:
    if len(labels) < 2:
        raise TrainingError(
            f"{path} has one class, {labels[0].name or labels[0].wnid}: there is nothing to tell "
            "apart. Put the photos of each class in a folder of its own, two or more, and name the "
            "folder above them; or list them in a metadata.csv beside them (columns file_name and "
            "label)"
        )


def _findings(
    labels: Labels, items: Sequence[LabelledItem], other: Dataset | None, empty: Sequence[str]
) -> tuple[Finding, ...]:
    """Return what is worth knowing; raises `TrainingError` for what would waste the training.

    `empty` are class folders without photos, beside those of the `labels`.
    """
    val = () if other is None else tuple(other.items())
    count = len(labels) + len(empty)
    findings = quick_findings(
        [*(label.name or label.wnid for label in labels), *empty],
        _counts(items, count),
        None if other is None else _counts(val, count),
        train_files=_sizes((*items, *val)),
    )
    findings = worst_first((*findings, *leak_findings(items, val)))
    if errors := errors_of(findings):
        reasons = " ".join(f"{error.text} {error.remedy}" for error in errors)
        raise TrainingError(f"these photos would waste the training. {reasons}")
    return findings


def _counts(items: Sequence[LabelledItem], classes: int) -> list[int]:
    counts = np.bincount([item.truth for item in items], minlength=classes)
    return [int(count) for count in counts]


def _sizes(items: Sequence[LabelledItem]) -> Iterator[tuple[str, int]]:
    """Yield names and sizes of photos whose size is known."""
    for item in items:
        if item.size is not None:
            yield item.source, item.size


def hold_out(
    items: Sequence[LabelledItem], *, seed: int
) -> tuple[tuple[LabelledItem, ...], tuple[LabelledItem, ...]]:
    """Return the items without a tenth of each class, drawn by `seed`, and that tenth."""
    truths = np.array([item.truth for item in items])
    random = np.random.default_rng(seed)
    held: set[int] = set()
    for truth in np.unique(truths):
        places = random.permutation(np.flatnonzero(truths == truth))
        held |= set(places[: held_out_of(len(places))].tolist())
    kept = tuple(item for place, item in enumerate(items) if place not in held)
    return kept, tuple(items[place] for place in sorted(held))


class HeldOut:
    """Some of a data set's images, as a data set."""

    def __init__(self, items: Sequence[LabelledItem], source: Dataset, *, classes: int) -> None:
        self.path = source.path
        self.count = len(items)
        self.classes, self.missing = present_and_missing((i.truth for i in items), classes)
        self.fingerprint = f"{source.fingerprint}-held-out"
        self._items = tuple(items)

    def items(self, start: int = 0) -> Iterator[LabelledItem]:
        """Yield the images from a position on."""
        yield from self._items[start:]

    def find(self, sources: Collection[str]) -> dict[str, LabelledItem]:
        """Return the images of these names; unknown names are left out."""
        wanted = set(sources)
        return {item.source: item for item in self._items if item.source in wanted}
