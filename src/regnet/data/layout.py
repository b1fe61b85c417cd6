"""The class of each image by the folder that it lies in, by its name or by a file of labels."""

import re
from array import array
from pathlib import Path, PurePath, PurePosixPath
from typing import Final

from regnet.data.class_names import ClassNames, listed
from regnet.data.folders import Layout, read_layout
from regnet.data.listed_truths import found_above, given_truth, truths_by_file
from regnet.data.listing import Listing
from regnet.data.truth_files import TRUTH_NAMES
from regnet.system.errors import DatasetError

_WNID_IN_NAME: Final = re.compile(r"(?:^|.*_)(n\d{8})(?:_.*|$)")


def truths_of(
    listing: Listing, names: ClassNames, *, path: str, truth: Path | None, subset: bool
) -> "array[int]":
    """Return the class of each image, by its folder, its name or a file of labels.

    Folders that hold but one folder are looked into, unless that is a class. Raises `DatasetError`
    with a list of what does not fit; `subset` allows lines of the file without an image.
    """
    if truth is not None:
        folder = PurePath(path).name
        return truths_by_file(listing, given_truth(truth), names, subset=subset, folder=folder)
    layout = read_layout(listing.directories, is_class=lambda name: bool(names.candidates(name)))
    place = str(PurePosixPath(path, layout.root))
    known = {child for child in layout.children if names.candidates(child)}
    if not known and (file := found_above(listing, layout)) is not None:
        return truths_by_file(listing, file, names, subset=subset)
    if layout.kind == "flat" or (not known and _is_flat(listing, layout)):
        return _by_name(listing, names, path=path)
    _refuse_splits(layout, known, path)
    if layout.stray:
        raise _stray(listing, layout.root, path)
    folders = {directory: layout.place(directory)[1] for directory in listing.directories}
    classes = names.match(sorted(set(folders.values())), what=f"class folders in {place}")
    return listing.by_directory(lambda folder: classes[folders[folder]])


def _is_flat(listing: Listing, layout: Layout) -> bool:
    """Tell whether all images lie in one folder, however deep it is."""
    return len(listing.directories) == 1 and layout.kind == "classes"


def _refuse_splits(layout: Layout, known: set[str], path: str) -> None:
    """Refuse splits, which are no classes, and folders that look like them."""
    if len(layout.splits) > 1 or (layout.splits and layout.stray):
        tops = sorted(split.top for split in layout.splits)
        places = " or ".join(str(PurePosixPath(path, top)) for top in tops)
        found = listed([PurePosixPath(top).name for top in tops])
        raise DatasetError(f"{path} holds the splits {found}: name one, {places}")
    if layout.doubt and not known:
        places = listed([str(PurePosixPath(path, layout.root, n)) for n in layout.doubt.names])
        raise DatasetError(f"{path}: {layout.doubt.text} Name one: {places}")


def _stray(listing: Listing, root: str, path: str) -> DatasetError:
    stray = [p for p in listing.paths() if p.rpartition("/")[0] == root]
    return DatasetError(f"images outside the class folders of {path}: {listed(stray)}")


def _by_name(listing: Listing, names: ClassNames, *, path: str) -> "array[int]":
    """Return the class of each image of a flat folder from the wnid in its name."""
    wnids = [_WNID_IN_NAME.match(PurePosixPath(p).stem) for p in listing.paths()]
    if None in wnids:
        raise DatasetError(
            f"{path} has images but neither class folders nor a file of labels: put one of "
            f"{', '.join(TRUTH_NAMES)} beside them (or name another: --truth FILE)"
        )
    found = [wnid[1] for wnid in wnids if wnid]
    classes = names.match(sorted(set(found)), what=f"wnids in the names of the images of {path}")
    return array("i", (classes[wnid] for wnid in found))
