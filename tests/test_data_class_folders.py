import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from regnet.data.class_folders import folder_labels, training_folders
from regnet.data.dataset import open_dataset
from regnet.data.photo_files import is_clutter
from regnet.network.labels import Label
from regnet.system.errors import DatasetError


def png():
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, "PNG")
    return file.getvalue()


PNG = png()


def content(name):
    """Return a picture, for whatever holds one is a photo, or text."""
    return PNG if name.endswith(".png") else b"no picture"


def folder(path, *names):
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content(name))
    return path


def zipped(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, content(name))
    return path


def tarred(path, *names):
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(content(name))
            archive.addfile(info, io.BytesIO(content(name)))
    return path


@pytest.fixture(params=["folder", "zip", "tar"])
def pack(request, tmp_path):
    """Return what makes a folder or an archive of images with these names."""
    makers = {"zip": ("data.zip", zipped), "tar": ("data.tgz", tarred), "folder": ("data", folder)}
    name, make = makers[request.param]
    return lambda *names: make(tmp_path / name, *names)


def splits(path):
    """Return the places of the photos to train on and to validate with."""
    found = training_folders(path)
    return found.train, found.val


def named(*names):
    return tuple(Label("", name) for name in names)


# Classes


def test_classes_are_the_folders_in_order_of_their_names(pack):
    path = pack("b/1.png", "a/1.png", "C/x/y/1.png", "10/1.png", "2/1.png", "a/2.png")
    assert folder_labels(path) == named("10", "2", "C", "a", "b")


def test_wnids_get_the_names_of_imagenet(pack):
    path = pack("n02124075/1.png", "n01443537/1.png", "n99999999/1.png", "other/1.png")
    assert folder_labels(path) == (
        Label("n01443537", "goldfish, Carassius auratus"),
        Label("n02124075", "Egyptian cat"),
        Label("n99999999", "n99999999"),
        Label("", "other"),
    )


def test_wnids_with_a_name_behind_are_both(pack):
    """As in Stanford's dogs."""
    path = pack("n02085620-Chihuahua/1.png", "n90000001_my dog/1.png", "n0208562/1.png")
    assert folder_labels(path) == (
        Label("", "n0208562"),
        Label("n02085620", "Chihuahua"),
        Label("n90000001", "my dog"),
    )


def test_the_data_set_is_read_with_the_classes_found(pack):
    names = ("n02124075/1.png", "n02085620-Chihuahua/1.png", "0/1.png", "1/1.png")
    path = pack(*names, "red, ripe/1.png", "été\xa0_x/1.png", "class 0/1.png")
    labels = folder_labels(path)
    items = open_dataset(path, labels).items()
    found = {item.source.rsplit("/", 2)[-2]: labels[item.truth].name for item in items}
    assert found == {
        "n02124075": "Egyptian cat",
        "n02085620-Chihuahua": "Chihuahua",
        **{name: name for name in ("0", "1", "red, ripe", "été\xa0_x", "class 0")},
    }


def test_names_with_commas_are_whole_names(pack):
    path = pack("crane/1.png", "crane, bird/1.png", "crane, machine/1.png")
    labels = folder_labels(path)
    assert labels == named("crane", "crane, bird", "crane, machine")
    assert open_dataset(path, labels).classes == (0, 1, 2)


@pytest.mark.parametrize("top", ["", "one/", "one/two/"])
def test_folders_that_are_alone_are_looked_into(pack, top):
    path = pack(f"{top}cat/1.png", f"{top}dog/sub/1.png", f"{top}dog/sub/2.png")
    assert folder_labels(path) == named("cat", "dog")
    assert splits(path) == (str(path), None)


def test_a_folder_of_images_only_is_one_class(pack):
    path = pack("cat/1.png", "cat/2.png")
    assert folder_labels(path) == named("cat")
    assert folder_labels(path.parent / path.name) == named("cat")


def test_hidden_and_foreign_files_make_no_class(pack):
    path = pack(
        *("cat/1.png", "dog/1.png", ".git/1.png", ".hidden.png", "notes/a.txt", "dog/.b/1.png"),
        *("__MACOSX/cat/._1.png", "cat/Thumbs.db"),
    )
    assert folder_labels(path) == named("cat", "dog")
    assert open_dataset(path, named("cat", "dog")).count == 2


def test_images_beside_class_folders_are_no_class_but_are_refused_when_they_are_read(pack):
    path = pack("cat/1.png", "dog/1.png", "stray.png")
    assert folder_labels(path) == named("cat", "dog")
    with pytest.raises(DatasetError, match=r"images outside the class folders of .*stray\.png"):
        open_dataset(path, folder_labels(path))


