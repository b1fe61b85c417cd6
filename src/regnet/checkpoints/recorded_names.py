"""Names of classes that training scripts put beside the weights."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from regnet.checkpoints.fields import is_label
from regnet.checkpoints.plain_types import as_key, named_values
from regnet.network.class_list import WNID
from regnet.network.labels import Labels, label_of

Path = tuple[str, ...]

_DEPTH = 2
# Fields with names in the order of the classes, or by their numbers.
_NAMES = re.compile(
    r"(class|label)_?names|classes|labels|names|(idx|index|id)_?(to|2)_?(class|label)",
    re.IGNORECASE,
)
# Fields with numbers by name.
_NUMBERS = re.compile(r"(class|label)_?(to|2)_?(idx|index|id)", re.IGNORECASE)


def recorded_names(
    content: Any, classes: int, *, apart: Collection[Path] = frozenset()
) -> tuple[Labels | None, tuple[str, ...]]:
    """Return the classes that a file's content names, else a sentence about lists that do not fit.

    Looks in the content and two levels below (`hyper_parameters`, `args`, `meta`) for fields such
    as `class_names` or `class_to_idx` with as many different names as there are classes, but not in
    the containers at the paths `apart`: they are of other networks. Two lists that differ are none.
    """
    lists = set(_lists(content, apart))
    fitting = {names for names in lists if len(names) == len(set(names)) == classes}
    if len(fitting) == 1:
        pairs = ((name, "") if WNID.fullmatch(name) else ("", name) for name in fitting.pop())
        return tuple(map(label_of, pairs)), ()
    if fitting:
        return None, (f"names: the file has {len(fitting)} lists of them that differ",)
    sizes = ", ".join(f"{size:,}" for size in sorted({len(set(names)) for names in lists}))
    return None, (f"names: the file has {sizes} for {classes:,} classes",) if sizes else ()


def _lists(content: Any, apart: Collection[Path]) -> Iterator[tuple[str, ...]]:
    """Yield the lists of names; what a file refers to several times is looked at once."""
    tried: set[tuple[int, bool]] = set()
    level: list[tuple[Path, Any]] = [((), content)]
    for _ in range(_DEPTH + 1):
        below = []
        for path, value in level:
            for name, child in named_values(value):
                read = next((read for kind, read in _READERS if kind.fullmatch(name)), None)
                place = (*path, name)
                if (id(child), read is None) in tried or place in apart:
                    continue
                tried.add((id(child), read is None))
                if read and (names := read(child)):
                    yield names
                else:
                    below.append((place, child))
        level = below


def _in_order(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, Mapping):
        numbers = {str(key): name for key, name in value.items()}
        value = [numbers.get(str(n)) for n in range(len(numbers))]
    if not isinstance(value, list | tuple):
        return None
    named = all(isinstance(name, str) and name.strip() and is_label(name) for name in value)
    return tuple(value) if named else None


def _by_number(value: Any) -> tuple[str, ...] | None:
    if not isinstance(value, Mapping):
        return None
    names = {as_key(number): name for name, number in value.items() if isinstance(number, int)}
    return _in_order(names) if len(names) == len(value) else None


_READERS = ((_NAMES, _in_order), (_NUMBERS, _by_number))
