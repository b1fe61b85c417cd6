"""What a converted model may differ by from its network: judged against float64.

Rounding moves the outputs of any float32 program, and how far depends on the network. So the
converted model and torch's own float32 are both compared with torch's float64. float32's distance
is the largest of three forwards, whose inputs differ by two units in the last place: a single one
may be right by luck.
"""

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from regnet.conversion.values import FLOOR, Distance, Proof
from regnet.network.modules import RegNet
from regnet.pixels.protocol import Preprocess
from regnet.system.errors import ConversionError

_ULP: Final = 2**-23


@dataclass(frozen=True)
class Rows:
    """Outputs for N images: `logits` and `probabilities`, both (N, classes)."""

    logits: NDArray[np.floating[Any]]
    probabilities: NDArray[np.floating[Any]]


class Reference:
    """A network's float64 outputs for raw pixels (N, 3, H, W), and the distance of its float32.

    Images are run one by one. Batch norm is not folded unless it is in `network`. Raises
    `ConversionError` if the outputs are not finite in either precision.
    """

    def __init__(
        self, network: RegNet, preprocess: Preprocess, pixels: NDArray[np.float32]
    ) -> None:
        self.rows = forward(deepcopy(network).double(), preprocess, pixels)
        if not np.isfinite(self.rows.logits).all():
            raise ConversionError(
                "the network's outputs are not numbers on the sample photos: its weights hold NaN "
                "or infinity, or are too large to be stored; nothing was written"
            )
        near = [
            self.distance(forward(network, preprocess, pixels, input_scale=1 + ulps * _ULP))
            for ulps in (0, 2, -2)
        ]
        if not math.isfinite(max(distance.logits for distance in near)):
            raise ConversionError(
                "the network's outputs are beyond float32 on the sample photos; nothing was written"
            )
        self.float32 = Distance(
            max(distance.probabilities for distance in near),
            max(distance.logits for distance in near),
        )
        probabilities = self.rows.probabilities
        slope = 2 * float((probabilities * (1 - probabilities)).max())
        self._reach = min(1.0, slope * self.float32.logits * self._range)

    @property
    def _range(self) -> float:
        """The range of the logits."""
        return float(np.ptp(self.rows.logits)) or 1.0

    def distance(self, rows: Rows) -> Distance:
        """Return how far other outputs of the same images are; NaN is infinitely far."""
        return Distance(
            _largest(rows.probabilities - self.rows.probabilities),
            _largest((rows.logits - self.rows.logits) / self._range),
        )

    def measured(self, rows: Rows) -> Proof:
        """Return the distances of a converted model's outputs, whatever they are."""
        return Proof(self.distance(rows), self.float32, self._reach)

    def proof(self, rows: Rows) -> Proof:
        """Return the measured distances of a converted model's outputs.

        Raises `ConversionError` if they exceed what is allowed, or if rows do not sum to 1.
        """
        proof = self.measured(rows)
        sums = _largest(rows.probabilities.sum(axis=1, dtype=np.float64) - 1)
        delta, allowed = proof.delta, proof.allowed
        if (
            delta.probabilities <= allowed.probabilities
            and delta.logits <= allowed.logits
            and sums <= FLOOR
        ):
            return proof
        raise ConversionError(
            f"the converted model disagrees with the network: probabilities differ by "
            f"{delta.probabilities:.3g} ({allowed.probabilities:.3g} is allowed) and sum to 1 "
            f"within {sums:.3g} ({FLOOR:g}), logits differ by {delta.logits:.3g} of their range "
            f"({allowed.logits:.3g}); nothing was written"
        )


def forward(
    network: RegNet,
    preprocess: Preprocess,
    pixels: NDArray[np.float32],
    *,
    input_scale: float = 1.0,
) -> Rows:
    """Return a network's outputs for raw pixels (N, 3, H, W), one by one, in its own precision.

    Normalised pixels are multiplied by `input_scale`: next to 1 it gives other roundings.
    """
    network = network.eval()
    precision = network.head.fc.weight.dtype
    mean, scale = (
        torch.tensor(values, dtype=precision).view(1, 3, 1, 1)
        for values in (preprocess.mean, preprocess.scale)
    )
    with torch.inference_mode():
        images = (torch.from_numpy(image[None]).to(precision) for image in pixels)
        logits = torch.cat([network((image - mean) / scale * input_scale) for image in images])
        return Rows(logits.numpy(), torch.softmax(logits, 1).numpy())


def _largest(differences: NDArray[np.floating[Any]]) -> float:
    """Return the largest absolute value; infinity if any is not a number."""
    largest = float(np.abs(differences).max())
    return math.inf if math.isnan(largest) else largest