@pytest.mark.parametrize("pack", ["zip", "tar"], indirect=True)
@pytest.mark.parametrize("top", ["/", "/data/", "//data/", "../", "./", "x/../"])
def test_names_in_archives_may_be_absolute_or_begin_with_dots(pack, top):
    path = pack(f"{top}cat/1.png", f"{top}dog/1.png", f"{top}metadata.csv")
    assert folder_labels(path) == named("cat", "dog")
    dataset = open_dataset(path, named("cat", "dog"))
    assert [item.truth for item in dataset.items()] == [0, 1]
    assert training_folders(path).empty == ()


def test_absolute_and_relative_names_in_an_archive_are_of_one_folder(tmp_path):
    path = zipped(tmp_path / "data.zip", "/cat/1.png", "dog/1.png", "cat/2.png")
    assert folder_labels(path) == named("cat", "dog")


def test_a_place_inside_an_archive_has_classes(tmp_path):
    path = zipped(tmp_path / "a.zip", "x/train/cat/1.png", "x/train/dog/1.png", "x/val/cow/1.png")
    assert folder_labels(path / "x" / "train") == named("cat", "dog")
    assert folder_labels(path / "x" / "val") == named("cow")


def test_several_archives_count_as_one(tmp_path):
    zipped(tmp_path / "train-0.zip", "train/cat/1.png", "train/dog/1.png")
    zipped(tmp_path / "train-1.zip", "train/cow/1.png")
    pattern = tmp_path / "train-*.zip"
    assert folder_labels(pattern) == named("cat", "cow", "dog")
    assert splits(pattern) == (str(pattern), None)


# What has no classes


@pytest.mark.parametrize("names", [("1.png", "2.png"), ("top/1.png", "1.png")])
def test_images_in_no_folder_have_no_classes(pack, names):
    path = pack(*names)
    if len(names) == 2 and "top/1.png" in names:
        assert folder_labels(path) == named("top")  # the other one is refused when it is read
        return
    with pytest.raises(DatasetError) as caught:
        folder_labels(path)
    assert str(caught.value) == (
        f"{path} has no class folders: put the photos of each class in a folder of its name, "
        "or list them in a metadata.csv beside them (columns file_name and label) or in another "
        "file (--truth FILE), or give the classes with --labels FILE"
    )
    assert splits(path) == (str(path), None)


def test_an_empty_folder_or_archive_says_so(pack, tmp_path):
    (tmp_path / "data").mkdir(exist_ok=True)
    path = pack("notes.txt", "cat/readme.md")
    with pytest.raises(DatasetError, match=r"no class folders: put .*; there is no image in it"):
        folder_labels(path)
    assert splits(path) == (str(path), None)


def test_archives_inside_are_not_looked_into(pack, tmp_path):
    path = pack("cat.zip", "dog.zip")
    with pytest.raises(DatasetError, match="archives inside of it are not looked into: name them"):
        folder_labels(path)


def test_an_archive_among_class_folders_does_not_count(tmp_path):
    path = folder(tmp_path / "data", "cat/1.png", "dog/1.png")
    zipped(path / "cow.zip", "cow/1.png")
    assert folder_labels(path) == named("cat", "dog")


@pytest.mark.parametrize("name", ["a.parquet", "A.PARQUET"])
def test_parquet_that_cannot_be_read_says_why(tmp_path, name):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_bytes(b"PAR1")
    for path in (tmp_path / "data" / name, tmp_path / "data" / "*.[pP]*"):
        with pytest.raises(DatasetError, match=r"cannot read .*: Parquet file size"):
            folder_labels(path)
        assert splits(path) == (str(path), None)


@pytest.mark.parametrize("look", [folder_labels, splits])
def test_what_cannot_be_opened_says_why_and_does_not_ask_for_labels(tmp_path, look):
    broken = zipped(tmp_path / "broken.zip", "cat/1.png", "dog/1.png")
    broken.write_bytes(broken.read_bytes()[:60])
    (tmp_path / "notes.txt").write_text("hello")
    for path, reason in {
        tmp_path / "absent": "no such file or folder",
        tmp_path / "notes.txt": "is not a data set: expected a folder, a zip or tar, or Parquet",
        broken: "broken.zip: .*(corrupt|truncated)",
    }.items():
        with pytest.raises(DatasetError, match=reason) as caught:
            look(path)
        assert "--labels" not in str(caught.value)


def test_names_that_tell_no_classes_apart_are_refused(pack):
    path = pack("red fox/1.png", "Red_Fox/1.png", "dog/1.png")
    with pytest.raises(DatasetError, match="'Red_Fox' and 'red fox' differ only in case, or in _"):
        folder_labels(path)


