"""Folders of small photos for tests that train: noise around a colour that tells the class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (60, 60, 200), "green": (60, 200, 60), "red": (200, 60, 60)}


def write_photos(
    folder: Path, each: int, *, classes: Sequence[str] = tuple(COLOURS), seed: int = 0
) -> Path:
    """Write `each` photos of 36 x 28 pixels into a folder a class; return the folder."""
    random = np.random.default_rng(seed)
    for place, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        colour = np.roll((200, 60, 60), place) if name not in COLOURS else COLOURS[name]
        for number in range(each):
            noise = random.normal(colour, 60, (28, 36, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(folder / name / f"{number:03}.png")
    return folder
