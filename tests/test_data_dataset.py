"""Labelled images in every layout that users have, and every way in which they may not fit."""

import io
import json
import os
import random
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regnet.data.archives import SharedFile
from regnet.data.class_folders import folder_labels
from regnet.data.dataset import Dataset, open_dataset, sample
from regnet.data.zip_stream import read_entry, zip_entries
from regnet.doctor.tree import open_tree
from regnet.network.labels import Label, Labels, imagenet_labels, read_labels
from regnet.system.errors import DatasetError, ImageError
from regnet.training.photo_sets import open_photo_sets

PETS: Labels = (
    Label("n00000001", "tabby, tabby cat"),
    Label("n00000002", "red fox, Vulpes vulpes"),
    Label("n00000003", "crane"),
    Label("n00000004", "crane"),
)
WNIDS = [label.wnid for label in PETS]
Files = dict[str, bytes]


def files_of(folders: list[str], *, images: int = 2, top: str = "") -> Files:
    """Return files that are images by name, a few a folder; the bytes tell them apart."""
    return {
        f"{top}{folder}/{number}.JPEG": f"{folder} {number}".encode()
        for folder in folders
        for number in range(images)
    }


def as_folder(files: Files, path: Path) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def as_zip(files: Files, path: Path) -> Path:
    path = path.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def as_tar(files: Files, path: Path, suffix: str = ".tar") -> Path:
    path = path.with_suffix(suffix)
    with tarfile.open(path, "w:gz" if suffix == ".tgz" else "w") as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def as_tgz(files: Files, path: Path) -> Path:
    return as_tar(files, path, ".tgz")


Pack = Callable[[Files, Path], Path]
every_container = pytest.mark.parametrize("pack", [as_folder, as_zip, as_tar, as_tgz])


def contents(dataset: Dataset) -> dict[str, int]:
    """Return the truth of each image by its bytes."""
    found = {item.read().decode(): item.truth for item in dataset.items()}
    assert len(found) == dataset.count
    return found


EXPECTED = {f"{wnid} {n}": index for index, wnid in enumerate(WNIDS) for n in range(2)}


# Class folders


@every_container
@pytest.mark.parametrize("top", ["", "val/", "data/ILSVRC/val/"])
def test_class_folders_by_wnid(pack: Pack, top: str, tmp_path: Path) -> None:
    dataset = open_dataset(pack(files_of(WNIDS, top=top), tmp_path / "data"), PETS)
    assert contents(dataset) == EXPECTED
    assert (dataset.count, dataset.classes, dataset.missing) == (8, (0, 1, 2, 3), ())
    assert contents(dataset) == EXPECTED  # again


@every_container
def test_sources_are_found_again(pack: Pack, tmp_path: Path) -> None:
    dataset = open_dataset(pack(files_of(WNIDS, top="val/"), tmp_path / "data"), PETS)
    items = list(dataset.items())
    found = dataset.find([items[5].source, items[1].source, "no such image"])
    assert {s: item.read() for s, item in found.items()} == {
        items[i].source: items[i].read() for i in (1, 5)
    }
    assert [i.source for i in dataset.items(3)] == [i.source for i in items[3:]]
    assert list(dataset.items(8)) == []
    assert all(item.source.startswith(dataset.path) for item in items)


@pytest.mark.parametrize(
    "folder",
    ["red fox", "Red_Fox", "VULPES VULPES", "red fox, Vulpes vulpes", "n00000002-red_fox"],
)
def test_class_folders_by_name(folder: str, tmp_path: Path) -> None:
    path = as_folder(files_of(["tabby_cat", folder, *WNIDS[2:]]), tmp_path)
    assert contents(open_dataset(path, PETS))[f"{folder} 0"] == 1


def test_images_deeper_in_a_class_folder_count(tmp_path: Path) -> None:
    """Tiny ImageNet's train/<wnid>/images/*.JPEG, with its boxes beside."""
    files = files_of([f"{wnid}/images" for wnid in WNIDS], top="train/")
    files |= {f"train/{wnid}/{wnid}_boxes.txt": b"x" for wnid in WNIDS}
    dataset = open_dataset(as_folder(files, tmp_path), PETS)
    assert contents(dataset) == {f"{w}/images {n}": i for i, w in enumerate(WNIDS) for n in (0, 1)}


def test_a_folder_inside_an_archive(tmp_path: Path) -> None:
    files = files_of(WNIDS, top="val/") | files_of(WNIDS, images=3, top="train/")
    for pack in (as_zip, as_tar):
        assert open_dataset(pack(files, tmp_path / "x") / "val", PETS).count == 8
        assert open_dataset(pack(files, tmp_path / "x") / "train", PETS).count == 12
        with pytest.raises(DatasetError, match="has no images"):
            open_dataset(pack(files, tmp_path / "x") / "test", PETS)


@pytest.mark.parametrize("pack", [as_folder, as_zip, as_tar])
def test_several_archives_as_one(pack: Pack, tmp_path: Path) -> None:
    pack(files_of(WNIDS[:2], top="train/"), tmp_path / "part-0")
    pack(files_of(WNIDS[2:], top="train/"), tmp_path / "part-1")
    dataset = open_dataset(f"{tmp_path}/part-*", PETS)
    assert contents(dataset) == EXPECTED
    source = list(dataset.items())[5].source
    assert dataset.find([source])[source].read() == list(dataset.items())[5].read()


