"""Rows as CSV: what a reader would split, strip or misread is quoted, in every column."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regnet.system.row_writers import CsvRows


def as_csv(*values: object) -> str:
    """Return the line of one row."""
    file = io.StringIO()
    names = [f"c{number}" for number in range(len(values))]
    rows = CsvRows(file, names)
    rows.write(dict(zip(names, values, strict=True)))
    rows.close()
    return file.getvalue().removeprefix(",".join(names) + "\n")


@pytest.mark.parametrize("name", ["a\rb", "a\nb", " a", "a\t", "a,b", "a\x0bb", "\xa0a", "a\x85b"])
def test_odd_names_are_quoted(name: str) -> None:
    assert as_csv(name, 1) == f'"{name}",1\n'


def test_plain_values_are_not_quoted() -> None:
    assert as_csv("a b.jpg", None, 0.5, True, "日本") == "a b.jpg,,0.5,true,日本\n"
    assert as_csv('5" disk') == '"5"" disk"\n'


@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=2, max_size=4))
def test_every_name_comes_back(names: list[str]) -> None:
    text = as_csv(*names)
    assert list(csv.reader(io.StringIO(text, newline=""))) == [names]
