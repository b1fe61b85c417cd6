"""Class lists."""

from pathlib import Path

import pytest

from regnet.network.labels import Label, imagenet_labels, read_labels
from regnet.system.errors import RegNetError


def test_imagenet_has_a_thousand_sorted_classes() -> None:
    labels = imagenet_labels()
    assert len(labels) == 1000
    assert [label.wnid for label in labels] == sorted({label.wnid for label in labels})
    assert labels[285] == Label("n02124075", "Egyptian cat")


def test_imagenet_labels_are_the_reference(shared: Path) -> None:
    rows = (shared / "reference" / "imagenet_classes.tsv").read_text().splitlines()[1:]
    assert [f"{i}\t{x.wnid}\t{x.name}" for i, x in enumerate(imagenet_labels())] == rows


@pytest.mark.parametrize(
    "text",
    [
        "n1\ta cat\nn2\tdog\n",
        "wnid\tname\nn1\ta cat\nn2\tdog",
        "index\twnid\tname\n0\tn1\ta cat\n1\tn2\tdog\n",
    ],
)
def test_lists_with_wnids(text: str, tmp_path: Path) -> None:
    (tmp_path / "classes.tsv").write_text(text)
    assert read_labels(tmp_path / "classes.tsv") == (Label("n1", "a cat"), Label("n2", "dog"))


def test_lists_of_names(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a cat\n\ndog, puppy\n")
    assert read_labels(tmp_path / "names.txt") == (Label("", "a cat"), Label("", "dog, puppy"))


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"\xff\xfe\x00"])
def test_bad_lists_are_errors_that_name_the_file(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RegNetError, match=r"classes\.txt"):
        read_labels(path)


def test_only_newlines_end_a_line_and_a_byte_order_mark_is_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffa cat\r\nx\x85y\u2028z\x0cw\r\nn1\tdog\r\n".encode())
    expected = (Label("", "a cat"), Label("", "x\x85y\u2028z\x0cw"), Label("n1", "dog"))
    assert read_labels(path) == expected
    for code in ("utf-8", "utf-16-le", "utf-16-be"):  # Windows PowerShell writes UTF-16
        path.write_bytes("\ufeffwnid\tname\nn1\tdog\r\n".encode(code))
        assert read_labels(path) == (Label("n1", "dog"),)
    path.write_bytes("m\xfc".encode("latin-1"))
    with pytest.raises(RegNetError, match=r"names\.txt: save it as UTF-8"):
        read_labels(path)


def test_a_name_that_no_file_can_have_is_an_error_of_ours() -> None:
    with pytest.raises(RegNetError, match="cannot read the class list"):
        read_labels("a\0b")


def test_an_index_behind_imagenet_s_names_is_honoured(tmp_path: Path) -> None:
    names = [label.name for label in imagenet_labels()]  # two are called crane
    lines = [f"{name} {index}" for index, name in reversed(list(enumerate(names)))]
    assert [label.name for label in read(tmp_path, "\n".join(lines))] == names


TREES = ["ash", "beech", "elm", "oak", "yew"]


