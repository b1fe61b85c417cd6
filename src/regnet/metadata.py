"""What travels inside a converted model: what it is, what it needs, where it is from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from regnet.errors import ModelError, RegNetError
from regnet.labels import Label, Labels
from regnet.preprocess import Preprocess, preprocess_from_dict
from regnet.spec import Spec, spec_from_dict, spec_to_dict

MAX_FIELD_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """A converted model's description.

    `name` of the model or card, `spec` of the network, `preprocess` protocol, `labels` (one a
    class), `weights_sha384` of the checkpoint file, `precision` of the stored weights ("fp32",
    "fp16"), `licence` of the weights, `version` of regnet.
    """

    name: str
    spec: Spec
    preprocess: Preprocess
    labels: Labels
    weights_sha384: str
    precision: str
    licence: str
    version: str

    def __post_init__(self) -> None:
        if len(self.labels) != self.spec.classes:
            raise ModelError(
                f"{self.name}: {len(self.labels)} labels for {self.spec.classes} classes; "
                "give one label a class"
            )

    def to_strings(self) -> dict[str, str]:
        """Return the fields as strings, JSON where they are not text."""
        return {
            "name": self.name,
            "spec": json.dumps(spec_to_dict(self.spec)),
            "preprocess": json.dumps(self.preprocess.to_dict()),
            "labels": json.dumps([[label.wnid, label.name] for label in self.labels]),
            "weights_sha384": self.weights_sha384,
            "precision": self.precision,
            "licence": self.licence,
            "version": self.version,
        }


def metadata_from_strings(values: Mapping[str, str], *, source: str) -> ModelMetadata:
    """Return the metadata that `to_strings` wrote; `source` names the file in errors.

    Raises `ModelError` where a field is missing, malformed or larger than 64 MiB.
    """
    if any(len(value) > MAX_FIELD_BYTES for value in values.values()):
        raise ModelError(f"{source}: its regnet metadata is over {MAX_FIELD_BYTES} bytes")
    try:
        return ModelMetadata(
            name=values["name"],
            spec=spec_from_dict(json.loads(values["spec"])),
            preprocess=preprocess_from_dict(json.loads(values["preprocess"])),
            labels=_labels(json.loads(values["labels"])),
            weights_sha384=values["weights_sha384"],
            precision=values["precision"],
            licence=values["licence"],
            version=values["version"],
        )
    except KeyError as exc:
        raise ModelError(f"{source}: its regnet metadata lacks {exc}; convert it again") from exc
    except (ValueError, TypeError, RegNetError) as exc:
        raise ModelError(f"{source}: its regnet metadata is damaged ({exc})") from exc


def _labels(rows: Any) -> Labels:
    return tuple(Label(str(wnid), str(name)) for wnid, name in rows)
