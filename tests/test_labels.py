"""Class lists."""

from pathlib import Path

import pytest

from regnet.errors import RegNetError
from regnet.labels import Label, imagenet_labels, read_labels


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
    path.write_bytes("\ufeffwnid\tname\nn1\tdog".encode())
    assert read_labels(path) == (Label("n1", "dog"),)


def test_a_name_that_no_file_can_have_is_an_error_of_ours() -> None:
    with pytest.raises(RegNetError, match="cannot read the class list"):
        read_labels("a\0b")
