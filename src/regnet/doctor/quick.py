"""What names, numbers and sizes tell of a data set: classes, splits, strays. No photo is read."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Final

from regnet.data.class_folders import names_without_text
from regnet.data.class_names import normal
from regnet.data.folders import ROLES, roles_of
from regnet.doctor.findings import File, Finding, quoted, share_of, worst_first
from regnet.doctor.tree import Tree
from regnet.system.text import counted

IMBALANCE: Final = 10  # from this ratio of the largest to the smallest class on there is a warning
FEW: Final = 10  # classes with fewer training photos are named in a warning
HOLDOUT: Final = 0.1
"""The share of each class's photos that validates where there is no split for it."""

SAME_FILES: Final = 0.5
"""From this share of a split's files with a training file's name and size on, they are the same."""

EMPTY_FILES: Final = 0.1  # from this share of files without a byte on, something went wrong for all

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
    learnt = [(name, photos) for name, photos in zip(classes, train, strict=True) if photos]
    others = val or [0] * len(train)
    empty = [n for n, a, b in zip(classes, train, others, strict=True) if a == b == 0]
    return worst_first(
        [
            *_names(classes, learnt, empty),
            *([] if val is None else split_gaps(classes, train, val, split="validation")),
            *_sizes(learnt),
            *([] if val is not None else _too_few_to_hold_out(learnt)),
            *_files(list(train_files), list(val_files)),
        ]
    )


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


def split_gaps(
    classes: Sequence[str], train: Sequence[int], photos: Sequence[int], *, split: str
) -> Iterator[Finding]:
    """Yield the classes that only the training or only another split has photos of."""
    if not sum(photos):
        yield Finding(
            "empty-split",
            "error",
            f"The {split} split has no photos in class folders.",
            "Give it the same class folders as the training photos have, or remove it.",
        )
        return
    numbers = list(zip(classes, train, photos, strict=True))
    if unlearnt := [name for name, learnt, here in numbers if here > learnt == 0]:
        what = counted(len(unlearnt), "class", "classes")
        yield Finding(
            "classes-not-in-training",
            "error",
            f"{what} of the {split} split {_have(len(unlearnt))} no training photos: "
            f"{quoted(unlearnt)}.",
            f"They would always be answered wrong. Add training photos, or take them out of the "
            f"{split} split; look for another spelling, too.",
            count=len(unlearnt),
        )
    if unseen := [name for name, learnt, here in numbers if learnt > here == 0]:
        yield Finding(
            "classes-not-in-split",
            "error" if len(unseen) > 0.5 * sum(map(bool, train)) else "warning",
            f"{counted(len(unseen), 'class', 'classes')} {_have(len(unseen))} no photos in the "
            f"{split} split: {quoted(unseen)}.",
            "Its accuracy says nothing of them. Move some of their training photos there.",
            count=len(unseen),
        )


def held_out_of(photos: int) -> int:
    """Return how many of a class's photos validate where there is no split for it: a tenth."""
    return int(HOLDOUT * photos + 0.5)


def _names(
    classes: Sequence[str], learnt: Sequence[Sized], empty: Sequence[str]
) -> Iterator[Finding]:
    """Yield what is wrong with the classes: one only, splits, names that are alike, no photos."""
    if len(learnt) == 1:
        yield Finding(
            "one-class",
            "error",
            f"All training photos are of one class, {learnt[0][0]}: there is nothing to tell "
            "apart.",
            "Put the photos of each class in a folder of its own, and name the folder above them.",
            count=1,
        )
    if splits := [name for name, role in roles_of(classes).items() if role in ROLES]:
        # A lone `train` may be the vehicle.
        lone = [name.lower() for name in splits] == ["train"] and len(classes) > 1
        would_be, have = ("a class", "has") if len(splits) == 1 else ("classes", "have")
        advice = "If it is the vehicle, all is well." if lone else "Move other folders away."
        yield Finding(
            "splits-as-classes",
            "warning" if lone else "error",
            f"{quoted(splits)} would be {would_be}, but {have} the name of a split.",
            f"Give each split a folder a class: DATASET/train/cat, DATASET/val/cat. {advice}",
            count=len(splits),
        )
    by_name: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(classes):  # ImageNet has two classes `crane`
        by_name[normal(name)].append(name)
    if pairs := [" and ".join(names) for names in by_name.values() if len(names) > 1]:
        yield Finding(
            "similar-names",
            "warning",
            f"Classes differ only in case or in _ for a space: {quoted(pairs)}.",
            "If they are meant to be one class, rename the folders alike in every split.",
            count=len(pairs),
        )
    if empty:
        yield Finding(
            "empty-classes",
            "error",
            f"{counted(len(empty), 'class has', 'classes have')} no photos: {quoted(empty)}.",
            "Add photos of them, or remove their folders (or their lines in the list of classes).",
            count=len(empty),
        )


def _too_few_to_hold_out(learnt: Sequence[Sized]) -> Iterator[Finding]:
    """Yield the classes of which no photo would validate."""
    small = [name for name, photos in learnt if not held_out_of(photos)]
    if not small:
        return
    effect = (
        "no photo validates, so nothing tells how good the model is or which epoch is the best."
        if len(small) == len(learnt)
        else "no photo of them validates, so the accuracy says nothing of them."
    )
    yield Finding(
        "too-few-to-hold-out",
        "warning",
        f"{counted(len(small), 'class is', 'classes are')} too small to hold out a tenth (under 5 "
        f"photos): {quoted(small)}. Without a validation split, {effect}",
        "Put some photos into a validation split (DATASET/val), or add photos.",
        count=len(small),
    )


def _have(number: int) -> str:
    return "has" if number == 1 else "have"


