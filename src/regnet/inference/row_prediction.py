"""What a model's probabilities say of an image: from a row of them to a prediction."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from regnet.inference.result import ClassScore, Prediction, Wanted, readable, top_classes
from regnet.ir.metadata import ModelMetadata
from regnet.statistics.conformal import set_sizes


@dataclass(frozen=True)
class Answer:
    """Makes predictions with the fields that are wanted."""

    model: ModelMetadata
    wanted: Wanted

    def prediction(
        self, source: str, row: NDArray[np.float32], timestamp: float | None = None
    ) -> Prediction:
        """Return what the probabilities (classes,) of an image say."""
        top = top_classes(row, self.model.labels, self.wanted.top_k)
        found = self._made(source, top, None, timestamp)
        calibration = self.model.calibration
        if calibration is None or not self.wanted.calibrated:
            return found
        (size,) = set_sizes(row[None], calibration.method, calibration.threshold).tolist()
        classes = top_classes(row, self.model.labels, size) if self.wanted.sets else ()
        return self._with(found, classes, unknown=size != 1)

    def error(self, source: str, error: str, timestamp: float | None = None) -> Prediction:
        """Return that an image could not be read: nothing is known of it."""
        found = self._made(source, (), error, timestamp)
        return self._with(found, (), unknown=True) if self.wanted.calibrated else found

    def _made(
        self,
        source: str,
        predictions: tuple[ClassScore, ...],
        error: str | None,
        timestamp: float | None,
    ) -> Prediction:
        return Prediction(
            readable(source),
            predictions,
            error,
            self.model.name,
            timestamp=timestamp,
            assumed=self.model.assumed,
        )

    def _with(
        self, found: Prediction, classes: tuple[ClassScore, ...], *, unknown: bool
    ) -> Prediction:
        calibration = self.model.calibration
        return replace(
            found,
            set=classes if self.wanted.sets else None,
            coverage=calibration.coverage if calibration else None,
            unknown=unknown if self.wanted.unknown else None,
        )
