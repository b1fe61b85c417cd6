"""Measure `regnet classify`: its start-up, and its throughput against what its parts allow.

    python bench/classify.py [--photos FOLDER] [--model NAME] [--rounds N]

Decoding alone (bytes to crop, all cores) and the engine alone (crop to probabilities, all cores)
take d and e seconds an image; together they allow 1 / (d + e) images a second. Competitors are
interleaved, figures are medians, the last line is one JSON object.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from regnet.conversion.store import Library
from regnet.inference.classify import Classifier
from regnet.inference.writers import open_writer
from regnet.ir.engine import Engine, read_model
from regnet.pixels.preprocess import crop_pixels
from regnet.pixels.samples import sample_photos
from regnet.system.parallel import BATCH_SIZE, cores

SHARED = Path(__file__).parent.parent.parent / "shared" / "data" / "photos"


def seconds(run: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def throughput(path: Path, photos: list[Path], rounds: int) -> dict[str, float]:
    """Return images a second of decoding, of the engine, allowed by both, and of classifying."""
    model = read_model(path)
    protocol = model.metadata.preprocess
    engine = Engine(model, streams=cores())
    classifier = Classifier(path)
    crops = [crop_pixels(photo, protocol) for photo in photos]
    batches = [np.stack(crops[i : i + BATCH_SIZE]) for i in range(0, len(crops), BATCH_SIZE)]

    def decode() -> None:
        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(lambda photo: crop_pixels(photo.read_bytes(), protocol), photos))

    def infer() -> None:
        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(engine.infer, batches))

    def classify() -> None:
        with open_writer(io.StringIO(), "jsonl") as write:
            for prediction in classifier.stream(photos):
                write(prediction)

    contestants = {"decode": decode, "engine": infer, "classify": classify}
    for run in contestants.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    allowed: list[float] = []
    ratios: list[float] = []
    for _ in range(rounds):
        for name, run in contestants.items():
            times[name].append(seconds(run) / len(photos))
        together = times["decode"][-1] + times["engine"][-1]
        allowed.append(1 / together)
        ratios.append(together / times["classify"][-1])
    figures = {name: 1 / statistics.median(values) for name, values in times.items()}
    figures |= {"allowed": statistics.median(allowed), "ratio": statistics.median(ratios)}
    return {name: round(value, 3) for name, value in figures.items()}


def start_up(photo: Path, rounds: int) -> dict[str, float]:
    """Return seconds and peak MB of a whole process for one photo, with a warm cache."""
    command = [sys.executable, "-m", "regnet", "classify", "--model", "bundled", str(photo)]
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "REGNET_CACHE": cache}
        walls, peaks = [], []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            walls.append(time.perf_counter() - start)
            peaks.append(usage.ru_maxrss / 1024)
            if status:
                raise SystemExit("regnet classify failed")
    return {
        "seconds": round(statistics.median(walls[1:]), 3),
        "peak_mb": round(max(peaks[1:]), 1),
    }


def main() -> None:
    """Measure, print a line a figure, and end in one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=SHARED, help="folder of JPEGs")
    parser.add_argument("--model", default="bundled", help="model for the throughput")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    photos = sorted(options.photos.glob("*.JPEG")) or sample_photos() * 50
    one_jpeg = next(photo for photo in sample_photos() if photo.suffix == ".jpg")
    figures = {
        "model": options.model,
        "photos": len(photos),
        "cores": cores(),
        "start_up": start_up(one_jpeg, options.rounds),
        "images_per_second": throughput(Library().ir(options.model), photos, options.rounds),
    }
    for name, value in figures.items():
        print(f"{name:18} {value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
