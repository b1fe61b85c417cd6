"""What every kind of data set gives: images, each with the class that is true."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LabelledItem:
    """One image: its reported name, its true class (of the model) and its bytes.

    `read` is thread-safe and raises `ImageError` with the reason; `size` is None if unknown.
    """

    source: str
    truth: int
    read: Callable[[], bytes]
    size: int | None = None


@dataclass(frozen=True)
class Unreadable:
    """An image that could not be read, and why."""

    source: str
    error: str


class Dataset:
    """Labelled images in an order that never changes.

    `path` is as given. `truths` are the images' classes out of so many `classes` of the model;
    `missing` ones have no image. `fingerprint` is a hash of the images' names below `path`, sizes
    and classes, to resume work on the same images. `items` yields the images from a position on,
    and raises `DatasetError` where the files changed.
    """

    def __init__(
        self,
        path: str,
        truths: Sequence[int],
        items: Callable[[int], Iterator[LabelledItem]],
        *,
        classes: int,
        fingerprint: str,
    ) -> None:
        self.path, self.truths, self.fingerprint = path, truths, fingerprint
        self.count = len(truths)
        present = set(truths)
        self.classes = tuple(sorted(present))
        self.missing = tuple(i for i in range(classes) if i not in present)
        self._items = items

    def items(self, start: int = 0) -> Iterator[LabelledItem]:
        """Yield the images from a position on; raises `DatasetError` where the files changed."""
        return self._items(start)

    def find(self, sources: Collection[str]) -> dict[str, LabelledItem]:
        """Return the images of these names to read again, in one pass, but unknown ones."""
        names = set(sources)
        return {item.source: item for item in self.items() if item.source in names}
