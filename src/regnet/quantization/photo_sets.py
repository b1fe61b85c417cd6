"""Photos drawn from folders and archives: some to set ranges with, others to check with."""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from regnet.data.labelled import Unreadable
from regnet.data.sources import Item, iter_items
from regnet.pixels.preprocess import ImageLike
from regnet.system.errors import ImageError, QuantizationError
from regnet.system.notices import about
from regnet.system.parallel import Watch, cores, in_order, unwatched

LEAST: Final = 100  # photos to check with, at least: with fewer, agreement is a matter of luck

Pixels = Callable[[ImageLike], NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Crops:
    """What the model takes of each photo (H, W, 3), and the photos' names."""

    sources: tuple[str, ...]
    crops: tuple[NDArray[Any], ...]

    def __len__(self) -> int:
        return len(self.sources)

    def part(self, part: slice) -> "Crops":
        """Return some of them."""
        return Crops(self.sources[part], self.crops[part])


@dataclass(frozen=True, eq=False)
class CalibrationPhotos:
    """Photos to calibrate with and others to check with; no content is in both, or in one twice.

    `unreadable` ones were skipped, as were `duplicates` (exact copies of a photo drawn before).
    """

    calibration: Crops
    agreement: Crops
    unreadable: tuple[Unreadable, ...]
    duplicates: int


def draw_photos(
    calibration: str | Path,
    agreement: str | Path | None,
    pixels: Pixels,
    *,
    samples: int,
    checks: int,
    watch: Watch = unwatched,
    offline: bool = False,
) -> CalibrationPhotos:
    """Return `samples` photos of `calibration`, and up to `checks` of `agreement`.

    Where `agreement` is None the others of `calibration` are drawn from. The same files give the
    same photos, spread over the whole source. With `offline` photos at addresses are unreadable.
    Raises `QuantizationError` where there are too few.
    """
    draw = _Draw(pixels, watch, offline)
    items = draw.shuffled(calibration)
    chosen = draw.take(items, samples, "reading calibration photos")
    if len(chosen) < samples:
        raise QuantizationError(
            f"{calibration}: {draw.found(len(chosen))}, need {samples} for calibration. Add photos "
            "or lower --samples"
        )
    if agreement is not None:
        items = draw.shuffled(agreement)
    others = draw.take(items, checks, "reading photos to check with")
    if len(others) < LEAST:
        raise QuantizationError(
            f"{calibration}: {len(others)} readable photos left after taking {samples} for "
            f"calibration, need {LEAST} to measure agreement. Add photos, pass --agreement FOLDER, "
            "or lower --samples"
            if agreement is None
            else f"{agreement}: {len(others)} readable photos that are not among the calibration "
            f"photos, need {LEAST} to measure agreement. Add photos"
        )
    return CalibrationPhotos(chosen, others, tuple(draw.unreadable), draw.duplicates)


@dataclass
class _Draw:
    """Photos drawn one after the other; remembers the contents it has seen."""

    pixels: Pixels
    watch: Watch
    offline: bool = False
    unreadable: list[Unreadable] = field(default_factory=list)
    duplicates: int = 0
    _seen: set[bytes] = field(default_factory=set)

    def shuffled(self, source: str | Path) -> Iterator[Item]:
        for _ in self.watch(range(1), "listing photos", 1):
            items = list(iter_items([source], offline=self.offline))
        random.Random(0).shuffle(items)  # folders are a class each: a photo of every kind
        return iter(items)

    def take(self, items: Iterator[Item], count: int, what: str) -> Crops:
        """Return the next `count` photos that can be read and were not seen, or all there are."""
        found: list[tuple[str, NDArray[Any]]] = []
        numbers = iter(self.watch(range(count), what, count))
        while len(found) < count and (batch := list(islice(items, count - len(found)))):
            read = in_order(batch, lambda part: [self._read(i) for i in part], workers=cores())
            for item, (digest, pixels) in zip(batch, read, strict=True):
                if digest in self._seen:
                    self.duplicates += 1
                elif isinstance(pixels, str):
                    self.unreadable.append(Unreadable(item.source, pixels))
                else:
                    found.append((item.source, pixels))
                    next(numbers, None)
                if digest:
                    self._seen.add(digest)
        next(numbers, None)
        sources, crops = zip(*found, strict=True) if found else ((), ())
        return Crops(tuple(sources), tuple(crops))

    def _read(self, item: Item) -> tuple[bytes, NDArray[Any] | str]:
        """Return a hash of the photo's bytes, and its pixels or why there are none."""
        digest = b""
        try:
            with about(item.source):
                data = item.read()
                digest = hashlib.sha256(data).digest()
                return digest, self.pixels(data)
        except ImageError as exc:
            return digest, str(exc)

    def found(self, count: int) -> str:
        """Say how many photos there are and why there are not more."""
        parts = [f"{count} readable photos"]
        if self.duplicates:
            parts.append(f"{self.duplicates} exact copies of them")
        if self.unreadable:
            first = self.unreadable[0]
            parts.append(f"{len(self.unreadable)} unreadable (as {first.source}: {first.error})")
        return ", ".join(parts)
