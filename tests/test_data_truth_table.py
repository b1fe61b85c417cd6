"""Files of labels as people have them: columns are understood, or an error names them."""

import json
from pathlib import Path

import pytest

from regnet.data.dataset import open_dataset
from regnet.data.truth_files import read_truth
from regnet.data.truth_table import read_table
from regnet.network.labels import Label
from regnet.system.errors import DatasetError

TREES = tuple(Label("", name) for name in ("ash", "beech", "elm"))
ROWS = (("a.jpg", "ash"), ("b.jpg", "beech"), ("c.jpg", "elm"))
NUMBERS = tuple((name, str(index)) for index, (name, _) in enumerate(ROWS))


@pytest.mark.parametrize(
    ("name", "text", "rows"),
    [
        ("t.csv", "file_name,label\na.jpg,ash\nb.jpg,beech\nc.jpg,elm\n", ROWS),
        ("t.csv", "id,breed\na.jpg,ash\nb.jpg,beech\nc.jpg,elm\n", ROWS),
        ("t.csv", "image,level\na.jpg,ash\nb.jpg,beech\nc.jpg,elm\n", ROWS),
        ("t.csv", "label,filepaths\nash,a.jpg\nbeech,b.jpg\nelm,c.jpg\n", ROWS),
        ("t.csv", ",Filename,Class\n0,a.jpg,ash\n1,b.jpg,beech\n2,c.jpg,elm\n", ROWS),
        ("t.csv", "Unnamed: 0,img_path,category\n0,a.jpg,ash\n1,b.jpg,beech\n2,c.jpg,elm", ROWS),
        ("t.csv", "a,y\nb,n\nc,y\n", (("a", "y"), ("b", "n"), ("c", "y"))),
        ("t.csv", "foto,soort\na.jpg,ash\nb.jpg,beech\nc.jpg,elm\n", ROWS),
        ("t.csv", "file_name;label\na.jpg;ash\nb.jpg;beech\nc.jpg;elm\n", ROWS),
        ("t.csv", "sep=;\nfile_name;label\na.jpg;ash\nb.jpg;beech\nc.jpg;elm\n", ROWS),
        ("t.txt", '"SEP=|"\r\nfile_name|label\r\na.jpg|ash\r\nb.jpg|beech\r\nc.jpg|elm', ROWS),
        ("t.csv", 'ImageId,width,class\n"a.jpg",5,"ash"\nb.jpg,5,beech\nc.jpg,5,elm\n', ROWS),
        ("t.csv", "filename,target,class_name\na.jpg,2,ash\nb.jpg,0,beech\nc.jpg,1,elm\n", ROWS),
        ("t.csv", "ash,a.jpg\nbeech,b.jpg\nelm,c.jpg\n", ROWS),
        ("t.csv", "image,ash,beech,elm\na.jpg,1,0,0\nb.jpg,0,1,0\nc.jpg,0,0,1\n", ROWS),
        ("t.csv", "image,ash,beech,elm\na.jpg,1.0,0.0,0.0\nb.jpg,0.0,1.0,0.0\nc.jpg,0.0,0.0,1.0",
         ROWS),
        ("t.csv", "a.jpg,1,0,0\nb.jpg,0,1,0\nc.jpg,0,0,1\n", NUMBERS),
        ("t.csv", "a.jpg,0.0\nb.jpg,1.0\nc.jpg,2.0\n", NUMBERS),
        ("t.txt", "a.jpg 0\nb.jpg 1\nc.jpg 2\n", NUMBERS),
        ("t.txt", "a.jpg great white shark\nb.jpg elm\n",
         (("a.jpg", "great white shark"), ("b.jpg", "elm"))),
        ("t.txt", "my photo.jpg 3\nb.jpg 4\n", (("my photo.jpg", "3"), ("b.jpg", "4"))),
        ("t.csv", "Width,ClassId,Path\n9,0,a.jpg\n9,1,b.jpg\n9,2,c.jpg\n", NUMBERS),
        ("_classes.csv", "filename, ash, beech, elm\na.jpg, 1, 0, 0\nb.jpg, 0, 1, 0\n"
         "c.jpg, 0, 0, 1\n", ROWS),
        ("t.txt", "filename label\na.jpg ash\nb.jpg beech\nc.jpg elm\n", ROWS),
        ("t.tsv", "a.jpg\tash\t0\t9\nb.jpg\tbeech\t0\t9\nc.jpg\telm\t0\t9\n", ROWS),
        ("t.txt", "\n".join(json.dumps({"file_name": n, "label": c}) for n, c in ROWS), ROWS),
        ("t.json", json.dumps(dict(ROWS)), ROWS),
        ("t.json", json.dumps([{"image": n, "label": int(c), "x": None} for n, c in NUMBERS]),
         NUMBERS),
        ("t.json", json.dumps([{"image": n, "label": [c]} for n, c in ROWS]), ROWS),
        ("t.csv", 'file_name,label,text\na.jpg,ash,"two\nlines, and"\nb.jpg,beech,x\nc.jpg,elm,y\n',
         ROWS),
    ],
)  # fmt: skip
def test_columns_are_told_by_their_names_or_by_what_is_in_them(
    name: str, text: str, rows: tuple[tuple[str, str], ...]
) -> None:
    assert read_table(text, name).rows == rows
    for code in ("utf-8-sig", "utf-16"):
        assert read_truth(text.encode(code), name, beside=lambda _: None).rows == rows


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "file_name,height,width\na.jpg,3,4\n",
            "There are file_name, height, width; call it label",
        ),
        ("file_name,label,class\na.jpg,x,1\nb.jpg,x,2\n", "There are file_name, label, class"),
        ("image,ash,elm\na.jpg,1,1\nb.jpg,0,1\n", "which column is the class"),
        ("image,ash,elm\na.jpg,0,0\nb.jpg,0,1\n", "which column is the class"),
        ("size,label\n3,ash\n4,elm\n", "which column names the images"),
        ("a.jpg,3,10,20\nb.jpg,4,10,20\n", "which of its 4 columns is the class"),
        ("a.jpg,ash,oak\nb.jpg,elm,fir\n", "which of its 3 columns is the class"),
        ("a,ash,oak\nb,elm,fir\n", "has 3 columns without names"),
        ("file_name,label\na.jpg,\n", r"not NAME and CLASS: a\.jpg"),
        ("file_name,label\na.jpg,ash\nb.jpg\n", r"not NAME and CLASS: b\.jpg"),
        ("file_name,label\n", "has a header and no lines"),
        ('{"file_name": "a.jpg"', "is not JSON"),
        ('{"a.jpg": 0, "a.jpg": 1}', "has entries twice: 'a.jpg'"),
        ('{"images": [], "annotations": []}', "an object of image names and classes"),
        ('{"file_name": "a.jpg", "label": ["x", "y"]}', "not one class, but a list of them: a"),
        ("file_name,label\na.jpg,\"['x', 'y']\"\n", "not one class, but a list of them"),
        ("[1]", "lines that are not NAME and CLASS"),
    ],
)
def test_what_is_not_clear_is_an_error_that_lists_the_columns(text: str, reason: str) -> None:
    with pytest.raises(DatasetError, match=reason):
        read_table(text, "t.csv" if "," in text else "t.txt")


