"""What is wrong with the folders of a data set: splits, classes, strays."""

from collections.abc import Iterator
from dataclasses import replace

from regnet.data.class_folders import names_without_text
from regnet.doctor.findings import File, Finding, counted, quoted
from regnet.doctor.quick import no_photos, quick_findings, split_gaps
from regnet.doctor.tree import Tree


def layout_findings(tree: Tree) -> list[Finding]:
    """Return what the names and numbers of folders and files tell; no photo is read."""
    if not len(tree):
        return [no_photos()]
    if not tree.classes:
        return [_no_classes(tree)]
    return [*_names(tree), *_counts(tree), *_doubt(tree), *_strays(tree)]


def _names(tree: Tree) -> Iterator[Finding]:
    """Yield that the names of some classes are no text, which a training refuses."""
    if odd := names_without_text(tree.classes):
        yield Finding(
            "names-without-text",
            "error",
            f"These names of class folders are no text: {quoted(odd)}.",
            "Rename the folders.",
            count=len(odd),
        )


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
        yield _unlabelled_test()
    if "val" not in photos:
        yield _no_validation()


def _no_validation() -> Finding:
    return Finding(
        "no-validation",
        "note",
        "There is no validation split: a training puts a part of the photos aside.",
        "Where photos belong together (a film, a patient, a day), make the split yourself, so "
        "that none of them are on both sides: DATASET/train/cat, DATASET/val/cat.",
    )


def _unlabelled_test() -> Finding:
    return Finding(
        "unlabelled-test",
        "note",
        "The test split has no class folders.",
        "A training leaves it out; `regnet evaluate` needs its labels in a file (--truth).",
    )


def _no_classes(tree: Tree) -> Finding:
    where = "in the folders of the splits" if tree.layout == "splits" else "in one folder"
    return Finding(
        "no-classes",
        "error",
        f"The photos lie {where}, not in a folder a class.",
        "Make a folder for each class and move its photos there: DATASET/cat/1.jpg.",
        count=len(tree),
    )


def _doubt(tree: Tree) -> Iterator[Finding]:
    """Yield why the folders are not taken for classes, as a training refuses them."""
    if doubt := tree.doubt:
        yield Finding(doubt.code, "error", doubt.text, doubt.remedy, count=len(doubt.names))


def _strays(tree: Tree) -> Iterator[Finding]:
    """Yield the photos that are in no class: beside class folders, or beside the splits.

    Those of a test split without labels are none of them.
    """
    unlabelled = set() if sum(_labelled(tree, "test").values()) else {"test"}
    places = {
        code
        for code, place in enumerate(tree.places)
        if not place.label and place.split not in unlabelled
    }
    indices = [index for index, code in enumerate(tree.codes) if code in places]
    if not indices:
        return
    splits = sorted({tree.places[tree.codes[index]].split for index in indices} - {""})
    where = f" of {quoted(splits)}" if splits else ""
    beside = tree.layout == "splits" and not splits
    yield Finding(
        "stray",
        "warning" if beside else "error",
        f"{counted(len(indices), 'photo lies', 'photos lie')} outside the class folders{where}.",
        f"A training {'leaves them out' if beside else 'refuses to guess what they are'}: move "
        "them into the folder of their class, or away.",
        count=len(indices),
        files=tuple(_files(tree, set(indices))),
    )


def _labelled(tree: Tree, split: str) -> dict[str, int]:
    """Return the photos of each class in a split."""
    return {name: count for name, count in tree.counts.get(split, {}).items() if name}


def _files(tree: Tree, indices: set[int]) -> Iterator[File]:
    for index, item in enumerate(tree.items()):
        if index in indices:
            yield File(item.source, tree.places[tree.codes[index]].split)
