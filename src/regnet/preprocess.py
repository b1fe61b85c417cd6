"""Preprocessing protocols as data, and the exact pixels that they define."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from regnet.errors import ProtocolError

Interpolation = Literal["bicubic", "bilinear"]
Channels = Literal["BGR", "RGB"]
Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """A protocol: short side to `resize` by Pillow on uint8, centre crop `crop`, mean and scale.

    `mean` and `scale` are on 0..255 pixels in the order of `channels`: (pixel - mean) / scale.
    Raises `ProtocolError` where a value is impossible.
    """

    name: str
    resize: int = 256
    crop: int = 224
    interpolation: Interpolation = "bicubic"
    channels: Channels = "BGR"
    mean: Triple = (103.53, 116.28, 123.675)
    scale: Triple = (57.375, 57.12, 58.395)

    def to_dict(self) -> dict[str, Any]:
        """Return the protocol as plain JSON values; `preprocess_from_dict` reads it back."""
        return asdict(self)


def preprocess_from_dict(values: dict[str, Any]) -> Preprocess:
    """Return the protocol that `Preprocess.to_dict` wrote; raises `ProtocolError`."""
    known = [f.name for f in fields(Preprocess)]
    if unknown := [name for name in values if name not in known]:
        raise ProtocolError(f"unknown protocol fields {unknown}; known are {known}")
    triples = {k: tuple(v) for k, v in values.items() if k in ("mean", "scale")}
    return Preprocess(**(values | triples))


OMZ = Preprocess(name="omz")