def read(tmp_path: Path, text: str, name: str = "classes.txt") -> list[Label]:
    (tmp_path / name).write_text(text)
    return list(read_labels(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "3\toak\n1\tbeech\n4\tyew\n2\telm\n0\tash"),
        ("a.txt", "ash\t0\nbeech\t1\nelm\t2\noak\t3\nyew\t4\n"),
        ("a.txt", "0 ash\n1 beech\n2 elm\n3 oak\n4 yew"),
        ("a.txt", "4: yew\n1: beech\n2: elm\n3: oak\n0: ash"),
        ("a.txt", "4,yew\n1,beech\n2,elm\n3,oak\n0,ash"),
        ("a.txt", "yew 4\nbeech 1\nelm 2\noak 3\nash 0"),
        ("a.txt", '"4","yew"\n"1","beech"\n"2","elm"\n"3","oak"\n"0","ash"'),
        ("a.txt", "'4': 'yew',\n'1': 'beech',\n'2': 'elm',\n'3': 'oak',\n'0': 'ash'"),
        ("a.txt", '"yew" "4"\n"beech" "1"\n"elm" "2"\n"oak" "3"\n"ash" "0"'),
        ("a.jsonl", "\n".join(f'{{"id": {4 - i}, "name": "{n}"}}'
         for i, n in enumerate(("yew", "oak", "elm", "beech", "ash")))),
        ("a.txt", "yew, 4\nbeech, 1\nelm, 2\noak, 3\nash, 0"),
        ("a.txt", "4 - yew\n1 - beech\n2 - elm\n3 - oak\n0 - ash"),
        ("a.txt", "4|yew\n1|beech\n2|elm\n3|oak\n0|ash"),
        ("a.txt", "yew -> 4\nbeech -> 1\nelm -> 2\noak -> 3\nash -> 0"),
        ("a.txt", "4.0 yew\n1.0 beech\n2.0 elm\n3.0 oak\n0.0 ash"),
        ("a.csv", "ClassId,SignName\n4,yew\n1,beech\n2,elm\n3,oak\n0,ash\n"),
        ("a.csv", ",name\n4,yew\n1,beech\n2,elm\n3,oak\n0,ash\n"),
        ("a.txt", "index name\n4 yew\n1 beech\n2 elm\n3 oak\n0 ash"),
        ("a.txt", "name,index\nyew,4\nbeech,1\nelm,2\noak,3\nash,0"),
        ("a.txt", '"ash"\n"beech"\n"elm"\n"oak"\n"yew"'),
        ("a.csv", "name,id\nyew,4\nbeech,1\nelm,2\noak,3\nash,0\n"),
        ("a.csv", "id;name;height\n4;yew;9\n1;beech;9\n2;elm;9\n3;oak;9\n0;ash;9\n"),
        ("a.csv", "sep=;\r\nid;name\r\n4;yew\r\n1;beech\r\n2;elm\r\n3;oak\r\n0;ash\r\n"),
        ("a.csv", "id,species\n4,yew\n1,beech\n2,elm\n3,oak\n0,ash\n"),
        ("a.csv", "label\nash\nbeech\nelm\noak\nyew\n"),
        ("a.tsv", "label\tclass\n4\tyew\n1\tbeech\n2\telm\n3\toak\n0\tash\n"),
        ("a.json", '["ash", "beech", "elm", "oak", "yew"]'),
        ("a.json", '{"4": "yew", "0": "ash", "1": "beech", "3": "oak", "2": "elm"}'),
        ("a.json", '{"num_classes": 5, "label_names": ["ash", "beech", "elm", "oak", "yew"]}'),
        ("a.json", '{"id2label": {"0": "ash", "1": "beech", "2": "elm", "3": "oak", "4": "yew"}}'),
        ("a.txt", "{4: 'yew',\n 0: 'ash', 1: 'beech', 3: 'oak', 2: 'elm'}\n"),
        ("a.txt", "['ash', 'beech', 'elm', 'oak', 'yew']"),
        ("a.txt", '{"yew": 4, "ash": 0, "beech": 1, "oak": 3, "elm": 2}'),
        ("a.json", '[{"id": 1, "name": "beech"}, {"id": 0, "name": "ash"}, {"id": 2, "name": "elm"}'
         ', {"id": 3, "name": "oak"}, {"id": 4, "name": "yew"}]'),
    ],
)  # fmt: skip
def test_an_index_gives_the_order(name: str, text: str, tmp_path: Path) -> None:
    assert read(tmp_path, text, name) == [Label("", tree) for tree in TREES]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "n01440764 tench, Tinca tinca\nn01443537 goldfish"),
        ("a.txt", "n01443537 1 goldfish\nn01440764 0 tench, Tinca tinca"),
        ("a.txt", "0 n01440764 tench, Tinca tinca\n1 n01443537 goldfish"),
        ("a.tsv", "index\twnid\tname\n1\tn01443537\tgoldfish\n0\tn01440764\ttench, Tinca tinca"),
        ("a.tsv", "goldfish\tn01443537\t1\ntench, Tinca tinca\tn01440764\t0"),
        ("a.csv", 'wnid,name\nn01440764,"tench, Tinca tinca"\nn01443537,goldfish\n'),
        ("a.json", '{"1": ["n01443537", "goldfish"], "0": ["n01440764", "tench, Tinca tinca"]}'),
    ],
)
def test_wnids_are_told_from_names(name: str, text: str, tmp_path: Path) -> None:
    expected = [Label("n01440764", "tench, Tinca tinca"), Label("n01443537", "goldfish")]
    assert read(tmp_path, text, name) == expected


def test_a_list_of_wnids_has_the_names_of_imagenet(tmp_path: Path) -> None:
    assert read(tmp_path, "n01440764\nn99999999\nbackground\n") == [
        Label("n01440764", "tench, Tinca tinca"),
        Label("n99999999", "n99999999"),
        Label("", "background"),
    ]


