"""What class names, numbers and sizes of files tell: the findings that take no time at all."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Final

from regnet.data.class_names import normal
from regnet.data.folders import ROLES, roles_of
from regnet.doctor.findings import File, Finding, counted, percent, quoted, worst_first

IMBALANCE: Final = 10
"""From this ratio of the largest to the smallest class on there is a warning."""

FEW: Final = 10
"""Classes with fewer training photos are named in a warning."""

HOLDOUT: Final = 0.1
"""The share of each class's photos that validates where there is no split for it."""

SAME_FILES: Final = 0.5
"""From this share of a split's files with a training file's name and size on, they are the same."""

EMPTY_FILES: Final = 0.1
"""From this share of files without a byte on, something went wrong for all."""

Sized = tuple[str, int]


def quick_findings(
    classes: Sequence[str],
    train: Sequence[int],
    val: Sequence[int] | None = None,
    *,
    train_files: Iterable[Sized] = (),
    val_files: Iterable[Sized] = (),
) -> tuple[Finding, ...]:
    """Return what would waste a training or make it worse, worst first; nothing is read.

    `train` and `val` are the photos of each class, in the order of `classes`; `val` is None where
    there is no validation split. Files are pairs of name and bytes, where they are known.
    """
    if not sum(train):
        return (no_photos(),)
    found = [
        *_one_class(classes, train),
        *split_names(classes),
        *_similar_names(classes),
        *_empty_classes(classes, train, val),
        *(() if val is None else split_gaps(classes, train, val, split="validation")),
        *_sizes_of_classes(classes, train),
        *(_too_few_to_hold_out(classes, train) if val is None else ()),
        *_files(train_files, val_files),
    ]
    return worst_first(found)


def no_photos(split: str = "") -> Finding:
    """Return the finding that there is nothing to train on."""
    what = f"The split {split} has no photos" if split else "There are no photos"
    return Finding(
        "no-images",
        "error",
        f"{what} to train on.",
        "Check the path. Photos lie in a folder a class, DATASET/cat/1.jpg, or "
        "DATASET/train/cat/1.jpg; they are JPEG, PNG, WebP, GIF, BMP, TIFF, JPEG 2000 or AVIF.",
    )


def split_names(classes: Sequence[str]) -> tuple[Finding, ...]:
    """Return whether folders of splits are taken for classes. A lone `train` may be the vehicle."""
    named = [name for name, role in roles_of(classes).items() if role in ROLES]
    if not named:
        return ()
    lone = [name.lower() for name in named] == ["train"] and len(classes) > 1
    text = f"{quoted(named)} would be {'a class' if len(named) == 1 else 'classes'}"
    remedy = "Give each split a folder a class: DATASET/train/cat, DATASET/val/cat. "
    return (
        Finding(
            "splits-as-classes",
            "warning" if lone else "error",
            f"{text}, but {'has' if len(named) == 1 else 'have'} the name of a split.",
            remedy + ("If it is the vehicle, all is well." if lone else "Move other folders away."),
            count=len(named),
        ),
    )


def split_gaps(
    classes: Sequence[str], train: Sequence[int], photos: Sequence[int], *, split: str
) -> tuple[Finding, ...]:
    """Return the classes that only the training or only another split has photos of."""
    if not sum(photos):
        return (_empty_split(split),)
    unlearnt = [
        n for n, learnt, here in zip(classes, train, photos, strict=True) if here > learnt == 0
    ]
    unseen = [
        n for n, learnt, here in zip(classes, train, photos, strict=True) if learnt > here == 0
    ]
    found = []
    if unlearnt:
        found.append(_unlearnt(unlearnt, split))
    if unseen:
        share = len(unseen) / sum(map(bool, train))
        found.append(_unseen(unseen, split, most=share > 0.5))
    return tuple(found)


def _one_class(classes: Sequence[str], train: Sequence[int]) -> tuple[Finding, ...]:
    learnt = [name for name, photos in zip(classes, train, strict=True) if photos]
    if len(learnt) > 1:
        return ()
    return (
        Finding(
            "one-class",
            "error",
            f"All training photos are of one class, {learnt[0]}: there is nothing to tell apart.",
            "Put the photos of each class in a folder of its own, and name the folder above them.",
            count=1,
        ),
    )


def _similar_names(classes: Sequence[str]) -> tuple[Finding, ...]:
    by_name: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(classes):  # ImageNet has two classes `crane`
        by_name[normal(name)].append(name)
    pairs = [" and ".join(names) for names in by_name.values() if len(names) > 1]
    if not pairs:
        return ()
    return (
        Finding(
            "similar-names",
            "warning",
            f"Classes differ only in case or in _ for a space: {quoted(pairs)}.",
            "If they are meant to be one class, rename the folders alike in every split.",
            count=len(pairs),
        ),
    )


