"""The text of a class list -> the wnid and name of each class, in index order.

A column that is not understood is an error, never ignored: a wrong order of classes shows nowhere
but in wrong answers.
"""

import ast
import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, Literal

from regnet.system.json_text import unique_keys
from regnet.system.text import separated

Pair = tuple[str, str]
"""The wnid and the name of a class; either may be empty."""

Kind = Literal["index", "wnid", "name", "other"]

WNID: Final = re.compile(r"n\d{8}")
_ID: Final = re.compile(r"[A-Za-z]+\d+")  # the first of two columns of text: an id, then a name
_SEPARATOR: Final = r"\s*(?:[,:;|]|=>?|->)\s*|\s+-\s+"
_LEADING: Final = re.compile(rf"(\d+)(?:\.0+)?({_SEPARATOR}|[.)]\s+|\s+)(\S.*)")
_TRAILING: Final = re.compile(rf"(.*?\S)({_SEPARATOR}|\s+)(\d+)(?:\.0+)?")
_ATTACHED: Final = re.compile(
    r"[\[({#]?(?:(?:class|label|index|idx|id)[\s:_-]*)?(\d+)[\W_]+\S.*", re.I
)
_ATTACHED_BEHIND: Final = re.compile(r"(.*[^\W_])[\W_]+(\d+)[\])}]?")
_QUOTED: Final = re.compile(r"""(["'])(.*)\1,?""")
_QUOTED_NUMBER: Final = re.compile(
    r"""^(["'])(\d+)\1(?=[\s,:;=|])|(?<=[\s,:;=|])(["'])(\d+)\3,?$"""
)
_WNID_FIRST: Final = re.compile(r"(n\d{8})[\s,:;]+(\S.*)")
_HEADERS: Final[dict[Kind, frozenset[str]]] = {
    "index": frozenset(("index", "idx", "id", "number", "classid", "classindex", "classidx"))
    | {"labelid", "labelindex", "labelidx", "categoryid", "target", "unnamed0"},
    "wnid": frozenset(("wnid", "synset", "synsetid", "wordnetid")),
    "name": frozenset(("name", "classname", "labelname", "label", "labels", "class", "classes"))
    | {"category", "categoryname", "words", "names"},
}
_UNREAD: Final = (".yaml", ".yml", ".pbtxt", ".xml", ".toml", ".npy", ".pkl")
_HOLDERS: Final = (
    "id2label",
    "label2id",
    "class_to_idx",
    "label_names",
    "names",
    "classes",
    "labels",
)
_SHOWN: Final = 5


def parse_classes(text: str, suffix: str = "") -> list[Pair]:
    """Return the classes of a list in index order; `suffix` is its file's, such as ".csv".

    Raises `ValueError` with the reason for what cannot be understood.
    """
    if suffix in _UNREAD:
        raise ValueError(f"{suffix} is not read: write one name per line, or a JSON list of names")
    if suffix == ".json" or text.lstrip()[:1] in ("[", "{"):
        value = _literal(text)
        if value is not None:
            return _of_json(value)
        if suffix == ".json" or text.lstrip()[:1] == "{":
            raise ValueError("is not JSON")
    named, text = separated(text)
    # Only newlines end a line: str.splitlines would also split at U+0085 and U+2028.
    lines = [line.strip("\r\n") for line in text.split("\n") if line.strip()]
    if not lines:
        raise ValueError("has no classes")
    if any("\t" in line for line in lines):
        return _of_columns([[_unquoted(cell) for cell in line.split("\t")] for line in lines])
    if any(re.fullmatch(r"\s*item\s*\{.*", line) for line in lines):
        raise ValueError("is a label map (pbtxt), which is not read: write one name per line")
    if named or suffix == ".csv":
        delimiter = named or (";" if all(";" in line for line in lines) else ",")
        rows = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))
        return _of_columns([[cell.strip() for cell in row] for row in rows], csv_file=True)
    lines = [_QUOTED_NUMBER.sub(r"\2\4", line.strip()) for line in lines]
    kinds = [_kind_of_header(word) for word in re.split(r"[\s,;]+", lines[0])]
    if len(kinds) > 1 and len(lines) > 1 and "other" not in kinds and len(set(kinds)) > 1:
        return _numbered(lines[1:], certain="index" in kinds)
    return _numbered(lines, certain=False)


