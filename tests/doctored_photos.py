"""Pictures drawn by chance, no two alike, and data sets of them, for the tests of `doctor`."""

import io
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, *, width: int = 200, height: int = 160) -> Image.Image:
    """Return a picture with coarse and fine structure of its own."""
    chance = np.random.default_rng(seed)
    coarse, fine = (
        np.asarray(
            Image.fromarray(chance.integers(0, 256, (side, side, 3), np.uint8)).resize(
                (width, height), Image.Resampling.BICUBIC
            ),
            np.float32,
        )
        for side in (5, 17)
    )
    return Image.fromarray((0.6 * coarse + 0.4 * fine).round().astype(np.uint8))


def jpeg(image: Image.Image, *, quality: int = 90) -> bytes:
    """Return a picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def cropped(image: Image.Image, share: float, *, seed: int) -> Image.Image:
    """Return a picture without up to so much of each side."""
    chance = random.Random(seed)
    width, height = image.size
    left, top, right, bottom = (chance.uniform(0, share) for _ in range(4))
    box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
    return image.crop(tuple(map(round, box)))


def resized(image: Image.Image, factor: float) -> Image.Image:
    """Return a picture of another size."""
    width, height = (round(factor * side) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def write_tree(folder: Path, photos: Mapping[str, int], *, start: int = 0) -> None:
    """Write so many different pictures into each of the folders."""
    seed = start
    for place, count in photos.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (folder / place / f"{number:03}.jpg").write_bytes(jpeg(picture(seed)))
            seed += 1
