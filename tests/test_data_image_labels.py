"""Images whose classes are not their folders': webdataset shards, and Hugging Face's metadata."""

import io
import json
import tarfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from regnet.data.class_folders import folder_labels, training_folders
from regnet.data.dataset import open_dataset
from regnet.doctor.findings import errors_of
from regnet.doctor.quick import layout_findings
from regnet.doctor.tree import open_tree
from regnet.network.labels import Label, Labels
from regnet.system.errors import DatasetError
from regnet.system.notices import SkippedFilesWarning
from regnet.training.photo_sets import open_photo_sets

PETS: Labels = (Label("", "cat"), Label("", "dog"), Label("", "emu"))
NAMES = [label.name for label in PETS]
NUMBERED: Labels = tuple(Label("", str(number)) for number in range(3))
IMAGES = 36


def tar(path: Path, files: Mapping[str, str]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def shard(path: Path, suffix: str, *, first: int = 0, images: int = IMAGES, top: str = "") -> Path:
    """Write a shard of images with labels beside them; an image holds the number of its class."""
    files = {}
    for number in range(first, first + images):
        label = number % 3
        said = {"cls": str(label), "txt": NAMES[label], "json": json.dumps({"label": label})}
        files[f"{top}{number:06}.{suffix}"] = said[suffix]  # the label may come first
        files[f"{top}{number:06}.jpg"] = str(label)
    return tar(path, files)


def truths(dataset: object, labels: Labels, **options: bool) -> list[tuple[str, int]]:
    items = open_dataset(str(dataset), labels, **options).items()
    return [(item.read().decode(), item.truth) for item in items]


@pytest.mark.parametrize("suffix", ["cls", "txt", "json"])
@pytest.mark.parametrize("name", ["a.tar", "a.tgz"])
@pytest.mark.parametrize("top", ["", "./", "data/x/"])
def test_the_labels_of_a_shard_are_an_evaluation_s(
    suffix: str, name: str, top: str, tmp_path: Path
) -> None:
    path = shard(tmp_path / name, suffix, top=top)
    found = truths(path, PETS)
    assert len(found) == IMAGES
    assert all(text == str(truth) for text, truth in found)
    assert open_dataset(path, PETS).classes == (0, 1, 2)


@pytest.mark.parametrize("suffix", ["cls", "txt", "json"])
def test_and_a_training_s_and_the_doctor_s(suffix: str, tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", suffix)
    sets = open_photo_sets(path, None, None, seed=0)
    assert [label.name for label in sets.labels] == (NAMES if suffix == "txt" else ["0", "1", "2"])
    assert {(item.read().decode(), item.truth) for item in sets.train} == {
        ("0", 0), ("1", 1), ("2", 2)
    }  # fmt: skip
    tree = open_tree(path)
    assert tree.classes == tuple(label.name for label in sets.labels)
    assert set(tree.counts[""].values()) == {IMAGES // 3}
    assert not errors_of(layout_findings(tree))
    for item, place in zip(tree.items(), tree.places, strict=True):
        assert tree.classes.index(place.label) == int(item.read())


@pytest.mark.parametrize("pattern", ["train-*.tar", "train-{000..002}.tar", "train-00{0,1,2}.tar"])
def test_shards_count_as_one(pattern: str, tmp_path: Path) -> None:
    for number in range(3):
        shard(tmp_path / f"train-00{number}.tar", "cls", first=10 * number, images=10)
    found = truths(tmp_path / pattern, PETS)
    assert found == [(str(number % 3), number % 3) for number in range(30)]
    assert len(open_tree(tmp_path / pattern)) == 30


def test_a_shard_of_braces_that_is_missing_is_an_error(tmp_path: Path) -> None:
    shard(tmp_path / "train-000.tar", "cls")
    with pytest.raises(DatasetError, match=r"no such file or folder: .*train-001\.tar"):
        open_dataset(tmp_path / "train-{000..001}.tar", PETS)


def test_numbers_are_given_names_by_the_model(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", "cls")
    sets = open_photo_sets(path, None, PETS, seed=0)
    assert sets.labels == PETS
    assert all(item.read().decode() == str(item.truth) for item in sets.train)


def test_what_a_shard_says_first_counts(tmp_path: Path) -> None:
    files = {"1.jpg": "1", "1.txt": "a dog on a lawn", "1.json": '{"label": 0}', "1.cls": "1\n"}
    path = tar(tmp_path / "a.tar", files)
    assert truths(path, PETS, subset=True) == [("1", 1)]
    del files["1.cls"]
    assert truths(tar(path, files), PETS, subset=True) == [("1", 0)]
    files["1.json"] = '{"label": 0, "class_name": "dog"}'  # another list's number
    assert truths(tar(path, files), PETS, subset=True) == [("1", 1)]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"1.jpg": "x", "1.cls": "0", "2.jpg": "x"}, r"no label for 1 image: 2\.jpg"),
        ({"1.jpg": "x", "1.cls": "3"}, "classes in .* are 0 to 2, .*out of range: 3"),
        ({"1.jpg": "x", "1.cls": "cow"}, "not know 1 of the classes in .*: cow"),
        ({"1.jpg": "x", "1.cls": "0", "2.cls": "1"}, "1 labels have no image: 2"),
        ({"1.jpg": "x", "1.a.cls": "0", "1.b.cls": "1"}, r"1\.jpg has several labels: 0, 1"),
        ({"1.jpg": "x", "1.cls": "0", "./1.cls": "1"}, r"two files are called \./1\.cls"),
        ({"1.jpg": "x", "1.json": "{"}, r"1\.json cannot be read"),
        ({"1.jpg": "x", "1.json": '{"width": 3}'}, "neither class folders nor a file of labels"),
    ],
)
def test_labels_that_do_not_fit(files: dict[str, str], reason: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=reason):
        open_dataset(tar(tmp_path / "a.tar", files), PETS, subset=True)