def _empty_classes(
    classes: Sequence[str], train: Sequence[int], val: Sequence[int] | None
) -> tuple[Finding, ...]:
    others = val or [0] * len(train)
    empty = [n for n, a, b in zip(classes, train, others, strict=True) if a == b == 0]
    if not empty:
        return ()
    return (
        Finding(
            "empty-classes",
            "error",
            f"{counted(len(empty), 'class has', 'classes have')} no photos: {quoted(empty)}.",
            "Add photos of them, or remove their folders (or their lines in the list of classes).",
            count=len(empty),
        ),
    )


def _empty_split(split: str) -> Finding:
    return Finding(
        "empty-split",
        "error",
        f"The {split} split has no photos in class folders.",
        "Give it the same class folders as the training photos have, or remove it.",
    )


def _unlearnt(names: Sequence[str], split: str) -> Finding:
    what = counted(len(names), "class", "classes")
    return Finding(
        "classes-not-in-training",
        "error",
        f"{what} of the {split} split {_have(len(names))} no training photos: {quoted(names)}.",
        f"They would always be answered wrong. Add training photos, or take them out of the "
        f"{split} split; look for another spelling, too.",
        count=len(names),
    )


def _unseen(names: Sequence[str], split: str, *, most: bool) -> Finding:
    what = counted(len(names), "class", "classes")
    return Finding(
        "classes-not-in-split",
        "error" if most else "warning",
        f"{what} {_have(len(names))} no photos in the {split} split: {quoted(names)}.",
        "Its accuracy says nothing of them. Move some of their training photos there.",
        count=len(names),
    )


def held_out_of(photos: int) -> int:
    """Return how many of a class's photos validate where there is no split for it: a tenth."""
    return int(HOLDOUT * photos + 0.5)


def _too_few_to_hold_out(classes: Sequence[str], train: Sequence[int]) -> tuple[Finding, ...]:
    """Return the classes of which no photo would validate."""
    small = [
        n for n, photos in zip(classes, train, strict=True) if photos and not held_out_of(photos)
    ]
    if not small:
        return ()
    every = len(small) == sum(map(bool, train))
    what = counted(len(small), "class is", "classes are")
    effect = (
        "no photo validates, so nothing tells how good the model is or which epoch is the best."
        if every
        else "no photo of them validates, so the accuracy says nothing of them."
    )
    return (
        Finding(
            "too-few-to-hold-out",
            "warning",
            f"{what} too small to hold out a tenth (under 5 photos): {quoted(small)}. Without a "
            f"validation split, {effect}",
            "Put some photos into a validation split (DATASET/val), or add photos.",
            count=len(small),
        ),
    )


def _have(number: int) -> str:
    return "has" if number == 1 else "have"


def _sizes_of_classes(classes: Sequence[str], train: Sequence[int]) -> list[Finding]:
    by_size = sorted((photos, name) for name, photos in zip(classes, train, strict=True) if photos)
    (least, smallest), (most, largest) = by_size[0], by_size[-1]
    found = []
    if most >= IMBALANCE * least:
        found.append(
            Finding(
                "imbalance",
                "warning",
                f"{largest} has {counted(most, 'training photo')}, {smallest} only {least:,}: "
                f"{most / least:.0f} times as many.",
                "Weigh classes ([loss] balanced = true, as the recipe finetune does) or draw them "
                "equally often ([transfer] balanced_sampling = true), and add photos.",
                count=sum(photos * IMBALANCE <= most for photos, _ in by_size),
            )
        )
    if few := [name for photos, name in by_size if photos < FEW]:
        found.append(
            Finding(
                "few-photos",
                "warning",
                f"{counted(len(few), 'class has', 'classes have')} fewer than {FEW} training "
                f"photos: {quoted(few)}.",
                "What is learnt of them is mostly chance. Add photos, or merge classes.",
                count=len(few),
            )
        )
    return found


def _files(train: Iterable[Sized], val: Iterable[Sized]) -> list[Finding]:
    """Return files without a byte, and whether the splits hold the same files."""
    train, val = list(train), list(val)
    empty = [name for name, size in (*train, *val) if size == 0]
    known = {(PurePosixPath(name).name, size) for name, size in train}
    same = [name for name, size in val if (PurePosixPath(name).name, size) in known]
    found = []
    if empty:
        found.append(_without_bytes(empty, len(train) + len(val)))
    if same and len(same) >= SAME_FILES * len(val):
        found.append(
            Finding(
                "same-files",
                "error",
                f"{percent(len(same), len(val))} of the validation files have the name and size of "
                "a training file: the splits seem to be copies of each other.",
                "Validate on other photos: what was learnt by heart would count as understood.",
                count=len(same),
                files=tuple(File(name) for name in same),
            )
        )
    return found


def _without_bytes(names: Sequence[str], files: int) -> Finding:
    return Finding(
        "empty-files",
        "error" if len(names) >= EMPTY_FILES * files else "warning",
        f"{counted(len(names), 'file')} of {files:,} {_have(len(names))} no bytes.",
        "Copy or unpack them again: a download or a copy was broken off, or the disk was full.",
        count=len(names),
        files=tuple(File(name, detail="no bytes") for name in names),
    )
