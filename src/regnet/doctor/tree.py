"""The photos of a data set with the split and class that their folders say, right or wrong.

Other modules refuse what does not fit a model; here everything is taken in, to be looked at.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from regnet.data.dataset import located
from regnet.data.layout import Listing, below, mark
from regnet.data.members import open_members
from regnet.data.sources import Item
from regnet.errors import DatasetError

Layout = Literal["classes", "splits", "flat"]

SPLIT_OF: Final[Mapping[str, str]] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The split that a folder of this name holds, in lower case."""


_ALL_VAL: Final = dict.fromkeys(("", "train", "test"), "val")


@dataclass(frozen=True, order=True)
class Place:
    """Where a photo lies: its split ("" where there are none) and class ("" where it has none)."""

    split: str
    label: str


@dataclass(frozen=True)
class _Part:
    """The photos of one path: the place of each as an index into `places`."""

    listing: Listing
    layout: Layout
    places: tuple[Place, ...]
    codes: "array[int]"
    splits_with_classes: tuple[str, ...]
    classes_with_splits: tuple[str, ...]


class Tree:
    """All photos of a data set in an order that never changes.

    `places` are the distinct ones, `codes` says by index which of them each photo is in, `counts`
    the photos by split and class; `layout` is that of the first path. `empty` are class folders
    without photos, known only of folders on disk. Where folders count as classes,
    `splits_with_classes` names those that look like a split with class folders in it, and
    `classes_with_splits` those that have splits in them.
    """

    def __init__(self, path: str, parts: Sequence[_Part], empty: Sequence[Place]) -> None:
        self.path = path
        self.layout = parts[0].layout
        self.empty = tuple(empty)
        self.splits_with_classes = parts[0].splits_with_classes
        self.classes_with_splits = parts[0].classes_with_splits
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
        order = ("", *dict.fromkeys(SPLIT_OF.values()))
        return tuple(split for split in order if split in self.counts)

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
            yield from self._items(part)

    def _items(self, part: _Part) -> Iterator[Item]:
        position = 0
        for name, item in part.listing.members.images():
            if below(name, part.listing.inner) is None:
                continue
            if position >= len(part.codes) or part.listing.marks[position] != mark(name):
                break
            yield item
            position += 1
        else:
            if position == len(part.codes):
                return
        raise DatasetError(f"{self.path} changed while it was looked at: start again")

    def _counts(self) -> dict[str, dict[str, int]]:
        counts: dict[str, dict[str, int]] = {}
        for place in (*self.places, *self.empty):
            counts.setdefault(place.split, {})[place.label] = 0
        for code in self.codes:
            place = self.places[code]
            counts[place.split][place.label] += 1
        return counts


def open_tree(path: str | Path, val: str | Path | None = None) -> Tree:
    """Return the photos at a path: a folder, zip or tar, a folder in one, a pattern for several.

    Their folders are classes, or splits with class folders in them. With `val` the validation
    photos are those of another such path. Raises `DatasetError` where nothing can be opened.
    """
    part, empty = _opened(path)
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


def _opened(path: str | Path) -> tuple[_Part, list[Place]]:
    """Return the photos at a path, and its class folders that have none."""
    paths, inner = located(path)
    listing = Listing(open_members(paths, side_names=frozenset()), inner)
    folders = {name: tuple(filter(None, name.split("/"))) for name in listing.directories}
    root = _root(set(folders.values()))
    below_root = {name: parts[len(root) :] for name, parts in folders.items()}
    layout = _layout(set(below_root.values()))
    place_of = {name: _place(parts, layout) for name, parts in below_root.items()}
    index = {place: code for code, place in enumerate(dict.fromkeys(place_of.values()))}
    codes = listing.by_directory(lambda name: index[place_of[name]])
    odd = _mixed(set(below_root.values())) if layout == "classes" else ((), ())
    part = _Part(listing, layout, tuple(index), codes, *odd)
    tops = [place for place in paths if place.is_dir()]
    empty = [place for top in tops for place in _class_folders(top, root, layout)]
    return part, [place for place in empty if place not in index]


def _root(folders: set[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the folder that all photos are below, as long as it is neither split nor class."""
    root: tuple[str, ...] = ()
    while True:
        children = {parts[len(root) : len(root) + 1] for parts in folders}
        if len(children) != 1 or () in children:
            return root
        (only,) = children
        if only[0].lower() in SPLIT_OF or root + only in folders:
            return root
        root += only


def _layout(folders: set[tuple[str, ...]]) -> Layout:
    """Return whether the topmost folders are classes or splits.

    Folders of a split's name are splits where there are class folders in them, and nothing beside
    them or a second such split: a lone `train` among other folders may well be the vehicle.
    """
    if folders <= {()}:
        return "flat"
    children = {parts[0] for parts in folders if parts}
    with_classes = {parts[0] for parts in folders if len(parts) > 1}
    splits = {name for name in with_classes if name.lower() in SPLIT_OF}
    alone = all(name.lower() in SPLIT_OF for name in children)
    return "splits" if len(splits) > 1 or (splits and alone) else "classes"


def _place(parts: tuple[str, ...], layout: Layout) -> Place:
    """Return the place of photos in a folder; parts are those below the root."""
    if layout != "splits":
        return Place("", parts[0] if parts else "")
    split = SPLIT_OF.get(parts[0].lower(), "") if parts else ""
    return Place(split, parts[1] if split and len(parts) > 1 else "")


def _mixed(folders: set[tuple[str, ...]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what are splits with classes in them, and classes with splits in them."""
    deep = sorted({parts[:2] for parts in folders if len(parts) > 1})
    inside: dict[str, set[str]] = {}
    for name, child in deep:
        inside.setdefault(name, set()).add(SPLIT_OF.get(child.lower(), ""))
    splits = tuple(name for name in inside if name.lower() in SPLIT_OF)
    classes = tuple(name for name in inside if len(inside[name] - {""}) > 1)
    return splits, classes


def _class_folders(top: Path, root: tuple[str, ...], layout: Layout) -> list[Place]:
    """Return the class folders on disk, with photos or without."""
    base = top.joinpath(*root)
    if layout == "splits":
        parents = [f for f in _folders(base) if f.name.lower() in SPLIT_OF]
    else:
        parents = [base] if layout == "classes" else []
    return [
        Place(SPLIT_OF[parent.name.lower()] if layout == "splits" else "", folder.name)
        for parent in parents
        for folder in _folders(parent)
    ]


def _folders(path: Path) -> list[Path]:
    """Return the folders in a folder that are not hidden, sorted; none where it cannot be read."""
    try:
        return sorted(f for f in path.iterdir() if f.is_dir() and not f.name.startswith("."))
    except OSError:
        return []