def _sizes(learnt: Sequence[Sized]) -> Iterator[Finding]:
    """Yield whether classes have very different numbers of training photos, or few."""
    by_size = sorted((photos, name) for name, photos in learnt)
    (least, smallest), (most, largest) = by_size[0], by_size[-1]
    if most >= IMBALANCE * least:
        yield Finding(
            "imbalance",
            "warning",
            f"{largest} has {counted(most, 'training photo')}, {smallest} only {least:,}: "
            f"{most / least:.0f} times as many.",
            "Weigh classes ([loss] balanced = true, as the recipe finetune does) or draw them "
            "equally often ([transfer] balanced_sampling = true), and add photos.",
            count=sum(photos * IMBALANCE <= most for photos, _ in by_size),
        )
    if few := [name for photos, name in by_size if photos < FEW]:
        yield Finding(
            "few-photos",
            "warning",
            f"{counted(len(few), 'class has', 'classes have')} fewer than {FEW} training "
            f"photos: {quoted(few)}.",
            "What is learnt of them is mostly chance. Add photos, or merge classes.",
            count=len(few),
        )


def _files(train: Sequence[Sized], val: Sequence[Sized]) -> Iterator[Finding]:
    """Yield files without a byte, and whether the splits hold the same files."""
    if empty := [name for name, size in (*train, *val) if size == 0]:
        files = len(train) + len(val)
        yield Finding(
            "empty-files",
            "error" if len(empty) >= EMPTY_FILES * files else "warning",
            f"{counted(len(empty), 'file')} of {files:,} {_have(len(empty))} no bytes.",
            "Copy or unpack them again: a download or a copy was broken off, or the disk was full.",
            count=len(empty),
            files=tuple(File(name, detail="no bytes") for name in empty),
        )
    known = {(PurePosixPath(name).name, size) for name, size in train}
    same = [name for name, size in val if (PurePosixPath(name).name, size) in known]
    if same and len(same) >= SAME_FILES * len(val):
        yield Finding(
            "same-files",
            "error",
            f"{share_of(len(same), len(val))} of the validation files have the name and size of "
            "a training file: the splits seem to be copies of each other.",
            "Validate on other photos: what was learnt by heart would count as understood.",
            count=len(same),
            files=tuple(File(name) for name in same),
        )


def layout_findings(tree: Tree) -> Iterator[Finding]:
    """Yield what the names and numbers of folders and files tell; photos are not read."""
    if not len(tree):
        yield no_photos()
    elif not tree.classes:
        where = "in the folders of the splits" if tree.layout == "splits" else "in one folder"
        yield Finding(
            "no-classes",
            "error",
            f"The photos lie {where}, not in a folder a class.",
            "Make a folder for each class and move its photos there: DATASET/cat/1.jpg.",
            count=len(tree),
        )
    else:
        yield from _unusable_names(tree)
        yield from _counts(tree)
        yield from _strays(tree)


def _unusable_names(tree: Tree) -> Iterator[Finding]:
    """Yield why a training refuses the folders' names."""
    if odd := names_without_text(tree.classes):
        yield Finding(
            "names-without-text",
            "error",
            f"These names of class folders are not text: {quoted(odd)}.",
            "Rename the folders.",
            count=len(odd),
        )
    if doubt := tree.doubt:
        yield Finding(doubt.code, "error", doubt.text, doubt.remedy, count=len(doubt.names))


def _counts(tree: Tree) -> Iterator[Finding]:
    """Yield what the numbers of photos tell, of every split beside the training photos."""
    photos = {
        split: [counts.get(name, 0) for name in tree.classes]
        for split, counts in tree.counts.items()
    }
    if not sum(photos.get(tree.training, ())):
        yield no_photos(tree.training)
        return
    train = photos[tree.training]
    for finding in quick_findings(tree.classes, train, photos.get("val")):
        if finding.code == "similar-names" and not tree.numbered:
            finding = replace(finding, severity="error")  # a training refuses such folders
        if finding.code != "splits-as-classes" or not tree.doubt:
            yield finding
    if sum(photos.get("test", ())):
        yield from split_gaps(tree.classes, train, photos["test"], split="test")
    elif "test" in photos:
        yield Finding(
            "unlabelled-test",
            "note",
            "The test split has no class folders.",
            "A training leaves it out; `regnet evaluate` needs its labels in a file (--truth).",
        )
    if "val" not in photos:
        yield Finding(
            "no-validation",
            "note",
            "There is no validation split: a training puts a part of the photos aside.",
            "Where photos belong together (a film, a patient, a day), make the split yourself, so "
            "that none of them are on both sides: DATASET/train/cat, DATASET/val/cat.",
        )


def _strays(tree: Tree) -> Iterator[Finding]:
    """Yield the photos that are in no class: beside class folders, or beside the splits.

    The photos of a test split without labels do not count.
    """
    labelled_test = any(count for name, count in tree.counts.get("test", {}).items() if name)
    stray = [not place.label and (place.split != "test" or labelled_test) for place in tree.places]
    if not any(stray):
        return
    files = tuple(
        File(item.source, place.split)
        for item, place, chosen in zip(tree.items(), tree.places, stray, strict=True)
        if chosen
    )
    splits = sorted({file.split for file in files} - {""})
    where = f" of {quoted(splits)}" if splits else ""
    beside = tree.layout == "splits" and not splits
    yield Finding(
        "stray",
        "warning" if beside else "error",
        f"{counted(len(files), 'photo lies', 'photos lie')} outside the class folders{where}.",
        f"A training {'leaves them out' if beside else 'refuses to guess what they are'}: move "
        "them into the folder of their class, or away.",
        count=len(files),
        files=files,
    )
