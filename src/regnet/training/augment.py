"""Augmentation of a batch of training crops on its device: flips, lighting, erasing, mixing.

Images are float32 (N, 3, H, W), 0..255, BGR, not yet normalised; a memory format is kept. What
is done to each image was drawn before (`draws.py`): nothing here is random.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from regnet.pixels.protocol import Preprocess, Triple
from regnet.training.devices import on_device
from regnet.training.draws import CHUNK, Draws, Mixing, joined
from regnet.training.trivial_augment import trivial_augment

Batch = tuple[Tensor, Tensor]


class Augment:
    """The augmentation of a batch, after the crop.

    In this order: flip, TrivialAugment, lighting, random erasing, mixup or cutmix. `mean` is the
    recipe's, of pixels 0..255 in BGR: the colour of erased rectangles. `whole` batches are
    augmented at once, as suits a GPU; a CPU, whose caches are small, takes a chunk at a time.
    """

    def __init__(
        self, *, classes: int, mean: Triple = Preprocess.mean, whole: bool = False
    ) -> None:
        self.classes, self.mean, self.whole = classes, mean, whole

    def __call__(self, images: Tensor, targets: Tensor, draws: Sequence[Draws]) -> Batch:
        """Return augmented images (N, 3, H, W) and soft targets (N, classes), whose rows sum to 1.

        `targets` are the classes, int64 (N,); `draws` are those of each chunk of `CHUNK` images.
        The images passed in are not changed; if there is nothing to do, they are returned
        themselves.
        """
        soft = F.one_hot(targets, self.classes).float()
        if self.whole or len(draws) == 1:
            return self.apply(images, soft, joined(draws))
        chunks = zip(torch.split(images, CHUNK), torch.split(soft, CHUNK), draws, strict=True)
        done = [self.apply(*chunk) for chunk in chunks]
        return torch.cat([image for image, _ in done]), torch.cat([label for _, label in done])

    def apply(self, images: Tensor, soft: Tensor, draws: Draws) -> Batch:
        """Return images and soft targets, changed as was drawn for them."""
        if draws.mirrored is not None:
            images = flip(images, draws.mirrored)
        if draws.operations is not None and draws.strengths is not None:
            images = trivial_augment(images, draws.operations, draws.strengths)
        if draws.shifts is not None:
            images = images + on_device(draws.shifts, images.device)[:, :, None, None]
        if draws.erased is not None:
            images = erase(images, draws.erased, mean=self.mean)
        if len(draws.mixing) == 1:
            return mix(images, soft, draws.mixing[0])
        return mix_runs(images, soft, draws.mixing)


def flip(images: Tensor, mirrored: NDArray[np.bool_]) -> Tensor:
    """Return images (N, C, H, W), some of them mirrored left to right."""
    which = on_device(mirrored, images.device)
    return torch.where(which[:, None, None, None], images.flip(3), images)


def erase(images: Tensor, boxes: NDArray[np.int64], *, mean: Triple = Preprocess.mean) -> Tensor:
    """Return images (N, 3, H, W), each with a rectangle set to `mean`, unless that is empty.

    `mean` is the protocol's, so a rectangle is 0 after normalising (arXiv 1708.04896).
    """
    erased = images.clone()
    chosen = np.flatnonzero(boxes[:, 2] > boxes[:, 0])
    if len(chosen):
        index = on_device(chosen, images.device)
        colour = on_device(np.array(mean, np.float32)[:, None, None], images.device)
        erased[index] = torch.where(_inside(boxes[chosen], images), colour, images[index])
    return erased


def mix(images: Tensor, targets: Tensor, mixing: Mixing) -> Batch:
    """Return images (N, C, H, W) and soft targets (N, classes) mixed: see `Mixing`."""
    if not mixing.other:
        return images, targets
    if mixing.box is None:
        images = _blend(images, mixing.other)
    else:
        top, left, bottom, right = mixing.box
        place = (..., slice(top, bottom), slice(left, right))
        mixed = images.clone()
        mixed[place] = images[place].roll(1, 0)
        images = mixed
    return images, _blend(targets, mixing.other)


def _blend(values: Tensor, other: float) -> Tensor:
    """Return each of N values times 1 - other plus the previous one times other."""
    return values.roll(1, 0).mul_(other).add_(values, alpha=1 - other)


def mix_runs(images: Tensor, targets: Tensor, mixing: Sequence[Mixing]) -> Batch:
    """Return what `mix` does, but for rounding, for runs of images at once."""
    if not any(each.other for each in mixing):
        return images, targets
    counts = np.array([each.count for each in mixing])
    first = np.cumsum(counts) - counts
    previous = np.arange(counts.sum()) - 1
    previous[first] += counts
    before = on_device(previous, images.device)
    others = np.array([each.other for each in mixing], np.float32)
    labels = on_device(others.repeat(counts), images.device)
    mixed = partners = images[before]
    blends = np.array([each.box is None for each in mixing])
    if (others[blends] > 0).any():
        pixels = on_device((others * blends).repeat(counts), images.device)
        mixed = torch.lerp(images, partners, pixels[:, None, None, None])
    elif any(each.box for each in mixing):
        mixed = images
    if any(each.box for each in mixing):
        boxes = np.array([each.box or (0, 0, 0, 0) for each in mixing]).repeat(counts, 0)
        mixed = torch.where(_inside(boxes, images), partners, mixed)
    return mixed, torch.lerp(targets, targets[before], labels[:, None])


def _inside(boxes: NDArray[np.int64], images: Tensor) -> Tensor:
    """Return whether a pixel of each image lies in its box: (N, 1, H, W)."""
    height, width = images.shape[2:]
    top, left, bottom, right = on_device(boxes.T.copy(), images.device)[:, :, None]
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    down = (rows >= top) & (rows < bottom)
    across = (columns >= left) & (columns < right)
    inside: Tensor = (down[:, :, None] & across[:, None, :])[:, None]
    return inside
