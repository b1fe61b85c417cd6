"""A model in f32, bf16 and INT8: accuracy and agreement on labelled photos, and engine speed.

    python bench/int8.py MODEL.xml MODEL-int8.xml photos.zip [--seconds S]

Batches of 8 on every core; the precisions take turns, ratios are medians of the rounds. The last
line is one JSON object.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regnet.data.dataset import open_dataset
from regnet.data.labelled import LabelledItem
from regnet.ir.engine import Engine, read_model
from regnet.statistics.agreement import agreement
from regnet.system.machine import this_machine
from regnet.system.parallel import BATCH_SIZE, cores, in_order
from regnet.system.timing import Contestant, measure, ratio, side_by_side

Rows = dict[str, NDArray[np.float32]]


def predictions(
    engines: dict[str, Engine], items: list[LabelledItem]
) -> tuple[Rows, NDArray[np.uint8]]:
    """Return each engine's probabilities (N, classes) of the photos, and a batch of crops."""
    first = next(iter(engines.values()))

    def work(batch: list[LabelledItem]) -> list[tuple[NDArray[np.uint8], Rows]]:
        crops = np.stack([first.pixels(item.read()) for item in batch])
        return [(crops, {name: engine.infer(crops) for name, engine in engines.items()})]

    done = list(in_order(items, work, workers=cores()))
    rows = {name: np.concatenate([found[name] for _, found in done]) for name in engines}
    return rows, np.concatenate([crops for crops, _ in done[:BATCH_SIZE]])[:BATCH_SIZE]


def speeds(
    engines: dict[str, Engine], batch: NDArray[np.uint8], seconds: float
) -> dict[str, dict[str, float]]:
    """Return images a second of each engine, and how many times faster it is than the others."""
    calls = {
        name: side_by_side(partial(engine.infer, batch), workers=cores())
        for name, engine in engines.items()
    }
    contestants = [Contestant(name, c.run, c.work * len(batch)) for name, c in calls.items()]
    found = measure(contestants, seconds=seconds)
    return {
        name: {"images_per_s": round(timing.rate, 1)}
        | {f"vs_{other}": round(ratio(timing, found[other]), 3) for other in found if other != name}
        for name, timing in found.items()
    }


def figures(model: Path, int8: Path, photos: str, seconds: float) -> dict[str, Any]:
    """Return all that is measured of each precision, by its name."""
    original = read_model(model)
    engines = {"f32": Engine(original, streams=cores())}
    if this_machine().has_bf16:
        engines["bf16"] = Engine(original, precision="bf16", streams=cores())
    engines["int8"] = Engine(read_model(int8), precision="int8", streams=cores())
    items = list(open_dataset(photos, original.metadata.labels, subset=True).items())
    rows, batch = predictions(engines, items)
    truths = np.array([item.truth for item in items])
    measured = speeds(engines, batch, seconds)
    for name, found in rows.items():
        agreed = agreement(rows["f32"], found)
        measured[name] |= {
            "top1": round(float((found.argmax(axis=1) == truths).mean()), 5),
            "agreement": agreed.top1.value,
            "agreement_at_least": round(agreed.top1_at_least, 5),
            "kl": float(f"{agreed.mean_kl:.3g}"),
        }
    return {"model": str(model), "int8_model": str(int8), "photos": len(items), **measured}


def main() -> None:
    """Measure, print a line a precision, and end in one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="IR of the model in floating point")
    parser.add_argument("int8", type=Path, help="IR from regnet quantize")
    parser.add_argument("photos", help="labelled photos, as for regnet evaluate")
    parser.add_argument("--seconds", type=float, default=30.0, help="for the speeds")
    options = parser.parse_args()
    found = figures(options.model, options.int8, options.photos, options.seconds)
    for name in ("f32", "bf16", "int8"):
        if name in found:
            print(f"{name:6}", *(f"{key} {value}" for key, value in found[name].items()))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
