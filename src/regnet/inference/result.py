"""The result of classifying one image: the same fields in every format, in Python and over HTTP."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from regnet.ir.metadata import ModelMetadata
from regnet.network.labels import Labels, first_name
from regnet.statistics.conformal import set_sizes
from regnet.system.errors import ImageError, RegNetError
from regnet.system.json_text import plain_fields
from regnet.system.option import option
from regnet.system.text import percent


@dataclass(frozen=True)
class ClassScore:
    """One class and its probability in [0, 1]; `wnid` is empty if the classes have none."""

    index: int
    wnid: str
    label: str
    probability: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return dict(vars(self))


@dataclass(frozen=True, repr=False)
class Prediction:
    """The most probable classes of one image, best first, or the error.

    `source` names the image, `model` the model. If requested, `set` is the prediction set, best
    class first: it contains the true class with probability `coverage`; `unknown` says that the set
    is not a single class, so that no class is certain enough. An image with an error has an empty
    set and is unknown. `predictions` is also empty if no class reaches a minimum probability that
    was asked for. `timestamp` is that of a video's frame, in seconds since its first.
    `assumed` lists the assumptions about what the model's checkpoint does not say.
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
        """The most probable class; raises `ImageError` if the image could not be read."""
        if self.error is not None:
            raise ImageError(f"{self.source}: {self.error}")
        if not self.predictions:
            raise ImageError(f"{self.source}: {IMPROBABLE}")
        return self.predictions[0]

    def __repr__(self) -> str:
        if self.error is not None:
            return f"<Prediction {self.source}: error: {self.error}>"
        if not self.predictions:
            return f"<Prediction {self.source}: {IMPROBABLE}>"
        top = self.predictions[0]
        label = "unknown, perhaps " * bool(self.unknown) + first_name(top.label)
        return f"<Prediction {self.source}: {label} {percent(top.probability, 1)}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the photo, if `source` is a file, and bars."""
        from regnet.pages.notebook import photo_card

        scores = self.predictions if self.set is None else self.set
        bars = [(first_name(score.label), score.probability) for score in scores]
        notes = [self.error or "", "unknown" * bool(self.unknown), self.model]
        return photo_card(self.source, bars, ", ".join(filter(None, notes)))

    def to_dict(self) -> dict[str, Any]:
        """Return `{"source", "predictions", "error", "model"}` as plain JSON values.

        `timestamp`, `set`, `coverage`, `unknown` and `assumed` follow if they are present.
        """
        values = {
            "source": self.source,
            "predictions": [score.to_dict() for score in self.predictions],
            "error": self.error,
            "model": self.model,
        }
        more = {
            "timestamp": self.timestamp,
            "set": None if self.set is None else [score.to_dict() for score in self.set],
            "coverage": self.coverage,
            "unknown": self.unknown,
            "assumed": list(self.assumed) or None,
        }
        return values | {name: value for name, value in more.items() if value is not None}


def to_frame(predictions: Iterable[Prediction]) -> Any:
    """Return predictions as a pandas DataFrame with a row each.

    Its columns are `source`, `label`, `probability`, `index` and `wnid` of the top class, `error`,
    `model`, and the fields that calibrated models and videos add. Raises `RegNetError` without
    pandas.
    """
    try:
        import pandas as pd
    except ImportError as exc:
        raise RegNetError("a data frame needs pandas: pip install pandas") from exc
    rows = []
    for prediction in predictions:
        values = prediction.to_dict()
        top = values.pop("predictions")[:1] or [{}]
        rows.append({"source": values.pop("source"), **dict.fromkeys(_TOP), **top[0], **values})
    return pd.DataFrame(rows, columns=None if rows else ["source", *_TOP, "error", "model"])


IMPROBABLE: Final = "no class reaches the minimum probability"
_FEW: Final = 10  # largest values that are found faster than by sorting all
_TOP: Final = ("label", "probability", "index", "wnid")


