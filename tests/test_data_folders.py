"""One reading of a data set's folders, for the doctor, a training and an evaluation alike."""

import random
import shutil
from pathlib import Path

import pytest

from regnet.data.class_folders import training_folders
from regnet.data.dataset import open_dataset
from regnet.data.folders import Layout, read_layout, role_of, roles_of
from regnet.doctor.findings import errors_of
from regnet.doctor.quick import layout_findings
from regnet.doctor.tree import open_tree
from regnet.network.labels import Label
from regnet.system.errors import DatasetError, RegNetError
from regnet.training.photo_sets import open_photo_sets

PHOTOS = 12


def write(folder: Path, *places: str, photos: int = PHOTOS) -> Path:
    """Write photos, by name only, into folders; a name with a suffix is a file of its own."""
    for place in places:
        names = [place] if Path(place).suffix else [f"{place}/{n}.jpg" for n in range(photos)]
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
    return folder


# Names


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *((name, "train") for name in ("train", "Training", "training_set", "trainset")),
        *((name, "train") for name in ("seg_train", "trn_split", "traindata")),
        *((name, "train") for name in ("train-images", "train2017", "Training Data", "TrainSet")),
        *((name, "val") for name in ("val", "valid", "Validation", "val_set", "dev", "eval")),
        *((name, "val") for name in ("validation_set", "valset", "valid_images")),
        *((name, "test") for name in ("test", "Testing", "test_set", "testset", "holdout")),
        *((name, None) for name in ("cat", "trainer", "test tube", "train station", "Valentine")),
        *((name, None) for name in ("train_test", "set", "2017", "", "contest", "retrain")),
    ],
)  # fmt: skip
def test_one_word_of_a_name_says_the_role(name: str, role: str | None) -> None:
    assert role_of(name) == role


def test_what_the_names_of_splits_share_says_nothing() -> None:
    assert roles_of(["flowers_train", "flowers_val", "docs"]) == {
        "flowers_train": "train",
        "flowers_val": "val",
    }
    assert roles_of(["train station", "bus station"]) == {}


# Layouts

CLASSES = ("cat", "dog")


def under(*tops: str, classes: tuple[str, ...] = CLASSES) -> tuple[str, ...]:
    return tuple(f"{top}/{name}" for top in tops for name in classes)


