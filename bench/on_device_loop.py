"""Training as people write it for photos in a GPU's memory: crops, flips and mixup by torch."""

import math
import random

import torch
import torch.nn.functional as F
from torch import Tensor

from regnet.pixels.protocol import Preprocess
from regnet.training.recipe import Augmentation


class OnDevicePhotos:
    """Photos (N, 3, S, S) as bytes on a device, and their classes (N,).

    A call gives a batch: crops by torchvision's rule but for tries, half of them mirrored, all
    mixed with one share; normalised, channels last; and the shares of the classes.
    """

    def __init__(
        self, photos: Tensor, truths: Tensor, *, batch: int, side: int, classes: int
    ) -> None:
        self._photos, self._truths = photos, truths
        self._batch, self._side, self._classes = batch, side, classes
        self._mean = torch.tensor(Preprocess.mean, device=photos.device).view(1, 3, 1, 1)
        self._scale = torch.tensor(Preprocess.scale, device=photos.device).view(1, 3, 1, 1)

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Return images (N, 3, side, side) and the shares of the classes (N, classes)."""
        chosen = torch.randint(len(self._photos), (self._batch,), device=self._photos.device)
        grid = F.affine_grid(self._boxes(), [self._batch, 3, self._side, self._side], False)
        crops = F.grid_sample(self._photos[chosen].float(), grid, align_corners=False)
        images = (crops - self._mean) / self._scale
        shares = F.one_hot(self._truths[chosen], self._classes).float()
        other = random.betavariate(0.2, 0.2)
        images, shares = (torch.lerp(x, x.roll(1, 0), other) for x in (images, shares))
        return images.contiguous(memory_format=torch.channels_last), shares

    def _boxes(self) -> Tensor:
        """Return a box for each image as an affine map of -1..1, mirrored for half of them."""
        low, high = Augmentation.area
        area, aspect, left, top, turn = torch.rand(5, self._batch, device=self._photos.device)
        area = low + (high - low) * area
        aspect = torch.exp((2 * aspect - 1) * math.log(4 / 3))
        width = (area * aspect).sqrt().clamp(max=1)
        height = (area / aspect).sqrt().clamp(max=1)
        x, y = (1 - width) * (2 * left - 1), (1 - height) * (2 * top - 1)
        width = torch.where(turn < 0.5, width, -width)
        zero = torch.zeros_like(x)
        rows = torch.stack([width, zero, x, zero, height, y], 1)
        return rows.view(self._batch, 2, 3)
