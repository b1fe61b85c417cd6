"""Files that say what is in each image, as ImageNet and its relatives have them."""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Final

from regnet.data.class_names import listed
from regnet.data.truth_table import read_table
from regnet.pixels.formats import has_picture_suffix
from regnet.system.errors import DatasetError, MissingExtraError

METADATA_NAMES: Final = ("metadata.csv", "metadata.jsonl")
"""Names of Hugging Face's files of labels."""

TRUTH_NAMES: Final = (
    "val.txt",
    "val_annotations.txt",
    "LOC_val_solution.csv",
    "ILSVRC2012_validation_ground_truth.txt",
    "imagenet_2012_validation_synset_labels.txt",
    *METADATA_NAMES,
)
"""Names by which files of labels are found beside images."""

_ORDERS: Final = ("map_clsloc.txt", "meta.mat")
SIDE_NAMES: Final = frozenset((*TRUTH_NAMES, *_ORDERS))

_NUMBERED: Final = re.compile(r"(ILSVRC2012_val_\d{8})(?:_n\d{8})?")
_LEAVES: Final = 1000  # of ILSVRC 2012; higher ids are inner nodes of its tree

Beside = Callable[[str], bytes | None]


@dataclass(frozen=True)
class TruthFile:
    """What a file of labels says: each image's name as written, and its class as written.

    The images of a file with a class a line and no names are those of ILSVRC 2012. `splits`,
    `one_hot` and `flag` are as of a `Table`.
    """

    source: str
    rows: tuple[tuple[str, str], ...]
    splits: tuple[str, ...] = ()
    one_hot: int = 0
    flag: str = ""

    def of_split(self, split: str) -> "TruthFile":
        """Return the rows of one split."""
        rows = (row for row, word in zip(self.rows, self.splits, strict=True) if word == split)
        return replace(self, rows=tuple(rows), splits=())


def read_truth(data: bytes, source: str, *, beside: Beside) -> TruthFile:
    """Return what a file of labels says; `beside` reads the files next to it by name.

    Understood are the tables of `read_table`, Kaggle's `ImageId,PredictionString`, and a class a
    line for the images ILSVRC2012_val_00000001 on: wnids, or the devkit's numbers 1..1000, whose
    order is read from map_clsloc.txt or meta.mat. Raises `DatasetError`.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise DatasetError(f"{source} is no UTF-8 text: {exc}") from exc
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise DatasetError(f"{source} has no lines")
    if lines[0].replace(" ", "").lower().startswith("imageid,predictionstring"):
        return TruthFile(source, tuple(_kaggle(lines, source)))
    if all(len(line.split()) == 1 and "," not in line for line in lines):
        classes = _in_devkit_order([line.strip() for line in lines], source, beside)
        rows = ((f"ILSVRC2012_val_{i:08}", name) for i, name in enumerate(classes, 1))
        return TruthFile(source, tuple(rows))
    table = read_table(text, source)
    return TruthFile(source, table.rows, table.splits, table.one_hot, table.flag)


def _kaggle(lines: list[str], source: str) -> list[tuple[str, str]]:
    """Return image and wnid of rows such as `ILSVRC2012_val_00048981,n03995372 85 1 499 272`."""
    rows, wrong = [], []
    for row in csv.reader(lines[1:]):
        wnids = set(row[1].split()[::5]) if len(row) == 2 else set()
        if len(wnids) == 1:
            rows.append((row[0], wnids.pop()))
        else:
            wrong.append(",".join(row))
    if wrong:
        raise DatasetError(f"{source}: lines without one class: {listed(wrong)}")
    return rows


def key_of(name: str) -> str:
    """Return what names of one image have in common: no folder, no suffix, no wnid at its end."""
    path = PurePosixPath(name)
    stem = path.stem if has_picture_suffix(name) else path.name
    numbered = _NUMBERED.fullmatch(stem)
    return numbered[1] if numbered else stem


def _in_devkit_order(classes: list[str], source: str, beside: Beside) -> list[str]:
    """Return wnids for the devkit's numbers 1..1000; other names of classes as they are."""
    if not all(name.isdecimal() for name in classes):
        return classes
    wnids = devkit_order(source, beside)
    wrong = [name for name in classes if not 1 <= int(name) <= len(wnids)]
    if wrong:
        raise DatasetError(
            f"{source}: the devkit's classes are 1 to {len(wnids)}, not {listed(wrong)}; a 0-based "
            "index needs the image's name before it"
        )
    return [wnids[int(name) - 1] for name in classes]


def devkit_order(source: str, beside: Beside) -> tuple[str, ...]:
    """Return ILSVRC 2012's wnids by the devkit's numbers, 1 first.

    That is not the sorted order of the models' classes, so the devkit's own file must lie beside
    the labels; raises `DatasetError` where it does not, or is not one.
    """
    if (text := beside("map_clsloc.txt")) is not None:
        order = _map_clsloc(text)
    elif (data := beside("meta.mat")) is not None:
        order = _meta_mat(data)
    else:
        raise DatasetError(
            f"{source} numbers the classes as the ILSVRC 2012 devkit does, which is not the order "
            "of the model: put the devkit's data/meta.mat or map_clsloc.txt beside it"
        )
    if sorted(order) != list(range(1, _LEAVES + 1)) or len(set(order.values())) != _LEAVES:
        raise DatasetError(
            f"the devkit's file beside {source} has {len(order)} classes: expected 1 to {_LEAVES}, "
            "each with its wnid"
        )
    return tuple(order[number] for number in range(1, _LEAVES + 1))


def _map_clsloc(data: bytes) -> dict[int, str]:
    """Return the wnid of each number from lines such as `n02119789 1 kit_fox`."""
    rows = [line.split() for line in data.decode("utf-8", "replace").splitlines()]
    return {int(row[1]): row[0] for row in rows if len(row) >= 2 and row[1].isdecimal()}


def _meta_mat(data: bytes) -> dict[int, str]:
    try:
        from scipy.io import loadmat
    except ImportError as exc:
        raise MissingExtraError("reading the devkit's meta.mat", "quantize") from exc
    try:
        synsets: Any = loadmat(io.BytesIO(data), squeeze_me=True)["synsets"]
        pairs = zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)
        return {int(number): str(wnid) for number, wnid in pairs if int(number) <= _LEAVES}
    except Exception as exc:  # whatever a damaged file makes of the reader
        raise DatasetError(f"the devkit's meta.mat cannot be read: {exc}") from exc
