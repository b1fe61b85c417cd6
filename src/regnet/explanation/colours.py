"""Colours for numbers: dark violet to light yellow in perceptually even steps.

The path is a helix in OKLab: lightness grows evenly, hue turns evenly, chroma stays, so equal steps
of the number are equal steps of the colour, and it still grows where only lightness is seen.
Source of OKLab: Björn Ottosson, https://bottosson.github.io/posts/oklab/.
"""

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

_LIGHTNESS: Final = (0.25, 0.95)
_HUES: Final = (285.0, 465.0)  # degrees: violet, through red, to yellow
_CHROMA: Final = 0.135  # every hue and lightness on the way has this much in sRGB

_TO_LMS: Final = np.array(
    [
        [1, 0.3963377774, 0.2158037573],
        [1, -0.1055613458, -0.0638541728],
        [1, -0.0894841775, -1.2914855480],
    ]
)
_TO_RGB: Final = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


@cache
def colour_table() -> NDArray[np.uint8]:
    """Return the colours of 0, 1/255, ... 1: (256, 3), sRGB."""
    hues = np.radians(np.linspace(*_HUES, 256))
    lightness = np.linspace(*_LIGHTNESS, 256)
    lab = np.stack([lightness, _CHROMA * np.cos(hues), _CHROMA * np.sin(hues)], axis=1)
    table = np.round(_srgb((lab @ _TO_LMS.T) ** 3 @ _TO_RGB.T) * 255).astype(np.uint8)
    table.flags.writeable = False
    return table


def _srgb(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return light intensities 0..1 with sRGB's transfer function applied."""
    linear = linear.clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
