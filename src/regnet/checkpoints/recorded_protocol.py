"""The preprocessing that torchvision's and timm's training scripts put beside the weights."""

from collections.abc import Mapping
from typing import Any, Final

from regnet.checkpoints.hub_settings import timm_protocol
from regnet.checkpoints.plain_types import named_values
from regnet.pixels.protocol import OMZ, Preprocess
from regnet.system.errors import ProtocolError

_FILTERS: Final = ("bilinear", "bicubic")
_TIMM: Final = ("input_size", "crop_pct", "interpolation", "mean", "std")
_USUAL_SIZE: Final = (3, 224, 224)

Protocol = tuple[Preprocess, tuple[str, ...]]


def recorded_protocol(content: Any) -> Protocol | None:
    """Return how a script validated, from its `args`, and a sentence if a part of it is assumed.

    None where `args` are not those of torchvision or timm, or are no protocol of ours.
    """
    args = content.get("args") if isinstance(content, Mapping) else None
    values = dict(named_values(args))
    try:
        return _torchvision(values) or _timm(values)
    except (TypeError, ValueError, AttributeError, ProtocolError):
        return None


def _torchvision(values: Mapping[str, Any]) -> Protocol | None:
    """Return torchvision's protocol, which always has ImageNet's mean and deviation."""
    if values.get("interpolation") not in _FILTERS or "val_crop_size" not in values:
        return None
    preprocess = Preprocess(
        name="torchvision",
        resize=values["val_resize_size"],
        crop=values["val_crop_size"],
        interpolation=values["interpolation"],
        mean=OMZ.mean,
        scale=OMZ.scale,
    )
    return preprocess, ()


def _timm(values: Mapping[str, Any]) -> Protocol | None:
    """Return the protocol of timm's options; those not given are the network's own, so assumed."""
    if not all(name in values for name in ("img_size", *_TIMM)):
        return None
    side = values["img_size"]
    size = {"input_size": (3, side, side)} if side else {}
    given = size | {name: values[name] for name in _TIMM if values[name]}
    if not given:
        return None
    preprocess, said = timm_protocol({"input_size": _USUAL_SIZE} | given)
    left = [name for name in _TIMM if name not in given]
    usual = f"protocol: timm's usual {', '.join(left)} beside the {', '.join(given)} in args"
    return preprocess, said or ((usual,) if left else ())