def _literal(text: str) -> Any:
    """Return the value of JSON, or of a list or dictionary as Python prints it; None of others."""
    with suppress(json.JSONDecodeError, RecursionError):
        return json.loads(text, object_pairs_hook=unique_keys)
    with suppress(json.JSONDecodeError, RecursionError):
        return [json.loads(line) for line in text.splitlines() if line.strip()]  # JSON lines
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return {str(key): entry for key, entry in value.items()} if isinstance(value, dict) else value


def _unquoted(text: str) -> str:
    found = _QUOTED.fullmatch(text.strip())
    return found[2].replace(2 * found[1], found[1]).strip() if found else text.strip()


# Lines of text


def _numbered(lines: list[str], *, certain: bool) -> list[Pair]:
    """Return the classes of lines, by the index before or behind each name where there is one.

    With `certain` there must be one.
    """
    if (found := _numbered_after_wnids(lines)) is not None:
        return found
    leading = [match for line in lines if (match := _LEADING.fullmatch(line))]
    if _is_index(leading, certain=certain) and (certain or _for_most(leading, lines)):
        if len(leading) < len(lines):
            other = next(line for line in lines if not _LEADING.fullmatch(line))
            raise ValueError(f"most lines begin with an index, but not {other!r}: quote the names")
        return _by_index([int(m[1]) for m in leading], [_line(m[3]) for m in leading])
    trailing = [match for line in lines if (match := _TRAILING.fullmatch(line))]
    if len(trailing) == len(lines) and (certain or _is_trailing_index(trailing)):
        return _by_index([int(m[3]) for m in trailing], [_line(m[1]) for m in trailing])
    if certain:
        raise ValueError("its first line names an index, which not every line has")
    if len(trailing) < len(lines) and _count_most(trailing, lines):
        other = next(line for line in lines if not _TRAILING.fullmatch(line))
        raise ValueError(f"most lines end with an index, but not {other!r}: quote the names")
    _refuse_disorder(lines)
    return [_line(line) for line in lines]


def _numbered_after_wnids(lines: list[str]) -> list[Pair] | None:
    """Return the classes of lines `WNID INDEX NAME`, as of map_clsloc.txt; None of others."""
    pairs = [_line(line) for line in lines]
    numbers = [_LEADING.fullmatch(name) for wnid, name in pairs if wnid]
    found = [match for match in numbers if match]
    if len(found) < len(lines) or not _is_index(found, certain=False):
        return None
    named = [(wnid, match[3]) for (wnid, _), match in zip(pairs, found, strict=True)]
    return _by_index([int(match[1]) for match in found], named)


def _line(line: str) -> Pair:
    if found := _WNID_FIRST.fullmatch(line):
        return found[1], _unquoted(found[2])
    return (line, "") if WNID.fullmatch(line) else ("", _unquoted(line))


def _is_index(matches: Sequence[re.Match[str]], *, certain: bool) -> bool:
    """Tell whether numbers before names count classes: those of `2 door, 2 seater` do not."""
    numbers = [int(match[1]) for match in matches]
    counted = bool(numbers) and min(numbers) < 2 and max(numbers) <= len(numbers)
    once = len(set(numbers)) == len(numbers)
    return bool(matches) and (certain or once or counted or any(map(_is_separated, matches)))


def _is_separated(match: re.Match[str]) -> bool:
    """Tell whether more than spaces and a dash are between a number and a name."""
    return bool(match[2].strip(" \t-"))


def _for_most(matches: Sequence[re.Match[str]], lines: Sequence[str]) -> bool:
    """Tell whether all lines have a number, or most have one that could be the index of a class."""
    could_be = all(int(match[1]) <= len(lines) for match in matches)
    return len(matches) == len(lines) or (could_be and 2 * len(matches) > len(lines))


def _is_trailing_index(matches: Sequence[re.Match[str]]) -> bool:
    """Tell whether numbers after names count classes: those of `Boeing 737` do not."""
    if all(map(_is_separated, matches)):
        return _differ(match[1] for match in matches)  # not those of `Grade: 2`
    return _count_most(matches, matches)


