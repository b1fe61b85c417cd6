"""Explanations of photos as pictures: colours over each photo where the network sees the class.

Colours go from dark violet to light yellow in perceptually even steps: a helix in OKLab on which
lightness and hue grow evenly and chroma stays, so it still grows where only lightness is seen.
Source of OKLab: Björn Ottosson, https://bottosson.github.io/posts/oklab/.
"""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regnet.data.sources import Item, iter_items
from regnet.explanation.activation_maps import Explainer, Explanation
from regnet.inference.result import readable
from regnet.network.labels import first_name
from regnet.pixels.preprocess import ImageLike, rgb_pixels
from regnet.system.errors import ImageError
from regnet.system.files import write_whole
from regnet.system.json_text import plain_fields
from regnet.system.notices import about
from regnet.system.output_file import naming

OPACITY: Final = 0.55
_DIMMED: Final = 0.45  # of the brightness, where the network does not look
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


def overlay_png(photo: ImageLike, explanation: Explanation, *, opacity: float = OPACITY) -> bytes:
    """Return a PNG of the upright photo with the map over it; what the network does not see is dim.

    Colours go from dark violet, 0 or against the class, to light yellow, the explanation's `scale`;
    `opacity` is theirs, 0 to 1. Raises `ImageError` where the photo cannot be read, `ValueError`
    where it is not of the size that was explained.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity={opacity} must be 0 to 1")
    pixels = rgb_pixels(photo)
    if pixels.shape[1::-1] != explanation.size:
        raise ValueError(f"the photo is {pixels.shape[1::-1]}, explained was {explanation.size}")
    left, top, right, bottom = seen(explanation)
    colours = colour_table()[np.round(heat(explanation) * 255).astype(np.uint8)]
    whole = Image.fromarray(pixels)
    shown = whole.point([round(_DIMMED * level) for level in range(256)] * 3)
    part = whole.crop((left, top, right, bottom))
    shown.paste(Image.blend(part, Image.fromarray(colours), opacity), (left, top))
    file = io.BytesIO()
    shown.save(file, "PNG", compress_level=2)  # photos get no smaller by more, only slower
    return file.getvalue()


def seen(explanation: Explanation) -> tuple[int, int, int, int]:
    """Return the pixels that the network sees: left, top, right, bottom on the photo, rounded."""
    left, top, width, height = explanation.box
    x, y, right, bottom = map(round, (left, top, left + width, top + height))
    return x, y, max(right, x + 1), max(bottom, y + 1)


def heat(explanation: Explanation) -> NDArray[np.float32]:
    """Return how much each pixel of `seen` speaks for the class: 0 to 1, the explanation's `scale`.

    Between the centres of the map's cells it is interpolated (cubic).
    """
    left, top, right, bottom = seen(explanation)
    size = (right - left, bottom - top)
    if explanation.scale <= 0:
        return np.zeros(size[::-1], np.float32)
    smooth = Image.fromarray(explanation.map / np.float32(explanation.scale))
    return np.asarray(smooth.resize(size, Image.Resampling.BICUBIC)).clip(0, 1)


@cache
def colour_table() -> NDArray[np.uint8]:
    """Return the colours of 0, 1/255, ... 1: (256, 3), sRGB."""
    hues = np.radians(np.linspace(*_HUES, 256))
    lightness = np.linspace(*_LIGHTNESS, 256)
    lab = np.stack([lightness, _CHROMA * np.cos(hues), _CHROMA * np.sin(hues)], axis=1)
    linear = ((lab @ _TO_LMS.T) ** 3 @ _TO_RGB.T).clip(0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    table: NDArray[np.uint8] = np.round(srgb * 255).astype(np.uint8)
    table.flags.writeable = False
    return table


@dataclass(frozen=True, eq=False)
class ExplainedPhoto:
    """The explanations of one photo, one a class, and their overlays where they were written.

    Exactly one of `explanations` and `error` is there; `assumed` is the model's.
    """

    source: str
    model: str
    explanations: tuple[Explanation, ...]
    overlays: tuple[Path, ...]
    error: str | None
    assumed: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return `{"source", "model", "explanations", "error", "assumed"}` as plain JSON values.

        Each explanation has the name of its `overlay`, null where none was written.
        """
        values = plain_fields(self)
        overlays = values.pop("overlays") or [None] * len(self.explanations)
        for explanation, overlay in zip(values["explanations"], overlays, strict=True):
            explanation["overlay"] = overlay
        return values


def explain_sources(
    explainer: Explainer,
    sources: Iterable[str],
    *,
    classes: Sequence[int] | None = None,
    top_k: int = 1,
    folder: Path | None = None,
    opacity: float = OPACITY,
    offline: bool = False,
) -> Iterator[ExplainedPhoto]:
    """Yield the explanations of all photos in the sources, in their order.

    Sources are those of `regnet classify`; `classes` and `top_k` those of `Explainer.explain`.
    Overlays go to `folder`, none where it is None. A photo that cannot be read has its error; with
    `offline` so have those at addresses.
    Raises `OutputError` where an overlay cannot be written.
    """
    taken: set[str] = set()
    for item in iter_items(sources, offline=offline):
        source, model = readable(item.source), explainer.metadata.name
        assumed = explainer.metadata.assumed
        try:
            with about(item.source):
                photo = rgb_pixels(item.read())
        except ImageError as exc:
            yield ExplainedPhoto(source, model, (), (), str(exc), assumed)
            continue
        found = explainer.explain(photo, classes=classes, top_k=top_k)
        overlays = []
        for explanation in found if folder else ():
            path = (folder or Path()) / _free_name(item, explanation, taken)
            with naming(path):
                write_whole(path, overlay_png(photo, explanation, opacity=opacity))
            overlays.append(path)
        yield ExplainedPhoto(source, model, tuple(found), tuple(overlays), None, assumed)


def _free_name(item: Item, explanation: Explanation, taken: set[str]) -> str:
    """Return a file name of photo and class that this run has not used yet."""
    stem = _plain(Path(item.source.rstrip("/")).stem) or "photo"
    label = _plain(first_name(explanation.label.label).lower()) or str(explanation.label.index)
    name, number = f"{stem}-{label}.png", 1
    while name in taken:
        number += 1
        name = f"{stem}-{label}-{number}.png"
    taken.add(name)
    return name


def _plain(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text).strip("-.")[:80]