USED = {
    "classes": (CLASSES, "", None, ()),
    "wrapped classes": (under("a/b"), "", None, ()),
    "plain splits": (under("train", "val"), "train", "val", ()),
    "splits and a test": (under("train", "val", "test"), "train", "val", ("test",)),
    "wrapped splits": (under("data/train", "data/val"), "data/train", "data/val", ()),
    "Kaggle's sets": (under("training_set", "test_set"), "training_set", None, ("test_set",)),
    "sets twice": (
        under("training_set/training_set", "test_set/test_set"),
        "training_set/training_set",
        None,
        ("test_set",),
    ),
    "seg": (
        (*under("seg_train/seg_train", "seg_test/seg_test"), "seg_pred/seg_pred"),
        "seg_train/seg_train",
        None,
        ("seg_test", "seg_pred"),
    ),
    "each split in a folder of its own": (
        under("train/images", "val/deep/er"), "train/images", "val/deep/er", ()
    ),
    "a wrapper in one split only": (under("train/x", "val"), "train/x", "val", ()),
    "capitals": (under("TRAIN", "Validation"), "TRAIN", "Validation", ()),
    "years": (under("train2017", "val2017"), "train2017", "val2017", ()),
    "a shared name": (under("pets_train", "pets_val"), "pets_train", "pets_val", ()),
    "one name with more words": (under("pets_train", "val"), "pets_train", "val", ()),
    "unlabelled test": ((*under("train", "val"), "test"), "train", "val", ("test",)),
    "a folder beside": ((*under("train", "val"), "docs"), "train", "val", ("docs",)),
    "a copy of it inside": (
        (*under("train", "val"), *under("x/train", "x/val")), "train", "val", ("x",)
    ),
    "a wrapper with the name of a class": (under("dog"), "", None, ()),
    "another spelling in a split": (
        (*under("train"), *under("val", classes=("Cat", "DOG"))), "train", "val", ()
    ),
    "the vehicle": (("bus", "car", "train"), "", None, ()),
    "folders in classes": (("cat/a", "cat/b", "dog/c"), "", None, ()),
    "the same kinds of files in classes": (
        ("cat/images", "cat/masks", "dog/images", "dog/masks"), "", None, ()
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", USED)
def test_what_is_trained_on(case: str, tmp_path: Path) -> None:
    places, train, val, unused = USED[case]
    write(tmp_path, *places)
    found = training_folders(tmp_path)
    assert found.train == str(tmp_path / train)
    assert found.val == (str(tmp_path / val) if val else None)
    assert found.unused == unused
    tree = open_tree(tmp_path)
    assert not errors_of(layout_findings(tree))
    sets = open_photo_sets(tmp_path, None, None, seed=0)
    assert tuple(label.name for label in sets.labels) == tree.classes
    held = sets.validation.count if sets.validation and sets.held_out else 0
    assert len(sets.train) + held == sum(
        count for name, count in tree.counts[tree.training].items() if name
    )


DOUBTED = {
    "splits inside of classes": (under("cat", "dog", classes=("train", "val")), "Turn the folders"),
    "splits inside of one class": (("cat/train", "cat/val", "dog"), "Turn the folders round"),
    "the same folders": (under("A", "B"), r"A, B all hold the same folders \(cat, dog\)"),
    "folds": (under("fold_1", "fold_2", "fold_3"), "look like splits"),
    "nearly the same folders": (
        (*under("A", classes=("cat", "dog", "emu")), *under("B")), "look like splits"
    ),
    "a split and another of its kind": (under("train", "other"), "the name of a split"),
    "two to train on": (under("train_1", "train_2", "val"), "could each be the training split"),
    "two to validate with": (under("train", "val", "dev"), "could each be the validation split"),
    "flat splits": (("train", "val"), "the name of a split|no class folders"),
    "splits among classes": (("cat", "dog", "train", "val"), "have the names of splits"),
    "no split to train on": (under("val", "test"), "name one|no photos to train"),
    "an empty class": ((*CLASSES, "bird/notes.txt"), "no photos: bird"),
    "classes of one name": (("Cat", "cat", "dog"), "differ only in case"),
    "a name that is not text": (("cat", "d\x07g"), "are not text"),
}  # fmt: skip


@pytest.mark.parametrize("case", DOUBTED)
def test_what_is_unclear_is_an_error_of_both(case: str, tmp_path: Path) -> None:
    places, reason = DOUBTED[case]
    write(tmp_path, *places)
    with pytest.raises(RegNetError, match=reason):
        open_photo_sets(tmp_path, None, None, seed=0)
    errors = errors_of(layout_findings(open_tree(tmp_path)))
    assert errors
    assert (
        case == "flat splits"
        or any(
            name in f"{error.text} {error.remedy}" for error in errors for name in reason.split("|")
        )
        or errors[0].code in ("splits-in-classes", "splits-as-classes", "no-images")
    )


TOPS = ("train", "val", "test", "training_set", "dev", "seg_pred", "docs", "cat", "dog", "A")


@pytest.mark.parametrize("seed", range(100))
def test_the_doctor_and_a_training_always_agree(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    wrapper = draw.choice(("", "images/", "x/y/"))
    inner = draw.sample(("cat", "dog", "emu"), draw.randint(1, 3))
    places = [f"{top}/{wrapper}{name}" for top in draw.sample(TOPS, 3) for name in inner]
    kept = draw.sample(places, draw.randint(2, len(places)))
    write(tmp_path, *kept, *draw.sample(TOPS, draw.randint(0, 1)))
    try:
        sets = open_photo_sets(tmp_path, None, None, seed=0)
    except RegNetError:
        sets = None
    tree = open_tree(tmp_path)
    assert bool(errors_of(layout_findings(tree))) == (sets is None)
    assert sets is None or tuple(label.name for label in sets.labels) == tree.classes


@pytest.mark.parametrize("suffix", ["zip", "tar", "gztar"])
def test_empty_classes_and_splits_of_archives(suffix: str, tmp_path: Path) -> None:
    write(tmp_path / "a" / "top", *CLASSES)
    (tmp_path / "a" / "top" / "bird").mkdir()
    archive = shutil.make_archive(str(tmp_path / "a"), suffix, tmp_path / "a")
    with pytest.raises(RegNetError, match="1 class has no photos: bird"):
        open_photo_sets(archive, None, None, seed=0)
    assert "empty-classes" in {f.code for f in layout_findings(open_tree(archive))}
    write(tmp_path / "b", *under("train"))
    (tmp_path / "b" / "val" / "cat").mkdir(parents=True)
    (tmp_path / "b" / "docs").mkdir()
    archive = shutil.make_archive(str(tmp_path / "b"), suffix, tmp_path / "b")
    for path in (archive, tmp_path / "b"):
        with pytest.raises(RegNetError, match="the val split has no photos"):
            open_photo_sets(path, None, None, seed=0)
        assert "empty-split" in {f.code for f in layout_findings(open_tree(path))}


@pytest.mark.parametrize("labels", [None, (Label("", "cat"), Label("", "dog"))])
@pytest.mark.parametrize("wrapper", ["", "data/"])
def test_a_split_for_training_without_a_photo_is_not_passed_over(
    labels: tuple[Label, ...] | None, wrapper: str, tmp_path: Path
) -> None:
    write(tmp_path, *under(f"{wrapper}val"))
    (tmp_path / wrapper / "train" / "cat").mkdir(parents=True)
    with pytest.raises(DatasetError, match="the train split has no photos"):
        open_photo_sets(tmp_path, None, labels, seed=0)
    assert [f.text for f in errors_of(layout_findings(open_tree(tmp_path)))] == [
        "The split train has no photos to train on."
    ]


def test_photos_given_to_validate_with_stand_for_an_empty_split(tmp_path: Path) -> None:
    write(tmp_path / "a", *under("train"))
    (tmp_path / "a" / "val").mkdir()
    other = write(tmp_path / "b", *CLASSES, photos=5)
    sets = open_photo_sets(tmp_path / "a", other, None, seed=0)
    assert (len(sets.train), sets.validation and sets.validation.count) == (2 * PHOTOS, 10)


def test_known_classes_settle_a_doubt(tmp_path: Path) -> None:
    write(tmp_path, *under("A", "B"))
    labels = (Label("", "A"), Label("", "B"))
    sets = open_photo_sets(tmp_path, None, labels, seed=0)
    assert {item.truth for item in sets.train} == {0, 1}
    assert open_dataset(tmp_path, labels).count == 4 * PHOTOS
    with pytest.raises(DatasetError, match=f"look like splits.* Name one: {tmp_path}/A, "):
        open_dataset(tmp_path, (Label("", "cat"), Label("", "dog")))


def test_a_test_split_that_is_asked_for_validates(tmp_path: Path) -> None:
    write(tmp_path, *under("training_set", "test_set"))
    sets = open_photo_sets(tmp_path, tmp_path / "test_set", None, seed=0)
    assert (len(sets.train), sets.held_out) == (2 * PHOTOS, False)
    assert not any("not used" in finding.text for finding in sets.findings)
    sets = open_photo_sets(tmp_path, None, None, seed=0)
    assert [f.text for f in sets.findings if "not used" in f.text] == [
        f"Trains on {tmp_path}/training_set; test_set is not used."
    ]


def test_an_unused_folder_may_have_the_name_of_one_above_the_splits(tmp_path: Path) -> None:
    """As in a data set that was packed twice: xray/train, xray/val and xray/xray/train."""
    write(tmp_path, *under("xray/train", "xray/val", "xray/xray/train", "xray/xray/val"))
    sets = open_photo_sets(tmp_path, None, None, seed=0)
    assert [f.text for f in sets.findings if "not used" in f.text] == [
        f"Trains on {tmp_path}/xray/train and {tmp_path}/xray/val; xray is not used."
    ]


def test_listed_classes_without_photos_are_refused_with_advice_that_holds(tmp_path: Path) -> None:
    write(tmp_path, *CLASSES)
    labels = tuple(Label("", name) for name in (*CLASSES, "emu"))
    with pytest.raises(
        RegNetError, match=r"1 class has no photos: emu\..*list of classes"
    ) as caught:
        open_photo_sets(tmp_path, None, labels, seed=0)
    assert "--subset" not in str(caught.value)


@pytest.mark.parametrize("case", ["Kaggle's sets", "seg", "plain splits", "a shared name"])
def test_an_evaluation_names_the_splits(case: str, tmp_path: Path) -> None:
    places, *_ = USED[case]
    write(tmp_path, *places)
    with pytest.raises(DatasetError, match=r"holds the splits .*: name one, .* or "):
        open_dataset(tmp_path, (Label("", "cat"), Label("", "dog")))
    for top in {place.partition("/")[0] for place in places} - {"seg_pred"}:
        dataset = open_dataset(tmp_path / top, (Label("", "cat"), Label("", "dog")))
        assert dataset.count == 2 * PHOTOS


def test_what_systems_put_beside_photos_is_no_class(tmp_path: Path) -> None:
    clutter = ("@eaDir/x", "lost+found", "$RECYCLE.BIN", ".Trash-1000", "System Volume Information")
    write(tmp_path, *CLASSES, "Trash", *clutter, "cat/@eaDir/0.jpg/SYNOPHOTO_THUMB_M")
    sets = open_photo_sets(tmp_path, None, None, seed=0)
    assert [label.name for label in sets.labels] == ["Trash", "cat", "dog"]
    assert open_tree(tmp_path).classes == ("Trash", "cat", "dog")
    assert len(open_tree(tmp_path)) == 3 * PHOTOS


def test_places_of_photos() -> None:
    layout = read_layout(["x/train/a", "x/train/b/deep", "x/val/w/a", "x/val/w/b", "x/docs"])
    assert layout.place("x/train/b/deep") == ("train", "b")
    assert layout.place("x/val/w/a") == ("val", "a")
    assert layout.place("x/val") == ("val", "")
    assert layout.place("x/docs") == ("", "")
    assert read_layout([""]) == Layout("flat", "", (), stray=True)
    assert read_layout([]).stray is False
