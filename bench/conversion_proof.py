"""Whether correct conversions pass and wrong graphs are refused, on networks with random weights.

python bench/conversion_proof.py [--specs NAME...] [--seeds N] [--photos N]

For each spec: N randomly initialised networks with batch-norm statistics of photos, and one whose
softmax is saturated (the weights' rule of timm_golden.json). Each is converted, then converted with
a fault planted into the graph. `x allowed` is the largest distance from float64 over what is
allowed, of probabilities or logits: at most 1 passes. Faults that pass this test are still refused
by the comparison of the layers; these are counted. The last line is JSON.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import planted_faults as faults
import torch

import regnet.conversion.export
from regnet.conversion.export import export_network
from regnet.conversion.proof import Reference, Rows
from regnet.conversion.values import Proof
from regnet.ir.metadata import ModelMetadata
from regnet.network.labels import Label
from regnet.network.modules import RegNet
from regnet.network.spec import spec_by_name
from regnet.pixels.preprocess import crop_pixels
from regnet.pixels.protocol import OMZ
from regnet.pixels.samples import sample_photos
from regnet.system.errors import ConversionError

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "photos"
SIZES = ("200mf", "400mf", "600mf", "800mf", "1.6gf", "3.2gf", "4.0gf", "6.4gf", "8.0gf")
SPECS = (
    *(f"regnet{kind}-{size}" for size in SIZES for kind in "xy"),
    *("regnet_x_400mf", "regnet_y_800mf", "regnet_y_8gf"),
)
FAULTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "swapped channels": lambda: faults.swapped_channels("s3.b1.f.a"),
    "dropped bias": lambda: faults.dropped_bias("s2.b1.f.c"),
    "wrong stride": lambda: faults.moved_stride("s3.b1"),
    "eps 1e-3": faults.large_epsilon,
}


class Known:
    """A reference that is computed once and remembers what it measured."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self.last = 0.0

    def proof(self, rows: Rows) -> Proof:
        """Return the proof; remember the distance as a share of what is allowed."""
        proof = self.reference.measured(rows)
        self.last = max(
            proof.delta.probabilities / proof.allowed.probabilities,
            proof.delta.logits / proof.allowed.logits,
        )
        return self.reference.proof(rows)


@dataclass
class Tally:
    """Results of all networks of a kind."""

    networks: int = 0
    converted: int = 0
    largest: float = 0.0
    refused: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAULTS, 0))
    by_layers_alone: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAULTS, 0))
    smallest: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FAULTS, float("inf")))


def main() -> None:
    """Convert, plant, print a line per network and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--specs", nargs="+", default=SPECS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--photos", type=int, default=3, help="sample photos to compare on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tallies = {"untrained": Tally(), "saturated": Tally()}
    for seed, name in itertools.product(range(options.seeds), options.specs):
        for kind in tallies if seed == 0 else ("untrained",):
            start = time.perf_counter()
            text = _try(_network(kind, name, seed), name, tallies[kind], options.photos)
            seconds = time.perf_counter() - start
            print(f"{name:15} {kind} {seed}: {text} ({seconds:.0f} s)", flush=True)
    print(json.dumps({kind: vars(tally) for kind, tally in tallies.items()}))


def _network(kind: str, name: str, seed: int) -> RegNet:
    spec = spec_by_name(name)
    if kind == "saturated":
        return faults.saturated(spec, seed=seed)
    photos = sorted(PHOTOS.glob("*.JPEG"))[seed::25]
    return faults.untrained(spec, OMZ, photos, seed=seed)


def _try(network: RegNet, name: str, tally: Tally, photos: int) -> str:
    """Convert without a fault and with each; return a line of results."""
    crops = [crop_pixels(path, OMZ) for path in sample_photos()[:photos]]
    known: list[Known] = []

    def reference(*args: Any) -> Known:
        known[:] = known or [Known(Reference(*args))]
        return known[0]

    with patch.object(regnet.conversion.export, "Reference", reference):
        message = _convert(network, name, crops, nullcontext())
        tally.networks += 1
        tally.converted += message is None
        tally.largest = max(tally.largest, known[0].last)
        texts = [f"{'converts' if message is None else message}, {known[0].last:.2f} x allowed"]
        for fault, planted in FAULTS.items():
            message = _convert(network, name, crops, planted())
            share = known[0].last
            tally.refused[fault] += message is not None
            tally.by_layers_alone[fault] += message is not None and share <= 1
            tally.smallest[fault] = min(tally.smallest[fault], share)
            texts.append(f"{fault} {'PASSES' if message is None else 'refused'} {share:.3g} x")
    return "; ".join(texts)


def _convert(
    network: RegNet, name: str, crops: list[Any], planted: AbstractContextManager[None]
) -> str | None:
    """Return why a network is not converted, None if it is."""
    labels = tuple(Label("", f"class {i}") for i in range(network.spec.classes))
    metadata = ModelMetadata(
        name=name,
        card="",
        spec=network.spec,
        preprocess=OMZ,
        labels=labels,
        weights_sha384="",
        precision="fp32",
        licence="none",
        version="bench",
    )
    weights = {name: values.numpy() for name, values in network.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder, planted:
        try:
            export_network(weights, metadata, Path(folder) / "m.xml", crops)
        except ConversionError as exc:
            return str(exc)
    return None


if __name__ == "__main__":
    main()
