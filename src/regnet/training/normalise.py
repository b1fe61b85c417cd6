"""Pixels, 0..255, to what a network takes, on its device."""

import torch
from torch import Tensor

from regnet.pixels.protocol import Preprocess
from regnet.training.photos import Batch


class Normalise:
    """A protocol's mean and scale on a device: (pixel - mean) / scale."""

    def __init__(self, protocol: Preprocess, device: torch.device) -> None:
        self._device = device
        self._mean = torch.tensor(protocol.mean, device=device)
        self._scale = torch.tensor(protocol.scale, device=device)

    def __call__(self, images: Tensor) -> Tensor:
        """Return images (N, 3, S, S) normalised, channels last."""
        height, width = images.shape[2:]
        rows = images.permute(0, 2, 3, 1).flatten(2)  # by rows a CPU does it five times as fast
        done = (rows - self._mean.repeat(width)).div_(self._scale.repeat(width))
        return done.view(-1, height, width, 3).permute(0, 3, 1, 2)

    def on_device(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return a batch's crops as float32 (N, 3, S, S), channels last, and its classes (N,)."""
        return self.moved(torch.from_numpy(batch.crops), torch.from_numpy(batch.truths))

    def moved(self, crops: Tensor, truths: Tensor) -> tuple[Tensor, Tensor]:
        """Return crops (N, S, S, 3) as float32 (N, 3, S, S), channels last, and classes (N,)."""
        images = crops.to(self._device, non_blocking=True).permute(0, 3, 1, 2).float()
        return images, truths.to(self._device, non_blocking=True)
