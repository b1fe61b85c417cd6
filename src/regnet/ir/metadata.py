"""What travels inside a converted model: what it is, what it needs, where it is from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

from regnet.checkpoints.fields import (
    FieldError,
    assumed_field,
    bad,
    json_value,
    labels_field,
    labels_to_rows,
    name_field,
    preprocess_field,
    spec_field,
)
from regnet.ir.records import Calibration, Certificate, PixelBound
from regnet.network.labels import Labels
from regnet.network.spec import Spec, spec_to_dict
from regnet.pixels.protocol import Preprocess
from regnet.system.errors import ModelError
from regnet.system.json_text import json_text

InferencePrecision = Literal["f32", "bf16", "int8"]


StoredPrecision = Literal["fp32", "fp16", "int8"]
Preprocessing = Literal["caller", "graph"]


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """A converted model's description.

    `name` of the model, `card` whose weights it has ("" if they are on none), `spec` of the
    network, `preprocess` protocol, `labels` (one a class), `weights_sha384` of the checkpoint file,
    `precision` of the stored weights, `licence` of the weights, `version` of regnet.
    `preprocessing` says who makes the crop: the caller, or the graph, which then takes whole
    images, RGB; `pixel_bound`, `certificate` and `calibration` what was measured of that, of
    INT8 and of probabilities, None where it was not. `assumed` has a sentence for each thing that
    the checkpoint does not say, as in `regnet.ir.assumptions`.
    """

    name: str
    card: str
    spec: Spec
    preprocess: Preprocess
    labels: Labels
    weights_sha384: str
    precision: StoredPrecision
    licence: str
    version: str
    preprocessing: Preprocessing = "caller"
    pixel_bound: PixelBound | None = None
    certificate: Certificate | None = None
    calibration: Calibration | None = None
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.labels) != self.spec.classes:
            raise ModelError(
                f"{self.name}: {len(self.labels)} labels for {self.spec.classes} classes; "
                "give one label a class"
            )

    def to_strings(self) -> dict[str, str]:
        """Return the fields as strings, JSON where they are not text.

        Raises `ModelError` where they could not be read back, as names that are too long.
        """
        strings = {
            "name": self.name,
            "card": self.card,
            "spec": json_text(spec_to_dict(self.spec)),
            "preprocess": json_text(self.preprocess.to_dict()),
            "labels": json_text(labels_to_rows(self.labels)),
            "weights_sha384": self.weights_sha384,
            "precision": self.precision,
            "licence": self.licence,
            "version": self.version,
            "preprocessing": self.preprocessing,
            "assumed": json_text(self.assumed),
            **self._records(),
        }
        metadata_from_strings(strings, source=self.name)
        return strings

    def _records(self) -> dict[str, str]:
        records = {name: getattr(self, name) for name in _RECORDS}
        return {name: json_text(r.to_dict()) for name, r in records.items() if r is not None}


def metadata_from_strings(values: Mapping[str, str], *, source: str) -> ModelMetadata:
    """Return the metadata that `to_strings` wrote; `source` names the file in errors.

    Raises `ModelError` where a field is missing, malformed or over 64 Mi characters.
    """
    try:
        return ModelMetadata(
            name=name_field(values["name"]),
            card=values["card"],
            spec=spec_field(json_value("spec", values["spec"])),
            preprocess=preprocess_field(json_value("preprocess", values["preprocess"])),
            labels=labels_field(json_value("labels", values["labels"])),
            weights_sha384=values["weights_sha384"],
            precision=_precision(values["precision"]),
            licence=values["licence"],
            version=values["version"],
            preprocessing=_preprocessing(values.get("preprocessing", "caller")),
            pixel_bound=_record(values, "pixel_bound", PixelBound),
            certificate=_record(values, "certificate", Certificate),
            calibration=_record(values, "calibration", Calibration),
            assumed=_assumed(values),
        )
    except KeyError as exc:
        raise ModelError(f"{source}: its regnet metadata lacks {exc}; convert it again") from exc
    except FieldError as exc:
        raise ModelError(f"{source}: its regnet metadata is damaged; the metadata's {exc}") from exc
    except ModelError as exc:
        raise ModelError(f"{source}: its regnet metadata is damaged ({exc})") from exc


_RECORDS = ("pixel_bound", "certificate", "calibration")


_R = TypeVar("_R", PixelBound, Certificate, Calibration)


def _record(values: Mapping[str, str], name: str, kind: type[_R]) -> _R | None:
    """Return what was measured, None where the model carries none."""
    return kind.from_dict(name, json_value(name, values[name])) if name in values else None


def _assumed(values: Mapping[str, str]) -> tuple[str, ...]:
    """Return what was assumed; of a file without a card that does not tell, that it does not."""
    if "assumed" in values:
        return assumed_field(json_value("assumed", values["assumed"]))
    version = values["version"][:20]
    unknown = f"names, protocol: unknown, for regnet {version} did not record what it assumed"
    return () if values["card"] else (unknown,)


def _precision(value: str) -> StoredPrecision:
    if value not in get_args(StoredPrecision):
        raise bad("precision", value, " or ".join(get_args(StoredPrecision)))
    return value  # type: ignore[return-value]


def _preprocessing(value: str) -> Preprocessing:
    if value not in get_args(Preprocessing):
        raise bad("preprocessing", value, " or ".join(get_args(Preprocessing)))
    return value  # type: ignore[return-value]