def test_names_that_are_no_text_are_refused(tmp_path):
    path = zipped(tmp_path / "a.zip", "a\tb/1.png", "dog/1.png")
    with pytest.raises(DatasetError, match=r"names of class folders are not text: 'a\\tb'$"):
        folder_labels(path)
    folder(tmp_path / "data", "1.png", "2.png")
    (tmp_path / "truth.csv").write_text(f"file_name,label\n1.png,cat\n2.png,{'d' * 1001}\n")
    with pytest.raises(DatasetError, match="class 1 has 1,001 characters, 'dddd"):
        folder_labels(tmp_path / "data", tmp_path / "truth.csv")


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such names")
def test_names_that_cannot_be_decoded_are_refused(tmp_path):
    odd = os.fsdecode(b"caf\xe9")
    folder(tmp_path / "data", f"{odd}/1.png", "dog/1.png")
    with pytest.raises(DatasetError, match=r"are not text: 'caf\\udce9'$"):
        folder_labels(tmp_path / "data")


# Splits


@pytest.mark.parametrize(
    ("train", "val"),
    [
        *(("train", "val"), ("Train", "VAL"), ("training", "validation"), ("train", "dev")),
        *(("train", "valid"), ("train", "eval"), ("train", None)),
    ],
)
@pytest.mark.parametrize("top", ["", "imagenette2/", "a/b/"])
def test_splits_are_found(pack, top, train, val):
    names = [f"{top}{split}/{c}/1.png" for split in (train, val, "test") if split for c in "ab"]
    path = pack(*names)
    one, other = splits(path)
    assert one == str(Path(path, top, train))
    assert other == (str(Path(path, top, val)) if val else None)
    for place in filter(None, (one, other)):
        assert folder_labels(place) == named("a", "b")
        assert open_dataset(place, named("a", "b")).count == 2


def test_images_beside_splits_do_not_hide_them(pack):
    path = pack("train/a/1.png", "val/a/1.png", "overview.png")
    assert splits(path) == (str(path / "train"), str(path / "val"))


def test_a_split_alone_is_the_whole(pack):
    path = pack("train/a/1.png", "train/b/1.png")
    assert splits(path) == (str(path), None)
    assert folder_labels(path) == named("a", "b")


@pytest.mark.parametrize("names", [("val", "test"), ("Test", "dev")])
def test_without_training_photos_the_splits_are_refused_as_classes(pack, names):
    path = pack(*(f"top/{name}/a/1.png" for name in names))
    assert splits(path) == (str(path), None)
    first, second = sorted(names)
    place = path / "top"
    with pytest.raises(DatasetError) as caught:
        folder_labels(path)
    message = f"{path} holds the splits {first}, {second}: name one, {place / first} or "
    assert str(caught.value) == message + str(place / second)


def test_a_class_that_is_called_train_is_not_taken_for_a_split(pack):
    """Cars, buses and trains: to learn from the trains only would waste a night."""
    path = pack("bus/1.png", "car/1.png", "train/1.png")
    assert splits(path) == (str(path), None)
    labels = named("bus", "car", "train")
    assert folder_labels(path) == labels
    assert open_dataset(path, labels).count == 3


def test_splits_in_several_archives_are_refused(tmp_path):
    for number in range(2):
        zipped(tmp_path / f"{number}.zip", "train/a/1.png", "val/a/1.png")
    with pytest.raises(DatasetError, match=r"\*.zip has splits inside of each: name the photos of"):
        splits(tmp_path / "*.zip")


def test_the_raw_tiny_imagenet_is_understood(pack):
    """Its training photos are in folders below the classes', the others flat with a list."""
    path = pack(
        *(f"tiny/train/{wnid}/images/{wnid}_0.png" for wnid in ("n01443537", "n02124075")),
        *("tiny/val/images/val_0.png", "tiny/test/images/test_0.png"),
    )
    train, val = splits(path)
    assert [label.name for label in folder_labels(train)] == [
        "goldfish, Carassius auratus",
        "Egyptian cat",
    ]
    assert val == str(path / "tiny" / "val")


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=8)


@given(st.sets(NAMES, min_size=2, max_size=6))
def test_any_folders_are_classes_or_a_data_set_error(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("any") / "a.zip"
    # the outer folder has a longer name than any class, and so is none
    zipped(path, *(f"all-of-them/{name}/1.png" for name in names))
    try:
        labels = folder_labels(path)
    except DatasetError:
        return
    assert len(labels) <= len(names)
    if len(labels) > 1 and not any(set(name) & set("/\\.") for name in names):
        assert {label.name for label in labels} == {n for n in names if not is_clutter(n)}
        assert open_dataset(path, labels).classes == tuple(range(len(labels)))
