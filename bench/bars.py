"""The bars that speed must clear, measured on this machine.

    python bench/bars.py [--photos FOLDER] [--seconds S] [--rounds N]

Start-up of `regnet classify`, then engines and files to labels in f32, bf16 and INT8 for two
models: the bundled one, and a network of regnetx-3.2gf's size with random weights, converted and
quantized in a temporary folder. All that is compared takes turns; figures are medians. The last
line is one JSON object; the exit status is 1 where a bar is missed.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classify import SHARED, start_up
from PIL import Image

from regnet.benchmarking.benchmark import Benchmark, Plan, benchmark
from regnet.benchmarking.competitors import ONNX, TORCH
from regnet.benchmarking.end_to_end import find_jpegs
from regnet.benchmarking.plain_loops import PLAIN_OPENVINO, PLAIN_TORCH
from regnet.benchmarking.table import as_text, grid
from regnet.engine import read_model
from regnet.errors import UnknownModelError
from regnet.library import Library, int8_beside
from regnet.protocol import OMZ
from regnet.quantization.quantize import quantize
from regnet.samples import sample_photos

LARGE = "regnetx-3.2gf"


@dataclass(frozen=True)
class Bar:
    """One bar: what was measured and what is wanted, at least or (`at_most`) at most."""

    model: str
    what: str
    measured: float
    wanted: float
    at_most: bool = False

    @property
    def cleared(self) -> bool:
        """Whether the bar is cleared."""
        return self.measured <= self.wanted if self.at_most else self.measured >= self.wanted

    def row(self) -> tuple[str, ...]:
        """Return the bar as cells of text."""
        sign = "<=" if self.at_most else ">="
        verdict = "yes" if self.cleared else "NO"
        return (
            f"{self.model}: {self.what}",
            f"{self.measured:.3g}",
            f"{sign} {self.wanted:g}",
            verdict,
        )


def bars(found: Benchmark) -> Iterator[Bar]:
    """Yield the bars of one model."""
    speeds = {(row.engine, row.precision): row for row in found.engines}
    whole = found.end_to_end
    assert whole is not None
    by_precision = {row.precision: row for row in whole.wholes}
    int8 = by_precision["int8"]
    yield Bar(found.name, "INT8, share of what decode and engine allow", int8.share, 0.90)
    if PLAIN_TORCH in int8.times:
        yield Bar(found.name, f"INT8 over {PLAIN_TORCH}", int8.times[PLAIN_TORCH], 3.0)
    yield Bar(found.name, f"INT8 over {PLAIN_OPENVINO}", int8.times[PLAIN_OPENVINO], 1.6)
    if times := speeds["OpenVINO", "int8"].times.get("OpenVINO bf16"):
        yield Bar(found.name, "INT8 engine over bf16 engine", times, 1.6)
    yield Bar(found.name, "photos with Pillow's pixels", whole.identical or 0, whole.photos)
    flips = [by_precision["f32"].flips, *(loop.flips for loop in whole.loops if _is_f32(loop))]
    yield Bar(found.name, "f32 top-1 flips", sum(flip or 0 for flip in flips), 0, at_most=True)


def _is_f32(loop: Any) -> bool:
    return loop.precision == "f32" and loop.flips is not None


@contextmanager
def jpegs(folder: Path) -> Iterator[Path]:
    """Give a folder of JPEGs: the one named or, where it is not here, one made of the samples."""
    if folder.is_dir():
        yield folder
        return
    with tempfile.TemporaryDirectory() as made:
        images = [Image.open(photo).convert("RGB") for photo in sample_photos()]
        for number in range(160):
            size = (500 - number, 375) if number % 3 else (375, 500 - number)
            file = Path(made) / f"{number:03}.JPEG"
            images[number % len(images)].resize(size).save(file, quality=95)
        yield Path(made)


def bundled(library: Library, photos: Path) -> str:
    """Return the bundled model; one quantized here where it has no INT8 in the package."""
    path = library.ir("bundled")
    try:
        int8_beside(path)
    except UnknownModelError:
        copy = library.folder / "bundled.xml"
        for suffix in (".bin", ".xml"):
            shutil.copyfile(path.with_suffix(suffix), copy.with_suffix(suffix))
        _quantize(copy, photos)
        return str(copy)
    return "bundled"


def large(library: Library, photos: Path) -> str:
    """Return a checkpoint of a large network with random weights; its INT8 model is made too."""
    import torch

    from regnet.checkpoints.weights import write_safetensors
    from regnet.network import RegNet
    from regnet.spec import spec_by_name

    torch.manual_seed(0)
    spec = spec_by_name(LARGE)
    path = library.folder / "random-3.2gf.safetensors"
    write_safetensors(path, RegNet(spec).state_dict(), spec=spec, preprocess=OMZ)
    _quantize(library.ir(path), photos)
    return str(path)


def _quantize(path: Path, photos: Path) -> None:
    """Write the INT8 model beside an IR; speed does not depend on how well it agrees."""
    quantize(
        path, photos, samples=24, checks=100, min_agreement=0.0, folder=path.parent, seconds=0.1
    )
    assert read_model(int8_beside(path)).metadata.precision == "int8"


def main() -> None:
    """Measure, print the tables, and end in one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=SHARED, help="folder of JPEGs")
    parser.add_argument("--seconds", type=float, default=30.0, help="for each part of a model")
    parser.add_argument("--rounds", type=int, help="turns of each, instead of --seconds")
    options = parser.parse_args()
    one_jpeg = next(photo for photo in sample_photos() if photo.suffix == ".jpg")
    figures: dict[str, Any] = {"start_up": start_up(one_jpeg, 5)}
    print(f"start-up of regnet classify, whole process: {figures['start_up']}\n", flush=True)
    found = []
    with tempfile.TemporaryDirectory() as folder, jpegs(options.photos) as photos:
        library = Library(folder=Path(folder), offline=True)
        for make, most in ((bundled, 200), (large, 100)):
            plan = Plan(
                model=make(library, photos),
                rounds=options.rounds,
                seconds=options.seconds,
                against=(TORCH, ONNX),
                photos=tuple(find_jpegs(photos, most=most)),
            )
            found.append(benchmark(plan, library=library))
            print(as_text(found[-1]) + "\n", flush=True)
    rows = [bar for one in found for bar in bars(one)]
    print(grid([("bar", "measured", "wanted", "cleared"), *(bar.row() for bar in rows)]) + "\n")
    figures["models"] = {one.name: one.to_dict() for one in found}
    figures["bars"] = [vars(bar) | {"cleared": bar.cleared} for bar in rows]
    print(json.dumps(figures))
    sys.exit(any(not bar.cleared for bar in rows))


if __name__ == "__main__":
    main()
