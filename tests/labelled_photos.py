"""Labelled photos made of the samples, for tests that need a data set and no ../shared."""

import random
from pathlib import Path

from PIL import Image

from regnet.pixels.samples import sample_photos

CLASSES = ("n02124075", "n07920052", "n03763968")
"""The samples' classes: a cat, a cup, and a uniform that the bundled model takes for a gown."""


def write_labelled_photos(folder: Path, *, each: int = 16) -> None:
    """Write a folder a class with `each` parts of its sample: some easy, some hopeless."""
    chance = random.Random(0)
    for path, wnid in zip(sample_photos(), CLASSES, strict=True):
        (folder / wnid).mkdir(parents=True)
        image = Image.open(path).convert("RGB")
        for number in range(each):
            share = chance.uniform(0.25, 1)
            width, height = (int(share * side) for side in image.size)
            left = chance.randint(0, image.width - width)
            top = chance.randint(0, image.height - height)
            part = image.crop((left, top, left + width, top + height)).resize((96, 96))
            part.save(folder / wnid / f"{number:02}.png")
