"""Files of labels, as ImageNet, its relatives and Hugging Face have them, matched to images."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Final

from regnet.data.class_names import listed
from regnet.data.folders import role_of
from regnet.data.truth_table import LabelTable, read_table
from regnet.pixels.formats import has_picture_suffix
from regnet.system.errors import DatasetError, MissingExtraError
from regnet.system.text import separated, text_of

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


def read_truth(data: bytes, source: str, *, beside: Beside) -> LabelTable:
    """Return the content of a file of labels; `beside` reads the files next to it by name.

    Reads the tables of `read_table`, Kaggle's `ImageId,PredictionString`, and one class per line
    for the images ILSVRC2012_val_00000001 on: wnids, or the devkit's numbers 1..1000, whose order
    is read from map_clsloc.txt or meta.mat. Raises `DatasetError`.
    """
    try:
        text = text_of(data)
    except UnicodeDecodeError as exc:
        raise DatasetError(f"{source} is not UTF-8 text: {exc}") from exc
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise DatasetError(f"{source} has no lines")
    if lines[0].replace(" ", "").lower().startswith("imageid,predictionstring"):
        return LabelTable(source, tuple(_kaggle(lines, source)))
    single = all(len(line.split()) == 1 and not {",", ";"} & set(line) for line in lines)
    if single and not separated(text)[0]:
        classes = _in_devkit_order([line.strip() for line in lines], source, beside)
        rows = ((f"ILSVRC2012_val_{i:08}", name) for i, name in enumerate(classes, 1))
        return LabelTable(source, tuple(rows))
    return read_table(text, source)


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


def match_images(
    table: LabelTable, paths: Sequence[str], *, folder: str = "", subset: bool = False
) -> list[str]:
    """Return the class of each image; raises `DatasetError` if its rows and the images do not fit.

    Paths in the table may begin with the name of the images' `folder`. With `subset` it may have
    rows of other images.
    """
    table = _of_one_split(table, paths, folder)
    rows, key = _rows_by_key(table, paths[0], folder)
    classes, unlisted, twice = [], [], []
    for path in paths:
        row = rows.get(key(path))
        if row is None:
            unlisted.append(path)
        elif row < 0:
            twice.append(path)
        else:
            classes.append(table.rows[row][1])
            rows[key(path)] = -1
    unused = [] if subset else [table.rows[row][0] for row in rows.values() if row >= 0]
    problems = {
        "no label for {} image{}": unlisted,
        "the same label for {} image{}": twice,
        "no image for {} label{}": unused,
    }
    if texts := [
        f"{text.format(len(names), 's' if len(names) > 1 else '')}: {listed(names)}"
        for text, names in problems.items()
        if names
    ]:
        raise DatasetError(
            f"{table.source}: {'; '.join(texts)}. Give each image one line, and each line one image"
        )
    return classes


def _of_one_split(table: LabelTable, paths: Sequence[str], folder: str) -> LabelTable:
    """Return the rows of the images' split; raises `DatasetError` if they are in several."""
    if len(set(table.splits)) < 2:
        return table
    if len(dict(table.rows)) < len(table.rows):  # splits share names: the folder says which
        role = role_of(folder)
        words = {word for word in table.splits if role and role_of(word) == role}
        if len(words) == 1:
            return table.of_split(*words)
    rows, key = _rows_by_key(table, paths[0], folder)
    splits = {table.splits[rows[key(path)]] for path in paths if key(path) in rows}
    if len(splits) == 1:
        return table.of_split(*splits)
    raise DatasetError(
        f"{table.source} lists these images in several splits: {listed(sorted(splits))}. Put the "
        "images of each split into a folder of its own, or keep the lines of one split"
    )


def _rows_by_key(
    table: LabelTable, path: str, folder: str
) -> tuple[dict[str, int], Callable[[str], str]]:
    """Return each row's number by the key of its image, and the function from a path to its key.

    Keys are paths if the table has the given one, with other folders before it or without some,
    else names without the suffix. `folder` is the name of the images' own.
    """
    by_path = {str(PurePosixPath(name)): row for row, (name, _) in enumerate(table.rows)}
    parts = path.split("/")
    for skipped in range(len(parts)):
        if "/".join(parts[skipped:]) in by_path:
            return _each_once(table, by_path), partial(_inner, skipped=skipped)
    prefixes = [name[: -len(path)] for name in by_path if name.endswith(f"/{path}")]
    own = [prefix for prefix in prefixes if PurePosixPath(prefix).name == folder]
    if len(prefixes) == 1 or len(own) == 1:
        prefix = (own or prefixes)[0]
        in_split = role_of(PurePosixPath(prefix).name) is not None
        rows = {
            name.removeprefix(prefix): row
            for name, row in by_path.items()
            if name.startswith(prefix) or not in_split  # other splits' folders do not count
        }
        return _each_once(table, rows, among=prefix), str
    by_name = {key_of(name): row for row, (name, _) in enumerate(table.rows)}
    return _each_once(table, by_name), key_of


def _inner(path: str, *, skipped: int) -> str:
    """Return a path without its first folders."""
    return "/".join(path.split("/")[skipped:])


def _each_once(table: LabelTable, rows: dict[str, int], among: str = "") -> dict[str, int]:
    """Return the rows; raises `DatasetError` if an image `among` these paths has several."""
    last = set(rows.values())
    twice = [
        name
        for row, (name, _) in enumerate(table.rows)
        if row not in last and name.startswith(among)
    ]
    if twice:
        raise DatasetError(f"{table.source} names images more than once: {listed(twice)}")
    return rows


def key_of(name: str) -> str:
    """Return an image's name without folder, suffix and a wnid at its end."""
    path = PurePosixPath(name)
    stem = path.stem if has_picture_suffix(name) else path.name
    numbered = _NUMBERED.fullmatch(stem)
    return numbered[1] if numbered else stem


def _in_devkit_order(classes: list[str], source: str, beside: Beside) -> list[str]:
    """Return wnids for the devkit's numbers 1..1000; other names of classes as they are."""
    if not all(name.isdecimal() for name in classes):
        return classes
    wnids = _devkit_order(source, beside)
    wrong = [name for name in classes if not 1 <= int(name) <= len(wnids)]
    if wrong:
        raise DatasetError(
            f"{source}: the devkit's classes are 1 to {len(wnids)}, not {listed(wrong)}; a 0-based "
            "index needs the image's name before it"
        )
    return [wnids[int(name) - 1] for name in classes]


def _devkit_order(source: str, beside: Beside) -> tuple[str, ...]:
    """Return ILSVRC 2012's wnids by the devkit's numbers, 1 first: not the models' order."""
    if (text := beside("map_clsloc.txt")) is not None:
        rows = [line.split() for line in text.decode("utf-8", "replace").splitlines()]
        order = {int(row[1]): row[0] for row in rows if len(row) > 1 and row[1].isdecimal()}
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


def _meta_mat(data: bytes) -> dict[int, str]:
    try:
        from scipy.io import loadmat
    except ImportError as exc:
        raise MissingExtraError("reading the devkit's meta.mat", "quantize") from exc
    try:
        synsets: Any = loadmat(io.BytesIO(data), squeeze_me=True)["synsets"]
        pairs = zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)
        return {int(number): str(wnid) for number, wnid in pairs if int(number) <= _LEAVES}
    except Exception as exc:  # a damaged file can raise anything
        raise DatasetError(f"the devkit's meta.mat cannot be read: {exc}") from exc
