"""JSON in UTF-8: text as it is, and nothing that UTF-8 or a terminal cannot take."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regnet.system.json_text import ToDict, json_bytes, json_text, plain


def test_text_is_not_escaped() -> None:
    assert json_text({"é": "日本 😀"}) == '{"é": "日本 😀"}'
    assert json_bytes(["ß"], separators=(",", ":")) == b'["\xc3\x9f"]'


@pytest.mark.parametrize("sign", ["\udcff", "\x9b", "\x85", "\u2028", "\n", "\x1b"])
def test_what_is_no_text_is_escaped(sign: str) -> None:
    text = json_text([f"é{sign}"])
    assert sign not in text
    assert json.loads(text) == [f"é{sign}"]


@given(st.text(st.characters(codec=None)))
def test_every_text_comes_back(text: str) -> None:
    assert json.loads(json_bytes([text]).decode()) == [text]


def test_nan_can_be_refused() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        json_text([float("nan")], allow_nan=False)


@dataclass
class Point(ToDict):
    x: int
    path: Path


@dataclass
class Line:
    ends: tuple[Point, Point]
    names: dict[str, Point | None]


class Dashed(ToDict):
    def to_dict(self) -> dict[str, Any]:
        return {"dashed": True}


def test_dataclasses_are_objects_of_their_fields() -> None:
    a, b = Point(1, Path("a")), Point(2, Path("b"))
    assert plain([Line((a, b), {"a": None}), Dashed()]) == [
        {"ends": [{"x": 1, "path": "a"}, {"x": 2, "path": "b"}], "names": {"a": None}},
        {"dashed": True},
    ]