def images(folder: Path, *names: str) -> Path:
    for name in names or ("a.jpg", "b.jpg", "c.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def truths(folder: Path, truth: Path | None = None) -> dict[str, int]:
    dataset = open_dataset(folder, TREES, truth=truth, subset=True)
    return {item.read().decode(): item.truth for item in dataset.items()}


EXPECTED = {"a.jpg": 0, "b.jpg": 1, "c.jpg": 2}


@pytest.mark.parametrize("before", ["", "val/", "C:/data/val/", "/home/me/val/"])
@pytest.mark.parametrize("windows", [False, True])
def test_paths_from_elsewhere(before: str, windows: bool, tmp_path: Path) -> None:
    names = [f"{before}{name}" for name in EXPECTED]
    names = [name.replace("/", "\\") for name in names] if windows else names
    names[0] = names[0].replace("data/", "data\\")  # as os.path.join mixes them
    truth = tmp_path / "t.txt"
    truth.write_text("".join(f"{name} {n}\n" for n, name in enumerate(names)))
    assert truths(images(tmp_path / "x"), truth) == EXPECTED


def test_paths_from_elsewhere_tell_images_of_one_name_apart(tmp_path: Path) -> None:
    folder = images(tmp_path / "x", "1/a.jpg", "2/a.jpg")
    (tmp_path / "t.txt").write_text("D:\\x\\1\\a.jpg 0\nD:\\x\\2\\a.jpg 2\n")
    assert truths(folder, tmp_path / "t.txt") == {"1/a.jpg": 0, "2/a.jpg": 2}


def test_lines_of_other_splits_folders_do_not_count(tmp_path: Path) -> None:
    folder = images(tmp_path / "x" / "val")
    lines = [f"train/{name},elm" for name, _ in ROWS] + [f"val/{n},{label}" for n, label in ROWS]
    (tmp_path / "t.csv").write_text("\n".join(["file_name,label", *lines]))
    dataset = open_dataset(folder, TREES, truth=tmp_path / "t.csv")
    assert [item.truth for item in dataset.items()] == [0, 1, 2]
    (tmp_path / "t.csv").write_text("\n".join(["file_name,label", *lines, "val/d.jpg,ash"]))
    with pytest.raises(DatasetError, match=r"no image for 1 label: val/d\.jpg"):
        open_dataset(folder, TREES, truth=tmp_path / "t.csv")


def test_images_of_one_name_elsewhere_are_not_confused(tmp_path: Path) -> None:
    folder = images(tmp_path / "mine", "a.jpg")
    (tmp_path / "t.csv").write_text("file_name,label\nx/a.jpg,ash\ny/a.jpg,elm\n")
    with pytest.raises(DatasetError, match=r"names images more than once: x/a\.jpg"):
        open_dataset(folder, TREES, truth=tmp_path / "t.csv", subset=True)


def test_one_hot_columns_without_names_are_the_model_s_classes_or_an_error(tmp_path: Path) -> None:
    folder, truth = images(tmp_path / "x"), tmp_path / "t.csv"
    truth.write_text("a.jpg,1,0,0\nb.jpg,0,1,0\nc.jpg,0,0,1\n")
    assert truths(folder, truth) == EXPECTED
    truth.write_text("a.jpg,1,0\nb.jpg,0,1\nc.jpg,0,1\n")
    with pytest.raises(DatasetError, match=r"2 columns of 0 and 1 without names, .* 3 classes"):
        truths(folder, truth)


def test_a_column_that_says_yes_or_no_of_one_class_is_no_index(tmp_path: Path) -> None:
    folder, truth = images(tmp_path / "x"), tmp_path / "t.csv"
    truth.write_text("image,Ash\na.jpg,1\nb.jpg,0\nc.jpg,0\n")
    with pytest.raises(DatasetError, match=r"only 0 and 1 in the column Ash, which is a class"):
        truths(folder, truth)
    truth.write_text("image,level\na.jpg,1\nb.jpg,0\nc.jpg,0\n")
    assert truths(folder, truth) == {"a.jpg": 1, "b.jpg": 0, "c.jpg": 0}


def test_numbers_are_names_or_indices_but_not_some_of_each(tmp_path: Path) -> None:
    folder, truth = images(tmp_path / "x"), tmp_path / "t.csv"
    numbered = tuple(Label("", name) for name in ("1", "10", "2"))
    truth.write_text("image,label\na.jpg,2\nb.jpg,1\nc.jpg,10\n")
    dataset = open_dataset(folder, numbered, truth=truth)
    assert [item.truth for item in dataset.items()] == [2, 0, 1]
    truth.write_text("image,label\na.jpg,2\nb.jpg,1\nc.jpg,0\n")
    with pytest.raises(DatasetError, match=r"does not know 1 of the classes in .*: 0;"):
        open_dataset(folder, numbered, truth=truth)


def test_lines_of_the_images_split_count(tmp_path: Path) -> None:
    lines = ["filename,split,label", "a.jpg,val,ash", "b.jpg,val,beech", "c.jpg,val,elm"]
    truth = tmp_path / "t.csv"
    truth.write_text("\n".join(lines))
    assert truths(images(tmp_path / "x"), truth) == EXPECTED
    truth.write_text("\n".join([*lines, "d.jpg,train,ash"]))
    assert open_dataset(tmp_path / "x", TREES, truth=truth).count == 3  # d.jpg is elsewhere
    images(tmp_path / "x", "d.jpg")
    with pytest.raises(DatasetError, match="in several splits: train, val"):
        truths(tmp_path / "x", truth)


def test_the_folder_says_which_split_s_lines_count_where_names_are_in_several(
    tmp_path: Path,
) -> None:
    lines = ["filename,split,label"]
    lines += [f"{name},train,elm" for name, _ in ROWS] + [f"{n},valid,{c}" for n, c in ROWS]
    truth = tmp_path / "t.csv"
    truth.write_text("\n".join(lines))
    assert truths(images(tmp_path / "val"), truth) == EXPECTED
    assert truths(images(tmp_path / "train"), truth) == dict.fromkeys(EXPECTED, 2)
    with pytest.raises(DatasetError, match="names images more than once"):
        truths(images(tmp_path / "mine"), truth)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
@pytest.mark.parametrize("inside", ["", "images/", "deep/er/"])
def test_metadata_of_hugging_face_is_found(name: str, inside: str, tmp_path: Path) -> None:
    folder = images(tmp_path / "x", *(f"{inside}{image}" for image in EXPECTED))
    rows = [(f"{inside}{image}", label) for image, label in ROWS]
    text = "".join(json.dumps({"file_name": n, "label": c}) + "\n" for n, c in rows)
    if name.endswith(".csv"):
        text = "file_name,label\n" + "".join(f"{n},{c}\n" for n, c in rows)
    (folder / name).write_text(text)
    assert truths(folder) == {f"{inside}{image}": n for image, n in EXPECTED.items()}
