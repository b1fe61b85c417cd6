"""A table of images and classes, in text or JSON, to each image's name, class and split.

Columns are told by the words of the header, else by their content; an unclear table is an error
that lists them, never a guess.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Final

from regnet.data.class_names import listed
from regnet.data.folders import role_of
from regnet.pixels.formats import has_picture_suffix
from regnet.system.errors import DatasetError
from regnet.system.json_text import unique_keys
from regnet.system.text import separated

_FILES: Final = (  # the first that is there is the image's name
    ("filename", "filenames", "filepath", "filepaths", "imagefile", "imagefilename", "fname"),
    ("imagepath", "imgpath", "imagename", "imgname", "file", "files", "path", "paths", "imagefp"),
    ("image", "images", "img", "photo", "picture", "imageid", "imgid", "photoid", "imageindex"),
    ("id", "key", "name"),
)
_CLASSES: Final = frozenset(
    ("label", "labels", "class", "classes", "classname", "classid", "classlabel", "classindex")
) | {
    *("category", "categoryid", "categoryname", "target", "targets", "breed", "species"),
    *("variety", "wnid", "synset", "y", "diagnosis", "labelname", "labelid", "truth", "dx"),
    *("groundtruth", "gt", "tag", "disease", "genre", "targetname", "labelindex", "categories"),
}
_SPLITS: Final = frozenset(("split", "splits", "set", "subset", "partition", "usage", "datasplit"))
_ONE_HOT: Final = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "": 0, "false": 0, "true": 1}
_LIST: Final = re.compile(r"\[.*\]|\{.*\}", re.DOTALL)  # of JSON, or as Python prints it
_HOW: Final = "write a first line that names the columns, such as file_name,label"


@dataclass(frozen=True)
class LabelTable:
    """The content of a file of labels: each image's name and class as written.

    `splits` has a word for each row, or nothing. `one_hot`: the number of columns of a one-hot
    table without class names. `flag`: the header of a column of classes that has only 0 and 1.
    """

    source: str
    rows: tuple[tuple[str, str], ...]
    splits: tuple[str, ...] = ()
    one_hot: int = 0
    flag: str = ""

    def of_split(self, split: str) -> "LabelTable":
        """Return the rows of one split."""
        rows = (row for row, word in zip(self.rows, self.splits, strict=True) if word == split)
        return replace(self, rows=tuple(rows), splits=())


def read_table(text: str, source: str) -> LabelTable:
    """Return the rows of a table: CSV, TSV, lines `NAME CLASS`, JSON lines, or a JSON object."""
    suffix = PurePath(source).suffix.lower()
    if suffix in (".json", ".jsonl") or text.lstrip().startswith("{"):
        return _by_header(_json_rows(text, source), source)
    rows = [[cell.strip() for cell in row] for row in _cells(text, suffix)]
    rows = [row for row in rows if any(row)]
    width = max(map(len, rows))
    wrong = [" ".join(row) for row in rows if len(row) != width]
    if width < 2 or wrong:
        lines = listed(wrong or [row[0] for row in rows])
        raise DatasetError(f"{source}: lines that are not NAME and CLASS: {lines}")
    return (_by_header if _has_header(rows) else _by_content)(rows, source)


def _cells(text: str, suffix: str) -> Iterable[list[str]]:
    """Return the cells of each line, split where the file's kind or all of its lines say so."""
    named, text = separated(text)
    if named:
        return csv.reader(io.StringIO(text), delimiter=named, skipinitialspace=True)
    lines = [line for line in text.splitlines() if line.strip()]
    for delimiter, suffixes in (("\t", (".tsv",)), (",", (".csv",)), (";", (".csv",))):
        if all(delimiter in line for line in lines) or (
            suffix in suffixes and delimiter in lines[0]
        ):
            return csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    rows = [line.split(maxsplit=1) for line in lines]
    if not all(_is_image(row[0].strip('"')) for row in rows):
        rows = [line.rsplit(maxsplit=1) for line in lines]  # names of files may have spaces
    return [[cell.strip('"') for cell in row] for row in rows]


def _json_rows(text: str, source: str) -> list[list[str]]:
    """Return a header and the rows of JSON lines, a list of objects, or an object of classes."""
    try:
        lines = [line for line in text.splitlines() if line.strip()]
        many = len(lines) > 1 and all(line.lstrip().startswith("{") for line in lines)
        values: list[Any] = [
            json.loads(line, object_pairs_hook=unique_keys) for line in (lines if many else [text])
        ]
    except (ValueError, RecursionError) as exc:
        raise DatasetError(f"{source} is not JSON of images and classes: {exc}") from exc
    value = values if many else values[0]
    if isinstance(value, dict) and not {_word(key) for key in value} & set(_FILES[0]):
        if not all(isinstance(label, str | int) for label in value.values()):
            raise DatasetError(f"{source}: expected an object of image names and classes")
        value = [{"file_name": name, "label": label} for name, label in value.items()]
    records = [value] if isinstance(value, dict) else value
    if not isinstance(records, list) or not all(isinstance(entry, dict) for entry in records):
        raise DatasetError(f"{source}: expected one JSON object per image")
    header = list(dict.fromkeys(key for entry in records for key in entry))
    cells = [[_text(entry.get(key)) for key in header] for entry in records]
    return [[str(key) for key in header], *cells]


def _text(value: Any) -> str:
    """Return a cell of JSON as text; a list of one is that one."""
    if isinstance(value, list) and len(value) == 1:
        return _text(value[0])
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _word(cell: str) -> str:
    return re.sub(r"[\W_]+", "", cell).lower()


