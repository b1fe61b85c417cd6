"""The preprocessing of an adopted model: as asked for, as its files say, or as is usual."""

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from regnet.checkpoints.hub_settings import timm_settings
from regnet.checkpoints.model_files import CONFIG, read_json
from regnet.pixels.protocol import KERAS, MAKERS, TORCHVISION, Channels, Preprocess
from regnet.system.errors import ProtocolError, UnknownModelError, WeightsError, shown
from regnet.zoo.catalogue import card_by_name

TIMM: Final = "timm:"
"""What a protocol of timm's begins with; a file, a card or a network of timm's follows."""

_ZEROS: Final = (0.0, 0.0, 0.0)
_ONES: Final = (1.0, 1.0, 1.0)
_SCALED: Final = {TORCHVISION.name: "ImageNet's mean and scale", KERAS.name: "pixels as -1 to 1"}


def protocol_of_maker(name: str) -> Preprocess:
    """Return a maker's protocol by its name, or `timm:` and a config; raises `ProtocolError`."""
    if name.startswith(TIMM):
        return _of_timm(name.removeprefix(TIMM))
    if name not in MAKERS:
        known = ", ".join([*MAKERS, f"{TIMM}CONFIG"])
        raise ProtocolError(f"unknown protocol {shown(name)}; known are {known}")
    return MAKERS[name]


def choose_protocol(
    changes: Mapping[str, Any],
    *,
    channels: Channels | None,
    known: Preprocess | None,
    size: int | None,
    has_bytes: bool,
    nhwc: bool,
) -> tuple[Preprocess, tuple[str, ...]]:
    """Return the protocol of a network that takes images of a `size`, and what is assumed of it.

    `changes` are fields of `Preprocess`, with the `named` one of a maker; `known` is what the
    network's files say. `has_bytes`: it takes uint8, so mean and scale are inside. Networks that
    are `nhwc` are usually of Keras, others of torchvision. Raises `ProtocolError`.
    """
    given = dict(changes)
    named = Preprocess.from_dict(given.pop("named")) if "named" in given else None
    base = named or known or (KERAS if nhwc else TORCHVISION)
    side = size or given.get("crop") or base.crop
    if size and given.get("crop", size) != size:
        raise ProtocolError(
            f"--crop {given['crop']} contradicts the network, which takes {size} x {size} pixels"
        )
    if base.crop != side and base.name not in MAKERS and "resize" not in given:
        raise ProtocolError(
            f"the protocol {base.name} is for {base.crop} x {base.crop} pixels, and the network "
            f"takes {side} x {side}: give --resize, or another --protocol"
        )
    base = base.at(side).in_order(channels or base.channels)
    if has_bytes:
        if not given.keys().isdisjoint(("mean", "scale")):
            raise ProtocolError(
                "--mean and --scale are for networks of floats; this one takes uint8, 0..255"
            )
        base = replace(base, mean=_ZEROS, scale=_ONES)
    if given.get("fit", base.fit) != base.fit:
        given.setdefault("resize", side)
    given.pop("crop", None)
    chosen = replace(base, **({"name": "custom"} | given)) if given else base
    unknown = (
        []
        if size or "crop" in changes or known or (named and named.name not in MAKERS)
        else [f"crop {side}"]
    )
    if not named and not known:
        unknown = [*_texts(chosen, given, channels, has_bytes), *unknown]
    listed = ", ".join(unknown)
    if listed and not given and not named and not channels:
        listed = f"{base.name} ({listed})"
    return chosen, (f"protocol: {listed}",) if listed else ()


def _texts(
    chosen: Preprocess, given: Mapping[str, Any], channels: Channels | None, has_bytes: bool
) -> list[str]:
    """Return what a protocol says that was not given."""
    side = f"{chosen.resize} x {chosen.resize}"
    scaled = _SCALED[KERAS.name if chosen.mean == KERAS.mean else TORCHVISION.name]
    parts = {
        "resize": f"stretched to {side}"
        if chosen.fit == "stretch"
        else f"short side {chosen.resize}",
        "interpolation": f"{chosen.interpolation} interpolation",
        "channels": chosen.channels,
        "mean": scaled,
    }
    known = set(given) | ({"channels"} if channels else set()) | ({"mean"} if has_bytes else set())
    if "scale" in known and "mean" not in known:
        parts["mean"] = scaled.replace("mean and scale", "mean")
    return [text for part, text in parts.items() if part not in known]


def _of_timm(name: str) -> Preprocess:
    """Return the protocol in a config.json, of a card, or of a network that timm knows."""
    path = Path(name) / CONFIG if Path(name).is_dir() else Path(name)
    if path.is_file():
        try:
            config = dict(read_json(path))
        except WeightsError as exc:
            raise ProtocolError(str(exc)) from exc
        config |= config.get("pretrained_cfg") or {}
    else:
        try:
            card = card_by_name(name)
        except UnknownModelError:
            config = _known_to_timm(name)
        else:
            return card.preprocess.in_order("RGB")
    try:
        preprocess, said = timm_settings(config)
    except (ValueError, TypeError, LookupError, ArithmeticError) as exc:
        raise ProtocolError(f"{TIMM}{name}: has no input_size, crop_pct, mean and std") from exc
    if said:
        raise ProtocolError(f"{TIMM}{name}: {said[0].removeprefix('protocol: ')}")
    return preprocess.in_order("RGB")


def _known_to_timm(name: str) -> dict[str, Any]:
    try:
        config = import_module("timm.models").get_pretrained_cfg(name)
    except ImportError:
        config = None
    if config is None:
        raise ProtocolError(
            f"{TIMM}{name}: is no file, no card of regnet's, and no network of an installed timm; "
            "name the config.json of its weights"
        )
    return dict(config.to_dict())
