"""Labelled images as users have them, matched to a model's classes before the first is scored."""

import glob
import random
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

from regnet.data.class_names import ClassNames, listed
from regnet.data.labelled import Dataset, LabelledItem, present_and_missing
from regnet.data.layout import Listing, below, mark, truths_of
from regnet.data.members import open_members
from regnet.data.parquet_dataset import open_parquet
from regnet.data.photo_files import image_files
from regnet.data.truth_files import SIDE_NAMES
from regnet.errors import DatasetError
from regnet.labels import Labels

__all__ = ["Dataset", "LabelledItem", "open_dataset", "sample"]

T = TypeVar("T")

_PARQUET: Final = ".parquet"


class MemberDataset:
    """The labelled images of a folder, zip or tar."""

    def __init__(self, listing: Listing, truths: "array[int]", *, path: str, classes: int) -> None:
        self.path = path
        self.count = len(truths)
        self.classes, self.missing = present_and_missing(truths, classes)
        self.fingerprint = listing.fingerprint(truths)
        self._listing, self._truths = listing, truths

    def items(self, start: int = 0) -> Iterator[LabelledItem]:
        """Yield the images from a position on; raises `DatasetError` where the files changed."""
        members, marks = self._listing.members, self._listing.marks
        position = 0
        for name, item in members.images():
            if below(name, self._listing.inner) is None:
                continue
            if position >= self.count or marks[position] != mark(name):
                raise self._changed()
            if position >= start:
                yield LabelledItem(item.source, self._truths[position], item.read)
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

    `path` is a folder, a zip or tar archive, a folder in one (`data.zip/val`), a Parquet file or a
    folder of them, or a pattern for several of a kind (`train-*.zip`), which count as one. Images
    lie in a folder a class, or flat with a file of labels: `truth`, or one of a known name beside
    them. With `subset` classes without images, and lines of the file without, are allowed.
    Whatever does not fit raises `DatasetError` that lists it, before any image is read.
    """
    names = ClassNames(labels)
    paths, inner = located(path)
    dataset = _of_parquet(paths, names, path=str(path), truth=truth) or _of_members(
        paths, inner, names, path=str(path), truth=truth, subset=subset
    )
    if dataset.missing and not subset:
        raise _incomplete(dataset, names)
    return dataset


def _of_parquet(
    paths: Sequence[Path], names: ClassNames, *, path: str, truth: str | Path | None
) -> Dataset | None:
    """Return the data set of Parquet files; None where there are others, or images."""
    if len(paths) == 1 and paths[0].is_dir() and next(image_files(str(paths[0])), None) is None:
        paths = sorted(paths[0].rglob(f"*{_PARQUET}"))
    files = [file for file in paths if file.suffix.lower() == _PARQUET]
    if not files:
        return None
    if len(files) < len(paths):
        raise DatasetError(f"{path} matches Parquet files and others: name one kind")
    if truth is not None:
        raise DatasetError(f"{path} has its labels in itself: leave out {truth}")
    return open_parquet(files, names, path=path)


def _of_members(
    paths: Sequence[Path],
    inner: str,
    names: ClassNames,
    *,
    path: str,
    truth: str | Path | None,
    subset: bool,
) -> Dataset:
    listing = Listing(open_members(paths, side_names=SIDE_NAMES), inner)
    if not len(listing):
        raise DatasetError(f"{path} has no images")
    labels = Path(truth).expanduser() if truth is not None else None
    truths = truths_of(listing, names, path=path, truth=labels, subset=subset)
    listing.members.skipped.report()
    return MemberDataset(listing, truths, path=path, classes=len(names.labels))


def located(path: str | Path) -> tuple[Sequence[Path], str]:
    """Return the folders or files at a path, and for a place inside an archive the rest of it."""
    place = Path(path).expanduser()
    try:
        if place.exists():
            return [place], ""
        for top in place.parents:
            if top.is_file():
                return [top], place.relative_to(top).as_posix()
        if found := sorted(glob.glob(str(place), recursive=True)):  # noqa: PTH207
            return [Path(name) for name in found], ""
    except (OSError, ValueError) as exc:
        raise DatasetError(f"cannot open {path}: {exc}") from exc
    raise DatasetError(f"no such file or folder: {path}")


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
