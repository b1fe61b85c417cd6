"""What a conversion is asked for and what it gave, as values; no OpenVINO."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from regnet.checkpoints.fields import FieldError, labels_to_rows
from regnet.ir.assumptions import CONVERTED
from regnet.ir.metadata import CONVERSION_FILE, Preprocessing
from regnet.ir.records import PixelBound
from regnet.network.labels import Labels
from regnet.network.spec import Spec, spec_to_dict
from regnet.pixels.protocol import Channels
from regnet.system.files import write_whole
from regnet.system.json_text import json_bytes
from regnet.zoo.card import Card

Format = Literal["ir", "onnx"]
Precision = Literal["fp32", "fp16"]
Outputs = Literal["logits", "probabilities"]

CHECKPOINT_SUFFIXES = (".pyth", ".pth", ".pt", ".bin", ".safetensors", ".ckpt", ".tar", ".pkl")

_OF_ANY_MODEL = ("model", "openvino_model")  # names that exporters give to all of theirs

FLOOR: Final = 1e-5
"""What is always allowed: no distance this small is refused."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A weights file, what its card or the user says of it, and the format wanted.

    `sha384` is the file's where it is known already, `card` what was published of the file. `spec`
    insists on a network; `name`, `labels`, `channels` (of the file's stem) and the fields
    of `Preprocess` in `protocol` go before what card and file say. `entry` chooses among several
    networks in the file. `preprocessing` "graph" puts resize and crop into an IR. The weights of a
    classifier to adopt are its .onnx or .xml; `outputs` says what it gives, `licence` what allows
    its use. Raises `ConversionError` where the format cannot hold the preprocessing.
    """

    weights: Path
    sha384: str | None = None
    card: Card | None = None
    spec: Spec | str | None = None
    name: str | None = None
    labels: Labels | None = None
    protocol: Mapping[str, Any] = field(default_factory=dict)
    channels: Channels | None = None
    entry: str | None = None
    outputs: Outputs | None = None
    licence: str | None = None
    format: Format = "ir"
    precision: Precision = "fp32"
    preprocessing: Preprocessing = "caller"

    @property
    def model_name(self) -> str:
        """The name of the model: the one asked for, its card's, or its file's."""
        name = self.name or (self.card.title.replace(":", "-") if self.card else "")
        if not name:
            stem = self.weights
            # A folder's name may have a dot of its own.
            while stem.suffix in (*CHECKPOINT_SUFFIXES, *CONVERTED, ".json") and stem.stem:
                stem = stem.with_suffix("")
            name = stem.name
            if name in _OF_ANY_MODEL and self.weights.suffix in CONVERTED:
                name = self.weights.resolve().parent.name
        return re.sub(r"[^\w.-]", "_", name)[:80].lstrip(".") or "model"

    @property
    def file_name(self) -> str:
        """The name of the main file: that of the model and what is not the default of it."""
        suffix = "-graph" if self.preprocessing == "graph" else ""
        suffix += "-fp16" if self.precision == "fp16" else ""
        return f"{self.model_name}{suffix}.{'onnx' if self.format == 'onnx' else 'xml'}"

    def key_parts(self) -> dict[str, Any]:
        """Return all but the weights that the result depends on, as plain JSON values."""
        plain = ("channels", "entry", "format", "licence", "outputs", "precision", "preprocessing")
        return {name: getattr(self, name) for name in plain} | {
            "card": self.card and self.card.title,
            "spec": self.spec if isinstance(self.spec, str | None) else spec_to_dict(self.spec),
            "name": self.model_name,
            "labels": self.labels and labels_to_rows(self.labels),
            "protocol": dict(self.protocol),
        }


@dataclass(frozen=True)
class Distance:
    """The largest difference of a probability, and of a logit relative to the logits' range."""

    probabilities: float
    logits: float


@dataclass(frozen=True)
class Proof:
    """Distances from the network in float64: of the converted model (`delta`), of its float32.

    All have the weights as they are stored. `reach` is the most that float32's distance
    of the logits can change a probability by.
    """

    delta: Distance
    float32: Distance
    reach: float

    @property
    def allowed(self) -> Distance:
        """The largest allowed `delta`, at least 1e-5.

        For probabilities 4 times the distance of float32, or its `reach`: rounding that happens to
        be the same in all logits changes no probability, and another engine's is not the same. For
        logits 16 times, because where gates (squeeze-excite) amplify rounding, one engine's may be
        several times another's.
        """
        return Distance(
            max(FLOOR, 4 * self.float32.probabilities, 4 * self.reach),
            max(FLOOR, 16 * self.float32.logits),
        )

    def to_dict(self) -> dict[str, float]:
        """Return the measured and allowed distances as JSON values."""
        return {
            "max_delta": self.delta.probabilities,
            "allowed": self.allowed.probabilities,
            "float32_delta": self.float32.probabilities,
            "max_logit_delta": self.delta.logits,
            "allowed_logit": self.allowed.logits,
            "float32_logit_delta": self.float32.logits,
        }


@dataclass(frozen=True)
class Conversion:
    """A converted model: its main file, all its files, and what the conversion measured.

    `proof` compares it with its network on as many sample photos as `photos` says, or if it was
    adopted with the `original`: the file and the engine that ran it. `rounding` is the largest
    change of a probability by storing the weights in FP16, 0 for FP32. `assumed` has the sentences
    of the model's metadata, `notes` others of the user's interest. `pixel_bound` is of the pixels
    where the graph makes the crop.
    """

    path: Path
    files: tuple[str, ...]
    proof: Proof
    rounding: float
    photos: int
    assumed: tuple[str, ...] = ()
    pixel_bound: PixelBound | None = None
    notes: tuple[str, ...] = ()
    original: str = ""

    @property
    def max_delta(self) -> float:
        """The largest difference of a probability from the network in float64."""
        return self.proof.delta.probabilities


def write_conversion(folder: Path, conversion: Conversion) -> None:
    """Write the record that marks a folder as a complete conversion."""
    stamps = {name: _stamp(folder / name) for name in conversion.files}
    record = asdict(conversion) | {"path": conversion.path.name, "files": stamps}
    write_whole(folder / CONVERSION_FILE, json_bytes(record))


def _stamp(path: Path) -> list[int]:
    """Return size and time of change, by which a file that was touched since is known."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def read_conversion(folder: Path) -> Conversion | None:
    """Return the conversion in a folder, or None where it is not there or not whole."""
    try:
        record = json.loads((folder / CONVERSION_FILE).read_text("utf-8"))
        if any(_stamp(folder / name) != stamp for name, stamp in record["files"].items()):
            return None
        bound, proof = record["pixel_bound"], record["proof"]
        distances = Distance(**proof["delta"]), Distance(**proof["float32"])
        return Conversion(
            folder / record["path"],
            tuple(record["files"]),
            Proof(*distances, proof["reach"]),
            record["rounding"],
            record["photos"],
            tuple(record["assumed"]),
            PixelBound.from_dict(bound) if bound else None,
            tuple(record["notes"]),
            record["original"],
        )
    except (OSError, ValueError, FieldError, LookupError, TypeError, AttributeError):
        return None
