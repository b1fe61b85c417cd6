"""Names of classes that training scripts put beside the weights."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from regnet.checkpoints.plain_types import named_values
from regnet.class_list import WNID
from regnet.labels import Labels, label_of

_DEPTH = 2
# Fields with names in the order of the classes, or by their numbers.
_NAMES = re.compile(
    r"(class|label)_?names|classes|labels|names|(idx|index|id)_?(to|2)_?(class|label)",
    re.IGNORECASE,
)
# Fields with numbers by name.
_NUMBERS = re.compile(r"(class|label)_?(to|2)_?(idx|index|id)", re.IGNORECASE)


def recorded_names(content: Any, classes: int) -> Labels | None:
    """Return the classes that a file's content names; None if no field or two lists name them.

    Looks in the content and two levels below (`hyper_parameters`, `args`, `meta`) for fields such
    as `class_names` or `class_to_idx` with as many different names as there are classes.
    """
    found = {names for names in _lists(content, _DEPTH) if len(names) == len(set(names)) == classes}
    if len(found) != 1:
        return None
    (names,) = found
    return tuple(label_of((name, "") if WNID.fullmatch(name) else ("", name)) for name in names)


def _lists(value: Any, depth: int) -> Iterator[tuple[str, ...]]:
    for name, child in named_values(value):
        if (_NAMES.fullmatch(name) and (names := _in_order(child))) or (
            _NUMBERS.fullmatch(name) and (names := _by_number(child))
        ):
            yield names
        elif depth:
            yield from _lists(child, depth - 1)


def _in_order(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, Mapping):
        numbers = {str(key): name for key, name in value.items()}
        value = [numbers.get(str(n)) for n in range(len(numbers))]
    if not isinstance(value, list | tuple):
        return None
    return tuple(value) if all(isinstance(name, str) and name.strip() for name in value) else None


def _by_number(value: Any) -> tuple[str, ...] | None:
    if not isinstance(value, Mapping):
        return None
    names = {number: name for name, number in value.items() if isinstance(number, int)}
    return _in_order(names) if len(names) == len(value) else None
