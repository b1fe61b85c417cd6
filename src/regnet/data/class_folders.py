"""The classes and splits of a data set that no model knows yet, by the names of its folders."""

import re
from pathlib import Path
from typing import Final

from regnet.data.class_names import SPLITS, listed
from regnet.data.dataset import located
from regnet.data.layout import Listing, below
from regnet.data.members import open_members
from regnet.errors import DatasetError
from regnet.labels import Label, Labels, imagenet_labels

_WNID: Final = re.compile(r"n\d{8}")
_TRAIN: Final = ("train", "training")
_VAL: Final = ("val", "valid", "validation", "dev", "eval")


def folder_labels(path: str | Path) -> Labels:
    """Return the classes of a folder or archive of class folders, sorted by folder name.

    A folder named by a wnid of ImageNet has its name, too. Raises `DatasetError` where there are no
    class folders.
    """
    children = _children(path)
    if children == {""} or not children:
        raise DatasetError(
            f"{path} has no class folders: put the photos of each class in a folder of its name, "
            "or give the classes with --labels FILE"
        )
    if splits := sorted(child for child in children if child.lower() in SPLITS):
        raise DatasetError(f"{path} holds the splits {listed(splits)}, which are no classes")
    known = {label.wnid: label for label in imagenet_labels()}
    return tuple(known.get(name) or _label(name) for name in sorted(children - {""}))


def splits(path: str | Path) -> tuple[str, str | None]:
    """Return the paths of the training and the validation photos: the whole path where unsplit."""
    children = _children(path)
    by_name = {child.lower(): child for child in children}
    train = next((by_name[name] for name in _TRAIN if name in by_name), None)
    if train is None:
        return str(path), None
    val = next((by_name[name] for name in _VAL if name in by_name), None)
    return str(Path(path, train)), val and str(Path(path, val))


def _label(name: str) -> Label:
    return Label(name, name) if _WNID.fullmatch(name) else Label("", name)


def _children(path: str | Path) -> set[str]:
    """Return the topmost folders with more than one of them; "" stands for images there."""
    paths, inner = located(path)
    try:
        listing = Listing(open_members(paths, side_names=frozenset()), inner)
    except DatasetError as exc:
        raise DatasetError(f"{exc}; give its classes with --labels FILE") from exc
    folders = set(listing.directories)
    while True:
        children = {folder.partition("/")[0] for folder in folders}
        if len(children) != 1 or "" in children or folders == children:
            return children
        (only,) = children
        folders = {below(folder, only) or "" for folder in folders}
