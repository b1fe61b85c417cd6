"""Labelled images as users have them, matched to a model's classes before the first is scored."""

import random
import re
from array import array
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

from regnet.data.class_folders import Folders, is_known, open_folders
from regnet.data.class_names import ClassNames, listed
from regnet.data.labelled import Dataset, LabelledItem
from regnet.data.listing import Listing
from regnet.data.parquet_dataset import open_parquet
from regnet.data.truth_files import TRUTH_NAMES
from regnet.network.labels import Labels
from regnet.system.errors import DatasetError

__all__ = ["Dataset", "LabelledItem", "open_dataset", "sample"]

T = TypeVar("T")

_WNID_IN_NAME: Final = re.compile(r"(?:^|.*_)(n\d{8})(?:_.*|$)")


def open_dataset(
    path: str | Path, labels: Labels, *, truth: str | Path | None = None, subset: bool = False
) -> Dataset:
    """Return the labelled images at a path, each with its class among a model's labels.

    `path` is a folder, a zip or tar archive, a folder in one (`data.zip/val`), a Parquet file or a
    folder of them, or a pattern for several of a kind (`train-*.zip`), which count as one. Images
    lie in a folder per class, or flat with a file of labels: `truth`, or one of a known name beside
    them. `subset` allows classes without images, and lines of the file without. Raises
    `DatasetError` that lists all misfits, before any image is read.
    """
    model = ClassNames(labels)
    folders = open_folders(path, truth, model=model, one_split=True, subset=subset)
    if folders.parquet:
        dataset: Dataset = open_parquet(folders.parquet, model, path=str(path))
    else:
        if not len(folders.listing):
            raise DatasetError(f"{path} has no images")
        truths = folders.labels.truths(model) if folders.labels else _by_folder(folders, model)
        folders.listing.tally.report()
        dataset = Dataset(
            str(path),
            truths,
            partial(_labelled, folders.listing, truths, str(path)),
            classes=len(labels),
            fingerprint=folders.listing.fingerprint(truths),
        )
    if dataset.missing and not subset:
        missing = [model.described(index) for index in dataset.missing]
        raise DatasetError(
            f"{path}: no photos of {len(missing)} of the model's {len(labels)} classes: "
            f"{listed(missing)}. Add photos of them, or allow this with --subset"
        )
    return dataset


def _labelled(
    listing: Listing, truths: "array[int]", path: str, start: int
) -> Iterator[LabelledItem]:
    """Yield the images of a listing with their classes, from a position on."""
    for position, item in enumerate(listing.images(path)):
        if position >= start:
            yield LabelledItem(item.source, truths[position], item.read, listing.sizes[position])


def _by_folder(folders: Folders, model: ClassNames) -> "array[int]":
    """Return the class of each image by its folder, or in a single folder by its name."""
    path, listing, layout = folders.path, folders.listing, folders.layout
    known = is_known(layout, model)
    if not known and len(listing.directories) == 1 and layout.kind != "splits":
        return _by_name(listing, model, path=path)
    if layout.doubt and not known:
        places = listed([str(PurePosixPath(path, layout.root, n)) for n in layout.doubt.names])
        raise DatasetError(f"{path}: {layout.doubt.text} Name one: {places}")
    if layout.stray:
        stray = [p for p in listing.paths() if p.rpartition("/")[0] == layout.root]
        raise DatasetError(f"images outside the class folders of {path}: {listed(stray)}")
    class_of = {directory: layout.place(directory)[1] for directory in listing.directories}
    place = str(PurePosixPath(path, layout.root))
    classes = model.match(sorted({*class_of.values()}), what=f"class folders in {place}")
    return listing.by_directory(lambda directory: classes[class_of[directory]])


def _by_name(listing: Listing, model: ClassNames, *, path: str) -> "array[int]":
    """Return the class of each image of a flat folder from the wnid in its name."""
    matches = [_WNID_IN_NAME.match(PurePosixPath(p).stem) for p in listing.paths()]
    wnids = [match[1] for match in matches if match]
    if len(wnids) < len(matches):
        raise DatasetError(
            f"{path} has images but neither class folders nor a file of labels: put one of "
            f"{', '.join(TRUTH_NAMES)} beside them (or name another: --truth FILE)"
        )
    classes = model.match(sorted({*wnids}), what=f"wnids in the names of the images of {path}")
    return array("i", (classes[wnid] for wnid in wnids))


def sample(items: Iterable[T], count: int, *, seed: int = 0) -> list[T]:
    """Return `count` of the items drawn at random, in their order; all if there are no more.

    The same items, count and seed give the same choice (reservoir sampling, Vitter's algorithm R).
    """
    if count < 0:
        raise ValueError(f"count={count} must be at least 0")
    random_source = random.Random(seed)
    chosen: list[tuple[int, T]] = []
    for position, item in enumerate(items):
        if position < count:
            chosen.append((position, item))
        elif (place := random_source.randrange(position + 1)) < count:
            chosen[place] = (position, item)
    return [item for _, item in sorted(chosen, key=lambda pair: pair[0])]
