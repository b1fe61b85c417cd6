"""What describes a network in JSON, read strictly: texts, labels, and the metadata of weights."""

import json
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from regnet.network.labels import MOST_CHARACTERS, Label, Labels, is_label
from regnet.network.spec import Spec, spec_to_dict
from regnet.pixels.protocol import Channels, Preprocess
from regnet.system.checked import Checked, Rule
from regnet.system.errors import RegNetError, WeightsError, shown
from regnet.system.version import TOOL_VERSION

MAX_TEXT = 64 * 1024 * 1024  # characters


Name = Annotated[
    str, Rule("of 1 to 255 printable characters", lambda s: 0 < len(s) <= 255 and s.isprintable())
]


class FieldError(RegNetError):
    """A value is not what its field holds; the message begins with the field."""


def json_value(field: str, text: str) -> Any:
    """Return the value that a JSON text of at most `MAX_TEXT` characters holds."""
    if len(text) > MAX_TEXT:
        raise FieldError(f"{field} has {len(text):,} characters, over the limit of {MAX_TEXT:,}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise FieldError(f"{field} is not JSON: {exc}") from exc


def labels_to_rows(labels: Labels) -> list[list[str]]:
    """Return labels as JSON values, one row [wnid, name] per class."""
    return [[label.wnid, label.name] for label in labels]


def labels_field(value: object) -> Labels:
    """Return the labels that `labels_to_rows` wrote; raises `FieldError`."""
    if not isinstance(value, list):
        raise FieldError(f"labels must be a list of [wnid, name], not {shown(value)}")
    return tuple(map(_label, value))


def _label(row: object) -> Label:
    match row:
        case [str(wnid), str(name)] if is_label(wnid) and is_label(name):
            return Label(wnid, name)
    allowed = f"rows of [wnid, name], each at most {MOST_CHARACTERS} characters of text"
    raise FieldError(f"labels must be {allowed}, not {shown(row)}")


@dataclass(frozen=True, kw_only=True)
class Provenance(Checked, error=WeightsError):
    """What a weights file says about itself besides its tensors; None where it is silent.

    `channels` is the order of the stem's input, `extra` further JSON values under names of the
    writer's choice. Raises `WeightsError` if `classes` or `labels` do not fit the spec.
    """

    spec: Spec | None = None
    classes: int | None = None
    channels: Channels | None = None
    name: Name | None = None
    labels: Labels | None = None
    preprocess: Preprocess | None = None
    tool: str = f"regnet {TOOL_VERSION}"
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.spec:
            classes = self.spec.classes
            self._require(self.classes == classes, "classes", f"{classes}, as the spec says")
            if self.labels is not None and len(self.labels) != classes:
                raise WeightsError(f"{len(self.labels)} labels for {classes} classes")

    def to_json(self) -> str:
        """Return the text for `provenance_from_json`; raises `WeightsError` if it is not JSON."""
        values = {f.name: getattr(self, f.name) for f in fields(self)} | {
            "spec": self.spec and spec_to_dict(self.spec),
            "labels": self.labels and labels_to_rows(self.labels),
            "preprocess": self.preprocess and self.preprocess.to_dict(),
        }
        try:
            text = json.dumps(values, sort_keys=True, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as exc:
            raise WeightsError(f"the metadata is not plain JSON: {exc}") from exc
        provenance_from_json(text)
        return text


def provenance_from_json(text: str) -> Provenance:
    """Return what `Provenance.to_json` wrote; raises `WeightsError` naming the bad field."""
    try:
        values = json_value("text", text)
        if not isinstance(values, dict):
            raise WeightsError("it is not a JSON object")
        if values.get("labels") is not None:
            values["labels"] = labels_field(values["labels"])
        return Provenance.from_dict(values)
    except (FieldError, WeightsError, RecursionError) as exc:
        raise WeightsError(f"its regnet metadata is damaged, or of a newer regnet: {exc}") from exc
