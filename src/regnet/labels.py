"""Class lists: ImageNet-1k's, and custom ones from a file."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from regnet.errors import RegNetError


@dataclass(frozen=True)
class Label:
    """One class: `wnid` (WordNet id; empty where classes have none) and `name` (synonyms)."""

    wnid: str
    name: str


Labels = tuple[Label, ...]


def first_name(name: str) -> str:
    """Return the first of a class's synonyms."""
    return name.split(",")[0]


@cache
def imagenet_labels() -> Labels:
    """Return the 1,000 classes of ImageNet-1k (ILSVRC 2012) in index order."""
    text = files("regnet").joinpath("imagenet_classes.tsv").read_text("utf-8")
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    return tuple(Label(row["wnid"], row["name"]) for row in rows)


def read_labels(path: str | Path) -> Labels:
    """Return the classes in a file, one a line in index order: `wnid<TAB>name` or `name` alone.

    A first line `wnid<TAB>name` or `index<TAB>wnid<TAB>name` is a header and skipped.
    Raises `RegNetError` where the file is missing, empty or not UTF-8 text.
    """
    try:
        # Only newlines end a line: str.splitlines would also split at U+0085 and U+2028.
        lines = Path(path).read_text("utf-8-sig").split("\n")
    except (OSError, ValueError) as exc:
        raise RegNetError(f"cannot read the class list {path}: {exc}") from exc
    rows = [line.split("\t") for line in lines if line.strip()]
    if rows and rows[0][-2:] == ["wnid", "name"]:
        rows = rows[1:]
    if not rows:
        raise RegNetError(f"the class list {path} has no classes")
    return tuple(_label(row) for row in rows)


def _label(row: list[str]) -> Label:
    if len(row) == 1:
        return Label("", row[0].strip())
    wnid, name = row[-2:]
    return Label(wnid.strip(), name.strip())
