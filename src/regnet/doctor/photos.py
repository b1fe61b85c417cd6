"""What is kept of all photos of a data set, in columns: about 800 bytes each."""

from array import array
from typing import Final

import numpy as np
from numpy.typing import NDArray

from regnet.doctor.findings import File
from regnet.doctor.glance import DIGEST, SIDE, Glance, Grey
from regnet.doctor.tree import Place, Tree

_BLANK: Final = 2.5  # levels of contrast


class Glances:
    """The glances at the photos of a tree, by their index in its order; fill it with `add`.

    `errors` says why those that could not be read could not.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.sources: list[str] = []
        self.errors: dict[int, str] = {}
        self._sizes = array("I")
        self._contrasts = array("f")
        self._digests = bytearray()
        self._greys = bytearray()

    def __len__(self) -> int:
        return len(self.sources)

    def add(self, glance: Glance) -> None:
        """Add the glance at the next photo."""
        if glance.error:
            self.errors[len(self)] = glance.error
        self.sources.append(glance.source)
        self._sizes.extend((glance.width, glance.height))
        self._contrasts.append(glance.contrast)
        self._digests += glance.digest
        self._greys += glance.grey.tobytes()

    @property
    def readable(self) -> NDArray[np.int64]:
        """The indices of the photos that could be read."""
        good = np.ones(len(self), bool)
        good[list(self.errors)] = False
        return np.flatnonzero(good)

    @property
    def sizes(self) -> NDArray[np.uint32]:
        """Width and height of each, upright, 0 where it could not be read: (N, 2)."""
        return np.frombuffer(self._sizes, np.uint32).reshape(-1, 2)

    @property
    def blank(self) -> NDArray[np.bool_]:
        """Which show nothing but one shade: (N,)."""
        return np.frombuffer(self._contrasts, np.float32) < _BLANK

    @property
    def greys(self) -> Grey:
        """The small grey pictures, uint8 (N, SIDE, SIDE)."""
        return np.frombuffer(self._greys, np.uint8).reshape(-1, SIDE, SIDE)

    @property
    def split_sizes(self) -> dict[str, int]:
        """The number of photos of each split."""
        return {split: sum(counts.values()) for split, counts in self._tree.counts.items()}

    def digest(self, index: int) -> bytes:
        """Return the hash of a photo's file."""
        return bytes(self._digests[index * DIGEST : (index + 1) * DIGEST])

    def place(self, index: int) -> Place:
        """Return the split and class of a photo."""
        return self._tree.places[self._tree.codes[index]]

    def file(self, index: int, detail: str = "", group: int | None = None) -> File:
        """Return a photo as a finding names it."""
        place = self.place(index)
        return File(self.sources[index], place.split, place.label, detail, group)
