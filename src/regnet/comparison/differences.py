"""How the values of two pipelines differ at a stage: one photo's, and all photos' together."""

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

Stage = Literal["decode", "resize", "crop", "logits", "probabilities"]
Array = NDArray[Any]

PIXEL_STAGES: Final[tuple[Stage, ...]] = ("decode", "resize", "crop")
STAGES: Final[tuple[Stage, ...]] = (*PIXEL_STAGES, "logits", "probabilities")

_UNITS: Final = {"logits": "logits", "probabilities": "probability"}


def unit(stage: Stage) -> str:
    """Return what a stage's values count: levels of 0..255, logits, or probability."""
    return _UNITS.get(stage, "levels")


@dataclass(frozen=True)
class Difference:
    """How one photo's values differ at a stage, in the stage's unit.

    Arrays of other shapes share no `values`: nothing is compared then.
    """

    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    values: int
    equal: int
    largest: float
    total: float

    @property
    def is_none(self) -> bool:
        """Tell whether the two are identical."""
        return self.shapes[0] == self.shapes[1] and self.equal == self.values


def difference(a: Array, b: Array) -> Difference:
    """Return how two arrays differ, value by value, where they have the same shape."""
    shapes = (a.shape, b.shape)
    if a.shape != b.shape:
        return Difference(shapes, 0, 0, 0.0, 0.0)
    if np.array_equal(a, b):
        return Difference(shapes, a.size, a.size, 0.0, 0.0)
    delta = np.abs(np.subtract(a, b, dtype=np.result_type(a, b, np.float32)))
    equal = int(a.size - np.count_nonzero(delta))
    return Difference(shapes, a.size, equal, float(delta.max()), float(delta.sum(dtype=np.float64)))


@dataclass(frozen=True, kw_only=True)
class StageDifference:
    """How two pipelines differ at a stage, over all photos.

    `photos` were compared, `equal_photos` of them identical, `other_size` of another size, of
    which `sizes` (height, width) is an example. Of all `values` in photos of one size,
    `equal_values` are identical; `largest` and `mean` differences are in `unit`; `worst` is the
    photo of the largest. Where the stage of a side was not seen, `hidden` says why and `photos`
    is 0.
    """

    stage: Stage
    photos: int
    equal_photos: int
    other_size: int
    sizes: tuple[tuple[int, int], tuple[int, int]] | None
    values: int
    equal_values: int
    largest: float
    mean: float
    worst: str | None
    hidden: str | None

    @property
    def unit(self) -> str:
        """What `largest` and `mean` count."""
        return unit(self.stage)

    @property
    def differs(self) -> bool:
        """Tell whether any photo differs at all."""
        return self.equal_photos < self.photos

    @property
    def equal_share(self) -> float | None:
        """The share of equal values, in [0, 1]; None where none could be compared."""
        return self.equal_values / self.values if self.values else None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            "stage": self.stage,
            "unit": self.unit,
            "photos": self.photos,
            "equal_photos": self.equal_photos,
            "other_size": self.other_size,
            "sizes": self.sizes and [list(size) for size in self.sizes],
            "values": self.values,
            "equal_values": self.equal_values,
            "equal_share": self.equal_share,
            "max": self.largest if self.values else None,
            "mean": self.mean if self.values else None,
            "worst": self.worst,
            "hidden": self.hidden,
        }


class StageTally:
    """Adds up the differences at one stage, photo by photo; `hidden` says why there are none."""

    def __init__(self, stage: Stage, hidden: str | None) -> None:
        self._stage, self._hidden = stage, hidden
        self._photos = self._equal_photos = self._other_size = 0
        self._values = self._equal_values = 0
        self._largest = self._total = 0.0
        self._worst: str | None = None
        self._sizes: tuple[tuple[int, int], tuple[int, int]] | None = None

    def add(self, source: str, found: Difference) -> None:
        """Count one photo."""
        self._photos += 1
        self._equal_photos += found.is_none
        if found.shapes[0] != found.shapes[1]:
            self._other_size += 1
            self._sizes = self._sizes or (found.shapes[0][:2], found.shapes[1][:2])  # type: ignore[assignment]
            return
        self._values += found.values
        self._equal_values += found.equal
        self._total += found.total
        if found.largest > self._largest:
            self._largest, self._worst = found.largest, source

    def result(self) -> StageDifference:
        """Return the figures so far."""
        return StageDifference(
            stage=self._stage,
            photos=self._photos,
            equal_photos=self._equal_photos,
            other_size=self._other_size,
            sizes=self._sizes,
            values=self._values,
            equal_values=self._equal_values,
            largest=self._largest,
            mean=self._total / self._values if self._values else 0.0,
            worst=self._worst,
            hidden=None if self._photos else self._hidden or "not given",
        )
