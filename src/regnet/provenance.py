"""What a weights file says about itself besides its tensors, as one JSON text."""

import json
from dataclasses import dataclass, field
from typing import Any

from regnet.errors import RegNetError, WeightsError
from regnet.labels import Label, Labels
from regnet.preprocess import Channels, Preprocess, preprocess_from_dict
from regnet.spec import Spec, spec_from_dict, spec_to_dict
from regnet.version import TOOL_VERSION

_MAX_TEXT = 64 * 1024 * 1024
_MAX_LABEL = 1000
_MAX_NAME = 200
_FIELDS = ("spec", "classes", "labels", "channels", "preprocess", "name", "tool", "extra")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The network, its classes, channel order, protocol and name; None where a file is silent.

    `extra` is further JSON values under names of the writer's choice. Raises `WeightsError` where
    the labels are not as many as the spec's classes.
    """

    spec: Spec | None = None
    channels: Channels | None = None
    name: str | None = None
    labels: Labels | None = None
    preprocess: Preprocess | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.labels is not None and self.spec and len(self.labels) != self.spec.classes:
            raise WeightsError(f"{len(self.labels)} labels for {self.spec.classes} classes")


def provenance_to_json(provenance: Provenance) -> str:
    """Return the text that `provenance_from_json` reads back; equal content gives equal text.

    Raises `WeightsError` where it could not be read back: extra values that are not JSON, texts
    that are too long.
    """
    spec, labels, preprocess = provenance.spec, provenance.labels, provenance.preprocess
    values = {
        "spec": spec and spec_to_dict(spec),
        "classes": spec and spec.classes,
        "labels": labels and [[label.wnid, label.name] for label in labels],
        "channels": provenance.channels,
        "preprocess": preprocess and preprocess.to_dict(),
        "name": provenance.name,
        "tool": f"regnet {TOOL_VERSION}",
        "extra": provenance.extra,
    }
    try:
        text = json.dumps(values, sort_keys=True, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as exc:
        raise WeightsError(f"the metadata is not plain JSON: {exc}") from exc
    provenance_from_json(text)
    return text


def provenance_from_json(text: str) -> Provenance:
    """Return what `provenance_to_json` wrote; raises `WeightsError` naming the bad field."""
    if len(text) > _MAX_TEXT:
        raise WeightsError(f"the metadata is too long ({len(text)} characters)")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise WeightsError(f"the metadata is not JSON: {exc}") from exc
    if not isinstance(values, dict):
        raise WeightsError("the metadata is not a JSON object")
    if unknown := [name for name in values if name not in _FIELDS]:
        raise WeightsError(
            f"the metadata has unknown fields {', '.join(unknown[:5])} (a newer regnet wrote it?); "
            f"known are {', '.join(_FIELDS)}"
        )
    spec = _spec(values.get("spec"))
    if spec is not None and values.get("classes") != spec.classes:
        raise _bad("classes", values.get("classes"), f"{spec.classes}, as the spec says")
    return Provenance(
        spec=spec,
        channels=_channels(values.get("channels")),
        name=_name(values.get("name")),
        labels=_labels(values.get("labels")),
        preprocess=_preprocess(values.get("preprocess")),
        extra=_extra(values.get("extra", {})),
    )


def _bad(name: str, value: object, allowed: str) -> WeightsError:
    return WeightsError(f"the metadata's {name} must be {allowed}, not {value!r:.100}")


def _spec(value: object) -> Spec | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _bad("spec", value, "an object")
    try:
        return spec_from_dict(value)
    except (RegNetError, TypeError, ValueError, OverflowError) as exc:
        raise WeightsError(f"the metadata's spec is impossible: {exc}") from exc


def _preprocess(value: object) -> Preprocess | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _bad("preprocess", value, "an object")
    try:
        return preprocess_from_dict(value)
    except (RegNetError, TypeError, ValueError, OverflowError) as exc:
        raise WeightsError(f"the metadata's preprocess is impossible: {exc}") from exc


def _channels(value: object) -> Channels | None:
    if value == "BGR":
        return "BGR"
    if value == "RGB":
        return "RGB"
    if value is None:
        return None
    raise _bad("channels", value, "'BGR' or 'RGB'")


def _name(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME or not value.isprintable():
        raise _bad("name", value, f"1 to {_MAX_NAME} printable characters")
    return value


def _labels(value: object) -> Labels | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise _bad("labels", value, "a list of [wnid, name]")
    return tuple(map(_label, value))


def _label(row: object) -> Label:
    match row:
        case [str(wnid), str(name)] if len(wnid) <= _MAX_LABEL and len(name) <= _MAX_LABEL:
            return Label(wnid, name)
    raise _bad("labels", row, f"rows of [wnid, name], each at most {_MAX_LABEL} characters")


def _extra(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad("extra", value, "an object")
    return value
