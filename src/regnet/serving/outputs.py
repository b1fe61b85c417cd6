"""What the Open Inference Protocol gets of a model: probabilities, or the best classes by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from regnet.inference.result import top_classes
from regnet.ir.metadata import ModelMetadata
from regnet.network.labels import Labels
from regnet.serving.inputs import Port
from regnet.serving.refusals import BadRequest
from regnet.system.errors import shown

OUTPUT: Final = "prob"


def output_port(metadata: ModelMetadata) -> Port:
    """Return the one output that a model has: probabilities (N, classes)."""
    return Port(OUTPUT, "FP32", (-1, len(metadata.labels)))


@dataclass(frozen=True)
class WantedOutput:
    """An output that a request names; with `classes` above 0 so many of the best, by name."""

    name: str
    classes: int = 0


def wanted_classes(outputs: Sequence[WantedOutput]) -> int:
    """Return how many of the best classes are wanted by name, 0 for all probabilities.

    Raises `BadRequest` where the outputs are others than the one there is.
    """
    if not outputs:
        return 0
    if len(outputs) > 1 or outputs[0].name != OUTPUT:
        names = ", ".join(shown(output.name) for output in outputs[:4])
        raise BadRequest(f"the only output is {OUTPUT}, not {names}")
    classes = outputs[0].classes
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 0:
        raise BadRequest(f"classification={shown(classes)} must be a number of classes")
    return classes


def named_classes(rows: NDArray[np.float32], labels: Labels, count: int) -> list[list[bytes]]:
    """Return `count` of the best classes of rows (N, classes), best first, all if there are fewer.

    Each is `probability:index:name` in UTF-8, as the protocol's classification extension has it.
    """
    return [
        [
            f"{np.format_float_positional(row[score.index])}:{score.index}:{score.label}".encode()
            for score in top_classes(row, labels, count)
        ]
        for row in rows
    ]


def packed(elements: list[list[bytes]]) -> bytes:
    """Return BYTES elements as raw bytes: each after its length in 4 bytes, little-endian."""
    return b"".join(
        len(element).to_bytes(4, "little") + element for row in elements for element in row
    )