@every_container
@pytest.mark.parametrize("top", ["", "imagenet/"])
def test_splits_are_named_never_scored(pack: Pack, top: str, tmp_path: Path) -> None:
    files = files_of(WNIDS, top=f"{top}val/") | files_of(WNIDS, top=f"{top}train/")
    with pytest.raises(DatasetError, match=rf"splits train, val: name one, .*{top}train or .*val"):
        open_dataset(pack(files, tmp_path / "data"), PETS, subset=True)


def test_splits_that_are_also_class_names_are_splits(tmp_path: Path) -> None:
    path = as_folder(files_of(["train", "test"]), tmp_path)
    with pytest.raises(DatasetError, match="splits test, train"):
        open_dataset(path, (Label("", "train"), Label("", "test")))


@every_container
def test_unknown_class_folders_are_listed(pack: Pack, tmp_path: Path) -> None:
    files = files_of([*WNIDS, "n09999999", "poodle"])
    with pytest.raises(DatasetError, match=r"not know 2 of the class .*: n09999999, poodle;"):
        open_dataset(pack(files, tmp_path / "data"), PETS, subset=True)


def test_many_unknown_class_folders_are_counted(tmp_path: Path) -> None:
    path = as_folder(files_of([*WNIDS, *(f"x{i:02}" for i in range(30))]), tmp_path)
    with pytest.raises(DatasetError, match=r"x00, x01, .*x09, \.\.\. \(30 in all\)"):
        open_dataset(path, PETS)


def test_missing_classes_are_listed_unless_a_subset_is_meant(tmp_path: Path) -> None:
    path = as_folder(files_of(WNIDS[1:3]), tmp_path)
    with pytest.raises(DatasetError, match=r"2 of the model's 4 .*: n00000001 tabby, n00000004"):
        open_dataset(path, PETS)
    dataset = open_dataset(path, PETS, subset=True)
    assert (dataset.classes, dataset.missing) == ((1, 2), (0, 3))


def test_ambiguous_names_are_listed_with_their_wnids(tmp_path: Path) -> None:
    path = as_folder(files_of([*WNIDS[:2], "crane"]), tmp_path)
    with pytest.raises(DatasetError, match=r"crane \(n00000003 crane or n00000004 crane\).*wnid"):
        open_dataset(path, PETS, subset=True)


@pytest.mark.parametrize("folder", ["crane", "maillot", "Cardigan", "sunglass", "sunglasses"])
def test_imagenets_ambiguous_names(folder: str, tmp_path: Path) -> None:
    path = as_folder(files_of([folder]), tmp_path)
    meant = [label for label in imagenet_labels() if folder.lower() in synonyms(label)]
    whole = [index for index, label in enumerate(imagenet_labels()) if label.name == folder]
    if len(meant) == 1 or len(whole) == 1:
        dataset = open_dataset(path, imagenet_labels(), subset=True)
        assert dataset.count == 2
        assert dataset.classes == tuple(whole) or len(meant) == 1
    else:
        with pytest.raises(DatasetError, match=f"{meant[0].wnid}.* or {meant[1].wnid}"):
            open_dataset(path, imagenet_labels(), subset=True)


def synonyms(label: Label) -> list[str]:
    return [name.strip().lower() for name in label.name.split(",")]


def test_whole_names_of_all_classes_are_clear(tmp_path: Path) -> None:
    labels = (Label("n1", "maillot"), Label("n2", "maillot, tank suit"), Label("n3", "cat"))
    path = as_folder(files_of([label.name for label in labels]), tmp_path)
    assert contents(open_dataset(path, labels))["maillot, tank suit 0"] == 1


@pytest.mark.parametrize(
    ("folder", "truth"), [("small", 2), ("Small", 2), ("dog, small", 1), ("large", 0)]
)
def test_a_class_s_whole_name_is_not_a_synonym_of_another(
    folder: str, truth: int, tmp_path: Path
) -> None:
    labels = tuple(Label("", name) for name in ("dog, large", "dog, small", "small"))
    path = as_folder(files_of([folder]), tmp_path)
    assert open_dataset(path, labels, subset=True).classes == (truth,)
    with pytest.raises(DatasetError, match="several classes"):
        open_dataset(as_folder(files_of(["dog"]), tmp_path / "dog"), labels, subset=True)


def test_a_class_list_with_a_name_twice_is_not_guessed(tmp_path: Path) -> None:
    labels = (Label("n1", "maillot"), Label("n2", "maillot, tank suit"))
    for names, truths in ((["maillot"] * 2, (0, 1)), (["maillot", "cat", "maillot"], None)):
        path = write_parquet(tmp_path / "x.parquet", structs(2), [0, len(names) - 1], names=names)
        if truths:
            assert open_dataset(path, labels).classes == truths
            continue
        with pytest.raises(DatasetError, match="several classes"):
            open_dataset(path, labels)