def _is_image(cell: str) -> bool:
    return has_picture_suffix(cell.replace("\\", "/"))


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Tell whether the first row names the columns."""
    first, *others = rows
    columns = list(zip(*others, strict=True))
    again = any(cell in column for cell, column in zip(first, columns, strict=False))
    if again or any(map(_is_image, first)):
        return False
    known = _CLASSES.union(*_FILES)
    return any(_word(cell) in known for cell in first) or any(
        all(map(_is_image, c)) for c in columns
    )


def _by_header(rows: Sequence[Sequence[str]], source: str) -> LabelTable:
    header, body = rows[0], rows[1:]
    if not body:
        raise DatasetError(f"{source} has a header and no lines")
    words = [_word(cell) for cell in header]
    columns = list(zip(*body, strict=True))
    name = _name_column(words, columns, header, source)
    split = next((place for place, word in enumerate(words) if word in _SPLITS), None)
    if split is not None and not all(map(role_of, columns[split])):
        split = None
    others = {
        place: columns[place]
        for place, word in enumerate(words)
        if place not in (name, split) and word and not word.startswith("unnamed")
    }
    classes = _classes(others, words, header, source)
    splits = columns[split] if split is not None else ()
    flag = (
        header[next(iter(others))] if len(others) == 1 and set(classes) <= _ONE_HOT.keys() else ""
    )
    return LabelTable(source, _rows(columns[name], classes, source), splits, flag=flag)


def _classes(
    others: Mapping[int, Sequence[str]], words: Sequence[str], header: Sequence[str], source: str
) -> Sequence[str]:
    """Return the class in each row of a table with a header; `others` are its other columns."""
    named = [column for place, column in others.items() if words[place] in _CLASSES]
    choice = named or (list(others.values()) if len(others) == 1 else [])
    if choice and _say_the_same(choice):
        return next((column for column in choice if not _are_numbers(column)), choice[0])
    if not named and (hot := _hot([*others.values()])) is not None:
        names = [header[place] for place in others]
        return [names[number] for number in hot]
    raise DatasetError(
        f"{source}: which column is the class? There are {listed(header)}; call it label"
    )


def _name_column(
    words: Sequence[str], columns: Sequence[Sequence[str]], header: Sequence[str], source: str
) -> int:
    named = [place for usual in _FILES for place, word in enumerate(words) if word in usual]
    images = _image_columns(columns)
    for choice in ([p for p in named if p in images], images, named):
        if len(choice) == 1 or (choice and choice[0] in named):
            return choice[0]
    raise DatasetError(
        f"{source}: which column names the images? There are {listed(header)}; call it file_name"
    )


def _image_columns(columns: Sequence[Sequence[str]]) -> list[int]:
    return [place for place, column in enumerate(columns) if all(map(_is_image, column))]


def _by_content(rows: Sequence[Sequence[str]], source: str) -> LabelTable:
    """Return the rows of a table without a header."""
    columns = list(zip(*rows, strict=True))
    images = _image_columns(columns)
    if len(images) > 1 or (not images and len(columns) > 2):
        raise DatasetError(f"{source} has {len(columns)} columns without names: {_HOW}")
    names = columns.pop(images[0] if images else 0)
    if (hot := _hot(columns)) is not None:
        return LabelTable(source, _rows(names, list(map(str, hot)), source), one_hot=len(columns))
    text = [column for column in columns if not _are_numbers(column)]
    choice = columns if len(columns) == 1 else text
    if len(choice) != 1:
        raise DatasetError(
            f"{source}: which of its {len(columns) + 1} columns is the class is not clear: {_HOW}"
        )
    return LabelTable(source, _rows(names, choice[0], source))


def _hot(columns: Sequence[Sequence[str]]) -> list[int] | None:
    """Return the column that is 1 in each row, where there is one and all others are 0."""
    if len(columns) < 2 or any(cell.lower() not in _ONE_HOT for c in columns for cell in c):
        return None
    rows = [[_ONE_HOT[cell.lower()] for cell in row] for row in zip(*columns, strict=True)]
    return [row.index(1) for row in rows] if all(sum(row) == 1 for row in rows) else None


def _say_the_same(columns: Sequence[Sequence[str]]) -> bool:
    """Tell whether columns divide the rows alike, as numbers and names of the same classes do."""
    pairs = [set(zip(columns[0], column, strict=True)) for column in columns[1:]]
    return all(len(p) == len({a for a, _ in p}) == len({b for _, b in p}) for p in pairs)


def _are_numbers(column: Iterable[str]) -> bool:
    return all(re.fullmatch(r"-?\d+(\.\d*)?", cell) for cell in column)


def _rows(names: Sequence[str], classes: Sequence[str], source: str) -> tuple[tuple[str, str], ...]:
    """Return names with `/` in them and classes; those written as 3.0 are 3."""
    pairs = list(zip(names, classes, strict=True))
    if wrong := [name or label for name, label in pairs if not name or not label]:
        raise DatasetError(f"{source}: lines that are not NAME and CLASS: {listed(wrong)}")
    if wrong := [f"{name} {label}" for name, label in pairs if _LIST.fullmatch(label)]:
        raise DatasetError(f"{source}: not one class, but a list of them: {listed(wrong)}")
    if all(re.fullmatch(r"\d+\.0*", label) for label in classes):
        classes = [label.partition(".")[0] for label in classes]
    names = [name.replace("\\", "/") for name in names]
    return tuple(zip(names, classes, strict=True))
