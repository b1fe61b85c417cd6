"""The photos of a data set with the split and class that their folders say, right or wrong.

Other modules refuse what does not fit a model; here everything is taken in, to be looked at.
"""

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from regnet.data.class_folders import Folders, open_folders
from regnet.data.class_names import ClassNames, normal
from regnet.data.folders import ROLES, Kind, Layout, read_layout
from regnet.data.image_labels import ImageLabels
from regnet.data.parquet_dataset import (
    ParquetDataset,
    open_parquet,
    parquet_class_names,
    parquet_splits,
)
from regnet.data.sources import Item
from regnet.network.labels import Label


@dataclass(frozen=True, order=True)
class Place:
    """Where a photo lies: its split ("" where there are none) and class ("" where it has none)."""

    split: str
    label: str

    def __str__(self) -> str:
        return "/".join(filter(None, (self.split, self.label)))


@dataclass(frozen=True)
class _Part:
    """The photos of one path, `items()`: the place of each as an index into `places`."""

    items: Callable[[], Iterator[Item]]
    layout: Layout
    places: tuple[Place, ...]
    codes: "array[int]"
    numbered: bool = False


class Tree:
    """All photos of a data set in an order that never changes.

    `places` are the distinct ones, `codes` says by index which of them each photo is in, `counts`
    the photos by split and class; `layout` is the kind of the first path's, and `doubt` says why
    its folders may be no classes. Classes that are `numbered` may have names that are alike.
    `empty` are class folders, and splits, without photos.
    """

    def __init__(self, path: str, parts: Sequence[_Part], empty: Sequence[Place]) -> None:
        self.path = path
        self.layout = parts[0].layout.kind
        self.doubt = parts[0].layout.doubt
        self.numbered = parts[0].numbered
        spelled = _spelled([*(place for part in parts for place in part.places), *empty])
        self.empty = tuple(spelled[place] for place in empty)
        parts = [replace(p, places=tuple(spelled[place] for place in p.places)) for p in parts]
        self._parts = parts
        self.places = tuple(dict.fromkeys(place for part in parts for place in part.places))
        index = {place: code for code, place in enumerate(self.places)}
        self.codes = array("i")
        for part in parts:
            own = [index[place] for place in part.places]
            self.codes.extend(own[code] for code in part.codes)
        self.counts = self._counts()

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits, training first; only "" where the folders say none."""
        return tuple(split for split in ("", *ROLES) if split in self.counts)

    @property
    def training(self) -> str:
        """The name of the split that a training learns from: "train", or "" for all photos."""
        return "train" if set(self.counts) - {""} else ""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of all splits, sorted."""
        labels = {label for counts in self.counts.values() for label in counts}
        return tuple(sorted(labels - {""}))

    def items(self) -> Iterator[Item]:
        """Yield the photos in their order; raises `DatasetError` where the files changed."""
        for part in self._parts:
            yield from part.items()

    def _counts(self) -> dict[str, dict[str, int]]:
        counts: dict[str, dict[str, int]] = {}
        for place in (*self.places, *self.empty):
            counts.setdefault(place.split, {})[place.label] = 0
        for code in self.codes:
            place = self.places[code]
            counts[place.split][place.label] += 1
        return counts


def _spelled(places: Sequence[Place]) -> dict[Place, Place]:
    """Return places with the classes of all splits spelled as the training split spells them.

    A training knows `val/Cat` as its class `cat`.
    """
    by_name: dict[str, set[str]] = defaultdict(set)
    for place in places:
        if place.split in ("", "train") and place.label:
            by_name[normal(place.label)].add(place.label)
    spelled = {}
    for place in places:
        same = by_name.get(normal(place.label), set())
        label = place.label if place.label in same or len(same) != 1 else next(iter(same))
        spelled[place] = replace(place, label=label)
    return spelled


def open_tree(
    path: str | Path, val: str | Path | None = None, *, truth: Path | None = None
) -> Tree:
    """Return the photos at a path: a folder, zip or tar, a folder in one, a pattern for several.

    Their folders are classes, or splits with class folders in them. With `val` the validation
    photos are those of another such path. `truth` is a file of the photos' labels. Raises
    `DatasetError` where nothing can be opened, and for data sets of other tools.
    """
    part, empty = _opened(path, truth)
    if val is None:
        return Tree(str(path), [part], empty)
    other, other_empty = _opened(val)
    parts = [
        _moved(part, {"": "train"}),
        _moved(other, dict.fromkeys(("", "train", "test"), "val")),
    ]
    moved = [Place(place.split or "train", place.label) for place in empty]
    moved += [Place("val", place.label) for place in other_empty]
    return Tree(str(path), parts, moved)


def _moved(part: _Part, splits: Mapping[str, str]) -> _Part:
    """Return photos with their splits renamed."""
    places = tuple(Place(splits.get(p.split, p.split), p.label) for p in part.places)
    return replace(part, places=places)


def _opened(path: str | Path, truth: Path | None = None) -> tuple[_Part, list[Place]]:
    """Return the photos at a path, and its class folders that have none."""
    folders = open_folders(path, truth)
    if folders.parquet:
        return _of_parquet(folders.parquet, folders.path), []
    listing, layout = folders.listing, folders.layout
    listing.tally.report()
    if folders.labels is not None:
        return _labelled(folders, folders.labels), []
    place_of = {folder: Place(*layout.place(folder)) for folder in listing.directories}
    index = {place: code for code, place in enumerate(dict.fromkeys(place_of.values()))}
    codes = listing.by_directory(lambda folder: index[place_of[folder]])
    known = [Place(*place) for place in folders.class_folders()]
    part = _Part(partial(listing.images, folders.path), layout, tuple(index), codes)
    return part, [p for p in known if p not in index]


def _labelled(folders: Folders, labels: ImageLabels) -> _Part:
    """Return photos whose classes are not their folders', but their splits may be."""
    listing, layout = folders.listing, folders.layout
    roles = tuple(dict.fromkeys(map(layout.role, listing.directories)))
    role_of = listing.by_directory(lambda folder: roles.index(layout.role(folder)))
    places = tuple(Place(role, name) for role in roles for name in labels.classes)
    index = {place: code for code, place in enumerate(places)}
    pairs = zip(role_of, labels.codes, strict=True)
    codes = array("i", (index[Place(roles[role], labels.names[code])] for role, code in pairs))
    kind: Kind = "splits" if layout.splits else "classes"
    items = partial(listing.images, folders.path)
    return _Part(items, replace(layout, kind=kind, doubt=None), places, codes)


def _of_parquet(files: Sequence[Path], path: str) -> _Part:
    """Return the photos of Parquet files, in splits where the files' names say so."""
    splits = {split.role: split.files for split in parquet_splits(files)}
    if len(splits) < 2:
        splits = {"": tuple(files)}
    names = parquet_class_names(files, path)
    labels = ClassNames(tuple(Label("", name) for name in names))
    datasets = {role: open_parquet(part, labels, path=path) for role, part in splits.items()}
    places = tuple(Place(role, name) for role in datasets for name in names)
    codes = array("i")
    for number, dataset in enumerate(datasets.values()):
        codes.extend(number * len(names) + truth for truth in dataset.truths)
    layout = replace(read_layout(()), kind="classes" if "" in splits else "splits")
    items = partial(_rows, tuple(datasets.values()))
    return _Part(items, layout, places, codes, numbered=True)


def _rows(datasets: Sequence[ParquetDataset]) -> Iterator[Item]:
    for dataset in datasets:
        for item in dataset.items():
            yield Item(item.source, item.read)
