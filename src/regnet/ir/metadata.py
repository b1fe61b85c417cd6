"""What travels inside a converted model: what it is, what it needs, where it is from."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Final, Literal

from regnet.checkpoints.fields import FieldError, json_value, labels_field, labels_to_rows
from regnet.ir.records import Calibration, Certificate, PixelBound, Taught
from regnet.network.labels import Labels, unfit_label
from regnet.network.spec import Spec, spec_to_dict
from regnet.pixels.protocol import Preprocess
from regnet.system.checked import Checked, Rule
from regnet.system.errors import ModelError
from regnet.system.json_text import json_text

InferencePrecision = Literal["f32", "bf16", "int8"]
StoredPrecision = Literal["fp32", "fp16", "int8"]
Preprocessing = Literal["caller", "graph"]

CONVERSION_FILE: Final = "conversion.json"
"""The record that `regnet convert` writes beside a model in the cache."""

KNOWN_BY: Final = "weights_sha384"
"""The property by which an ONNX file of regnet's is known."""

_Name = Annotated[
    str, Rule("of 1 to 255 printable characters", lambda s: 0 < len(s) <= 255 and s.isprintable())
]
_TEXTS = (
    *("name", "card", "weights_sha384", "precision", "licence", "version", "preprocessing"),
    "origin",
)


@dataclass(frozen=True, kw_only=True)
class ModelMetadata(Checked, error=ModelError):
    """A converted model's description.

    `name` of the model, `card` whose weights it has ("" if they are on none), `spec` of the
    network, or None and `origin` for an adopted one: the file it was, and who wrote that.
    `preprocess` protocol, `labels` (one per class), `weights_sha384` of the checkpoint file,
    `precision` of the stored weights, `licence` of the weights, `version` of regnet.
    `preprocessing` says who makes the crop: the caller, or the graph, which then takes whole
    images, RGB; `pixel_bound`, `certificate` and `calibration` what was measured of that, of
    INT8 and of probabilities, None where it was not. `assumed` has a sentence for each thing that
    the checkpoint does not say, as in `regnet.ir.assumptions`. `taught` says how `regnet teach`
    made the head, None for other models.
    """

    name: _Name
    card: str
    spec: Spec | None = None
    preprocess: Preprocess
    labels: Labels
    weights_sha384: str
    precision: StoredPrecision
    licence: Annotated[
        str,
        Rule("of at most 1000 printable characters", lambda s: len(s) <= 1000 and s.isprintable()),
    ]
    version: str
    preprocessing: Preprocessing = "caller"
    pixel_bound: PixelBound | None = None
    certificate: Certificate | None = None
    calibration: Calibration | None = None
    assumed: tuple[str, ...] = ()
    origin: str = ""
    taught: Taught | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.spec is None and not self.origin:
            raise ModelError("the field 'spec' is missing")
        if reason := unfit_label(self.labels):
            raise ModelError(f"{self.name}: {reason}")
        if self.spec is not None and len(self.labels) != self.spec.classes:
            raise ModelError(
                f"{self.name}: {len(self.labels)} labels for {self.spec.classes} classes; "
                "give one label per class"
            )

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.labels)

    @property
    def original(self) -> str:
        """The name of the file that the model was adopted from, "" for other models."""
        return "" if self.taught else self.origin.partition(" (")[0]

    @property
    def regnet(self) -> Spec:
        """The network's spec; raises `ModelError` for an adopted model."""
        if self.spec is None:
            raise ModelError(
                f"{self.name}: was adopted from {self.origin}; only a RegNet can be trained further"
            )
        return self.spec

    def to_strings(self) -> dict[str, str]:
        """Return the fields as strings, JSON if they are not text.

        Raises `ModelError` if they could not be read back, as for labels that are too long.
        """
        plain = {f.name: getattr(self, f.name) for f in fields(self)} | {
            "spec": self.spec and spec_to_dict(self.spec),
            "labels": labels_to_rows(self.labels),
            "origin": self.origin or None,
        }
        strings = {
            name: value if name in _TEXTS else json_text(_plain(value))
            for name, value in plain.items()
            if value is not None
        }
        metadata_from_strings(strings, source=self.name)
        return strings


def not_ours(source: str | Path) -> ModelError:
    """Return the error that regnet did not write a model."""
    return ModelError(
        f"{source}: has no regnet metadata (labels, protocol), so it cannot be used exactly; "
        f"adopt it: `regnet convert {shlex.quote(str(source))} --labels FILE --protocol NAME`"
    )


def _plain(value: object) -> object:
    return value.to_dict() if isinstance(value, Checked) else value


def metadata_from_strings(values: Mapping[str, str], *, source: str) -> ModelMetadata:
    """Return the metadata that `to_strings` wrote; `source` names the file in errors.

    Raises `ModelError` if a field is missing, malformed or over 64 Mi characters.
    """
    known = {f.name: values[f.name] for f in fields(ModelMetadata) if f.name in values}
    try:
        read = {n: text if n in _TEXTS else json_value(n, text) for n, text in known.items()}
        if "labels" in read:
            read["labels"] = labels_field(read["labels"])
        if "assumed" not in read and not values.get("card", ""):
            version = values.get("version", "")[:20]
            sentence = (
                f"names, protocol: unknown, for regnet {version} did not record what it assumed"
            )
            read["assumed"] = (sentence,)
        return ModelMetadata.from_dict(read)
    except (FieldError, ModelError) as exc:
        raise ModelError(
            f"{source}: its regnet metadata is damaged: {exc}. Convert it again"
        ) from exc