def test_all_indices_are_classes_but_not_some(tmp_path: Path) -> None:
    """ImageNetV2 has the folders 0 to 999; sorted as text 10 would come before 2."""
    labels = tuple(Label(f"n{i:08}", f"thing {i}") for i in range(12))
    dataset = open_dataset(as_folder(files_of(list(map(str, range(12)))), tmp_path / "a"), labels)
    assert contents(dataset)["10 0"] == 10
    with pytest.raises(DatasetError, match="not know 11"):
        path = as_folder(files_of(list(map(str, range(1, 12)))), tmp_path / "b")
        open_dataset(path, labels, subset=True)


def test_images_outside_the_class_folders_are_listed(tmp_path: Path) -> None:
    path = as_folder(files_of(WNIDS) | {"stray.png": b"?"}, tmp_path)
    with pytest.raises(DatasetError, match=r"outside the class folders of .*: stray\.png"):
        open_dataset(path, PETS)


def test_hidden_and_other_files_do_not_count(tmp_path: Path) -> None:
    extra = {".cache/x.jpg": b"", "__MACOSX/x.jpg": b"", "README.md": b"", f"{WNIDS[0]}/x.txt": b""}
    assert open_dataset(as_zip(files_of(WNIDS) | extra, tmp_path / "x"), PETS).count == 8


# No data set


def test_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "broken.tar").write_bytes(b"no tar" * 300)
    (tmp_path / "short.tgz").write_bytes(b"\x1f\x8b\x08\0\0")
    for name, message in {
        "empty": "has no images",
        "text.txt": "is not a data set",
        "broken.zip": "truncated",
        "broken.tar": "corrupt",
        "short.tgz": "corrupt",
        "missing": "no such file",
        "none-*.zip": "no such file",
        "text.txt/val": "is not a data set",
        "nul\0": "no such file|cannot open",
    }.items():
        with pytest.raises(DatasetError, match=message):
            open_dataset(tmp_path / name, PETS)


