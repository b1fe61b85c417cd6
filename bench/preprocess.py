"""Measure bytes to crop by stage: with the C kernel, without it, and by plain Pillow.

    python bench/preprocess.py [--photos FOLDER] [--rounds N]

All give the same pixels, which is checked first. One thread, contestants interleaved photo by
photo, figures are medians over the rounds in milliseconds of processor time a photo. `turned` is a
photo of 12 megapixels that its EXIF data turns upright. The last line is one JSON object.
"""

import argparse
import io
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from regnet.pixels import kernel
from regnet.pixels.decode import Pixels, decode_pixels
from regnet.pixels.pillow_resize import resize_crop
from regnet.pixels.preprocess import crop_pixels
from regnet.pixels.protocol import OMZ, PYCLS
from regnet.pixels.samples import sample_photos

SHARED = Path(__file__).parent.parent.parent / "shared" / "data" / "photos"
Contestants = dict[str, Callable[[], Pixels]]


def pillow_crop(data: bytes) -> Pixels:
    """Return the omz protocol's crop by Pillow alone, the way it is commonly written."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    return pillow_resize(image)


def pillow_resize(image: Image.Image) -> Pixels:
    """Return the crop of a Pillow image: the whole is resized, then cut, then put in order."""
    size = OMZ.resized(*image.size)
    crop = image.resize(size, Image.Resampling.BICUBIC).crop(OMZ.crop_box(*size))
    return np.ascontiguousarray(np.asarray(crop)[:, :, ::-1])


def resize(pixels: Pixels) -> Pixels:
    """Return the crop of decoded pixels."""
    size = OMZ.resized(pixels.shape[1], pixels.shape[0])
    box = OMZ.crop_box(*size)
    return resize_crop(pixels, size=size, box=box, interpolation="bicubic")


def without_kernel(run: Callable[[], Pixels]) -> Callable[[], Pixels]:
    """Return a call that leaves the kernel unused."""

    def call() -> Pixels:
        os.environ[kernel.SWITCH] = "off"
        try:
            return run()
        finally:
            del os.environ[kernel.SWITCH]

    return call


def stages(data: bytes) -> dict[str, Contestants]:
    """Return the contestants of each stage for one photo."""
    pixels = decode_pixels(data, "BGR")
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1]))
    return {
        "decode": {
            "regnet": lambda: decode_pixels(data, "BGR"),
            "pillow": lambda: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")),
        },
        "resize": {
            "kernel": lambda: resize(pixels),
            "python": without_kernel(lambda: resize(pixels)),
            "pillow": lambda: pillow_resize(image),
        },
        "omz": {
            "kernel": lambda: crop_pixels(data, OMZ),
            "python": without_kernel(lambda: crop_pixels(data, OMZ)),
            "pillow": lambda: pillow_crop(data),
        },
        "pycls": {"regnet": lambda: crop_pixels(data, PYCLS)},
    }


def turned_photo(photo: Path) -> bytes:
    """Return a JPEG of 4000 x 3000 that its EXIF data turns by a quarter."""
    tags = Image.Exif()
    tags[0x0112] = 6
    file = io.BytesIO()
    large = Image.open(photo).convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC)
    large.save(file, "JPEG", quality=90, exif=tags)
    return file.getvalue()


def race(contestants: Contestants) -> dict[str, float]:
    """Return the milliseconds that each takes, after one run to warm up and to compare."""
    first = [run() for run in contestants.values()]
    if any(not np.array_equal(first[0], other) for other in first if other.shape == (224, 224, 3)):
        raise SystemExit("the pixels differ")
    times = {}
    for name, run in contestants.items():
        start = time.thread_time()
        run()
        times[name] = (time.thread_time() - start) * 1000
    return times


def measure(photos: list[bytes], rounds: int) -> dict[str, dict[str, float]]:
    """Return the median over the rounds of the mean over photos, for each stage and contestant."""
    means: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        totals: dict[str, dict[str, list[float]]] = {}
        for data in photos:
            for stage, contestants in stages(data).items():
                for name, taken in race(contestants).items():
                    totals.setdefault(stage, {}).setdefault(name, []).append(taken)
        for stage, named in totals.items():
            for name, taken in named.items():
                means.setdefault(stage, {}).setdefault(name, []).append(statistics.fmean(taken))
    return {
        stage: {name: round(statistics.median(values), 3) for name, values in named.items()}
        for stage, named in means.items()
    }


def main() -> None:
    """Measure, print a line a stage with ratios to the fastest, and end in one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=SHARED, help="folder of JPEGs")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    paths = sorted(options.photos.glob("*.JPEG")) or [
        p for p in sample_photos() if p.suffix == ".jpg"
    ]
    photos = [path.read_bytes() for path in paths]
    figures = measure(photos, options.rounds)
    figures["turned"] = measure([turned_photo(paths[0])], options.rounds)["omz"]
    for stage, named in figures.items():
        least = min(named.values())
        shown = (f"{name} {taken:.3f} ms ({taken / least:.2f} x)" for name, taken in named.items())
        print(f"{stage:8}", ", ".join(shown))
    print(json.dumps({"photos": len(photos), "kernel": kernel.available(), "ms": figures}))


if __name__ == "__main__":
    main()