def test_names_with_dots_keep_their_labels(tmp_path: Path) -> None:
    files = {"IMG.1.jpg": "x", "IMG.1.cls": "0", "IMG.2.jpg": "x", "IMG.2.cls": "2"}
    files |= {"3.left.jpg": "x", "3.cls": "1", "3.note.txt": "one", "3.more.txt": "two"}
    path = tar(tmp_path / "a.tar", files)
    assert [item.truth for item in open_dataset(path, PETS).items()] == [0, 2, 1]


@pytest.mark.parametrize("suffix", ["cls", "txt", "json"])
@pytest.mark.parametrize(
    ("photo", "masks"),
    [
        ("jpg", ["mask.png", "seg.png"]),
        ("jpg", ["png"]),
        ("png", ["depth.tiff"]),
        ("image.jpg", ["mask.jpg"]),
        ("JPEG", ["left.jpg"]),
    ],
)
def test_masks_beside_a_photo_are_no_photos(
    suffix: str, photo: str, masks: list[str], tmp_path: Path
) -> None:
    files = {}
    for number in range(IMAGES):
        label = number % 3
        said = {"cls": str(label), "txt": NAMES[label], "json": json.dumps({"label": label})}
        files |= {f"{number:03}.{mask}": "no photo" for mask in masks}
        files |= {f"{number:03}.{photo}": str(label), f"{number:03}.{suffix}": said[suffix]}
    path = tar(tmp_path / "a.tar", files)
    counts = ", ".join(f"{IMAGES} .{mask}" for mask in masks)
    with pytest.warns(SkippedFilesWarning, match=rf"skipped \d+ files: {counts}$"):
        found = truths(path, PETS)
    assert found == [(str(number % 3), number % 3) for number in range(IMAGES)]
    with pytest.warns(SkippedFilesWarning, match=counts):
        assert len(open_tree(path)) == IMAGES
    sets = open_photo_sets(path, None, None, seed=0)
    photos = [*sets.train, *sets.validation.items()]
    assert len(photos) == IMAGES
    assert {item.read() for item in photos} == {b"0", b"1", b"2"}