def _count_most(matches: Sequence[re.Match[str]], lines: Sequence[object]) -> bool:
    """Tell whether most lines end with a number that may be the index of the name before it."""
    numbers = [int(match[3]) for match in matches]
    differ = _differ(match[1] for match in matches)
    could_be = bool(numbers) and min(numbers) < 2 and max(numbers) <= len(lines)
    return differ and could_be and 2 * len(matches) > len(lines)


def _differ(names: Iterable[str]) -> bool:
    """Tell whether names differ but for a few: ImageNet has two cranes, and two maillots."""
    counts = Counter(names)
    return 10 * len(counts) >= 9 * counts.total()


def _refuse_disorder(names: Sequence[str]) -> None:
    """Raise `ValueError` where names as `1_oak` count classes in another order than their own.

    Sorted names are in the order of class folders.
    """
    before = [int(match[1]) for name in names if (match := _ATTACHED.fullmatch(name))]
    behind = [match for name in names if (match := _ATTACHED_BEHIND.fullmatch(name))]
    once = len({match[1] for match in behind}) == len(names)  # not so in Grade-1, Grade-0
    disorder = list(names) != sorted(names) and _is_other_order(before, len(names))
    if disorder or (once and _is_other_order([int(match[2]) for match in behind], len(names))):
        raise ValueError(
            f"its names have numbers that are not in order: {_listed(names)}. If they are class "
            "indices, write lines such as 0: name; if they belong to the names, quote the names, "
            "or write a JSON object of names by index"
        )


def _is_other_order(numbers: list[int], count: int) -> bool:
    """Tell whether numbers are 0 to N - 1, or 1 to N, but not in this order."""
    ordered = sorted(numbers)
    return numbers != ordered and ordered in (list(range(count)), list(range(1, count + 1)))


def _by_index(indices: list[int], pairs: list[Pair]) -> list[Pair]:
    """Return the classes in the order of their indices, which are to be 0 to N - 1, each once."""
    count = len(indices)
    if sorted(indices) == list(range(1, count + 1)):
        raise ValueError(
            f"its index column counts from 1 to {count}: class indices count from 0. Subtract 1 "
            "from each, or remove the column if the lines are in the model's order; if the numbers "
            "belong to the names, quote the names"
        )
    if sorted(indices) != list(range(count)):
        missing = sorted(set(range(count)) - set(indices))
        raise ValueError(
            f"its index column must have 0 to {count - 1}, each once; missing: "
            f"{_listed(map(str, missing))}. If these numbers belong to the names, quote the names"
        )
    order = sorted(range(count), key=indices.__getitem__)
    return [pairs[place] for place in order]


# Columns


def _of_columns(rows: list[list[str]], *, csv_file: bool = False) -> list[Pair]:
    rows = [row[:-1] if csv_file and len(row) > 1 and not row[-1] else row for row in rows]
    if len({len(row) for row in rows}) > 1:
        return [_ragged(row, number) for number, row in enumerate(rows, 1)]
    header, rows = _split_header(rows, csv_file=csv_file)
    if not rows:
        raise ValueError("has no classes")
    columns = [list(column) for column in zip(*rows, strict=True)]
    kinds = header or [_kind(column) for column in columns]
    if not header and kinds == ["name", "name"] and all(map(_ID.fullmatch, columns[0])):
        kinds = ["wnid", "name"]  # ids of another kind than ImageNet's
    return _pairs(columns, kinds)


def _ragged(row: list[str], number: int) -> Pair:
    """Return the class of one line where some have an id and others only a name."""
    if len(row) == 1:
        return _line(row[0])
    if len(row) == 2 and _ID.fullmatch(row[0]) and row[1]:
        return row[0], row[1]
    raise ValueError(
        f"line {number} has {len(row)} columns, others have not: {_listed(row)}. Quote names with "
        "commas, or write one name per line"
    )


def _split_header(
    rows: list[list[str]], *, csv_file: bool
) -> tuple[list[Kind] | None, list[list[str]]]:
    """Return the kinds of columns that a header gives, None without one, and the other rows."""
    first, rest = rows[0], rows[1:]
    kinds = [_kind_of_header(cell) for cell in first]
    known = [kind for kind in kinds if kind != "other"]
    if not known or (len(first) == 1 and not csv_file):
        return None, rows
    fits = [
        _kind([row[place] for row in rest]) == kind
        for place, kind in enumerate(kinds)
        if kind in ("index", "wnid") and rest
    ]
    if len(known) == len(first) or any(fits):
        return kinds, rest
    return None, rows


