"""Class lists: ImageNet-1k's, and custom ones from a file."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from regnet.system.errors import RegNetError, reason_of
from regnet.system.text import text_of

MOST_CHARACTERS: Final = 1000
"""The longest name of a class that a model stores."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Label:
    """One class: `wnid` (WordNet id; empty where classes have none) and `name` (synonyms)."""

    wnid: str
    name: str


Labels = tuple[Label, ...]


def first_name(name: str) -> str:
    """Return the first of a class's synonyms."""
    return name.split(",")[0]


def numbered_labels(classes: int) -> Labels:
    """Return the classes of a model that does not name them."""
    return tuple(Label("", f"class {index}") for index in range(classes))


def is_label(text: str) -> bool:
    """Tell whether a text can be the wnid or name of a class: short, and possible in UTF-8."""
    return len(text) <= MOST_CHARACTERS and not _SURROGATE.search(text)


def unfit_label(labels: Sequence[Label]) -> str | None:
    """Return a sentence about the first class whose wnid or name no model can store, or None."""
    for index, label in enumerate(labels):
        for text in (label.wnid, label.name):
            if len(text) > MOST_CHARACTERS:
                return (
                    f"the name of class {index} has {len(text):,} characters, {text[:40]!r}...; at "
                    f"most {MOST_CHARACTERS:,} are allowed"
                )
            if not is_label(text):
                return f"the name of class {index} is not text: {text[:40]!r}"
    return None


@cache
def imagenet_labels() -> Labels:
    """Return the 1,000 classes of ImageNet-1k (ILSVRC 2012) in index order."""
    text = Path(__file__).with_name("imagenet_classes.tsv").read_text("utf-8")
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    return tuple(Label(row["wnid"], row["name"]) for row in rows)


def read_labels(path: str | Path) -> Labels:
    """Return the classes in a file in index order.

    A line is a name, with a wnid or an index before it, or an index behind it; or the file has
    columns (.tsv, .csv), with a header or without; or it is JSON: a list of names, or an object of
    them by index. The order is that of the index where there is one, which has 0 to N - 1, each
    once. Raises `RegNetError` for a file that cannot be read or understood.
    """
    from regnet.network.class_list import parse_classes

    try:
        text = text_of(Path(path).read_bytes())
    except UnicodeError as exc:
        raise RegNetError(f"the class list {path}: save it as UTF-8 ({exc})") from exc
    except (OSError, ValueError) as exc:
        raise RegNetError(f"cannot read the class list {path}: {reason_of(exc)}") from exc
    try:
        pairs = parse_classes(text, Path(path).suffix.lower())
    except ValueError as exc:
        raise RegNetError(f"the class list {path}: {exc}") from exc
    labels = tuple(map(label_of, pairs))
    if reason := unfit_label(labels):
        raise RegNetError(f"the class list {path}: {reason}")
    return labels


def label_of(pair: tuple[str, str]) -> Label:
    """Return the class of a wnid and a name; a wnid of ImageNet alone has its name from there."""
    wnid, name = pair
    return Label(wnid, name) if name else _imagenet_by_wnid().get(wnid) or Label(wnid, wnid)


@cache
def _imagenet_by_wnid() -> dict[str, Label]:
    return {label.wnid: label for label in imagenet_labels()}
