"""Photos by split and class, from whatever the folders say."""

import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from regnet.doctor.quick import layout_findings
from regnet.doctor.tree import open_tree
from regnet.system.errors import DatasetError


def write(folder: Path, names: list[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


CLASSES = ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/deep/2.png"]
SPLITS = ["train/cat/1.jpg", "train/dog/1.jpg", "train/dog/2.jpg", "Validation/cat/3.jpg"]
IN_CLASSES = {"": {"cat": 2, "dog": 2}}
IN_SPLITS = {"train": {"cat": 1, "dog": 2}, "val": {"cat": 1}}


@pytest.mark.parametrize(
    ("names", "layout", "counts"),
    [
        (CLASSES, "classes", IN_CLASSES),
        ([f"a/b/{name}" for name in CLASSES], "classes", IN_CLASSES),
        (SPLITS, "splits", IN_SPLITS),
        ([f"my data/{name}" for name in SPLITS], "splits", IN_SPLITS),
        (["train/cat/1.jpg", "train/dog/1.jpg"], "splits", {"train": {"cat": 1, "dog": 1}}),
        (["1.jpg", "2.jpg"], "flat", {"": {"": 2}}),
        (["train/1.jpg", "val/2.jpg"], "classes", {"": {"train": 1, "val": 1}}),
        (["bus/1.jpg", "train/1.jpg"], "classes", {"": {"bus": 1, "train": 1}}),
        (["train/1.jpg"], "classes", {"": {"train": 1}}),
        ([*SPLITS, "docs/1.png"], "splits", {**IN_SPLITS, "": {"": 1}}),
        ([*SPLITS, "train/x.jpg"], "splits", {**IN_SPLITS, "train": {"cat": 1, "dog": 2, "": 1}}),
        ([*CLASSES, "x.jpg"], "classes", {"": {"cat": 2, "dog": 2, "": 1}}),
        (["val/images/1.jpg", "train/n1/images/1.jpg"], "splits",
         {"train": {"n1": 1}, "val": {"images": 1}}),
    ],
)  # fmt: skip
def test_folders(names: list[str], layout: str, counts, tmp_path: Path) -> None:
    tree = open_tree(write(tmp_path, names))
    assert tree.layout == layout
    assert tree.counts == counts
    assert len(tree) == len(names)
    for item, place in zip(tree.items(), tree.places, strict=True):
        assert place.label in item.read().decode()


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_archives(suffix: str, tmp_path: Path) -> None:
    folder, path = write(tmp_path / "in", SPLITS), tmp_path / f"data{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in SPLITS:
                archive.write(folder / name, f"top/{name}")
    else:
        with tarfile.open(path, f"w:{suffix[5:]}") as archive:
            archive.add(folder, "top")
    tree = open_tree(path)
    assert tree.counts == IN_SPLITS
    assert sorted(item.read().decode() for item in tree.items()) == sorted(SPLITS)
    assert open_tree(f"{path}/top/train").counts == {"": {"cat": 1, "dog": 2}}


def test_several_archives_and_validation_photos_elsewhere(tmp_path: Path) -> None:
    for number in (1, 2):
        with zipfile.ZipFile(tmp_path / f"train-{number}.zip", "w") as archive:
            archive.writestr(f"train/cat/{number}.jpg", b"")
    write(tmp_path / "held out", ["cat/1.jpg", "emu/1.jpg"])
    (tmp_path / "held out" / "yak").mkdir()
    pattern = str(tmp_path / "train-*.zip")
    assert open_tree(pattern).counts == {"train": {"cat": 2}}
    both = open_tree(pattern, tmp_path / "held out")
    assert both.counts == {"train": {"cat": 2}, "val": {"cat": 1, "emu": 1, "yak": 0}}
    assert len(list(both.items())) == len(both) == 4
    assert both.training == "train"
    assert open_tree(tmp_path / "held out", pattern).counts["val"] == {"cat": 2}


def test_class_folders_without_photos(tmp_path: Path) -> None:
    write(tmp_path / "a", CLASSES)
    write(tmp_path / "b" / "in", SPLITS)
    for folder in ("a/emu", "a/.hidden", "b/in/train/emu", "b/in/Validation/dog", "b/in/other"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a" / "emu" / "notes.txt").write_text("none yet")
    assert open_tree(tmp_path / "a").counts == {"": {"cat": 2, "dog": 2, "emu": 0}}
    tree = open_tree(tmp_path / "b")
    assert tree.counts["train"]["emu"] == 0
    assert tree.counts["val"] == {"cat": 1, "dog": 0}
    assert tree.classes == ("cat", "dog", "emu")


def test_what_changes_meanwhile_is_an_error(tmp_path: Path) -> None:
    tree = open_tree(write(tmp_path, CLASSES))
    (tmp_path / "cat" / "0.jpg").write_bytes(b"new")
    with pytest.raises(DatasetError, match="changed"):
        list(tree.items())
    tree = open_tree(tmp_path)
    (tmp_path / "dog" / "1.jpg").unlink()
    with pytest.raises(DatasetError, match="changed"):
        list(tree.items())


@pytest.mark.parametrize("name", ["missing", "notes.txt", "missing.zip/train"])
def test_what_cannot_be_opened(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no photos")
    with pytest.raises(DatasetError):
        open_tree(tmp_path / name)


def found(folder: Path) -> dict[str, str]:
    return {finding.code: finding.severity for finding in layout_findings(open_tree(folder))}


def many(*places: str) -> list[str]:
    return [f"{place}/{number}.jpg" for place in places for number in range(12)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (many("train/a", "train/b", "val/a", "val/b"), {}),
        (many("a", "b"), {"no-validation": "note"}),
        (many("a"), {"one-class": "error", "no-validation": "note"}),
        ([], {"no-images": "error"}),
        (["1.jpg"], {"no-classes": "error"}),
        (many("train", "val"), {"splits-as-classes": "error", "no-validation": "note"}),
        (many("bus", "train"), {"splits-as-classes": "warning", "no-validation": "note"}),
        (many("bus", "car", "train/bus"), {"splits-as-classes": "error", "no-validation": "note"}),
        (many("val/a", "test/a"), {"no-images": "error"}),
        (many("train/a", "train/b", "val"), {"empty-split": "error", "stray": "error"}),
        (many("train/a", "train/b", "val/a", "val/b", "test/a", "test/c"),
         {"classes-not-in-training": "error", "classes-not-in-split": "warning",
          "empty-classes": "error"}),
        (many("a/train", "a/val", "b/train", "b/val"),
         {"splits-in-classes": "error", "no-validation": "note"}),
        ([*many("a", "b"), "x.jpg"], {"stray": "error", "no-validation": "note"}),
        ([*many("train/a", "train/b", "val/a", "val/b"), "x.jpg"], {"stray": "warning"}),
        ([*many("train/a", "train/b", "val/a", "val/b"), "val/x.jpg"], {"stray": "error"}),
    ],
)  # fmt: skip
def test_what_is_wrong_with_folders(names: list[str], expected: dict, tmp_path: Path) -> None:
    assert found(write(tmp_path, names)) == expected


@pytest.mark.skipif(os.name != "posix", reason="names of any bytes are a thing of POSIX")
def test_names_of_any_bytes(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)  # noqa: PTH102
    Path(os.fsdecode(folder), "1.jpg").write_bytes(b"x")
    write(tmp_path, ["tea/1.jpg"])
    findings = layout_findings(open_tree(tmp_path))
    assert all(finding.to_dict()["text"].encode() for finding in findings)