def _kind_of_header(cell: str) -> Kind:
    if not cell.strip():
        return "index"  # as pandas writes its own
    word = re.sub(r"[\W_]+", "", cell).lower()
    return next((kind for kind, words in _HEADERS.items() if word in words), "other")


def _kind(column: Sequence[str]) -> Kind:
    if all(cell.isdecimal() for cell in column):
        return "index"
    return "wnid" if all(map(WNID.fullmatch, column)) else "name"


def _pairs(columns: list[list[str]], kinds: list[Kind]) -> list[Pair]:
    """Return the classes of columns of these kinds, in the order of the index where there is one.

    A header may call numbers `label` and names `class`: a column of numbers is the index only
    where there is a column of names beside it.
    """
    names = [place for place, kind in enumerate(kinds) if kind == "name"]
    if len(names) > 1:
        numbered = [place for place in names if _kind(columns[place]) == "index"]
        if len(numbered) == 1 and "index" not in kinds:
            kinds = ["index" if p == numbered[0] else kind for p, kind in enumerate(kinds)]
    places: dict[str, list[int]] = {"index": [], "wnid": [], "name": [], "other": []}
    for place, kind in enumerate(kinds):
        places[kind].append(place)
    if not places["name"] and len(places["other"]) == 1:
        places["name"] = places["other"]
    if len(columns) == 1 and places["index"]:
        places["name"], places["index"] = places["index"], []  # digits are names as others are
    many = any(len(places[kind]) > 1 for kind in ("index", "wnid", "name"))
    if many or not (places["name"] or places["wnid"]):
        shown = "; ".join(_listed(column) for column in columns)
        raise ValueError(
            f"which of its {len(columns)} columns are the names is unclear ({shown}): add a first "
            "line such as index<TAB>name, or leave the names only"
        )
    empty = [""] * len(columns[0])
    wnids = columns[places["wnid"][0]] if places["wnid"] else empty
    classes = columns[places["name"][0]] if places["name"] else empty
    pairs = list(zip(wnids, classes, strict=True))
    if not places["index"]:
        _refuse_disorder(classes)
        return pairs
    numbers = columns[places["index"][0]]
    if wrong := [cell for cell in numbers if not cell.isdecimal()]:
        raise ValueError(f"its index column has no whole numbers in: {_listed(wrong)}")
    return _by_index(list(map(int, numbers)), pairs)


# JSON


def _of_json(value: Any) -> list[Pair]:
    """Return the classes of a list of names, or an object of names by index or indices by name."""
    if isinstance(value, dict):
        for key in _HOLDERS:
            if isinstance(value.get(key), list | dict) and value[key]:
                return _of_json(value[key])
        if value and all(key.isdecimal() for key in value):
            return _by_index([int(key) for key in value], [_json_pair(v) for v in value.values()])
        if value and all(type(entry) is int for entry in value.values()):
            return _by_index(list(value.values()), [_line(key) for key in value])
        raise ValueError(
            f"is an object of neither names by index nor indices by name: {_listed(value)}"
        )
    if not isinstance(value, list) or not value:
        raise ValueError("has no list of names")
    if all(isinstance(entry, dict) for entry in value):  # such as {"id": 0, "name": "ash"}
        header = list(value[0])
        if any(list(entry) != header for entry in value):
            raise ValueError("has records of different keys")
        return _of_columns([header, *([str(cell) for cell in row.values()] for row in value)])
    pairs = [_json_pair(entry) for entry in value]
    _refuse_disorder([name for _, name in pairs])
    return pairs


def _json_pair(entry: Any) -> Pair:
    """Return the class of a name, or of a wnid and a name as in imagenet_class_index.json."""
    if isinstance(entry, str) and entry.strip():
        return _line(entry.strip())
    if isinstance(entry, list) and len(entry) == 2 and all(isinstance(e, str) for e in entry):
        wnid, name = entry
        if WNID.fullmatch(wnid):
            return wnid, name.replace("_", " ").strip()
    raise ValueError(f"has an entry that is not a class name: {json.dumps(entry)[:80]}")


def _listed(names: Any) -> str:
    names = [repr(str(name)) for name in names]
    text = ", ".join(names[:_SHOWN])
    return text if len(names) <= _SHOWN else f"{text}, ..."