@pytest.mark.parametrize(
    "names",
    [
        ["7 seater", "3d printer", "sofa"],
        ["2 door", "2 seater"],
        ["7 seater", "4 wheeler", "sofa"],
        ["Boeing 737", "Boeing 747"],
        ["class 0", "class 1"],
        ["0", "1", "2"],
        ["3", "1"],
        ['12" plate', "dog, large"],
        ["Grade: 0", "Grade: 1"],
        ["Type: 0", "Type: 1", "Other: 2"],
        ["001.Albatross", "002.Auklet"],
        ["10_rose", "1_oak", *(f"{n}_elm" for n in range(2, 10))],  # as folders are sorted
        ["707-320", "727-200"],
        ["Grade-1", "Grade-0"],
        ["# classes", "oak"],
    ],
)
def test_numbers_in_names_are_no_index(names: list[str], tmp_path: Path) -> None:
    assert [label.name for label in read(tmp_path, "\n".join(names))] == names


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.txt", "1\tash\n2\toak\n", "counts from 1 to 2"),
        ("a.txt", "1 ash\n2 oak\n", "counts from 1 to 2"),
        ("a.txt", "0 ash\n0 oak\n2: elm", "0 to 2, each once; missing: '1'"),
        ("a.txt", "0 ash\n1 oak\n1 elm", "0 to 2, each once; missing: '2'"),
        ("a.txt", "ash 0\noak 1\nelm 1", "0 to 2, each once; missing: '2'"),
        ("a.txt", "ash 0\noak 1\nelm", "end with an index, but not 'elm'"),
        ("a.txt", "1_ash\n0_oak", "have numbers that are not in order: '1_ash', '0_oak'"),
        ("a.txt", "ash_1\noak_0", "have numbers that are not in order"),
        ("a.txt", "ash [1]\noak [0]", "have numbers that are not in order"),
        ("a.txt", "idx:1 ash\nidx:0 oak", "have numbers that are not in order"),
        ("a.txt", "item {\n id: 1\n name: 'ash'\n}", "a label map"),
        ("a.txt", '{"0": "ash",\n"1": "oak"', "is not JSON"),
        ("a.txt", "[2] ash\n[1] oak", "have numbers that are not in order"),
        ("a.txt", "class 1: ash\nclass 0: oak", "have numbers that are not in order"),
        ("a.csv", "name\n1_ash\n0_oak\n", "have numbers that are not in order"),
        ("a.json", '["1: ash", "0: oak"]', "have numbers that are not in order"),
        ("a.json", '{"0": "ash", "0": "oak", "1": "elm"}', "has entries twice: '0'"),
        ("a.txt", "0 ash\n1 oak\nelm", "begin with an index, but not 'elm'"),
        ("a.txt", "index name\nash\noak", "names an index, which not every line has"),
        ("a.txt", "281 tabby\n282 tiger cat", "0 to 1, each once"),
        ("a.tsv", "0\tash\n2\toak\n", "missing: '1'"),
        ("a.tsv", "oak\tash\nelm\tyew\n", "which of its 2 columns are the names"),
        ("a.tsv", "index\tname\n0\tash\nx\toak\n", "no whole numbers in: 'x'"),
        ("a.csv", "dog, large\nsmall\n", "line 1 has 2 columns"),
        ("a.csv", "index,name\n", "has no classes"),
        ("a.yaml", "names: [a, b]\n", r"\.yaml is not read"),
        ("a.json", '{"0": "a", "2": "b"}', "missing: '1'"),
        ("a.json", '{"a": "b"}', "neither names by index nor indices by name"),
        ("a.json", "[1, 2]", "not a class name: 1"),
        ("a.json", "[", "is not JSON"),
        ("a.pbtxt", "item { id: 1 }", r"\.pbtxt is not read"),
        ("a.txt", "n02119789 1 kit_fox\nn02100735 2 English_setter", "counts from 1 to 2"),
        ("a.json", "[]", "has no list of names"),
        ("a.txt", f"ash\n{'x' * 1001}", "class 1 has 1,001 characters, 'xxxx"),
        ("a.json", r'["ash", "\ud800"]', "class 1 is not text"),
    ],
)
def test_an_index_that_cannot_be_honoured_is_an_error(
    name: str, text: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(RegNetError, match=reason):
        read(tmp_path, text, name)
