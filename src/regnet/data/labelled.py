"""What every kind of data set gives: images, each with the class that is true."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class LabelledItem:
    """One image: its reported name, its true class (of the model) and its bytes.

    `read` is thread-safe and raises `ImageError` with the reason; `size` is None if unknown.
    """

    source: str
    truth: int
    read: Callable[[], bytes]
    size: int | None = None


class Dataset(Protocol):
    """Labelled images in an order that never changes.

    `path` is as given; `classes` of the model have images, `missing` ones do not; `fingerprint` is
    a hash of the images' names below `path`, sizes and classes, to resume work on the same images.
    """

    path: str
    count: int
    classes: tuple[int, ...]
    missing: tuple[int, ...]
    fingerprint: str

    def items(self, start: int = 0) -> Iterator[LabelledItem]:
        """Yield the images from a position on; raises `DatasetError` where the files changed."""

    def find(self, sources: Collection[str]) -> dict[str, LabelledItem]:
        """Return the images of these names to read again; unknown names are left out."""


def present_and_missing(
    truths: Iterable[int], classes: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the classes that have images, and those that have none."""
    present = set(truths)
    return tuple(sorted(present)), tuple(i for i in range(classes) if i not in present)
