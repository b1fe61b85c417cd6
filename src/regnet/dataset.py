"""Labelled images as users have them, matched to a model's classes before the first is scored."""

import random
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from regnet.class_names import ClassNames, listed
from regnet.errors import DatasetError
from regnet.labels import Labels
from regnet.layout import Listing, below, mark, truths_of
from regnet.members import open_members
from regnet.truth_files import SIDE_NAMES

T = TypeVar("T")


@dataclass(frozen=True)
class LabelledItem:
    """One image: its reported name, the model's class that is true, its bytes once wanted.

    `read` is thread-safe and raises `ImageError` with the reason.
    """

    source: str
    truth: int
    read: Callable[[], bytes]


class Dataset(Protocol):
    """Labelled images in an order that never changes.

    `path` as given; `count` of the images; `classes` of the model that have images, sorted, and
    `missing` those that have none; `fingerprint` a hash of the images' names below it, sizes and
    classes, so that work on the same images can be taken up again.
    """

    path: str
    count: int
    classes: tuple[int, ...]
    missing: tuple[int, ...]
    fingerprint: str

    def items(self, start: int = 0) -> Iterator[LabelledItem]:
        """Yield the images from a position on; raises `DatasetError` where the files changed."""

    def find(self, sources: Collection[str]) -> dict[str, LabelledItem]:
        """Return the images of these names, in one pass; unknown names are left out."""


class MemberDataset:
    """The labelled images of a folder, zip or tar."""

    def __init__(self, listing: Listing, truths: "array[int]", *, path: str, classes: int) -> None:
        self.path = path
        self.count = len(truths)
        self.classes, self.missing = _present(truths, classes)
        self.fingerprint = listing.fingerprint(truths)
        self._listing, self._truths = listing, truths

    def items(self, start: int = 0) -> Iterator[LabelledItem]:
        """Yield the images from a position on; raises `DatasetError` where the files changed."""
        members, marks = self._listing.members, self._listing.marks
        position = 0
        for name, read in members.images():
            if below(name, self._listing.inner) is None:
                continue
            if position >= self.count or marks[position] != mark(name):
                raise self._changed()
            if position >= start:
                yield LabelledItem(members.source(name), self._truths[position], read)
            position += 1
        if position != self.count:
            raise self._changed()

    def find(self, sources: Collection[str]) -> dict[str, LabelledItem]:
        """Return the images of these names, in one pass; unknown names are left out."""
        wanted = set(sources)
        return {item.source: item for item in self.items() if item.source in wanted}

    def _changed(self) -> DatasetError:
        return DatasetError(f"{self.path} changed while it was in use: start again")


def open_dataset(
    path: str | Path, labels: Labels, *, truth: str | Path | None = None, subset: bool = False
) -> Dataset:
    """Return the labelled images at a path, each with its class among a model's labels.

    `path` is a folder, a zip or tar archive, or a folder in an archive (`data.zip/val`), with a
    folder a class, or flat with a file of labels: `truth`, else one of a known name beside the
    images. With `subset` classes without images, and lines of the file without, are allowed.
    Whatever does not fit raises `DatasetError` that lists it, before any image is read.
    """
    names = ClassNames(labels)
    top, inner = _located(Path(path).expanduser())
    listing = Listing(open_members(top, side_names=SIDE_NAMES), inner)
    if not len(listing):
        raise DatasetError(f"{path} has no images")
    truths = truths_of(
        listing,
        names,
        path=str(path),
        truth=Path(truth).expanduser() if truth is not None else None,
        subset=subset,
    )
    dataset = MemberDataset(listing, truths, path=str(path), classes=len(labels))
    if dataset.missing and not subset:
        raise _incomplete(dataset, names)
    return dataset


def _located(path: Path) -> tuple[Path, str]:
    """Return the folder or file at a path, and for a place inside an archive the rest of it."""
    for top in (path, *path.parents):
        try:
            if top == path and top.exists():
                return path, ""
            if top.is_file():
                return top, path.relative_to(top).as_posix()
        except (OSError, ValueError) as exc:
            raise DatasetError(f"cannot open {path}: {exc}") from exc
    raise DatasetError(f"no such file or folder: {path}")


def _present(truths: Iterable[int], classes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the classes that have images, and those that have none."""
    present = set(truths)
    return tuple(sorted(present)), tuple(i for i in range(classes) if i not in present)


def _incomplete(dataset: Dataset, names: ClassNames) -> DatasetError:
    missing = [names.described(index) for index in dataset.missing]
    return DatasetError(
        f"{dataset.path} has no images of {len(missing)} of the model's {len(names.labels)} "
        f"classes: {listed(missing)}; where only some are meant, say so with --subset"
    )


def sample(items: Iterable[T], count: int, *, seed: int = 0) -> list[T]:
    """Return `count` of the items drawn at random, in their order; all where there are no more.

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
