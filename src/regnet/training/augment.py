"""What happens to a batch of training crops on its device: flips, lighting, erasing, mixing.

Images are float32 (N, 3, H, W), 0..255, channels BGR, not yet normalised; a memory format is kept.
A batch takes one number from its `torch.Generator` and draws from that on the CPU, so the draws are
the same on every device.
"""

import math
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from regnet.pixels.protocol import Preprocess, Triple
from regnet.training.mixing import mix
from regnet.training.recipe import Augmentation
from regnet.training.trivial_augment import trivial_augment

# Principal components of the colours of ImageNet's pixels, R, G, B on 0..1 (Krizhevsky et al. 2012)
EIGENVALUES: Final = (0.2175, 0.0188, 0.0045)
EIGENVECTORS: Final = (  # a row a channel, a column a component
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)


ERASED_AREA: Final = (0.02, 0.33)  # of the image's area
ERASED_ASPECT: Final = (0.3, 3.3)  # height to width


class Augment:
    """A recipe's augmentation of a batch, after the crop.

    In this order: flip, TrivialAugment, lighting, random erasing, mixup or cutmix. `mean` is the
    recipe's, of pixels 0..255 in BGR: erased rectangles have that colour.
    """

    def __init__(
        self, augmentation: Augmentation, *, classes: int, mean: Triple = Preprocess.mean
    ) -> None:
        self.augmentation = augmentation
        self.classes = classes
        self.mean = mean

    def __call__(
        self, images: Tensor, targets: Tensor, random: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return augmented images (N, 3, H, W) and soft targets (N, classes), whose rows sum to 1.

        `targets` are the classes, int64 (N,). The images passed in are not changed; where there is
        nothing to do, they come back themselves.
        """
        recipe, draws = self.augmentation, _draws(random)
        soft = F.one_hot(targets, self.classes).float()
        if recipe.flip:
            images = flip(images, recipe.flip, draws)
        if recipe.trivial_augment:
            images = trivial_augment(images, draws)
        if recipe.lighting:
            images = light(images, recipe.lighting, draws)
        if recipe.erasing:
            images = erase(images, recipe.erasing, draws, mean=self.mean)
        return mix(images, soft, recipe, draws)


def flip(images: Tensor, probability: float, draws: np.random.Generator) -> Tensor:
    """Return images (N, C, H, W), each mirrored left to right with a probability."""
    mirrored = torch.from_numpy(draws.random(len(images)) < probability).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def light(images: Tensor, deviation: float, draws: np.random.Generator) -> Tensor:
    """Return images (N, 3, H, W) in BGR, a colour along the principal components added to each.

    A component's weight is normal with this standard deviation (section 4.1 of Krizhevsky et al.,
    ImageNet Classification with Deep Convolutional Neural Networks, 2012). As in the paper's
    training code, the result is not clipped to 0..255.
    """
    rgb = lighting(draws.normal(0, deviation, (len(images), 3)))
    shift = torch.from_numpy(rgb[:, ::-1].astype(np.float32)).to(images.device)
    return images + shift[:, :, None, None]


def lighting(weights: np.ndarray) -> np.ndarray:
    """Return the R, G, B, (N, 3) on 0..255, that weights (N, 3) of the three components add."""
    added: np.ndarray = 255 * (weights * EIGENVALUES) @ np.transpose(EIGENVECTORS)
    return added


def erase(
    images: Tensor,
    probability: float,
    draws: np.random.Generator,
    *,
    mean: Triple = Preprocess.mean,
) -> Tensor:
    """Return images (N, 3, H, W), a rectangle of each set to `mean` with this probability.

    `mean` is the protocol's, so a rectangle is 0 after normalising. Area and aspect are evenly
    spread over `ERASED_AREA` and, in its logarithm, `ERASED_ASPECT`, the place over the image
    (arXiv 1708.04896).
    """
    erased = images.clone()
    colour = torch.tensor(mean, device=images.device)[:, None, None]
    chosen = np.flatnonzero(draws.random(len(images)) < probability)
    height, width = images.shape[2:]
    for image, (top, left, bottom, right) in zip(
        chosen, rectangles(len(chosen), height, width, draws), strict=True
    ):
        erased[image, :, top:bottom, left:right] = colour
    return erased


def rectangles(
    count: int, height: int, width: int, draws: np.random.Generator
) -> NDArray[np.int64]:
    """Return rectangles to erase (count, 4): top, left, bottom, right.

    Where an aspect would not fit into the image at this area, the nearest one that does.
    """
    flat, tall = ERASED_ASPECT
    area = draws.uniform(*ERASED_AREA, count)
    aspect = np.exp(draws.uniform(math.log(flat), math.log(tall), count))
    aspect = np.clip(aspect, area * height / width, height / (area * width))
    pixels = area * height * width
    rows = np.clip(np.rint(np.sqrt(pixels * aspect)), 1, height).astype(np.int64)
    columns = np.clip(np.rint(np.sqrt(pixels / aspect)), 1, width).astype(np.int64)
    top, left = draws.integers(height - rows + 1), draws.integers(width - columns + 1)
    return np.stack([top, left, top + rows, left + columns], axis=1)


def _draws(random: torch.Generator) -> np.random.Generator:
    """Return a batch's own numbers, from one of `random`: numpy's have one value on all CPUs."""
    return np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=random)))
