"""Preprocessing protocols as data: which crop of an image a network takes, and on what scale.

Nothing here touches a pixel, or imports what does.
"""

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from regnet.system.errors import ProtocolError, shown

Channels = Literal["BGR", "RGB"]
Interpolation = Literal["bicubic", "bilinear", "opencv-linear"]
Offset = Literal["round", "ceil", "floor"]
Triple = tuple[float, float, float]
Size = tuple[int, int]
Box = tuple[int, int, int, int]

MAX_SIDE = 4096


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """A protocol: short side to `resize`, centre crop `crop`, mean and scale.

    `interpolation` is Pillow's on uint8 (bicubic, bilinear), or OpenCV's INTER_LINEAR on float32.
    `offset` says where a crop begins that cannot be centred: a half is rounded to the even
    neighbour, up, or down. `mean` and `scale` are on 0..255 pixels in the order of `channels`:
    (pixel - mean) / scale. Raises `ProtocolError` where a value is impossible.
    """

    name: str
    resize: int = 256
    crop: int = 224
    interpolation: Interpolation = "bicubic"
    offset: Offset = "round"
    channels: Channels = "BGR"
    mean: Triple = (103.53, 116.28, 123.675)
    scale: Triple = (57.375, 57.12, 58.395)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise ProtocolError(f"name={shown(self.name)} is not allowed: give it a name")
        _require_side("resize", self.resize, MAX_SIDE)
        _require_side("crop", self.crop, self.resize)
        _require_one_of("interpolation", self.interpolation, get_args(Interpolation))
        _require_one_of("offset", self.offset, get_args(Offset))
        _require_one_of("channels", self.channels, get_args(Channels))
        _require_triple("mean", self.mean, -math.inf, "three finite numbers")
        _require_triple("scale", self.scale, 0.0, "three finite numbers over 0")

    def to_dict(self) -> dict[str, Any]:
        """Return the protocol as plain JSON values; `preprocess_from_dict` reads it back."""
        return asdict(self)

    def resized(self, width: int, height: int) -> Size:
        """Return (width, height) of an image after the resize: the long side is cut, not rounded.

        A long side is int(resize * long / short), as in the protocol of the published figures.
        """
        if width <= height:
            return self.resize, int(self.resize * height / width)
        return int(self.resize * width / height), self.resize

    def crop_box(self, width: int, height: int) -> Box:
        """Return (left, top, right, bottom) of the centre crop in a resized image.

        An offset is (side - crop) / 2, rounded half to even, up or down.
        """
        left = _whole((width - self.crop) / 2, self.offset)
        top = _whole((height - self.crop) / 2, self.offset)
        return left, top, left + self.crop, top + self.crop


def _whole(number: float, rule: Offset) -> int:
    if rule == "round":
        return round(number)
    return math.ceil(number) if rule == "ceil" else math.floor(number)


def preprocess_from_dict(values: object) -> Preprocess:
    """Return the protocol that `Preprocess.to_dict` wrote as a dict; raises `ProtocolError`.

    Only `name` has to be there; what else is absent has its default.
    """
    if not isinstance(values, dict):
        raise ProtocolError(f"a protocol must be a table of its fields, not {shown(values)}")
    known = [f.name for f in fields(Preprocess)]
    if unknown := [name for name in values if name not in known]:
        raise ProtocolError(f"unknown protocol fields {shown(unknown)}; known are {known}")
    if "name" not in values:
        raise ProtocolError("a protocol needs a field 'name'")
    triples = {k: tuple(values[k]) for k in ("mean", "scale") if isinstance(values.get(k), list)}
    return Preprocess(**(values | triples))


def _require_side(name: str, value: object, largest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
        raise ProtocolError(
            f"{name}={shown(value)} is not allowed: {name} must be a whole number "
            f"from 1 to {largest}"
        )


def _require_one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ProtocolError(
            f"{name}={shown(value)} is not allowed: {name} must be {' or '.join(allowed)}"
        )


def _require_triple(name: str, values: object, above: float, allowed: str) -> None:
    good = (
        isinstance(values, tuple)
        and len(values) == 3
        and all(_is_finite(value) and value > above for value in values)
    )
    if not good:
        raise ProtocolError(f"{name}={shown(values)} is not allowed: {name} must be {allowed}")


def _is_finite(value: object) -> bool:
    """Tell whether a value is a number that fits a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of over 300 digits
        return False


OMZ = Preprocess(name="omz")
PYCLS = Preprocess(name="pycls", interpolation="opencv-linear", offset="ceil")
PROTOCOLS = {protocol.name: protocol for protocol in (OMZ, PYCLS)}


def protocol_named(name: str) -> Preprocess:
    """Return a published protocol by its name; raises `ProtocolError` that lists the names."""
    if name not in PROTOCOLS:
        raise ProtocolError(f"unknown protocol {shown(name)}; known are {' and '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def by_protocol(own: Preprocess, name: str) -> Preprocess:
    """Return a model's own protocol with the rules (interpolation, offset) of the one named.

    Sizes, channels, mean and scale stay the model's. Raises `ProtocolError` where no protocol has
    that name.
    """
    asked = protocol_named(name)
    return replace(own, name=name, interpolation=asked.interpolation, offset=asked.offset)
