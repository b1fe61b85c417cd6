"""The images of a data set: where each lies, in a few bytes an image."""

import hashlib
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from regnet.data.archives import plain_path
from regnet.data.members import Members
from regnet.data.sources import Item
from regnet.system.errors import DatasetError

T = TypeVar("T")


class Listing:
    """The images below a folder of members: directory and bytes of each, in 16 bytes an image."""

    def __init__(self, members: Members, inner: str) -> None:
        self.members, self.inner = members, inner
        self.directories: dict[str, int] = {}
        self.marks = array("I")
        self.sizes = array("q")
        self._places = array("I")
        self._hash = hashlib.sha256()
        self._left_out: frozenset[int] = frozenset()
        for name, path, size in self._inside(members.sizes()):
            self._add(name, path, size)

    def _add(self, name: str, path: str, size: int) -> None:
        directory = path.rpartition("/")[0]
        self._places.append(self.directories.setdefault(directory, len(self.directories)))
        self.marks.append(mark(name))
        self.sizes.append(size)
        self._hash.update(f"{path}\0{size}\n".encode("utf-8", "surrogateescape"))

    def _inside(self, named: Iterable[tuple[str, T]]) -> Iterator[tuple[str, str, T]]:
        """Yield name, path below the folder, and what is named, of the images there."""
        position = -1
        for name, value in named:
            if (path := below(name, self.inner)) is not None:
                position += 1
                if position not in self._left_out:
                    yield name, path, value

    def __len__(self) -> int:
        return len(self.marks)

    def leave_out(self, positions: frozenset[int]) -> None:
        """Forget the images at these positions of all of them: they are no photos."""
        used = [position for position in range(len(self)) if position not in positions]
        self.marks = array("I", (self.marks[position] for position in used))
        self.sizes = array("q", (self.sizes[position] for position in used))
        self._places = array("I", (self._places[position] for position in used))
        self._left_out = positions

    def paths(self) -> Iterator[str]:
        """Yield each image's path below the folder, again."""
        return (path for _, path, _ in self._inside(self.members.sizes()))

    def images(self, place: str) -> Iterator[Item]:
        """Yield the images; raises `DatasetError` where the files at `place` changed."""
        marks = iter(self.marks)
        for name, _, item in self._inside(self.members.images()):
            if next(marks, None) != mark(name):
                break
            yield item
        else:
            if next(marks, None) is None:
                return
        raise DatasetError(f"{place} changed while it was in use: start again")

    def by_directory(self, class_of: Callable[[str], int]) -> "array[int]":
        """Return the class of each image from that of its directory."""
        classes = [class_of(directory) for directory in self.directories]
        return array("i", (classes[place] for place in self._places))

    def fingerprint(self, truths: "array[int]") -> str:
        """Return a hash of the images' paths, sizes and classes."""
        whole = self._hash.copy()
        whole.update(truths.tobytes())
        return whole.hexdigest()


def below(name: str, folder: str) -> str | None:
    """Return a member's path below a folder, None for one elsewhere; "" is the folder of all."""
    path = plain_path(name)
    if not folder:
        return path
    return path[len(folder) + 1 :] if path.startswith(f"{folder}/") else None


def mark(name: str) -> int:
    """Return 32 bits that tell a name from the others at its place."""
    return zlib.crc32(name.encode("utf-8", "surrogateescape"))
