"""What was measured of a converted model and travels inside it, as values."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from regnet.checkpoints.fields import FieldError
from regnet.system.checked import Checked, Rule, within

_MAX_LAYERS = 10_000

_Amount = Annotated[float, within(ge=0)]
_Count = Annotated[int, within(ge=0, le=10**15)]  # exact in floats, too
_Share = Annotated[float, within(ge=0, le=1)]
_Names = Annotated[
    tuple[str, ...],
    Rule(f"with at most {_MAX_LAYERS} items", lambda names: len(names) <= _MAX_LAYERS),
]


@dataclass(frozen=True, kw_only=True)
class PixelBound(Checked, error=FieldError):
    """How the pixels that a graph computes differ from the protocol's own.

    `identical` is the share of equal values in [0, 1], `levels` the largest difference of 0..255,
    `photos` how many it was measured on.
    """

    identical: _Share
    levels: _Count
    photos: _Count


@dataclass(frozen=True, kw_only=True)
class Certificate(Checked, error=FieldError):
    """How an INT8 model agrees with the model it was made from, on photos that no decision used.

    `agreement` is the share of equal top-1 classes on `photos` photos, `low` its one-sided 95 %
    lower confidence bound, `kl` the mean divergence KL(f32 || int8) in nats; `min_agreement` was
    asked for; `calibration_photos` set the ranges; `restored` layers stayed in floating point.
    """

    agreement: _Share
    low: _Share
    photos: _Count
    kl: _Amount
    min_agreement: _Share
    calibration_photos: _Count
    restored: _Names


@dataclass(frozen=True, kw_only=True)
class Calibration(Checked, error=FieldError):
    """Temperature and prediction sets learnt from labelled photos.

    The network's logits are divided by `temperature`, inside the graph. The set of an image holds
    the true class with probability `coverage`, for images like those learnt from: by `method` "aps"
    the classes before which more probable ones sum to at most `threshold`, by "lac" those of at
    least `1 - threshold`. `photos` were learnt from; on `held_out` others the sets held the truth
    in the share `measured_coverage`, with `mean_size` classes each.
    """

    temperature: Annotated[float, within(gt=0)]
    coverage: _Share
    method: Literal["aps", "lac"]
    threshold: _Amount
    photos: _Count
    held_out: _Count
    measured_coverage: _Share
    mean_size: _Amount


@dataclass(frozen=True, kw_only=True)
class Taught(Checked, error=FieldError):
    """How `regnet teach` made a head: linear discriminant analysis of rooted features.

    `photos` has their number per class. Of `measured` photos, `correct` were right when each was
    left out. `moments` are the centre, the class means and the factor of the scatter, `degrees` of
    freedom, as base64 of float32: what another class is added with; "" if they are too large.
    """

    root: Literal["none", "root", "signed"]
    shrinkage: Annotated[float, within(gt=0, lt=1)]
    noise: _Amount
    temperature: Annotated[float, within(gt=0)]
    degrees: _Count
    photos: tuple[_Count, ...]
    measured: _Count
    correct: _Count
    moments: str

    def summary(self) -> dict[str, Any]:
        """Return the fields as JSON values, without the moments, and all `photos` together."""
        values = self.to_dict() | {"photos": sum(self.photos)}
        del values["moments"]
        return values
