"""Labelled images as users have them, matched to a model's classes before the first is scored."""

import glob
import random
import re
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

from regnet.data.class_names import ClassNames, listed
from regnet.data.foreign import refuse_foreign
from regnet.data.image_labels import report_skipped, webdataset_labels
from regnet.data.labelled import Dataset, LabelledItem, present_and_missing
from regnet.data.layout import truths_of
from regnet.data.listing import Listing
from regnet.data.members import open_members
from regnet.data.parquet_dataset import open_parquet, parquet_files
from regnet.data.truth_files import SIDE_NAMES
from regnet.network.labels import Labels
from regnet.system.addresses import without_secrets
from regnet.system.errors import DatasetError

__all__ = ["Dataset", "LabelledItem", "open_dataset", "sample"]

T = TypeVar("T")

_BRACES: Final = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{},]+(?:,[^{},]+)+))\}")
_MOST_SHARDS: Final = 1_000_000


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
        for position, item in enumerate(self._listing.images(self.path)):
            if position >= start:
                size = self._listing.sizes[position]
                yield LabelledItem(item.source, self._truths[position], item.read, size)

    def find(self, sources: Collection[str]) -> dict[str, LabelledItem]:
        """Return the images of these names, in one pass; unknown names are left out."""
        wanted = set(sources)
        return {item.source: item for item in self.items() if item.source in wanted}


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
    listed = Path(truth).expanduser() if truth is not None else None
    if files := parquet_files(paths, str(path), listed):
        dataset: Dataset = open_parquet(files, names, path=str(path))
    else:
        dataset = _of_members(paths, inner, names, path=str(path), truth=listed, subset=subset)
    if dataset.missing and not subset:
        raise _incomplete(dataset, names)
    return dataset


def _of_members(
    paths: Sequence[Path],
    inner: str,
    names: ClassNames,
    *,
    path: str,
    truth: Path | None,
    subset: bool,
) -> Dataset:
    listing = Listing(open_members(paths, side_names=SIDE_NAMES), inner)
    if not len(listing):
        refuse_foreign(path, paths)
        raise DatasetError(f"{path} has no images")
    samples = webdataset_labels(listing, paths) if truth is None else None
    if samples is not None:
        truths = samples.truths(names)
    else:
        truths = truths_of(listing, names, path=path, truth=truth, subset=subset)
    report_skipped(listing, samples)
    return MemberDataset(listing, truths, path=path, classes=len(names.labels))


def located(path: str | Path) -> tuple[Sequence[Path], str]:
    """Return the folders or files at a path, and for a place inside an archive the rest of it."""
    if "://" in str(path):
        raise DatasetError(
            f"{without_secrets(str(path))}: data sets are read from disk, not from addresses; copy "
            "the files here first"
        )
    place = Path(path).expanduser()
    try:
        if place.exists():
            return [place], ""
        for top in place.parents:
            if top.is_file():
                return [top], place.relative_to(top).as_posix()
        return [found for name in _expanded(str(place)) for found in _matching(name)], ""
    except (OSError, ValueError) as exc:
        raise DatasetError(f"cannot open {path}: {exc}") from exc


def _matching(pattern: str) -> list[Path]:
    """Return the paths that match a pattern, sorted; raises `DatasetError` if there are none."""
    if found := sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207
        return [Path(name) for name in found]
    raise DatasetError(f"no such file or folder: {pattern}")


def _expanded(pattern: str) -> list[str]:
    """Return the patterns that one with braces means: `{000..012}` or `{train,val}`, as webdataset.

    Raises `DatasetError` for too many.
    """
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    first, last, names = found.groups()
    if names is None and int(last) - int(first) >= _MOST_SHARDS:
        raise DatasetError(f"{pattern} names more than {_MOST_SHARDS:,} files")
    numbers = () if names is not None else range(int(first), int(last) + 1)
    choices = names.split(",") if names else [f"{n:0{len(first)}}" for n in numbers]
    head, tail = pattern[: found.start()], _expanded(pattern[found.end() :])
    return [f"{head}{choice}{rest}" for choice in choices for rest in tail]


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