@pytest.mark.parametrize("pack", [as_zip, as_tar, as_tgz])
def test_archives_without_images(pack: Pack, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has no images"):
        open_dataset(pack({"a.txt": b"x"}, tmp_path / "x"), PETS)


def test_a_model_without_labels(tmp_path: Path) -> None:
    numbered = tuple(Label("", f"class {i}") for i in range(4))
    path = as_folder(files_of([f"class {i}" for i in range(4)]), tmp_path)
    with pytest.raises(DatasetError, match=r"does not name its 4 classes.*--labels"):
        open_dataset(path, numbered)


def test_unreadable_images_fail_alone(tmp_path: Path) -> None:
    path = as_folder(files_of(WNIDS), tmp_path)
    (path / WNIDS[0] / "link.jpg").symlink_to("nowhere")
    readable = []
    for item in open_dataset(path, PETS).items():
        try:
            readable.append(item.read())
        except ImageError:
            assert item.source.endswith("link.jpg")
    assert len(readable) == 8


@pytest.mark.parametrize("change", ["add", "remove", "rename", "last"])
def test_changes_while_in_use_are_noticed(change: str, tmp_path: Path) -> None:
    path = as_folder(files_of(WNIDS), tmp_path)
    dataset = open_dataset(path, PETS)
    if change == "add":
        (path / WNIDS[0] / "00.JPEG").write_bytes(b"")
    elif change == "remove":
        (path / WNIDS[0] / "0.JPEG").unlink()
    elif change == "rename":
        (path / WNIDS[0] / "0.JPEG").rename(path / WNIDS[0] / "7.JPEG")
    else:
        (path / WNIDS[3] / "1.JPEG").unlink()
    with pytest.raises(DatasetError, match="changed while it was in use"):
        list(dataset.items())


def test_fingerprint_tells_data_sets_apart(tmp_path: Path) -> None:
    def fingerprint(name: str, files: Files, labels: Labels = PETS) -> str:
        return open_dataset(as_folder(files, tmp_path / name), labels, subset=True).fingerprint

    files = files_of(WNIDS)
    first = fingerprint("a", files)
    assert fingerprint("b", files) == first
    other = dict(list(files.items())[1:])
    assert fingerprint("c", other) != first
    assert fingerprint("d", files | {f"{WNIDS[0]}/0.JPEG": b"longer than before"}) != first
    assert fingerprint("e", files, PETS[::-1]) != first


# Flat, with a file of labels

FLAT = [f"ILSVRC2012_val_{n:08}.JPEG" for n in range(1, 9)]
FLAT_TRUTH = [3, 0, 1, 2, 2, 1, 0, 3]
FLAT_FILES: Files = {name: name.encode() for name in FLAT}
SIX: Labels = tuple(imagenet_labels()[:4])


def devkit_numbers() -> list[int]:
    """Return a devkit-like order: number i + 1 is for the class at place i of the sorted wnids."""
    numbers = list(range(1, 1001))
    random.Random(7).shuffle(numbers)
    return numbers


def map_clsloc() -> bytes:
    pairs = zip(imagenet_labels(), devkit_numbers(), strict=True)
    return "".join(f"{label.wnid} {n} some_name\n" for label, n in pairs).encode()


def ground_truth() -> bytes:
    return "".join(f"{devkit_numbers()[truth]}\n" for truth in FLAT_TRUTH).encode()


TRUTH_FILES: dict[str, Files] = {
    "val.txt": {
        "val.txt": "".join(f"{n} {t}\n" for n, t in zip(FLAT, FLAT_TRUTH, strict=True)).encode()
    },
    "val.txt with folders": {
        "val.txt": "".join(
            f"val/{n} {t}\r\n" for n, t in zip(FLAT, FLAT_TRUTH, strict=True)
        ).encode()
    },
    "val.txt with wnids": {
        "val.txt": "".join(
            f"{n}\t{SIX[t].wnid}\t1\t2\n" for n, t in zip(FLAT, FLAT_TRUTH, strict=True)
        ).encode()
    },
    "Kaggle": {
        "LOC_val_solution.csv": b"ImageId,PredictionString\n"
        + b"".join(
            f"{n[:-5]},{SIX[t].wnid} 1 2 3 4 {SIX[t].wnid} 5 6 7 8 \n".encode()
            for n, t in reversed(list(zip(FLAT, FLAT_TRUTH, strict=True)))
        )
    },
    "devkit": {
        "ILSVRC2012_validation_ground_truth.txt": ground_truth(),
        "map_clsloc.txt": map_clsloc(),
    },
    "synset labels": {
        "imagenet_2012_validation_synset_labels.txt": "\n".join(
            SIX[t].wnid for t in FLAT_TRUTH
        ).encode()
    },
}


@every_container
@pytest.mark.parametrize("form", TRUTH_FILES)
@pytest.mark.parametrize("top", ["", "imagenet/val/"])
def test_flat_with_a_file_of_labels_beside(pack: Pack, form: str, top: str, tmp_path: Path) -> None:
    files = {f"{top}{n}": d for n, d in {**FLAT_FILES, **TRUTH_FILES[form]}.items()}
    dataset = open_dataset(pack(files, tmp_path / "data"), SIX)
    assert contents(dataset) == dict(zip(FLAT, FLAT_TRUTH, strict=True))


@every_container
@pytest.mark.parametrize("form", TRUTH_FILES)
def test_flat_with_a_file_of_labels_given(pack: Pack, form: str, tmp_path: Path) -> None:
    labels = as_folder(TRUTH_FILES[form], tmp_path / "devkit")
    truth = next(labels / name for name in TRUTH_FILES[form] if name != "map_clsloc.txt")
    dataset = open_dataset(pack(FLAT_FILES, tmp_path / "data"), SIX, truth=truth)
    assert contents(dataset) == dict(zip(FLAT, FLAT_TRUTH, strict=True))


def test_the_devkits_own_order_is_not_the_models(tmp_path: Path) -> None:
    files = FLAT_FILES | {"ILSVRC2012_validation_ground_truth.txt": ground_truth()}
    with pytest.raises(DatasetError, match=r"not the order of the model.*meta\.mat or map_clsloc"):
        open_dataset(as_folder(files, tmp_path), SIX)


def test_the_devkits_meta_mat(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    np = pytest.importorskip("numpy")
    rows = [*zip(devkit_numbers(), (label.wnid for label in imagenet_labels()), strict=True)]
    rows += [(1001, "n00001740"), (1002, "n00001930")]  # inner nodes
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    synsets = np.array([[(n, w, "w", int(n > 1000))] for n, w in sorted(rows)], dtype=kind)
    files = FLAT_FILES | {"ILSVRC2012_validation_ground_truth.txt": ground_truth()}
    path = as_folder(files, tmp_path)
    scipy_io.savemat(path / "meta.mat", {"synsets": synsets})
    assert contents(open_dataset(path, SIX)) == dict(zip(FLAT, FLAT_TRUTH, strict=True))
    (path / "meta.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    with pytest.raises(DatasetError, match=r"meta\.mat cannot be read"):
        open_dataset(path, SIX)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("n01440764 1 tench\n", "has 1 classes: expected 1 to 1000"),
        ("", "has 0 classes"),
        ("\n".join(f"n01440764 {n}" for n in range(1, 1001)), "each with its wnid"),
    ],
)
def test_a_devkit_order_that_is_none(lines: str, message: str, tmp_path: Path) -> None:
    files = {"ILSVRC2012_validation_ground_truth.txt": ground_truth()}
    path = as_folder(FLAT_FILES | files | {"map_clsloc.txt": lines.encode()}, tmp_path)
    with pytest.raises(DatasetError, match=message):
        open_dataset(path, SIX)


def test_tiny_imagenets_own_val(tmp_path: Path) -> None:
    files: Files = {f"images/val_{n}.JPEG": f"val_{n}".encode() for n in range(8)}
    lines = [f"val_{n}.JPEG\t{WNIDS[n % 4]}\t0\t32\t44\t62\n" for n in range(8)]
    files["val_annotations.txt"] = "".join(lines).encode()
    expected = {f"val_{n}": n % 4 for n in range(8)}
    assert contents(open_dataset(as_folder(files, tmp_path / "val"), PETS)) == expected
    inside = {f"tiny-imagenet-200/val/{name}": data for name, data in files.items()}
    assert contents(open_dataset(as_zip(inside, tmp_path / "x"), PETS)) == expected


def test_a_csv_with_names(tmp_path: Path) -> None:
    truth = as_folder({"t.csv": b'file,label\na.jpg,"tabby, tabby cat"\nb.jpg,red_fox\n'}, tmp_path)
    path = as_folder({"a.jpg": b"a", "b.jpg": b"b"}, tmp_path / "images")
    dataset = open_dataset(path, PETS, truth=truth / "t.csv", subset=True)
    assert contents(dataset) == {"a": 0, "b": 1}


def test_a_list_of_paths_in_class_folders(tmp_path: Path) -> None:
    """The same names in several folders are told apart by their paths."""
    files = files_of(["a", "b"])
    truth = as_folder({"t.txt": b"a/0.JPEG 3\na/1.JPEG 2\nb/0.JPEG 1\nb/1.JPEG 0\n"}, tmp_path)
    dataset = open_dataset(as_zip(files, tmp_path / "x"), PETS, truth=truth / "t.txt")
    assert contents(dataset) == {"a 0": 3, "a 1": 2, "b 0": 1, "b 1": 0}


def test_class_folders_win_over_a_list_beside_them(tmp_path: Path) -> None:
    files = files_of(WNIDS) | {"val.txt": b"nothing of 1\nthe like 2\n"}
    assert contents(open_dataset(as_folder(files, tmp_path), PETS)) == EXPECTED


def test_flat_with_the_wnid_in_each_name(tmp_path: Path) -> None:
    names = {f"ILSVRC2012_val_{n:08}_{WNIDS[n % 4]}.JPEG": n % 4 for n in range(4)}
    names |= {f"{WNIDS[2]}_crane.JPEG": 2, f"{WNIDS[1]}_1234.JPEG": 1}
    path = as_folder({name: name.encode() for name in names}, tmp_path)
    assert contents(open_dataset(path, PETS)) == names


def test_flat_without_labels_says_how_to_give_them(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"put one of val\.txt, .* beside .*--truth FILE"):
        open_dataset(as_folder(FLAT_FILES, tmp_path), SIX)


MISFITS = {
    "a line too many": (lambda rows: [*rows, "other.JPEG 1"], r"no image for 1 label: other"),
    "a line too few": (lambda rows: rows[1:], r"no label for 1 image: xILSVRC2012_val_00000001"),
    "a line twice": (lambda rows: [*rows, rows[0]], r"more than once: xILSVRC2012_val_00000001"),
    "out of range": (
        lambda rows: [f"{rows[0][:-1]}4", *rows[1:]],
        r"are 0 to 3, .*out of range: 4",
    ),
    "negative": (lambda rows: [f"{rows[0][:-1]}-1", *rows[1:]], r"not know .*-1"),
    "no class": (lambda rows: [*rows, "y.JPEG"], r"not NAME and CLASS: y\.JPEG"),
    "unknown wnid": (lambda rows: [f"{rows[0][:-1]}n09999999", *rows[1:]], r"not know .*n09999999"),
    "empty": (lambda rows: [], r"has no lines"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_labels_that_do_not_fit(misfit: str, tmp_path: Path) -> None:
    change, message = MISFITS[misfit]
    names = [f"x{name}" for name in FLAT]  # not ImageNet's own: plain indices
    path = as_folder(dict.fromkeys(names, b""), tmp_path / "images")
    rows = [f"{n} {t}" for n, t in zip(names, FLAT_TRUTH, strict=True)]
    (tmp_path / "t.txt").write_text("\n".join(change(rows)))
    with pytest.raises(DatasetError, match=message):
        open_dataset(path, PETS, truth=tmp_path / "t.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3".replace(" ", "\n"), "no label for 5 images"),
        ("\n".join(["n01440764"] * 9), "no image for 1 label: ILSVRC2012_val_00000009"),
        ("ImageId,PredictionString\nx,\ny,n1 1 2 3 4 n2 1 2 3 4\n", "without one class: x,, y,n1"),
        ("\n".join(["1001"] * 8), "1 to 1000, not 1001"),
        ("\n".join(["0"] * 8), "0-based index needs the image's name"),
    ],
)
def test_forms_that_do_not_fit(text: str, message: str, tmp_path: Path) -> None:
    path = as_folder(FLAT_FILES, tmp_path / "images")
    as_folder({"t.txt": text.encode(), "map_clsloc.txt": map_clsloc()}, tmp_path)
    with pytest.raises(DatasetError, match=message):
        open_dataset(path, imagenet_labels(), truth=tmp_path / "t.txt", subset=False)


def test_labels_that_are_no_text(tmp_path: Path) -> None:
    path = as_folder(FLAT_FILES, tmp_path / "images")
    (tmp_path / "t.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="not UTF-8 text"):
        open_dataset(path, SIX, truth=tmp_path / "t.txt")
    with pytest.raises(DatasetError, match="cannot read the labels"):
        open_dataset(path, SIX, truth=tmp_path / "none.txt")


def test_part_of_the_images_fits_the_whole_list_as_a_subset(tmp_path: Path) -> None:
    files = dict(list(FLAT_FILES.items())[2:5]) | TRUTH_FILES["val.txt"]
    with pytest.raises(DatasetError, match="no image for 5 labels"):
        open_dataset(as_folder(files, tmp_path), SIX)
    dataset = open_dataset(tmp_path, SIX, subset=True)
    assert contents(dataset) == dict(zip(FLAT[2:5], FLAT_TRUTH[2:5], strict=True))


def test_imagenets_indices_reach_other_models_by_wnid(tmp_path: Path) -> None:
    """Index 2 of val.txt is the great white shark also for a model that has it elsewhere."""
    dataset = open_dataset(
        as_folder(FLAT_FILES | TRUTH_FILES["val.txt"], tmp_path), tuple(reversed(SIX))
    )
    assert contents(dataset) == {n: 3 - t for n, t in zip(FLAT, FLAT_TRUTH, strict=True)}


# Parquet


def write_parquet(
    path: Path,
    images: list[Any],
    labels: list[Any],
    *,
    names: list[str] | None = None,
    columns: tuple[str, str] = ("image", "label"),
    group: int = 3,
) -> Path:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    table = pa.table({columns[0]: images, columns[1]: labels})
    if names is not None:
        features = {"pixels": {"_type": "Image"}, "y": {"_type": "ClassLabel", "names": names}}
        info = {"info": {"features": dict(zip(columns, features.values(), strict=True))}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)
    return path


def structs(count: int, *, first: int = 0) -> list[dict[str, Any]]:
    return [{"bytes": f"image {first + i}".encode(), "path": None} for i in range(count)]


def test_parquet_with_indices(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", structs(8), [3, 2, 1, 0] * 2)
    dataset = open_dataset(path, PETS)
    assert contents(dataset) == {f"image {i}": 3 - i % 4 for i in range(8)}
    items = list(dataset.items())
    assert items[5].source == f"{path}#5"
    assert [item.source for item in dataset.items(4)] == [item.source for item in items[4:]]
    found = dataset.find([items[7].source, items[2].source, f"{path}#8", f"{path}#x", "other"])
    assert {s: i.read() for s, i in found.items()} == {
        f"{path}#7": b"image 7",
        f"{path}#2": b"image 2",
    }


def test_parquet_with_a_class_list_of_its_own(tmp_path: Path) -> None:
    names = ["red fox", "tabby", *WNIDS[2:]]
    path = write_parquet(tmp_path / "x.parquet", structs(4), [0, 1, 2, 3], names=names)
    assert contents(open_dataset(path, PETS)) == {
        f"image {i}": t for i, t in enumerate([1, 0, 2, 3])
    }


def test_parquet_class_list_in_the_models_order_settles_ambiguous_names(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "x.parquet",
        structs(4),
        [3, 2, 1, 0],
        names=["tabby", "red fox", "crane", "crane"],
    )
    assert contents(open_dataset(path, PETS))["image 0"] == 3
    path = write_parquet(tmp_path / "y.parquet", structs(2), [0, 1], names=["red fox", "crane"])
    with pytest.raises(DatasetError, match="several classes"):
        open_dataset(path, PETS, subset=True)


def test_parquet_classes_without_images_need_not_be_known(tmp_path: Path) -> None:
    names = ["poodle", "red fox"]
    path = write_parquet(tmp_path / "x.parquet", structs(2), [1, 1], names=names)
    assert open_dataset(path, PETS, subset=True).classes == (1,)
    path = write_parquet(tmp_path / "x.parquet", structs(2), [0, 1], names=names)
    with pytest.raises(DatasetError, match=r"not know 1 of the labels in .*: poodle"):
        open_dataset(path, PETS, subset=True)


def test_parquet_with_names_and_plain_bytes(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "x.parquet", [b"a", b"b"], ["Red_fox", "n00000003"], columns=("jpg", "wnid")
    )
    assert contents(open_dataset(path, PETS, subset=True)) == {"a": 1, "b": 2}


def test_parquet_shards_count_as_one(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for shard in range(3):
        images = structs(5, first=5 * shard)
        name = f"train-{shard:05}-of-00003.parquet"
        write_parquet(data / name, images, [0, 1, 2, 3, shard], group=2)
    truths = {f"image {5 * s + i}": t for s in range(3) for i, t in enumerate([0, 1, 2, 3, s])}
    for path in (data, tmp_path, f"{data}/train-*.parquet"):
        dataset = open_dataset(path, PETS)
        assert contents(dataset) == truths
        assert [i.read() for i in dataset.items(7)][:2] == [b"image 7", b"image 8"]


@pytest.mark.parametrize("name", ["{}-00000-of-00001.parquet", "{}/0000.parquet", "{}.parquet"])
def test_parquet_splits_are_named_never_mixed(name: str, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write_parquet(tmp_path / name.format(split), structs(4), [0, 1, 2, 3])
    with pytest.raises(DatasetError, match=r"splits train, validation: name one, .*validation"):
        open_dataset(tmp_path, PETS)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2, 4], "0 to 3, not 4"),
        ([0, 1, 2, -1], "without a label"),
        ([0, 1, 2, None], "without a label"),
        (["tabby", "n00000002", "poodle", "x"], "not know 2 of the labels"),
        ([0.5, 1.0, 2.0, 3.0], "which column is the label"),
    ],
)
def test_parquet_labels_that_do_not_fit(labels: list[Any], message: str, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", structs(4), labels)
    with pytest.raises(DatasetError, match=message):
        open_dataset(path, PETS)


def test_parquet_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and so on PAR1")
    with pytest.raises(DatasetError, match="cannot read"):
        open_dataset(tmp_path / "x.parquet", PETS)
    path = write_parquet(tmp_path / "y.parquet", [1.5], [0])
    with pytest.raises(DatasetError, match=r"which column is the image\? There are image, label"):
        open_dataset(path, PETS)
    path = write_parquet(tmp_path / "z.parquet", [b"x"], [0])
    with pytest.raises(DatasetError, match="leave out"):
        open_dataset(path, PETS, truth="t.txt")


def test_parquet_rows_without_bytes_fail_alone(tmp_path: Path) -> None:
    images = [{"bytes": b"x", "path": "a"}, {"bytes": None, "path": "b"}, None]
    path = write_parquet(tmp_path / "x.parquet", images, [0, 1, 2])
    items = list(open_dataset(path, PETS, subset=True).items())
    assert items[0].read() == b"x"
    for item, reason in zip(
        items[1:], ("b: cannot be read: No such file", "no bytes"), strict=True
    ):
        with pytest.raises(ImageError, match=reason):
            item.read()


@pytest.mark.parametrize("column", ["file_name", "image", "image_path"])
@pytest.mark.parametrize("kind", ["text", "structs", "structs without bytes"])
def test_parquet_rows_with_paths(column: str, kind: str, tmp_path: Path) -> None:
    names = [
        "a.jpg",
        "in/b.jpg",
        "gone.jpg",
        str(tmp_path / "c.jpg"),
        "in\\b.jpg",
        "http://x/a.jpg",
    ]
    as_folder({"a.jpg": b"a", "in/b.jpg": b"b"}, tmp_path / "data")
    as_folder({"c.jpg": b"c"}, tmp_path)
    images: list[Any] = {
        "text": names,
        "structs": [{"bytes": b"own" if n == 0 else None, "path": p} for n, p in enumerate(names)],
        "structs without bytes": [{"path": name} for name in names],
    }[kind]
    labels = ["tabby", "red fox", WNIDS[2], WNIDS[3], "tabby", "tabby"]
    path = write_parquet(tmp_path / "data" / "x.parquet", images, labels, columns=(column, "label"))
    a, b, gone, c, windows, address = open_dataset(path, PETS).items()
    assert a.read() == (b"own" if kind == "structs" else b"a")
    assert (b.read(), c.read(), windows.read()) == (b"b", b"c", b"b")
    assert (b.truth, b.source) == (1, f"{path}#1")
    with pytest.raises(ImageError, match=r"gone\.jpg: cannot be read: No such file"):
        gone.read()
    with pytest.raises(ImageError, match="addresses in a Parquet file are not opened"):
        address.read()


def test_parquet_that_numbers_the_names_of_classes(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", structs(3), [2, 5, 7])
    labels = folder_labels(path)
    assert [label.name for label in labels] == ["2", "5", "7"]
    assert contents(open_dataset(path, labels)) == {"image 0": 0, "image 1": 1, "image 2": 2}


@pytest.mark.parametrize("named", [True, False])
def test_a_training_and_the_doctor_read_parquet(named: bool, tmp_path: Path) -> None:
    names = ["tabby", "red fox", "crane"]
    for split, first in (("train", 0), ("validation", 100), ("test", 200)):
        for shard in range(2):
            numbers = [n % 3 for n in range(30)]
            write_parquet(
                tmp_path / "data" / f"{split}-{shard:05}-of-00002.parquet",
                structs(30, first=first + 30 * shard),
                numbers if named else [names[n] for n in numbers],
                names=names if named else None,
            )
    sets = open_photo_sets(tmp_path, None, None, seed=0)
    assert [label.name for label in sets.labels] == (names if named else sorted(names))
    assert (len(sets.train), sets.held_out) == (60, False)
    assert sets.train[0].read() == b"image 0"
    assert sets.validation is not None
    assert next(sets.validation.items()).read() == b"image 100"
    assert "test is not used" in " ".join(finding.text for finding in sets.findings)
    tree = open_tree(tmp_path)
    assert tree.counts == {s: dict.fromkeys(tree.classes, 20) for s in ("train", "val", "test")}
    places = {(i.read(), p.label) for i, p in zip(tree.items(), tree.places, strict=True)}
    assert {(b"image 0", "tabby"), (b"image 101", "red fox"), (b"image 202", "crane")} <= places


# Zips in constant memory


names = st.text(
    st.characters(exclude_characters="\0/\\", exclude_categories=("Cs",)), min_size=1, max_size=9
)


@given(
    st.dictionaries(names, st.binary(max_size=300), max_size=8),
    st.booleans(),
    st.binary().filter(lambda data: b"PK" not in data),
)
def test_zips_are_read_as_the_standard_library_does(
    files: Files, deflated: bool, before: bytes
) -> None:
    buffer = io.BytesIO(before)
    buffer.seek(0, os.SEEK_END)
    method = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "a", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.comment = b"a comment"
    shared = SharedFile(buffer)
    entries = list(zip_entries(shared))
    with zipfile.ZipFile(buffer) as archive:
        assert [e.name for e in entries] == [i.filename for i in archive.infolist()]
        for entry in entries:
            assert read_entry(shared, entry, 1 << 20) == archive.read(entry.name)


def test_zip64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 500)  # of 4 GB, to have one that is not large
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 5)
    files = {f"{number}.png": bytes([number]) * 100 * number for number in range(12)}
    data = as_zip(files, tmp_path / "x").read_bytes()
    assert b"PK\x06\x06" in data
    assert b"\xff\xff\xff\xff" in data
    shared = SharedFile(io.BytesIO(b"before" + data))
    assert {e.name: read_entry(shared, e, 1 << 20) for e in zip_entries(shared)} == files


@given(st.data())
def test_damaged_zips_never_give_other_bytes(data: st.DataObject) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", b"abc" * 50)
        archive.writestr("b.png", b"xyz")
    raw = bytearray(buffer.getvalue())
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=4)):
        raw[place] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(1, len(raw))) :]
    shared = SharedFile(io.BytesIO(bytes(raw)))
    try:
        for entry in zip_entries(shared):
            read_entry(shared, entry, 1 << 20)
    except ImageError:
        pass


