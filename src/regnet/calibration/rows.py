"""The probabilities and labels of all photos of a data set, kept in memory."""

import numpy as np
from numpy.typing import NDArray

from regnet.evaluation.scoring import ScoredBatch


class Rows:
    """Listens to all batches and keeps their probabilities: 4 bytes per photo and class."""

    def __init__(self, photos: int, classes: int) -> None:
        self._probabilities = np.empty((photos, classes), np.float32)
        self._truths = np.empty(photos, np.int64)
        self._count = 0

    def __call__(self, batch: ScoredBatch) -> None:
        """Add the readable photos of a batch."""
        part = slice(self._count, self._count + len(batch.readable))
        self._probabilities[part] = batch.scored.probabilities
        self._truths[part] = batch.readable_truths
        self._count = part.stop

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Those of the readable photos (readable, classes)."""
        return self._probabilities[: self._count]

    @property
    def truths(self) -> NDArray[np.int64]:
        """Their true classes (readable,)."""
        return self._truths[: self._count]
