"""The network itself, run by torch: what converted models are compared with."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from regnet.conversion.convert import read_network
from regnet.conversion.values import Request
from regnet.ir.engine import Batch, Outputs, require_probabilities, with_protocol
from regnet.ir.metadata import InferencePrecision, ModelMetadata
from regnet.pixels.preprocess import ImageLike, crop_pixels


class TorchPredictor:
    """The network of a checkpoint as torch runs it, batch-norm and all, on the CPU."""

    def __init__(
        self,
        request: Request,
        *,
        precision: InferencePrecision = "f32",
        protocol: str | None = None,
    ) -> None:
        network, metadata = read_network(request)
        self._network = network.eval()
        self._bf16 = precision == "bf16"
        self.metadata: ModelMetadata = (
            metadata if protocol is None else with_protocol(metadata, protocol)
        )
        mean, scale = metadata.preprocess.mean, metadata.preprocess.scale
        self._mean, self._scale = (torch.tensor(v).view(1, 3, 1, 1) for v in (mean, scale))

    def pixels(self, image: ImageLike) -> NDArray[Any]:
        """Return the crop (crop, crop, 3) of one image; raises `ImageError`."""
        return crop_pixels(image, self.metadata.preprocess)

    def outputs(self, pixels: Batch) -> Outputs:
        """Return logits and probabilities (N, classes) of crops (N, crop, crop, 3)."""
        batch = torch.from_numpy(np.asarray(pixels)).permute(0, 3, 1, 2).float()
        with torch.inference_mode(), self._computing():
            logits = self._network((batch - self._mean) / self._scale).float()
        probabilities = torch.softmax(logits, 1).numpy()
        require_probabilities(probabilities, self.metadata.name, "the checkpoint is damaged")
        return Outputs(logits.numpy(), probabilities)

    def _computing(self) -> Any:
        return torch.autocast("cpu", torch.bfloat16) if self._bf16 else nullcontext()
