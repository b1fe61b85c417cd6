"""Preprocessing protocols as data: which crop of an image a network takes, and on what scale.

Nothing here touches a pixel, or imports what does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

from regnet.system.checked import Checked, Rule, within
from regnet.system.errors import ProtocolError, shown

Channels = Literal["BGR", "RGB"]
Interpolation = Literal["bicubic", "bilinear", "nearest", "opencv-linear"]
Fit = Literal["crop", "stretch", "square"]
Offset = Literal["round", "ceil", "floor"]
Triple = tuple[float, float, float]
Size = tuple[int, int]
Box = tuple[int, int, int, int]

MAX_SIDE: Final = 4096

_ROUNDING: Final[dict[Offset, Callable[[float], int]]] = {
    "round": round,
    "ceil": math.ceil,
    "floor": math.floor,
}
_Positive = Annotated[float, within(gt=0)]


@dataclass(frozen=True, kw_only=True)
class Preprocess(Checked, error=ProtocolError):
    """A protocol: short side to `resize`, centre crop `crop`, mean and scale.

    With `fit` "stretch" both sides become `resize`, and the photo's shape is lost; with "square"
    so do those of its largest central square.
    `interpolation` is Pillow's on uint8 (bicubic, bilinear, nearest), or OpenCV's INTER_LINEAR on
    float32.
    `offset` says where a crop begins that cannot be centred: a half is rounded to the even
    neighbour, up, or down. `mean` and `scale` are on 0..255 pixels in the order of `channels`:
    (pixel - mean) / scale. Raises `ProtocolError` if a value is impossible.
    """

    name: Annotated[str, Rule("that is not blank", str.strip)]
    resize: Annotated[int, within(ge=1, le=MAX_SIDE)] = 256
    crop: int = 224
    interpolation: Interpolation = "bicubic"
    offset: Offset = "round"
    channels: Channels = "BGR"
    mean: Triple = (103.53, 116.28, 123.675)
    scale: tuple[_Positive, _Positive, _Positive] = (57.375, 57.12, 58.395)
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = 1 <= self.crop <= self.resize
        self._require(fits, "crop", f"a whole number from 1 to {self.resize}")

    def in_order(self, channels: Channels) -> "Preprocess":
        """Return the protocol of the same network once it takes its channels in this order."""
        if channels == self.channels:
            return self
        (a, b, c), (x, y, z) = self.mean, self.scale
        return replace(self, channels=channels, mean=(c, b, a), scale=(z, y, x))

    def at(self, crop: int) -> "Preprocess":
        """Return the protocol with another crop, and a `resize` in proportion."""
        return replace(self, crop=crop, resize=round(self.resize * crop / self.crop))

    def used(self, width: int, height: int) -> Box:
        """Return (left, top, right, bottom) of the part of a photo that is resized."""
        if self.fit != "square":
            return 0, 0, width, height
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side

    def resized(self, width: int, height: int) -> Size:
        """Return (width, height) of an image after the resize: the long side is cut, not rounded.

        A long side is int(resize * long / short), as in the protocol of the published figures.
        """
        if self.fit != "crop":
            return self.resize, self.resize
        if width <= height:
            return self.resize, int(self.resize * height / width)
        return int(self.resize * width / height), self.resize

    def crop_box(self, width: int, height: int) -> Box:
        """Return (left, top, right, bottom) of the centre crop in a resized image.

        An offset is (side - crop) / 2, rounded half to even, up or down.
        """
        rounded = _ROUNDING[self.offset]
        left, top = rounded((width - self.crop) / 2), rounded((height - self.crop) / 2)
        return left, top, left + self.crop, top + self.crop


def timm_protocol(size: int, share: float, **more: Any) -> Preprocess:
    """Return timm's protocol for a crop of `size` pixels that is `share` of the short side.

    `more` are other fields of `Preprocess`. Raises `ProtocolError`.
    """
    return replace(Preprocess(name="timm", resize=math.floor(size / share), crop=size), **more)


OMZ = Preprocess(name="omz")
PYCLS = Preprocess(name="pycls", interpolation="opencv-linear", offset="ceil")
PROTOCOLS = {protocol.name: protocol for protocol in (OMZ, PYCLS)}

_HALF: Final = (127.5, 127.5, 127.5)
TORCHVISION = replace(OMZ.in_order("RGB"), name="torchvision", interpolation="bilinear")
KERAS = Preprocess(
    name="keras",
    resize=224,
    interpolation="nearest",
    channels="RGB",
    mean=_HALF,
    scale=_HALF,
    fit="stretch",
)
TENSORFLOW = replace(KERAS, name="tensorflow", resize=256, interpolation="opencv-linear")
MAKERS = PROTOCOLS | {protocol.name: protocol for protocol in (TORCHVISION, KERAS, TENSORFLOW)}
"""Protocols by which makers of networks evaluate, for crops of 224 pixels."""


def protocol_named(name: str) -> Preprocess:
    """Return a published protocol by its name; raises `ProtocolError` that lists the names."""
    if name not in PROTOCOLS:
        raise ProtocolError(f"unknown protocol {shown(name)}; known are {' and '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def by_protocol(own: Preprocess, name: str) -> Preprocess:
    """Return a model's own protocol with the interpolation and offset of the one called `name`.

    Sizes, channels, mean and scale stay the model's. Raises `ProtocolError` for an unknown name.
    """
    named = protocol_named(name)
    return replace(own, name=name, interpolation=named.interpolation, offset=named.offset)
