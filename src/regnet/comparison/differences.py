"""How the values of two pipelines differ at a stage, of one photo and of all; gates on that."""

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from regnet.statistics.agreement import Agreement
from regnet.system.json_text import plain_fields
from regnet.system.option import Options, option

Stage = Literal["decode", "resize", "crop", "logits", "probabilities"]
Array = NDArray[Any]

PIXEL_STAGES: Final[tuple[Stage, ...]] = ("decode", "resize", "crop")
STAGES: Final[tuple[Stage, ...]] = (*PIXEL_STAGES, "logits", "probabilities")

_UNITS: Final = {"logits": "logits", "probabilities": "probability"}


class Gates(Options):
    """What a comparison may not exceed: flips of the top-1 class, a difference of a probability."""

    max_flips: int | None = option(None, "Exit with 1 if more top-1 classes differ", min=0)
    max_delta: float | None = option(
        None, "Exit with 1 if a probability differs by more", min=0, max=1
    )

    def exceeded(self, found: Agreement) -> tuple[str, ...]:
        """Return a phrase for each gate that does not hold."""
        phrases = []
        if self.max_flips is not None and found.flipped > self.max_flips:
            phrases.append(f"{found.flipped} top-1 flips, --max-flips allows {self.max_flips}")
        if self.max_delta is not None and found.max_delta > self.max_delta:
            phrases.append(
                f"probabilities differ by {found.max_delta:.3g}, "
                f"--max-delta allows {self.max_delta:g}"
            )
        return tuple(phrases)


@dataclass(frozen=True)
class Difference:
    """How one photo's values differ at a stage, in the stage's unit.

    Arrays of other shapes share no `values`: nothing is compared then.
    """

    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    values: int = 0
    equal: int = 0
    largest: float = 0.0
    total: float = 0.0

    @property
    def is_none(self) -> bool:
        """Tell whether the two are identical."""
        return self.shapes[0] == self.shapes[1] and self.equal == self.values


def difference(a: Array, b: Array) -> Difference:
    """Return how two arrays differ, value by value, where they have the same shape."""
    shapes = (a.shape, b.shape)
    if a.shape != b.shape:
        return Difference(shapes)
    if np.array_equal(a, b):
        return Difference(shapes, a.size, a.size)
    delta = np.abs(np.subtract(a, b, dtype=np.result_type(a, b, np.float32)))
    equal = int(a.size - np.count_nonzero(delta))
    return Difference(shapes, a.size, equal, float(delta.max()), float(delta.sum(dtype=np.float64)))


@dataclass
class StageDifference:
    """How two pipelines differ at a stage, over all photos that were added.

    `photos` were compared, `equal_photos` of them identical, `other_size` of another size, such as
    `sizes` (height, width). Of all `values` in photos of one size, `equal_values` are identical;
    `largest` and `mean` differences are in `unit`; `worst` is the photo of the largest. If a side
    does not show the stage, `reason` says why.
    """

    stage: Stage
    reason: str | None = None
    photos: int = 0
    equal_photos: int = 0
    other_size: int = 0
    sizes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    values: int = 0
    equal_values: int = 0
    largest: float = 0.0
    total: float = 0.0
    worst: str | None = None

    def add(self, source: str, photo: Difference) -> None:
        """Count one photo."""
        self.photos += 1
        self.equal_photos += photo.is_none
        first, second = photo.shapes
        if first != second:
            self.other_size += 1
            self.sizes = self.sizes or (first[:2], second[:2])
            return
        self.values += photo.values
        self.equal_values += photo.equal
        self.total += photo.total
        if photo.largest > self.largest:
            self.largest, self.worst = photo.largest, source

    @property
    def unit(self) -> str:
        """The unit of `largest` and `mean`: levels of 0..255, logits, or probability."""
        return _UNITS.get(self.stage, "levels")

    @property
    def mean(self) -> float:
        """The mean difference of all values."""
        return self.total / self.values if self.values else 0.0

    @property
    def hidden(self) -> str | None:
        """Why the stage was not compared; None if it was."""
        return None if self.photos else self.reason or "not given"

    @property
    def differs(self) -> bool:
        """Tell whether any photo differs at all."""
        return self.equal_photos < self.photos

    @property
    def equal_share(self) -> float | None:
        """The share of equal values, in [0, 1]; None where none could be compared."""
        return self.equal_values / self.values if self.values else None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        figures = plain_fields(self)
        for name in ("reason", "total", "largest"):
            del figures[name]
        return figures | {
            "unit": self.unit,
            "equal_share": self.equal_share,
            "max": self.largest if self.values else None,
            "mean": self.mean if self.values else None,
            "hidden": self.hidden,
        }