@pytest.mark.parametrize("packed", [False, True])
def test_a_kaggle_download_is_trained_on_with_its_file_of_labels(
    packed: bool, tmp_path: Path
) -> None:
    names = [f"{number:03}" for number in range(IMAGES)]
    files = {f"{name}.jpg": str(number % 3) for number, name in enumerate(names)}
    truth = tmp_path / "train.csv"
    lines = [f"{name},{NAMES[number % 3]}" for number, name in enumerate(names)]
    truth.write_text("\n".join(["image_id,label", *lines]))
    path = tmp_path / "train"
    if packed:
        path = tar(tmp_path / "train.tar", files)
    else:
        path.mkdir()
        for name, text in files.items():
            (path / name).write_text(text)
    sets = open_photo_sets(path, None, None, truth=truth, seed=0)
    assert [label.name for label in sets.labels] == NAMES
    assert len(sets.train) + sets.validation.count == IMAGES
    photos = [*sets.train, *sets.validation.items()]
    assert all(item.read() == str(item.truth).encode() for item in photos)
    assert [i.truth for i in open_dataset(path, PETS, truth=truth).items()] == [0, 1, 2] * 12
    tree = open_tree(path, truth=truth)
    assert tree.counts == {"": dict.fromkeys(NAMES, IMAGES // 3)}
    assert not errors_of(layout_findings(tree))

    truth.write_text("\n".join(["image_id,label", *lines[1:]]))
    for opened in (partial(open_photo_sets, path, None, None, seed=0), partial(open_tree, path)):
        with pytest.raises(DatasetError, match=r"train\.csv: no label for 1 image: 000\.jpg"):
            opened(truth=truth)
        with pytest.raises(DatasetError, match="cannot read the labels"):
            opened(truth=tmp_path / "none.csv")


def test_views_of_a_sample_are_photos_of_its_class(tmp_path: Path) -> None:
    files = {"1.left.jpg": "l", "1.right.jpg": "r", "1.cls": "1"}
    assert truths(tar(tmp_path / "a.tar", files), PETS, subset=True) == [("l", 1), ("r", 1)]


def test_captions_are_no_classes(tmp_path: Path) -> None:
    files = {}
    for number in range(30):
        files |= {f"{number}.jpg": "x", f"{number}.txt": f"photo {number} of a cat"}
    path = tar(tmp_path / "a.tar", files)
    for look in (folder_labels, open_tree):
        with pytest.raises(DatasetError, match=r"30 different labels for 30 images.*captions"):
            look(path)


def test_class_folders_with_text_beside_the_images_are_class_folders(tmp_path: Path) -> None:
    files = {}
    for number in range(IMAGES):
        top = f"{NAMES[number % 3]}/{number}"
        files |= {f"{top}.jpg": str(number % 3), f"{top}.txt": "a caption"}
    path = tar(tmp_path / "a.tar", files)
    assert set(truths(path, PETS)) == {("0", 0), ("1", 1), ("2", 2)}
    assert [label.name for label in folder_labels(path)] == NAMES


# Hugging Face's metadata


def metadata(folder: Path, *, inside: str = "", label: str = "label") -> Path:
    """Write images and a metadata.csv that says the class of each."""
    rows = []
    for number in range(IMAGES):
        path = folder / inside / f"{folder.name}-{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number % 3} {path.name}")
        rows.append(f"{path.relative_to(folder).as_posix()},{NAMES[number % 3]}")
    (folder / "metadata.csv").write_text("\n".join([f"file_name,{label}", *rows]))
    return folder


@pytest.mark.parametrize("inside", ["", "images"])
def test_metadata_is_what_a_training_and_the_doctor_go_by(inside: str, tmp_path: Path) -> None:
    metadata(tmp_path, inside=inside)
    sets = open_photo_sets(tmp_path, None, None, seed=0)
    assert [label.name for label in sets.labels] == NAMES
    assert all(item.read().decode()[0] == str(item.truth) for item in sets.train)
    tree = open_tree(tmp_path)
    assert tree.counts == {"": dict.fromkeys(NAMES, IMAGES // 3)}
    assert not errors_of(layout_findings(tree))


@pytest.mark.parametrize("splits", [("",), ("train/", "val/")])
def test_metadata_that_does_not_fit_is_refused_by_the_doctor_as_by_a_training(
    splits: tuple[str, ...], tmp_path: Path
) -> None:
    for split in splits:
        rows = ["file_name,label"]
        for number in range(20):
            photo = tmp_path / split / f"{number}.jpg"
            photo.parent.mkdir(exist_ok=True)
            photo.write_text(f"{split}{number}")
            rows.append(f"{number}.jpg,{NAMES[number % 2]}")
        (tmp_path / split / "metadata.csv").write_text("\n".join(rows))
    assert len(open_tree(tmp_path)) == 20 * len(splits)
    (tmp_path / splits[-1] / "metadata.csv").write_text("\n".join([*rows, "gone.jpg,cat"]))
    for look in (open_tree, training_folders):
        with pytest.raises(DatasetError, match=r"no image for 1 label: gone\.jpg"):
            look(tmp_path)
    (tmp_path / splits[-1] / "metadata.jsonl").write_text('{"file_name": "1.jpg", "label": 1}')
    with pytest.raises(DatasetError, match=r"metadata\.csv' lies beside metadata\.jsonl"):
        open_tree(tmp_path)


def test_metadata_of_each_split(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        metadata(tmp_path / split)
    sets = open_photo_sets(tmp_path, None, None, seed=0)
    assert (len(sets.train), sets.held_out) == (IMAGES, False)
    assert sets.validation is not None
    assert sets.validation.count == IMAGES
    tree = open_tree(tmp_path)
    assert tree.counts == {name: dict.fromkeys(NAMES, IMAGES // 3) for name in ("train", "val")}
    found = truths(tmp_path / "validation", PETS)
    assert all(text[0] == str(truth) for text, truth in found)


def test_folders_and_metadata_must_not_disagree(tmp_path: Path) -> None:
    rows = ["file_name,label"]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for number in range(IMAGES):
            (tmp_path / name / f"{number}.jpg").write_text("x")
            rows.append(f"{name}/{number}.jpg,{NAMES[number % 3]}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    for look in (folder_labels, open_tree):
        with pytest.raises(DatasetError, match=r"metadata\.csv says other classes than"):
            look(tmp_path)
    same = [row.rpartition(",")[0] + f",{row.partition('/')[0]}" for row in rows[1:]]
    (tmp_path / "metadata.csv").write_text("\n".join(rows[:1] + same))
    assert [label.name for label in folder_labels(tmp_path)] == ["one", "two"]
    (tmp_path / "metadata.csv").write_text("file_name,width,height\none/0.jpg,3,4\n")
    assert [label.name for label in folder_labels(tmp_path)] == ["one", "two"]


# Data sets that are not read


@pytest.mark.parametrize(
    ("name", "what"),
    [
        *(("data.mdb", "LMDB"), ("train_lmdb/data.mdb", "LMDB"), ("x.lmdb", "LMDB")),
        *(("a.tfrecord", "TFRecord"), ("a.tfrecord-00000-of-00002", "TFRecord")),
        *(("train-00000-of-01024", "TFRecord"), ("x.tfrecords", "TFRecord")),
        *(("train/data-00000-of-00001.arrow", "save_to_disk"), ("x.arrow", "save_to_disk")),
        *(("x.h5", "HDF5"), ("x.npz", "NumPy"), ("x.rec", "RecordIO"), ("x.7z", "an archive")),
    ],
)
def test_data_sets_of_other_tools_are_named_with_what_to_do(
    name: str, what: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\x12\0\0\0\0\0\0\0 no archive")
    for place in (tmp_path, path):
        for look in (folder_labels, open_tree, lambda p: open_dataset(p, PETS)):
            with pytest.raises(DatasetError, match=f"{what}.*, which is not read: (write|unpack)"):
                look(place)


def test_other_files_beside_photos_are_no_data_set(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_text(name)
    (tmp_path / "features.npz").write_text("x")
    assert open_dataset(tmp_path, PETS).count == 3


def test_a_tar_of_a_tar_per_class(tmp_path: Path) -> None:
    """As ILSVRC2012_img_train.tar is."""
    wnids = ("n01440764", "n01443537")
    with tarfile.open(tmp_path / "train.tar", "w") as archive:
        for wnid in wnids:
            images = {f"{wnid}_{number}.JPEG": wnid for number in range(IMAGES)}
            archive.add(tar(tmp_path / f"{wnid}.tar", images), f"{wnid}.tar")
    labels = folder_labels(tmp_path / "train.tar")
    assert [label.wnid for label in labels] == list(wnids)
    for item in open_dataset(tmp_path / "train.tar", labels).items():
        assert item.read().decode() == labels[item.truth].wnid
    assert open_tree(tmp_path / "train.tar").counts == {"": dict.fromkeys(wnids, IMAGES)}
