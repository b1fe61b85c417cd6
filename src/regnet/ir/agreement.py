"""How far a model on a device agrees with the same model on the CPU in f32, on a few photos."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.ir.device_record import DeviceRecord
from regnet.ir.engine import ConvertedModel, Engine, InferenceEngine
from regnet.ir.metadata import InferencePrecision
from regnet.pixels.preprocess import rgb_pixels
from regnet.pixels.samples import sample_photos
from regnet.system.devices import device_title

_SHARES: Final = (1.0, 0.75, 0.5)
"""Sides of the parts of a photo, in units of its own."""


@dataclass(frozen=True, kw_only=True)
class DeviceAgreement:
    """A model on a device beside the CPU in f32, on `photos` photos.

    `flips` counts those with another most probable class; `max_delta` is the largest difference of
    a probability.
    """

    device: str
    title: str
    precision: InferencePrecision
    photos: int
    flips: int
    max_delta: float

    def __str__(self) -> str:
        return (
            f"{self.device} ({self.title}), {self.precision}: {self.flips} of {self.photos} sample "
            f"crops change class against the CPU in f32, probabilities differ by at most "
            f"{self.max_delta:.2g}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)


def device_agreement(
    model: ConvertedModel,
    engine: InferenceEngine,
    *,
    device: str,
    precision: InferencePrecision,
    compiled_cache: Path | None,
) -> DeviceAgreement:
    """Return the agreement of `engine`, which is the model on a device; measured once and kept."""

    def measure() -> dict[str, Any]:
        pixels = [engine.pixels(photo) for photo in sample_parts()]
        reference = Engine(model, compiled_cache=compiled_cache)
        expected, given = (
            np.concatenate([e.infer([each]) for each in pixels]) for e in (reference, engine)
        )
        return {
            "photos": len(pixels),
            "flips": int((expected.argmax(axis=1) != given.argmax(axis=1)).sum()),
            "max_delta": float(np.abs(expected - given).max()),
        }

    record = DeviceRecord.of(model, device=device, precision=precision, folder=compiled_cache)
    values = record.kept("agreement", measure, _is_measured)
    return DeviceAgreement(device=device, title=device_title(device), precision=precision, **values)


def _is_measured(values: Any) -> bool:
    """Tell whether a record has what `measure` returns."""
    return (
        isinstance(values, dict)
        and values.keys() == {"photos", "flips", "max_delta"}
        and all(type(values[name]) is int for name in ("photos", "flips"))
        and 0 <= values["flips"] <= values["photos"]
        and isinstance(values["max_delta"], float)
        and 0 <= values["max_delta"] <= 1
    )


def sample_parts() -> Iterator[NDArray[np.uint8]]:
    """Yield the sample photos, their corners and centres of several sizes, and all mirrored."""
    for path in sample_photos():
        photo = rgb_pixels(path)
        for share in _SHARES:
            high, wide = (round(share * side) for side in photo.shape[:2])
            down, across = photo.shape[0] - high, photo.shape[1] - wide
            places = {(0, 0), (down, across), (down // 2, across // 2)}
            for top, left in sorted(places):
                part = photo[top : top + high, left : left + wide]
                yield part
                yield part[:, ::-1]
