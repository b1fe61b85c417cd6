"""Pixels, 0..255, to what a network takes, on its device."""

import torch
from torch import Tensor

from regnet.protocol import Preprocess
from regnet.training.photos import Batch


class Normalise:
    """A protocol's mean and scale on a device: (pixel - mean) / scale."""

    def __init__(self, protocol: Preprocess, device: torch.device) -> None:
        self._device = device
        self._mean = torch.tensor(protocol.mean, device=device).view(1, 3, 1, 1)
        self._scale = torch.tensor(protocol.scale, device=device).view(1, 3, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Return images (N, 3, S, S) normalised."""
        return (images - self._mean) / self._scale

    def on_device(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return a batch's crops as float32 (N, 3, S, S), channels last, and its classes (N,)."""
        return self.moved(torch.from_numpy(batch.crops), torch.from_numpy(batch.truths))

    def moved(self, crops: Tensor, truths: Tensor) -> tuple[Tensor, Tensor]:
        """Return crops (N, S, S, 3) as float32 (N, 3, S, S), channels last, and classes (N,)."""
        images = crops.to(self._device, non_blocking=True).permute(0, 3, 1, 2).float()
        return images, truths.to(self._device, non_blocking=True)
