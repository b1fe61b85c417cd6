"""Classes and preprocessing as transformers, timm and torchvision describe them.

Hugging Face's JSON files lie beside the weights; training scripts put their `args` into the file.
"""

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from regnet.checkpoints.model_files import ModelFiles, read_json
from regnet.checkpoints.plain_types import as_key, named_values
from regnet.network.class_list import WNID, parse_classes
from regnet.network.labels import Labels, first_name, imagenet_labels, is_label, label_of
from regnet.pixels.protocol import OMZ, Interpolation, Preprocess, Triple, timm_protocol
from regnet.system.errors import ProtocolError, WeightsError, shown

_KINDS = ("regnet", "timm_wrapper")
_UNNAMED = re.compile(r"LABEL_\d+")
# Pillow's filters by their numbers, as transformers writes them.
_FILTERS: Mapping[int, Interpolation] = {2: "bilinear", 3: "bicubic"}
_SQUASHED_FROM = 384  # the side from which ConvNextImageProcessor stretches instead of cropping
# What is computed with the tensors, where the shapes do not tell.
_TRANSFORMERS_NETWORK = {"hidden_act": "relu", "downsample_in_first_stage": True}
_TIMM_NETWORK = {"act_layer": "relu", "global_pool": "avg", "output_stride": 32}
# What a value of another kind, or far out of range, makes of the code that reads it.
_OF_STRANGE_VALUES = (TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
# Options of timm's training script, and the size of its networks where they do not say.
_TIMM_OPTIONS = ("input_size", "crop_pct", "interpolation", "mean", "std")
_TIMM_SIZE = (3, 224, 224)
Path = tuple[str, ...]

_DEPTH = 2  # levels in which a file's content is searched for names
# Fields with names in the order of the classes, or by their numbers.
_NAMES = re.compile(
    r"(class|label)_?names|classes|labels|names|(idx|index|id)_?(to|2)_?(class|label)",
    re.IGNORECASE,
)
# Fields with numbers by name.
_NUMBERS = re.compile(r"(class|label)_?(to|2)_?(idx|index|id)", re.IGNORECASE)
_HALF: Triple = (0.5, 0.5, 0.5)
_MEAN: Triple = (0.485, 0.456, 0.406)
_STD: Triple = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Settings:
    """What the JSON files say; None where they are silent. `assumed`: a sentence for each guess."""

    labels: Labels | None = None
    preprocess: Preprocess | None = None
    assumed: tuple[str, ...] = ()


def read_settings(files: ModelFiles, *, any_network: bool = False) -> Settings:
    """Return the classes and preprocessing beside weights; raises `WeightsError`.

    So it does for another network than a RegNet, unless it may be `any_network`.
    """
    if files.config is None:
        return Settings()
    config = read_json(files.config)
    try:
        return _settings(config, files, any_network)
    except _OF_STRANGE_VALUES as exc:
        raise WeightsError(
            f"{files.config.parent}: config.json or preprocessor_config.json cannot be used: {exc}"
        ) from exc
    except (ValueError, ProtocolError) as exc:
        raise WeightsError(f"{files.config.parent}: {exc}") from exc


def _settings(config: Mapping[str, Any], files: ModelFiles, any_network: bool) -> Settings:
    if "architecture" in config or "pretrained_cfg" in config:
        known = {**config, **(config.get("pretrained_cfg") or {})}
        if not any_network:
            _require_usual({**config, **(config.get("model_args") or {})}, _TIMM_NETWORK)
        labels = _timm_labels(known) or _transformers_labels(config)
        if not known.get("input_size"):
            return Settings(labels)
        return Settings(labels, *timm_settings(known))
    kind = config.get("model_type")
    if not any_network:
        if kind not in _KINDS:
            named = f"model_type {shown(kind)}" if kind else "no model_type"
            raise WeightsError(f"{files.config}: has {named}; regnet reads 'regnet'")
        _require_usual(config, _TRANSFORMERS_NETWORK)
    labels, about_output = _transformers_labels(config), _output(config)
    if files.preprocessor is None:
        return Settings(labels, assumed=about_output)
    preprocess, about_protocol = _transformers_protocol(read_json(files.preprocessor))
    return Settings(labels, preprocess, (*about_protocol, *about_output))


def _require_usual(config: Mapping[str, Any], usual: Mapping[str, Any]) -> None:
    """Refuse a network that computes something else with tensors of the same shapes."""
    for name, value in usual.items():
        if config.get(name, value) not in (value, None):
            raise ValueError(
                f"config.json says {name} {shown(config[name])}; the networks that regnet knows "
                f"have {shown(value)}"
            )


def _output(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a sentence if the network was not trained to tell one class of several."""
    problem = config.get("problem_type") or "single_label_classification"
    usual = problem == "single_label_classification"
    said = f"output: a softmax over the classes, but config.json says problem_type {shown(problem)}"
    return () if usual else (said,)


def _transformers_labels(config: Mapping[str, Any]) -> Labels | None:
    names = config.get("id2label")
    if names and not isinstance(names, dict):
        raise ValueError(f"id2label is {shown(names)}, not an object of names by number")
    if not names or all(_UNNAMED.fullmatch(str(name)) for name in names.values()):
        return None
    return named_classes(names, "id2label")


def _timm_labels(config: Mapping[str, Any]) -> Labels | None:
    names = config.get("label_names") or config.get("labels")
    if not names:
        return None
    descriptions = config.get("label_descriptions")
    if isinstance(descriptions, dict) and all(WNID.fullmatch(str(name)) for name in names):
        return tuple(label_of((name, str(descriptions.get(name, "")))) for name in names)
    return named_classes(list(names), "label_names")


def named_classes(names: Any, field: str) -> Labels:
    """Return the classes of a list, or of an object by their numbers; ImageNet's as they are."""
    try:
        labels = tuple(map(label_of, parse_classes(json.dumps(names), ".json")))
    except ValueError as exc:
        raise ValueError(f"{field}: {exc}") from exc
    known = imagenet_labels()
    same = [first_name(a.name) == first_name(b.name) for a, b in zip(labels, known, strict=False)]
    return known if len(labels) == len(known) and all(same) else labels


def timm_settings(config: Mapping[str, Any]) -> tuple[Preprocess, tuple[str, ...]]:
    """Return timm's transform for evaluation: a short side of crop / crop_pct, a centre crop.

    A sentence says what of it cannot be reproduced.
    """
    _, height, width = config["input_size"]
    crop = min(height, width)
    strange = [] if height == width else [f"crops of {width} x {height}"]
    mode = config.get("crop_mode") or "center"
    strange += [] if mode in ("center", "squash") else [f"crop_mode {shown(mode)}"]
    asked = config.get("interpolation") or "bicubic"
    strange += [] if asked in _FILTERS.values() else [f"interpolation {shown(asked)}"]
    preprocess = timm_protocol(
        crop,
        config.get("crop_pct") or 0.875,
        interpolation="bilinear" if asked == "bilinear" else "bicubic",
        mean=_levels(_triple(config.get("mean") or _MEAN)),
        scale=_levels(_triple(config.get("std") or _STD)),
        fit="stretch" if mode == "squash" else "crop",
    )
    return preprocess, _said(preprocess, strange)


def _transformers_protocol(values: Mapping[str, Any]) -> tuple[Preprocess, tuple[str, ...]]:
    """Return the protocol of transformers' image processor, as ConvNeXt's (RegNet's) or plain."""
    kind = str(values.get("image_processor_type") or values.get("feature_extractor_type") or "")
    convnext = "crop_pct" in values or kind.startswith("ConvNext")
    strange = [] if values.get("do_resize", True) else ["no resize"]
    side, is_square = _side(values.get("size", 384 if convnext else 224), convnext=convnext)
    resize = crop = side
    if convnext and not is_square:
        resize = int(side / (values.get("crop_pct") or 224 / 256))
    if not convnext and values.get("do_center_crop", False):
        crop, _ = _side(values.get("crop_size", side), convnext=False)
    elif not convnext and not is_square:
        strange.append("photos that are not cropped")
    number = values.get("resample", 3 if convnext else 2)
    strange += [] if number in _FILTERS else [f"resample {shown(number)}"]
    mean, std = _normalisation(values, standard=convnext)
    preprocess = Preprocess(
        name="transformers",
        resize=resize,
        crop=min(crop, resize),
        interpolation=_FILTERS.get(number, "bicubic"),
        offset="floor",
        mean=_levels(mean),
        scale=_levels(std),
        fit="stretch" if is_square else "crop",
    )
    strange += ["a rescale_offset"] if values.get("rescale_offset", False) else []
    if is_square and isinstance(size := values.get("size"), Mapping) and "width" in size:
        wide, high = size["width"], size["height"]
        strange += [] if wide == high else [f"images of {wide} x {high}"]
    strange += ["BGR photos"] if values.get("do_flip_channel_order", False) else []
    strange += [] if crop <= resize else [f"a crop of {crop} padded with black"]
    return preprocess, _said(preprocess, strange)


def _side(size: Any, *, convnext: bool) -> tuple[int, bool]:
    """Return the pixels of a size, and whether photos are stretched to a square of them."""
    if isinstance(size, int):
        return size, convnext and size >= _SQUASHED_FROM
    if side := size.get("shortest_edge"):
        return int(side), convnext and side >= _SQUASHED_FROM
    return min(int(size["height"]), int(size["width"])), True


def _normalisation(values: Mapping[str, Any], *, standard: bool) -> tuple[Triple, Triple]:
    """Return mean and standard deviation of pixels that are rescaled to 0..1."""
    unit = values.get("rescale_factor", 1 / 255) * 255 if values.get("do_rescale", True) else 255
    if not values.get("do_normalize", True):
        return (0.0, 0.0, 0.0), _triple(1 / unit)
    mean = _triple(values.get("image_mean") or (_HALF if standard else _MEAN))
    std = _triple(values.get("image_std") or (_HALF if standard else _STD))
    if math.isclose(unit, 1):
        return mean, std
    return _triple([value / unit for value in mean]), _triple([value / unit for value in std])


def _triple(values: Any) -> Triple:
    if isinstance(values, int | float):
        return float(values), float(values), float(values)
    a, b, c = map(float, values)
    return a, b, c


def _levels(rgb: Triple) -> Triple:
    """Return RGB values in 0..1 as the stem's BGR in 0..255."""
    r, g, b = (round(255 * value, 6) for value in rgb)
    return b, g, r


def _said(preprocess: Preprocess, strange: list[str]) -> tuple[str, ...]:
    """Return the sentence about what a protocol of ours cannot express."""
    if not strange:
        return ()
    return (
        f"protocol: {' and '.join(strange)} cannot be reproduced; instead short side "
        f"{preprocess.resize}, centre crop {preprocess.crop}, {preprocess.interpolation}",
    )


def recorded_protocol(content: Any) -> tuple[Preprocess, tuple[str, ...]] | None:
    """Return how torchvision's or timm's script validated, from its `args`, if they are there."""
    args = content.get("args") if isinstance(content, Mapping) else None
    values = dict(named_values(args))
    try:
        return _torchvision(values) or _timm(values)
    except (TypeError, ValueError, AttributeError, ProtocolError):
        return None


def _torchvision(values: Mapping[str, Any]) -> tuple[Preprocess, tuple[str, ...]] | None:
    """Return torchvision's protocol, which always has ImageNet's mean and deviation."""
    if values.get("interpolation") not in _FILTERS.values() or "val_crop_size" not in values:
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


def _timm(values: Mapping[str, Any]) -> tuple[Preprocess, tuple[str, ...]] | None:
    """Return the protocol of timm's options; those not given are the network's own, so assumed."""
    if not all(name in values for name in ("img_size", *_TIMM_OPTIONS)):
        return None
    side = values["img_size"]
    size = {"input_size": (3, side, side)} if side else {}
    given = size | {name: values[name] for name in _TIMM_OPTIONS if values[name]}
    if not given:
        return None
    preprocess, said = timm_settings({"input_size": _TIMM_SIZE} | given)
    left = [name for name in _TIMM_OPTIONS if name not in given]
    usual = f"protocol: timm's usual {', '.join(left)} beside the {', '.join(given)} in args"
    return preprocess, said or ((usual,) if left else ())


def recorded_names(
    content: Any, classes: int, *, apart: Collection[Path] = frozenset()
) -> tuple[Labels | None, tuple[str, ...]]:
    """Return the classes that a file's content names, else a sentence about lists that do not fit.

    Looks in the content and two levels below (`hyper_parameters`, `args`, `meta`) for fields such
    as `class_names` or `class_to_idx` with as many different names as there are classes, but not in
    the containers at the paths `apart`: they are of other networks. Two lists that differ are none.
    """
    lists = set(_name_lists(content, apart))
    fitting = {names for names in lists if len(names) == len(set(names)) == classes}
    if len(fitting) == 1:
        pairs = ((name, "") if WNID.fullmatch(name) else ("", name) for name in fitting.pop())
        return tuple(map(label_of, pairs)), ()
    if fitting:
        return None, (f"names: the file has {len(fitting)} lists of them that differ",)
    sizes = ", ".join(f"{size:,}" for size in sorted({len(set(names)) for names in lists}))
    return None, (f"names: the file has {sizes} for {classes:,} classes",) if sizes else ()


def _name_lists(content: Any, apart: Collection[Path]) -> Iterator[tuple[str, ...]]:
    """Yield the lists of names; what a file refers to several times is looked at once."""
    tried: set[tuple[int, bool]] = set()
    level: list[tuple[Path, Any]] = [((), content)]
    for _ in range(_DEPTH + 1):
        below = []
        for path, value in level:
            for name, child in named_values(value):
                read = next((read for kind, read in _READERS if kind.fullmatch(name)), None)
                place = (*path, name)
                if (id(child), read is None) in tried or place in apart:
                    continue
                tried.add((id(child), read is None))
                if read and (names := read(child)):
                    yield names
                else:
                    below.append((place, child))
        level = below


def _in_order(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, Mapping):
        numbers = {str(key): name for key, name in value.items()}
        value = [numbers.get(str(n)) for n in range(len(numbers))]
    if not isinstance(value, list | tuple):
        return None
    named = all(isinstance(name, str) and name.strip() and is_label(name) for name in value)
    return tuple(value) if named else None


def _by_number(value: Any) -> tuple[str, ...] | None:
    if not isinstance(value, Mapping):
        return None
    names = {as_key(number): name for name, number in value.items() if isinstance(number, int)}
    return _in_order(names) if len(names) == len(value) else None


_READERS = ((_NAMES, _in_order), (_NUMBERS, _by_number))
