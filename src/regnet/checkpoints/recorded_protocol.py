"""The preprocessing that torchvision's training script puts beside the weights."""

from collections.abc import Mapping
from typing import Any, Final

from regnet.checkpoints.plain_types import named_values
from regnet.errors import ProtocolError
from regnet.protocol import OMZ, Preprocess

_FILTERS: Final = ("bilinear", "bicubic")


def recorded_protocol(content: Any) -> Preprocess | None:
    """Return how torchvision's script validated, from its `args`; None without them.

    It always has ImageNet's mean and deviation. Another filter, or a crop that would be padded with
    black, is none of ours.
    """
    args = content.get("args") if isinstance(content, Mapping) else None
    values = dict(named_values(args))
    resize, crop = values.get("val_resize_size"), values.get("val_crop_size")
    interpolation = values.get("interpolation")
    if interpolation not in _FILTERS or not isinstance(resize, int) or not isinstance(crop, int):
        return None
    try:
        return Preprocess(
            name="torchvision",
            resize=resize,
            crop=crop,
            interpolation=interpolation,
            mean=OMZ.mean,
            scale=OMZ.scale,
        )
    except ProtocolError:
        return None