@dataclass(frozen=True)
class Wanted:
    """What to return for each image: `top_k` classes, and for a calibrated model more.

    `sets` asks for the prediction set, `unknown` for whether the image is unknown. Classes below
    `min_probability` are left out. `timestamps` is set if there are videos among the images. If
    there are indices in `classes`, only these classes compete: their probabilities are divided by
    their sum.
    """

    top_k: int = option(5, "Classes per image", "-k", "K", min=1)
    sets: bool = option(False, "Also print the prediction set (calibrated models)")
    unknown: bool = option(False, "Print `unknown` unless the prediction set is a single class")
    min_probability: float = option(0.0, "Leave out classes below probability P", "P", min=0, max=1)
    timestamps: bool = False
    classes: tuple[int, ...] = ()

    @property
    def calibrated(self) -> bool:
        """Whether only a calibrated model can give this."""
        return self.sets or self.unknown

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that these options add to a result."""
        added = {
            "timestamp": self.timestamps,
            "set": self.sets,
            "coverage": self.calibrated,
            "unknown": self.unknown,
        }
        return tuple(name for name, wanted in added.items() if wanted)


def readable(source: str) -> str:
    """Return a name with undecodable bytes written out, so that any output can contain it."""
    return source.encode("utf-8", "backslashreplace").decode()


def readable_rows(values: Iterable[Any]) -> list[dict[str, Any]]:
    """Return dataclasses with a `source` as JSON's types."""
    return [plain_fields(one) | {"source": readable(one.source)} for one in values]


def top_classes(
    probabilities: NDArray[np.float32], labels: Labels, top_k: int
) -> tuple[ClassScore, ...]:
    """Return the `top_k` most probable classes of (classes,), best first; ties by index."""
    order = _largest(probabilities, top_k)
    return tuple(
        ClassScore(i, labels[i].wnid, labels[i].name, float(probabilities[i])) for i in order
    )


def _largest(values: NDArray[np.float32], count: int) -> list[int]:
    """Return the places of the `count` largest values, the largest first; ties by place."""
    if count > _FEW:
        return list(map(int, np.argsort(-values, kind="stable")[:count]))
    rest, places = values.copy(), list[int]()
    for _ in range(min(count, len(values))):
        places.append(int(rest.argmax()))
        rest[places[-1]] = -np.inf
    return places


Row = NDArray[np.float32] | str
"""The probabilities (classes,) or embedding (width,) of an image, or why there is none."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """The `vector` (width,) of one image, or the error; `timestamp` is that of a video's frame."""

    source: str
    vector: NDArray[np.float32] | None
    error: str | None = None
    timestamp: float | None = None

    @classmethod
    def of(cls, source: str, row: Row, timestamp: float | None = None) -> Self:
        """Return the embedding of an image: of its row, or with its error."""
        vector, error = (None, row) if isinstance(row, str) else (row, None)
        return cls(source, vector, error, timestamp)


@dataclass(frozen=True)
class Answer:
    """Makes the predictions of a model, with the wanted fields."""

    model: ModelMetadata
    wanted: Wanted

    def of(self, source: str, row: Row, timestamp: float | None = None) -> Prediction:
        """Return the prediction of an image: of its row, or with its error."""
        if isinstance(row, str):
            return self.error(source, row, timestamp)
        return self.prediction(source, row, timestamp)

    def prediction(
        self, source: str, row: NDArray[np.float32], timestamp: float | None = None
    ) -> Prediction:
        """Convert the probabilities (classes,) of one image to a prediction."""
        labels, calibration = self.model.labels, self.model.calibration
        members: tuple[ClassScore, ...] = ()
        size = 0
        if calibration is not None and self.wanted.calibrated:
            (size,) = set_sizes(row[None], calibration.method, calibration.threshold).tolist()
            members = top_classes(row, labels, size) if self.wanted.sets else ()
        if classes := list(self.wanted.classes):
            kept = row[classes]
            row = np.zeros_like(row)
            row[classes] = kept / max(kept.sum(), np.finfo(row.dtype).tiny)
        top = top_classes(row, labels, min(self.wanted.top_k, len(classes) or len(labels)))
        top = tuple(score for score in top if score.probability >= self.wanted.min_probability)
        return self._made(source, top, members, timestamp, unknown=size != 1)

    def error(self, source: str, error: str, timestamp: float | None = None) -> Prediction:
        """Return the prediction of an image that could not be read."""
        return self._made(source, (), (), timestamp, error=error, unknown=True)

    def _made(
        self,
        source: str,
        top: tuple[ClassScore, ...],
        members: tuple[ClassScore, ...],
        timestamp: float | None,
        *,
        error: str | None = None,
        unknown: bool,
    ) -> Prediction:
        calibration, wanted = self.model.calibration, self.wanted
        return Prediction(
            readable(source),
            top,
            error,
            self.model.name,
            set=members if wanted.sets else None,
            coverage=calibration.coverage if calibration and wanted.calibrated else None,
            unknown=unknown if wanted.unknown else None,
            timestamp=timestamp,
            assumed=self.model.assumed,
        )