def test_zip_members_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", bytes(40 << 20), zipfile.ZIP_DEFLATED, 9)
        archive.writestr("b.png", b"x" * 100, zipfile.ZIP_BZIP2)
        archive.writestr("c.png", bytes(2000))
    shared = SharedFile(path.open("rb"))
    for entry, message in zip(
        zip_entries(shared), ("zip bomb", "neither stored nor", "over the limit"), strict=True
    ):
        with pytest.raises(ImageError, match=message):
            read_entry(shared, entry, 1000 if entry.name == "c.png" else 1 << 30)


PEAKS = """
import sys, tracemalloc
from regnet.data.dataset import open_dataset
from regnet.network.labels import Label
labels = tuple(Label(wnid, wnid) for wnid in sys.argv[1].split())
for path in sys.argv[2:]:
    tracemalloc.start()
    images = sum(1 for _ in open_dataset(path, labels).items())
    print(images, tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
"""


@pytest.mark.parametrize("pack", [as_folder, as_zip, as_tar])
def test_memory_does_not_grow_with_the_images(pack: Pack, tmp_path: Path) -> None:
    """In a process of its own: what other tests left behind is cleared at any time."""
    few, many = (str(pack(files_of(WNIDS, images=n), tmp_path / f"d{n}")) for n in (500, 1000))
    done = subprocess.run(
        [sys.executable, "-c", PEAKS, " ".join(WNIDS), few, many],
        capture_output=True,
        text=True,
        check=True,
    )
    (images_few, peak_few), (images_many, peak_many) = (
        map(int, line.split()) for line in done.stdout.splitlines()
    )
    assert (images_few, images_many) == (2000, 4000)
    assert peak_many - peak_few < 2000 * 150  # a folder sorts its names, no more


