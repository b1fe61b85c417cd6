"""What classifying one image gives: the same fields in every format, in Python and over HTTP."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regnet.errors import ImageError
from regnet.labels import Labels


@dataclass(frozen=True)
class ClassScore:
    """One class and its probability in [0, 1]; `wnid` is empty where the classes have none."""

    index: int
    wnid: str
    label: str
    probability: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            "index": self.index,
            "wnid": self.wnid,
            "label": self.label,
            "probability": self.probability,
        }


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, best first, or why there are none.

    `source` names the image, `model` the model; exactly one of `predictions` and `error` is there.
    """

    source: str
    predictions: tuple[ClassScore, ...]
    error: str | None
    model: str

    @property
    def top(self) -> ClassScore:
        """The most probable class; raises `ImageError` where the image could not be read."""
        if self.error is not None:
            raise ImageError(f"{self.source}: {self.error}")
        return self.predictions[0]

    def to_dict(self) -> dict[str, Any]:
        """Return `{"source", "predictions", "error", "model"}` as plain JSON values."""
        return {
            "source": self.source,
            "predictions": [score.to_dict() for score in self.predictions],
            "error": self.error,
            "model": self.model,
        }


def top_classes(
    probabilities: NDArray[np.float32], labels: Labels, top_k: int
) -> tuple[ClassScore, ...]:
    """Return the `top_k` most probable classes of (classes,), best first; ties by index."""
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    return tuple(
        ClassScore(int(i), labels[i].wnid, labels[i].name, float(probabilities[i])) for i in order
    )
