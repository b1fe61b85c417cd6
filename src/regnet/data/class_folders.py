"""The classes and splits of a data set that no model knows yet, by the names of its folders."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from regnet.data.class_names import SPLITS, listed, normal
from regnet.data.dataset import located
from regnet.data.layout import Listing, below
from regnet.data.members import open_members
from regnet.errors import DatasetError
from regnet.labels import Label, Labels, imagenet_labels

_WNID: Final = re.compile(r"(n\d{8})(?:[-_ ](.+))?")  # alone, or as in n02085620-Chihuahua
_NO_TEXT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # controls, undecoded bytes
_PARQUET: Final = ".parquet"
_TRAIN: Final = ("train", "training")
_VAL: Final = ("val", "valid", "validation", "dev", "eval")


@dataclass(frozen=True)
class _Top:
    """The topmost folders with more than one of them, `children` of `root`, sorted.

    `stray` tells whether images lie beside them. Folders of splits are `splits` among them.
    """

    paths: Sequence[Path]
    root: str
    children: tuple[str, ...]
    stray: bool

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(child for child in self.children if child.lower() in SPLITS)


def folder_labels(path: str | Path) -> Labels:
    """Return the classes of a folder or archive of class folders, sorted by folder name.

    A folder named by a wnid of ImageNet has its name, too. Raises `DatasetError` where there are no
    class folders, or splits.
    """
    top = _top(path)
    if not top.children:
        raise _without_folders(path, top)
    if top.splits:
        raise _with_splits(path, top)
    _require_names(path, top.children)
    known = {label.wnid: label for label in imagenet_labels()}
    return tuple(_label(name, known) for name in top.children)


def splits(path: str | Path) -> tuple[str, str | None]:
    """Return the paths of the training and the validation photos: the whole path where unsplit.

    Raises `DatasetError` where it cannot be looked into.
    """
    top = _top(path)
    by_name = {child.lower(): child for child in top.children}
    train = next((by_name[name] for name in _TRAIN if name in by_name), None)
    if train is None or top.splits != top.children:  # else it may be a class of vehicles
        return str(path), None
    if len(top.paths) > 1:
        raise DatasetError(
            f"{path} has splits inside of each: name the photos of one split, and with --val those "
            "of another"
        )
    val = next((by_name[name] for name in _VAL if name in by_name), None)
    return str(Path(path, top.root, train)), val and str(Path(path, top.root, val))


def _top(path: str | Path) -> _Top:
    """Return the topmost folders of a data set, without those that are alone in theirs."""
    paths, inner = located(path)
    if any(file.suffix.lower() == _PARQUET for file in paths):
        return _Top(paths, "", (), stray=False)
    folders = set(Listing(open_members(paths, side_names=frozenset()), inner).directories)
    root = ""
    while True:
        children = {folder.partition("/")[0] for folder in folders}
        if len(children) != 1 or folders == children:
            break
        (only,) = children
        root = f"{root}/{only}".lstrip("/")
        folders = {below(folder, only) or "" for folder in folders}
    return _Top(paths, root, tuple(sorted(children - {""})), stray="" in children)


def _label(name: str, known: dict[str, Label]) -> Label:
    found = _WNID.fullmatch(name)
    if found is None:
        return Label("", name)
    wnid, rest = found.groups()
    return known.get(wnid) or Label(wnid, rest or wnid)


def _without_folders(path: str | Path, top: _Top) -> DatasetError:
    how = "put the photos of each class in a folder of its name"
    if top.stray:
        return DatasetError(
            f"{path} has no class folders: {how}, or give the classes with --labels FILE"
        )
    folder = top.paths[0]
    if folder.suffix.lower() == _PARQUET or next(folder.rglob(f"*{_PARQUET}"), None) is not None:
        return DatasetError(
            f"{path} is Parquet, which has no class folders: give the classes with --labels FILE"
        )
    return DatasetError(
        f"{path} has no class folders: {how}; there is no image in it now (archives inside of it "
        "are not looked into: name them)"
    )


def _with_splits(path: str | Path, top: _Top) -> DatasetError:
    place = Path(path, top.root)
    named = " or ".join(str(place / split) for split in top.splits)
    others = [child for child in top.children if child not in top.splits]
    if not others:
        return DatasetError(f"{path} holds the splits {listed(top.splits)}: name one, {named}")
    return DatasetError(
        f"{path} holds the splits {listed(top.splits)} beside {listed(others)}: name one, {named}; "
        "or where all are classes, give them with --labels FILE"
    )


def _require_names(path: str | Path, names: Sequence[str]) -> None:
    """Refuse names that cannot be a class's, or be told apart."""
    if odd := [repr(name) for name in names if _NO_TEXT.search(name)]:
        raise DatasetError(f"{path}: these names of class folders are no text: {listed(odd)}")
    first: dict[str, str] = {}
    for name in names:
        if (other := first.setdefault(normal(name), name)) != name:
            raise DatasetError(
                f"{path}: the class folders {other!r} and {name!r} differ only in case, or in _ "
                "for a space, which tells no classes apart: rename one, or put them together"
            )