# Samples


def test_samples_are_drawn_once_and_for_all() -> None:
    chosen = sample(range(1000), 50)
    assert chosen == sample(iter(range(1000)), 50) == sorted(set(chosen))
    assert chosen != sample(range(1000), 50, seed=1)
    assert sample(range(3), 5) == [0, 1, 2]
    assert sample(range(3), 0) == []


def test_samples_are_even() -> None:
    counts = [0] * 20
    for seed in range(2000):
        for number in sample(range(20), 5, seed=seed):
            counts[number] += 1
    assert 420 < min(counts) <= max(counts) < 580  # 500 expected, deviation 19


# The shared data


def test_shared_validation_set(shared: Path) -> None:
    labels = read_labels(shared / "data" / "tiny-imagenet-200.classes.tsv")
    dataset = open_dataset(shared / "data" / "tiny-imagenet-200.val.zip", labels)
    assert (dataset.count, len(dataset.classes)) == (10_000, 200)
    for item in sample(dataset.items(), 20):
        assert labels[item.truth].wnid in item.source
        assert item.read().startswith(b"\xff\xd8")


def test_shared_full_size_photos(shared: Path) -> None:
    path = shared / "data" / "imagenette"
    dataset = open_dataset(path / "val", imagenet_labels(), subset=True)
    assert (dataset.count, len(dataset.classes), len(dataset.missing)) == (1000, 10, 990)
    with pytest.raises(DatasetError, match="splits train, val"):
        open_dataset(path, imagenet_labels(), subset=True)


def test_shared_photos_by_the_wnid_in_their_names(shared: Path, photos: list[Path]) -> None:
    dataset = open_dataset(shared / "data" / "photos", imagenet_labels(), subset=True)
    assert dataset.count == len(photos)
    for item in dataset.items():
        name = Path(item.source).stem.partition("_")[2].replace("_", " ").lower()
        assert name in synonyms(imagenet_labels()[item.truth])


@pytest.mark.parametrize("path", ["s3://bucket/photos", "https://me:secret@host/photos.zip"])
def test_addresses_are_no_data_sets(path: str) -> None:
    with pytest.raises(DatasetError, match="are read from disk, not from addresses") as caught:
        open_dataset(path, (Label("", "cat"),))
    assert "secret" not in str(caught.value)
