"""What classifying one image gives: the same fields in every format, in Python and over HTTP."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regnet.network.labels import Labels
from regnet.system.errors import ImageError
from regnet.system.option import option


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
    Where it was asked for: `set` has the classes, best first, that hold the true one with
    probability `coverage`; `unknown` says that this is not just one, so that no class is sure
    enough to be the answer. Of an image with an error the set is empty, and it is unknown.
    `timestamp` is that of a frame of a video, in seconds since its first. `assumed` has the
    sentences about what the model's checkpoint does not say.
    """

    source: str
    predictions: tuple[ClassScore, ...]
    error: str | None
    model: str
    set: tuple[ClassScore, ...] | None = None
    coverage: float | None = None
    unknown: bool | None = None
    timestamp: float | None = None
    assumed: tuple[str, ...] = ()

    @property
    def top(self) -> ClassScore:
        """The most probable class; raises `ImageError` where the image could not be read."""
        if self.error is not None:
            raise ImageError(f"{self.source}: {self.error}")
        return self.predictions[0]

    def to_dict(self) -> dict[str, Any]:
        """Return `{"source", "predictions", "error", "model"}` as plain JSON values.

        `timestamp` follows where there is one, `set`, `coverage` and `unknown` where they were
        asked for, `assumed` if anything was.
        """
        return {
            "source": self.source,
            "predictions": [score.to_dict() for score in self.predictions],
            "error": self.error,
            "model": self.model,
            **self._more(),
        }

    def _more(self) -> dict[str, Any]:
        values = {
            "timestamp": self.timestamp,
            "set": None if self.set is None else [score.to_dict() for score in self.set],
            "coverage": self.coverage,
            "unknown": self.unknown,
            "assumed": list(self.assumed) or None,
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Wanted:
    """What is wanted of each image: `top_k` classes, and of a calibrated model more.

    `sets` asks for the prediction set, `unknown` whether the image is to be called unknown.
    `timestamps` says that there are videos among the images, whose frames have one.
    """

    top_k: int = option(5, "Classes per image", "-k", "K", min=1)
    sets: bool = option(False, "Also print the prediction set (calibrated models)")
    unknown: bool = option(False, "Print `unknown` unless the prediction set is a single class")
    timestamps: bool = False

    @property
    def calibrated(self) -> bool:
        """Whether only a calibrated model can give this."""
        return self.sets or self.unknown

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that are added to a result."""
        added = {
            "timestamp": self.timestamps,
            "set": self.sets,
            "coverage": self.calibrated,
            "unknown": self.unknown,
        }
        return tuple(name for name, wanted in added.items() if wanted)


def readable(source: str) -> str:
    """Return a name with undecodable bytes written out, so that any output can hold it."""
    return source.encode("utf-8", "backslashreplace").decode()


def top_classes(
    probabilities: NDArray[np.float32], labels: Labels, top_k: int
) -> tuple[ClassScore, ...]:
    """Return the `top_k` most probable classes of (classes,), best first; ties by index."""
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    return tuple(
        ClassScore(int(i), labels[i].wnid, labels[i].name, float(probabilities[i])) for i in order
    )
