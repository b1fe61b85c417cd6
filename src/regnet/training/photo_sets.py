"""The photos of a run, to train on and to validate on, and what is wrong with them."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Final

import numpy as np
from numpy.typing import NDArray

from regnet.data.class_folders import TrainingFolders, folder_labels, training_folders
from regnet.data.dataset import open_dataset, sample
from regnet.data.labelled import Dataset, LabelledItem, Unreadable
from regnet.doctor.findings import File, Finding, errors_of, quoted, share_of, worst_first
from regnet.doctor.quick import SAME_FILES, held_out_of, quick_findings
from regnet.network.labels import Labels
from regnet.system.errors import DatasetError, ImageError, TrainingError
from regnet.system.notices import about
from regnet.system.parallel import Watch
from regnet.system.text import counted
from regnet.training.photos import CentreCrops, LabelledPhotos

MAX_COMPARED: Final = 1000
"""Validation photos that are compared with training photos; of more, as many drawn at random."""

MAX_BYTES: Final = 512 << 20
"""Bytes of training photos that are read for it: only those as large as a validation photo."""

_MAX_NAMESAKES: Final = 20


@dataclass(frozen=True, kw_only=True)
class PhotoSets:
    """Photos to train on and, None if there are none, to validate on.

    `path` is the training photos'; `held_out`: whether the others were taken from them.
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

    `truth` is a label file of the data set, which then has no splits. Raises `DatasetError` if
    they cannot be opened or do not fit the `labels`, `TrainingError` if training on them would be
    a waste.
    """
    truth = None if truth is None else Path(truth).expanduser()
    folders = TrainingFolders(str(dataset))
    if truth is None:
        try:
            folders = training_folders(dataset)
        except DatasetError:
            if labels is None:  # known classes need no folders
                raise
    if empty := [role for role in folders.empty_splits if val is None or role != "val"]:
        raise DatasetError(
            f"{dataset}: the {' and the '.join(empty)} split has no photos: add photos, or remove "
            "its folder"
        )
    if val is not None:
        folders = replace(folders, val=str(val))
    path, val = folders.train, folders.val
    without_photos = () if labels else folders.empty
    listed = labels is not None or folders.listed  # classes without photos are found below
    labels = labels or folder_labels(path, truth)
    if len(labels) < 2:
        raise TrainingError(
            f"{path} has one class, {labels[0].name or labels[0].wnid}: there is nothing to tell "
            "apart. Put the photos of each class in a folder of its own, two or more, and name the "
            "folder above them; or list them in a metadata.csv beside them (columns file_name and "
            "label)"
        )
    opened = open_dataset(path, labels, truth=truth, subset=listed)
    items = tuple(opened.items())
    other = None if val is None else open_dataset(val, labels, subset=True)
    findings = (*_unused(folders), *_findings(labels, items, other, without_photos))
    if other is None:
        items, held = hold_out(items, seed=seed)
        if held:
            other = Dataset(
                opened.path,
                [item.truth for item in held],
                lambda start: iter(held[start:]),
                classes=len(labels),
                fingerprint=f"{opened.fingerprint}-held-out",
            )
    return PhotoSets(
        path=path,
        labels=labels,
        train=items,
        validation=other,
        held_out=val is None,
        fingerprint=opened.fingerprint + (other.fingerprint if val is not None and other else ""),
        findings=findings,
    )


def _unused(folders: TrainingFolders) -> tuple[Finding, ...]:
    """Return the note on unused folders, if there are any."""
    train, val = PurePath(folders.train).parts, PurePath(folders.val or "").parts
    shared = sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(val, train, strict=False))
    )
    unused = [name for name in folders.unused if name not in val[shared:]]
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


def _findings(
    labels: Labels, items: Sequence[LabelledItem], other: Dataset | None, empty: Sequence[str]
) -> tuple[Finding, ...]:
    """Return the doctor's findings; raises `TrainingError` for those that would waste the training.

    `empty` are class folders without photos, beside those of the `labels`.
    """
    val = () if other is None else tuple(other.items())
    names = [*(label.name or label.wnid for label in labels), *empty]
    counts, val_counts = (
        np.bincount([item.truth for item in part], minlength=len(names)).tolist()
        for part in (items, val)
    )
    findings = quick_findings(
        names,
        counts,
        None if other is None else val_counts,
        train_files=((i.source, i.size) for i in (*items, *val) if i.size is not None),
    )
    findings = worst_first((*findings, *leak_findings(items, val)))
    if errors := errors_of(findings):
        reasons = " ".join(f"{error.text} {error.remedy}" for error in errors)
        raise TrainingError(f"these photos would waste the training. {reasons}")
    return findings


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
    rest = tuple(item for place, item in enumerate(items) if place not in held)
    return rest, tuple(items[place] for place in sorted(held))


def leak_findings(
    train: Sequence[LabelledItem],
    val: Sequence[LabelledItem],
    *,
    most_photos: int = MAX_COMPARED,
    most_bytes: int = MAX_BYTES,
) -> tuple[Finding, ...]:
    """Return the finding that validation photos are training photos, by content, if there are any.

    It is an error if half of the compared ones are. Only photos of equal size are read.
    """
    compared = sample(val, most_photos)
    shared = _shared(train, compared, most_bytes)
    if not shared:
        return ()
    severe = len(shared) >= SAME_FILES * len(compared)
    of = f"{len(compared):,} validation photos" + (" compared" if len(compared) < len(val) else "")
    return (
        Finding(
            "same-files",
            "error" if severe else "warning",
            f"{len(shared):,} of {of} ({share_of(len(shared), len(compared))}) "
            f"{'is a training photo' if len(shared) == 1 else 'are training photos'}, too, byte by "
            f"byte, such as {shared[0]}"
            + (": the splits seem to be copies of each other." if severe else "."),
            "Validate on other photos: what was learnt by heart would count as understood.",
            count=len(shared),
            files=tuple(File(source) for source in shared),
        ),
    )


def _shared(train: Sequence[LabelledItem], val: Sequence[LabelledItem], budget: int) -> list[str]:
    """Return the names of photos in both; small groups of equal size come first.

    If a group exceeds the budget, only a few photos of the same name are read.
    """
    by_size: dict[int, list[LabelledItem]] = defaultdict(list)
    for item in train:
        by_size[_size(item)].append(item)
    candidates = [(size, item) for item in val if (size := _size(item)) > 0 and size in by_size]
    candidates.sort(key=lambda pair: pair[0] * len(by_size[pair[0]]))
    known: dict[int, set[bytes]] = {}
    shared = []
    for size, item in candidates:
        others = by_size[size]
        if size not in known and size * len(others) <= budget:
            budget -= size * len(others)
            known[size] = set(map(_digest, others))
        digests = known.get(size)
        if digests is None:
            name = PurePath(item.source).name
            namesakes = [other for other in others if PurePath(other.source).name == name]
            digests = set(map(_digest, namesakes[:_MAX_NAMESAKES]))
        if _digest(item) in digests - {b""}:
            shared.append(item.source)
    return shared


def _size(item: LabelledItem) -> int:
    """Return the bytes of a photo, 0 if it is unreadable."""
    return item.size or len(_data(item))


def _digest(item: LabelledItem) -> bytes:
    """Return a hash of a photo's file, b"" if it is unreadable."""
    data = _data(item)
    return blake2b(data, digest_size=16).digest() if data else b""


