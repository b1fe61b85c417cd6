"""Dataclasses that check their values: types, ranges, rules and nesting."""

import json
import math
import pickle
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import pytest

from regnet.system.checked import Checked, Rule, refused, within
from regnet.system.errors import CardError, RecipeError, SpecError


@dataclass(frozen=True)
class Point(Checked, error=SpecError):
    """Two numbers; a family of errors of its own."""

    x: Annotated[int, within(ge=1, le=9)]
    y: Annotated[int, within(ge=1, lt=9)] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.x >= self.y, "y", f"at most x={self.x}")


@dataclass(frozen=True, kw_only=True)
class Values(Checked, error=RecipeError):
    """A field of each kind."""

    kind: Literal["a", "b", "c"] = "a"
    share: Annotated[float, within(ge=0, lt=1)] = 0.0
    rate: Annotated[float, within(gt=0, le=9)] | None = None
    amount: Annotated[float, within(ge=0)] = 0.0
    over: Annotated[float, within(gt=0)] = 1.0
    name: Annotated[str, Rule("of digits", str.isdigit)] = "1"
    pairs: Annotated[
        tuple[tuple[float, int], ...], Rule("in order", lambda v: v == tuple(sorted(v)))
    ] = ()
    points: tuple[Point, ...] = ()
    point: str | Point = "origin"
    on: bool = False
    anything: Any = None
    table: dict[str, Any] = field(default_factory=dict)


PAIRS = "a list of [a finite number, a whole number] in order"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "x"}, "kind must be 'a', 'b' or 'c', not 'x'"),
        ({"kind": []}, "kind must be 'a', 'b' or 'c', not []"),
        ({"share": 1}, "share must be a finite number from 0 to below 1, not 1"),
        ({"share": True}, "share must be a finite number from 0 to below 1, not True"),
        ({"rate": 0}, "rate must be a finite number over 0 and at most 9 or None, not 0"),
        ({"rate": math.nan}, "rate must be a finite number over 0 and at most 9 or None, not nan"),
        ({"amount": -1}, "amount must be a finite number of at least 0, not -1"),
        ({"amount": math.inf}, "amount must be a finite number of at least 0, not inf"),
        ({"over": 0}, "over must be a finite number over 0, not 0"),
        ({"name": "x"}, "name must be a text of digits, not 'x'"),
        ({"name": 3}, "name must be a text of digits, not 3"),
        ({"pairs": 3}, f"pairs must be {PAIRS}, not 3"),
        ({"pairs": [[1, 2.5]]}, f"pairs must be {PAIRS}, not [[1, 2.5]]"),
        ({"pairs": [[2, 1], [1, 1]]}, f"pairs must be {PAIRS}, not [[2, 1], [1, 1]]"),
        ({"points": [3]}, "points must be a list of a table of x, y, not [3]"),
        ({"points": [{"x": 0}]}, "points: x must be a whole number from 1 to 9, not 0"),
        ({"points": [[1, 2]]}, "points: y must be at most x=1, not 2"),
        ({"points": [[1, 2, 3]]}, "points: expected a table of x, y, got [1, 2, 3]"),
        ({"points": [{}]}, "points: the field 'x' is missing"),
        ({"point": {"z": 1}}, "point: unknown field 'z'; known: x, y"),
        ({"point": 3}, "point must be a text or a table of x, y, not 3"),
        ({"on": 1}, "on must be true or false, not 1"),
        ({"table": 1}, "table must be a dict, not 1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(values: dict[str, Any], message: str) -> None:
    for build in (Values.from_dict, lambda values: Values(**values)):
        with pytest.raises(RecipeError) as caught:
            build(json.loads(json.dumps(values)))
        assert str(caught.value) == message


def test_numbers_beyond_floats_are_not_finite() -> None:
    with pytest.raises(RecipeError, match="amount must be a finite number"):
        Values(amount=10**400)


def test_fields_are_those_of_the_dataclass() -> None:
    with pytest.raises(RecipeError, match=r"^unknown field 'more'; known: kind, share, .*, table$"):
        Values.from_dict({"more": 1})
    with pytest.raises(RecipeError, match=r"^expected a table of kind, share, .*, got 3$"):
        Values.from_dict(3)


def test_lists_and_dicts_become_values() -> None:
    values = Values(
        pairs=[[0, 1]],  # type: ignore[arg-type]
        points=[{"x": 2}, [3, 2], Point(4)],  # type: ignore[list-item]
        point={"x": 9},  # type: ignore[arg-type]
    )
    assert values.pairs == ((0, 1),)
    assert values.points == (Point(2), Point(3, 2), Point(4))
    assert values.point == Point(9)
    assert Values.from_dict(json.loads(json.dumps(values.to_dict()))) == values
    assert replace(values, on=True).points == values.points


def test_an_error_has_the_parts_of_its_message() -> None:
    with pytest.raises(SpecError) as caught:
        Point(10)
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.parameter, error.value) == ("x", 10)
    assert error.allowed == "a whole number from 1 to 9"
    assert str(refused(CardError, "x", 3, "4")) == "x must be 4, not 3"
