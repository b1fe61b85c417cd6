"""What was measured of a converted model and travels inside it, as values."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from regnet.checkpoints.fields import FieldError, bad

_MAX_LAYERS = 10_000


class _Record:
    """A frozen dataclass of numbers and texts that is written to JSON and read back strictly."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values; `from_dict` reads them back."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_dict(cls, field: str, value: object) -> Self:
        """Return what `to_dict` wrote; raises `FieldError`, which names `field`."""
        names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
        if not isinstance(value, dict) or sorted(value) != sorted(names):
            raise bad(field, value, f"an object of {', '.join(names)}")
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
        try:
            return cls(**values)
        except FieldError as exc:
            raise FieldError(f"{field}: {exc}") from exc


@dataclass(frozen=True, kw_only=True)
class PixelBound(_Record):
    """How the pixels that a graph computes differ from the protocol's own.

    `identical` is the share of equal values in [0, 1], `levels` the largest difference of 0..255,
    `photos` how many it was measured on.
    """

    identical: float
    levels: int
    photos: int

    def __post_init__(self) -> None:
        _check("identical", self.identical, _is_share, "a share from 0 to 1")
        _check("levels", self.levels, _is_count, "a whole number")
        _check("photos", self.photos, _is_count, "a whole number")


@dataclass(frozen=True, kw_only=True)
class Certificate(_Record):
    """How an INT8 model agrees with the model it was made from, on photos that no decision used.

    `agreement` is the share of equal top-1 classes on `photos` photos, `low` its one-sided 95 %
    lower confidence bound, `kl` the mean divergence KL(f32 || int8) in nats; `min_agreement` was
    asked for; `calibration_photos` set the ranges; `restored` layers stayed in floating point.
    """

    agreement: float
    low: float
    photos: int
    kl: float
    min_agreement: float
    calibration_photos: int
    restored: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("agreement", "low", "min_agreement"):
            _check(name, getattr(self, name), _is_share, "a share from 0 to 1")
        _check("kl", self.kl, _is_amount, "a number of at least 0")
        for name in ("photos", "calibration_photos"):
            _check(name, getattr(self, name), _is_count, "a whole number")
        _check("restored", self.restored, _is_texts, "a list of names")


@dataclass(frozen=True, kw_only=True)
class Calibration(_Record):
    """Temperature and prediction sets learnt from labelled photos.

    The network's logits are divided by `temperature`, inside the graph. The set of an image holds
    the true class with probability `coverage`, for images like those learnt from: by `method` "aps"
    the classes before which more probable ones sum to at most `threshold`, by "lac" those of at
    least `1 - threshold`. `photos` were learnt from; on `held_out` others the sets held the truth
    in the share `measured_coverage`, with `mean_size` classes each.
    """

    temperature: float
    coverage: float
    method: Literal["aps", "lac"]
    threshold: float
    photos: int
    held_out: int
    measured_coverage: float
    mean_size: float

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, _is_positive, "a number over 0")
        for name in ("coverage", "measured_coverage"):
            _check(name, getattr(self, name), _is_share, "a share from 0 to 1")
        _check("method", self.method, lambda v: v in ("aps", "lac"), "aps or lac")
        for name in ("threshold", "mean_size"):
            _check(name, getattr(self, name), _is_amount, "a number of at least 0")
        for name in ("photos", "held_out"):
            _check(name, getattr(self, name), _is_count, "a whole number")


def _check(name: str, value: object, good: Callable[[Any], bool], allowed: str) -> None:
    if not good(value):
        raise bad(name, value, allowed)


def _is_amount(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return value >= 0 and (isinstance(value, int) or math.isfinite(value))


def _is_positive(value: object) -> bool:
    return _is_amount(value) and value != 0


def _is_share(value: Any) -> bool:
    return _is_amount(value) and value <= 1


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_texts(value: object) -> bool:
    if not isinstance(value, tuple) or len(value) > _MAX_LAYERS:
        return False
    return all(isinstance(text, str) for text in value)