def _data(item: LabelledItem) -> bytes:
    try:
        with about(item.source):
            return item.read()
    except ImageError:
        return b""


def unreadable_photos(
    photos: LabelledPhotos,
    validation: CentreCrops | None,
    labels: Labels,
    *,
    watch: Watch,
    processes: int,
) -> tuple[list[Unreadable], list[str]]:
    """Return the unreadable photos that are known before the run, and remarks on validation ones.

    Those are training photos in memory, and validation photos if a single process reads all that
    stay in memory; of others, batches are read until one photo is readable: the rest is found when
    they validate. Raises `TrainingError` if all photos, or a class's training photos, are
    unreadable.
    """
    lost = list(photos.unreadable)
    read = [n for n in range(len(photos)) if not photos.is_lost(n)]
    require_some(lost, len(read))
    if names := _without(photos.truths, photos.truths[read], labels):
        what = counted(len(names), "class has", "classes have")
        raise TrainingError(
            f"{what} no training photo that can be read: {quoted(names)} (such as "
            f"{lost[0].source}: {lost[0].error}). Mend these photos, or remove the class"
        )
    if validation is None:
        return lost, []
    unread: list[Unreadable] = []
    truths: list[int] = []
    for batch in watch(validation.batches(), "reading validation photos", validation.count):
        unread += batch.unreadable
        truths += batch.truths.tolist()
        if truths and not (validation.in_memory and processes == 1):
            return lost, []
    require_some(unread, len(truths), "validation ", ". Mend them, or name others with --val")
    names = _without(validation.truths, np.array(truths), labels)
    return [*lost, *unread], list(validation_remarks(len(truths), len(validation), names))


def require_some(lost: Sequence[Unreadable], read: int, kind: str = "", remedy: str = "") -> None:
    """Raise `TrainingError` if no photo was read: `lost` says why."""
    if not read:
        raise TrainingError(
            f"none of the {len(lost):,} {kind}photos can be read, such as {lost[0].source}: "
            f"{lost[0].error}{remedy}"
        )


def validation_remarks(read: int, count: int, unread: Sequence[str]) -> Iterator[str]:
    """Yield sentences on validation photos: `read` of `count` are readable, none of `unread`.

    `unread` are names of classes.
    """
    if read < count:
        yield f"{read:,} of {count:,} validation photos can be read; the others do not count."
    if unread:
        what = counted(len(unread), "class has", "classes have")
        yield f"{what} no validation photo that can be read: {quoted(unread)}."


def _without(all_: NDArray[np.int64], read: NDArray[np.int64], labels: Labels) -> list[str]:
    """Return the names of the classes that have photos, but no readable one."""
    missing = sorted(set(all_.tolist()) - set(read.tolist()))
    return [labels[index].name or labels[index].wnid for index in missing]
