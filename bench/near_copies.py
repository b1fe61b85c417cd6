"""How many near copies of photos `regnet doctor` finds, and how many photos it takes for copies.

    python bench/near_copies.py FOLDER... [--copies 400] [--seed 7]

All photos of the folders are looked at together with copies of some of them, a kind at a time.
"""

import argparse
import io
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regnet.data.sources import Item, iter_items
from regnet.doctor.near_copies import near_pairs
from regnet.doctor.photos import glances

Copy = Callable[[Image.Image, random.Random], bytes]


def encoded(image: Image.Image, kind: str = "JPEG", **options: int) -> bytes:
    """Return a picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def scaled(image: Image.Image, factor: float) -> Image.Image:
    """Return a picture of another size."""
    width, height = (max(8, round(factor * side)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def cropped(image: Image.Image, share: float, chance: random.Random) -> Image.Image:
    """Return a picture without up to so much of each side."""
    width, height = image.size
    left, top, right, bottom = (chance.uniform(0, share) for _ in range(4))
    box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
    return image.crop(tuple(map(round, box)))


def brighter(value: int) -> int:
    """Return a level a quarter brighter, and 10 more."""
    return min(255, int(1.25 * value + 10))


COPIES: dict[str, Copy] = {
    "JPEG again, quality 30": lambda i, _: encoded(i, quality=30),
    "JPEG again, quality 70": lambda i, _: encoded(i, quality=70),
    "as PNG": lambda i, _: encoded(i, "PNG"),
    "half the size": lambda i, _: encoded(scaled(i, 0.5), quality=85),
    "a quarter of the size": lambda i, _: encoded(scaled(i, 0.25), quality=85),
    "1.6 times the size": lambda i, _: encoded(scaled(i, 1.6), quality=85),
    "squeezed to a square": lambda i, _: encoded(i.resize((224, 224)), quality=80),
    "a quarter brighter": lambda i, _: encoded(i.point(brighter), quality=85),
    "in grey": lambda i, _: encoded(i.convert("L"), quality=85),
    "up to 4 % cropped off each side": lambda i, c: encoded(cropped(i, 0.04, c), quality=85),
    "that, half the size, quality 50": lambda i, c: encoded(
        scaled(cropped(i, 0.04, c), 0.5), quality=50
    ),
    "up to 8 % cropped off each side": lambda i, c: encoded(cropped(i, 0.08, c), quality=85),
    "up to 12 % cropped off each side": lambda i, c: encoded(cropped(i, 0.12, c), quality=85),
}


def greys(items: list[Item]) -> NDArray[np.uint8]:
    """Return the small grey pictures of photos; those that cannot be read are left out."""
    return np.stack([glance.grey for glance in glances(items) if not glance.error])


def main() -> None:
    """Print a line a kind of copy, and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--copies", type=int, default=400)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    items = list(iter_items(options.folders))
    start = time.perf_counter()
    originals = greys(items)
    alarms = len(near_pairs(originals))
    seconds = time.perf_counter() - start
    print(f"{len(originals):,} photos: {alarms} pairs among themselves, {seconds:.1f} s")
    chance = random.Random(options.seed)
    chosen = chance.sample(range(len(items)), options.copies)
    found, wrong = {}, 0
    for kind, copy in COPIES.items():
        copies = []
        for index in chosen:
            data = copy(Image.open(io.BytesIO(items[index].read())).convert("RGB"), chance)
            copies.append(Item(kind, lambda data=data: data))
        pairs = {
            tuple(pair) for pair in near_pairs(np.concatenate([originals, greys(copies)])).tolist()
        }
        right = {(index, len(originals) + place) for place, index in enumerate(chosen)}
        found[kind] = len(pairs & right) / len(chosen)
        wrong += len(pairs - right) - alarms
        print(f"{kind:34} {100 * found[kind]:5.1f} % found")
    print(json.dumps({"photos": len(originals), "alarms": alarms, "wrong": wrong, "found": found}))


if __name__ == "__main__":
    main()
