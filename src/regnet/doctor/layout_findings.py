"""What is wrong with the folders of a data set: splits, classes, strays."""

from collections.abc import Iterator
from dataclasses import replace

from regnet.data.class_folders import names_without_text
from regnet.doctor.findings import File, Finding, quoted
from regnet.doctor.quick import no_photos, quick_findings, split_gaps
from regnet.doctor.tree import Tree
from regnet.system.text import counted


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
        yield from _names(tree)
        yield from _counts(tree)
        yield from _strays(tree)


def _names(tree: Tree) -> Iterator[Finding]:
    """Yield why a training refuses the folders' names."""
    if odd := names_without_text(tree.classes):
        yield Finding(
            "names-without-text",
            "error",
            f"These names of class folders are no text: {quoted(odd)}.",
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
