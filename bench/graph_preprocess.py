"""Measure resize and crop inside the graph: exactness over photos, and time beside Pillow's.

    python bench/graph_preprocess.py [--photos FOLDER] [--rounds N] [--resize N --crop N]

Contestants take decoded photos and are interleaved: the graph of `convert --preprocessing graph`
without a network, on all cores; `crop_pixels` on one; Pillow's own resize of the whole photo, on
one. `onnx` is the exactness of the same graph in ONNX Runtime. `new_size` is the graph's time for a
photo of a size that it has not met before. Figures are medians over photos and rounds but for
`least`; the last line is one JSON object.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regnet.conversion.graph_preprocess import preprocessing_model
from regnet.conversion.ir_to_onnx import ir_to_onnx
from regnet.pixels.preprocess import crop_pixels, rgb_pixels
from regnet.pixels.protocol import Preprocess
from regnet.pixels.samples import sample_photos
from regnet.system.runtime import core

SHARED = Path(__file__).parent.parent.parent / "shared" / "data" / "photos"
Pixels = NDArray[Any]


def graph(preprocess: Preprocess) -> Callable[[Pixels], Pixels]:
    """Return the preprocessing graph as a function of whole images."""
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(preprocessing_model(preprocess), "CPU", options)
    request = compiled.create_infer_request()

    def run(image: Pixels) -> Pixels:
        request.infer({0: image[None]}, share_inputs=True)
        pixels: Pixels = request.get_output_tensor(0).data[0]
        return pixels

    return run


def onnx_graph(preprocess: Preprocess) -> Callable[[Pixels], Pixels]:
    """Return the preprocessing graph of an ONNX file as a function of whole images."""
    import onnxruntime

    model = ir_to_onnx(preprocessing_model(preprocess), "fp32").SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image[None]})[0][0]


def pillow(image: Pixels, preprocess: Preprocess) -> Pixels:
    """Return the crop as Pillow alone gives it."""
    size = preprocess.resized(image.shape[1], image.shape[0])
    resized = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    crop = np.asarray(resized.crop(preprocess.crop_box(*size)))
    return crop[:, :, ::-1] if preprocess.channels == "BGR" else crop


def exactness(
    run: Callable[[Pixels], Pixels], images: list[Pixels], preprocess: Preprocess
) -> dict[str, float]:
    """Return how many values differ between a graph and Pillow, and by how much at most."""
    apart = [
        np.abs(run(image) - pillow(image, preprocess).transpose(2, 0, 1).astype(np.float32))
        for image in images
    ]
    differ = sum(int((each != 0).sum()) for each in apart)
    values = sum(each.size for each in apart)
    return {
        "values": values,
        "differ": differ,
        "identical": 1 - differ / values,
        "levels": max(float(each.max()) for each in apart),
    }


def milliseconds(
    images: list[Pixels], preprocess: Preprocess, rounds: int
) -> dict[str, dict[str, float]]:
    """Return the time of each contestant for one image."""
    run = graph(preprocess)
    contestants: dict[str, Callable[[Pixels], Pixels]] = {
        "graph": run,
        "crop_pixels": lambda image: crop_pixels(image, preprocess),
        "pillow": lambda image: pillow(image, preprocess),
    }
    times: dict[str, list[float]] = {name: [] for name in (*contestants, "new_size")}
    met = set()
    for _ in range(rounds):
        for image in images:
            for name, contestant in contestants.items():
                start = time.perf_counter()
                contestant(image)
                elapsed = (time.perf_counter() - start) * 1e3
                new = name == "graph" and image.shape not in met
                times["new_size" if new else name].append(elapsed)
            met.add(image.shape)
    return {
        name: {"median": round(statistics.median(each), 3), "least": round(min(each), 3)}
        for name, each in times.items()
    }


def main() -> None:
    """Measure, print a line a figure, and end in one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=SHARED, help="folder of JPEGs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--resize", type=int, default=256)
    parser.add_argument("--crop", type=int, default=224)
    options = parser.parse_args()
    preprocess = Preprocess(name="bench", resize=options.resize, crop=options.crop)
    images = [rgb_pixels(p) for p in sorted(options.photos.glob("*.JPEG")) or sample_photos()]
    figures = {
        "photos": len(images),
        "cores": len(os.sched_getaffinity(0)),
        "exactness": exactness(graph(preprocess), images, preprocess),
        "onnx": exactness(onnx_graph(preprocess), images, preprocess),
        "milliseconds": milliseconds(images, preprocess, options.rounds),
    }
    for name, value in figures.items():
        print(f"{name:13} {value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
