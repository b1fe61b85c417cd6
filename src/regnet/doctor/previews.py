"""Photos for the report of `regnet doctor`: whole, and with the centre crop drawn in.

All that a report shows are read in one pass, once its page is made.
"""

import base64
import io
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Final

from PIL import Image, ImageDraw, ImageOps

from regnet.data.sources import Item
from regnet.doctor.tree import Tree
from regnet.pages.report import Gallery, Photo
from regnet.pixels.preprocess import rgb_pixels
from regnet.pixels.protocol import Box, Preprocess
from regnet.system.errors import ImageError
from regnet.system.parallel import cores, in_order

SIDE: Final = 256  # pixels of the long side, and of the square that it stands in
_FRAME: Final = (255, 122, 60)
_EDGE: Final = (128, 132, 140)
_VEIL: Final = (18, 20, 24)
_VEILED: Final = 0.62


@dataclass(frozen=True)
class Shot:
    """A photo as data addresses: `whole`, and `framed` with the centre crop; None where gone."""

    source: str
    whole: str | None = None
    framed: str | None = None


@dataclass(frozen=True, eq=False)
class Album:
    """Makes the galleries of a report, and knows which photos they have."""

    tree: Tree
    preprocess: Preprocess
    names: set[str] = field(default_factory=set)

    def gallery(self, photos: Sequence[Photo], *, framed: bool = False, **options: Any) -> Gallery:
        """Return a gallery, `framed` with the centre crop; `options` are `Gallery`'s."""
        self.names.update(photo.name for photo in photos)
        return Gallery(photos, partial(self._pictures, framed), **options)

    def _pictures(self, framed: bool, names: Sequence[str]) -> dict[str, str | None]:
        found = {name: self._shots[name] for name in names if name in self._shots}
        return {name: shot.framed if framed else shot.whole for name, shot in found.items()}

    @cached_property
    def _shots(self) -> dict[str, Shot]:
        return shots(self.tree, self.names, self.preprocess)


def shots(tree: Tree, sources: Collection[str], preprocess: Preprocess) -> dict[str, Shot]:
    """Return the photos of these names, read again in one pass. Raises `DatasetError`."""
    if not sources:
        return {}
    wanted = (item for item in tree.items() if item.source in sources)
    work = partial(_shots, preprocess=preprocess)
    return {shot.source: shot for shot in in_order(wanted, work, workers=cores())}


def _shots(items: Sequence[Item], preprocess: Preprocess) -> Iterator[Shot]:
    for item in items:
        try:
            photo = Image.fromarray(rgb_pixels(item.read()))
        except ImageError:
            yield Shot(item.source)
            continue
        box = frame(photo.width, photo.height, preprocess)
        small = ImageOps.contain(photo, (SIDE, SIDE), Image.Resampling.BICUBIC)
        yield Shot(item.source, _address(small), _address(_framed(small, box)))


def frame(width: int, height: int, preprocess: Preprocess) -> tuple[float, float, float, float]:
    """Return left, top, right, bottom of the centre crop, as shares of a photo's sides."""
    resized = preprocess.resized(width, height)
    left, top, right, bottom = preprocess.crop_box(*resized)
    return left / resized[0], top / resized[1], right / resized[0], bottom / resized[1]


def _framed(photo: Image.Image, shares: tuple[float, float, float, float]) -> Image.Image:
    """Return a photo with what the crop cuts off in the dark, and a line around the rest."""
    left, top, right, bottom = shares
    box: Box = (
        round(left * photo.width),
        round(top * photo.height),
        round(right * photo.width),
        round(bottom * photo.height),
    )
    framed = Image.blend(photo, Image.new("RGB", photo.size, _VEIL), _VEILED)
    framed.paste(photo.crop(box), box[:2])
    edge = (box[0], box[1], box[2] - 1, box[3] - 1)
    ImageDraw.Draw(framed).rectangle(edge, outline=_FRAME, width=2)
    return framed


def _address(photo: Image.Image) -> str:
    """Return a photo amid a transparent square as a data address: galleries show squares."""
    square = Image.new("RGBA", (SIDE, SIDE))
    left, top = (SIDE - photo.width) // 2, (SIDE - photo.height) // 2
    square.paste(photo, (left, top))
    edge = (left, top, left + photo.width - 1, top + photo.height - 1)
    ImageDraw.Draw(square).rectangle(edge, outline=_EDGE)  # a white photo is to be seen, too
    buffer = io.BytesIO()
    square.save(buffer, "WEBP", quality=80, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
