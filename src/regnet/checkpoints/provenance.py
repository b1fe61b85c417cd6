"""What a weights file says about itself besides its tensors, as one JSON text."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from regnet.checkpoints.fields import (
    FieldError,
    bad,
    json_value,
    labels_field,
    labels_to_rows,
    name_field,
    preprocess_field,
    spec_field,
)
from regnet.network.labels import Labels
from regnet.network.spec import Spec, spec_to_dict
from regnet.pixels.protocol import Channels, Preprocess
from regnet.system.errors import WeightsError
from regnet.system.version import TOOL_VERSION

_FIELDS = ("spec", "classes", "labels", "channels", "preprocess", "name", "tool", "extra")

T = TypeVar("T")


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
        "labels": labels and labels_to_rows(labels),
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
    try:
        return _provenance(json_value("text", text))
    except FieldError as exc:
        raise WeightsError(f"the metadata's {exc}") from exc


def _provenance(values: object) -> Provenance:
    if not isinstance(values, dict):
        raise WeightsError("the metadata is not a JSON object")
    if unknown := [name for name in values if name not in _FIELDS]:
        raise WeightsError(
            f"the metadata has unknown fields {', '.join(unknown[:5])} (a newer regnet wrote it?); "
            f"known are {', '.join(_FIELDS)}"
        )
    spec = _given(values, "spec", spec_field)
    if spec is not None and values.get("classes") != spec.classes:
        raise bad("classes", values.get("classes"), f"{spec.classes}, as the spec says")
    return Provenance(
        spec=spec,
        channels=_given(values, "channels", _channels),
        name=_given(values, "name", name_field),
        labels=_given(values, "labels", labels_field),
        preprocess=_given(values, "preprocess", preprocess_field),
        extra=_extra(values.get("extra", {})),
    )


def _given(values: dict[str, Any], name: str, read: Callable[[object], T]) -> T | None:
    """Return a field as `read` reads it; None where the file is silent."""
    value = values.get(name)
    return None if value is None else read(value)


def _channels(value: object) -> Channels:
    if value == "BGR":
        return "BGR"
    if value == "RGB":
        return "RGB"
    raise bad("channels", value, "'BGR' or 'RGB'")


def _extra(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise bad("extra", value, "an object")
    return value
