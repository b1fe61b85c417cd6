"""The photos of a data set with the split and class that their folders say, right or wrong.

Other modules refuse what does not fit a model; here everything is taken in, to be looked at.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from regnet.data.class_folders import open_folders
from regnet.data.class_names import ClassNames, normal
from regnet.data.folders import ROLES, Kind, Layout, read_layout
from regnet.data.parquet_dataset import (
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
    """The photos of one path with the place of each; `known` are all places, with photos or not."""

    items: Callable[[], Iterator[Item]]
    layout: Layout
    places: list[Place]
    known: Iterable[Place]
    numbered: bool = False

    def renamed(self, split_of: Callable[[str], str]) -> "_Part":
        """Return the photos with their splits renamed."""
        new = {place: Place(split_of(place.split), place.label) for place in self.known}
        return replace(self, places=[new[place] for place in self.places], known=new.values())


class Tree:
    """All photos of a data set in an order that never changes.

    `places` has the place of each photo, `counts` the photos by split and class; `layout` is the
    kind of the first path's, and `doubt` says why its folders may be no classes. Classes that are
    `numbered` may have names that are alike.
    """

    def __init__(self, path: str, parts: Sequence[_Part]) -> None:
        self.path, self._parts = path, parts
        self.layout, self.doubt = parts[0].layout.kind, parts[0].layout.doubt
        self.numbered = parts[0].numbered
        spelled = _spelled([place for part in parts for place in part.known])
        self.places = [spelled[place] for part in parts for place in part.places]
        self.counts: dict[str, dict[str, int]] = {}
        for place in spelled.values():
            self.counts.setdefault(place.split, {})[place.label] = 0
        for place in self.places:
            self.counts[place.split][place.label] += 1

    def __len__(self) -> int:
        return len(self.places)

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
    part = _open(path, truth)
    if val is None:
        return Tree(str(path), [part])
    train = part.renamed(lambda split: split or "train")
    other = _open(val).renamed(lambda split: "val" if split in ("", "train", "test") else split)
    return Tree(str(path), [train, other])


def _open(path: str | Path, truth: Path | None = None) -> _Part:
    """Return the photos at a path."""
    folders = open_folders(path, truth)
    if folders.parquet:
        return _of_parquet(folders.parquet, folders.path)
    listing, layout, labels = folders.listing, folders.layout, folders.labels
    listing.tally.report()
    items = partial(listing.images, folders.path)
    if labels is None:
        place_of = {folder: Place(*layout.place(folder)) for folder in listing.directories}
        every = list(place_of.values())
        number_of = {folder: number for number, folder in enumerate(place_of)}
        codes = listing.by_directory(number_of.__getitem__)
        known = dict.fromkeys([*every, *(Place(*place) for place in folders.class_folders())])
        return _Part(items, layout, [every[code] for code in codes], known)
    # The classes are not the folders', but the splits may be.
    roles = list(dict.fromkeys(map(layout.role, listing.directories)))
    codes = listing.by_directory(lambda folder: roles.index(layout.role(folder)))
    places = {(role, name): Place(role, name) for role in roles for name in labels.classes}
    pairs = zip(codes, labels.codes, strict=True)
    kind: Kind = "splits" if layout.splits else "classes"
    return _Part(
        items,
        replace(layout, kind=kind, doubt=None),
        [places[roles[role], labels.names[code]] for role, code in pairs],
        places.values(),
    )


def _of_parquet(files: Sequence[Path], path: str) -> _Part:
    """Return the photos of Parquet files, in splits where the files' names say so."""
    splits = {split.role: split.files for split in parquet_splits(files)}
    if len(splits) < 2:
        splits = {"": tuple(files)}
    names = parquet_class_names(files, path)
    labels = ClassNames(tuple(Label("", name) for name in names))
    datasets = {role: open_parquet(part, labels, path=path) for role, part in splits.items()}
    known = {role: [Place(role, name) for name in names] for role in datasets}

    def items() -> Iterator[Item]:
        for dataset in datasets.values():
            for item in dataset.items():
                yield Item(item.source, item.read)

    return _Part(
        items,
        replace(read_layout(()), kind="classes" if "" in splits else "splits"),
        [known[role][truth] for role, dataset in datasets.items() for truth in dataset.truths],
        [place for places in known.values() for place in places],
        numbered=True,
    )
