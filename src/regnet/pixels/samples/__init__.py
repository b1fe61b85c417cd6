"""The sample photos in the package: freely licensed, see README.md beside them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from regnet.pixels.preprocess import crop_pixels
from regnet.pixels.protocol import Preprocess


def sample_photos() -> list[Path]:
    """Return the paths of the sample photos, sorted by name."""
    return sorted(p for p in Path(__file__).parent.iterdir() if p.suffix in (".jpg", ".png"))


def sample_crops(preprocess: Preprocess) -> list[NDArray[np.uint8]]:
    """Return the crops (crop, crop, 3) of the sample photos by a protocol."""
    return [crop_pixels(path, preprocess) for path in sample_photos()]
