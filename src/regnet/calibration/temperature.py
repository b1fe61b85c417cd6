"""A temperature and what else was learnt of probabilities, written into a copy of an IR.

The temperature is a division right before the softmax, one per class: weights and scales stay as
they are, bit by bit, whatever they are stored in, and OpenVINO makes it part of the last layer.
"""

import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from regnet.data.labelled import Dataset
from regnet.inference.predictors import Predictor
from regnet.ir.engine import Engine, read_model
from regnet.ir.graph import read_graph, write_ir
from regnet.ir.metadata import ModelMetadata
from regnet.pixels.samples import sample_photos
from regnet.statistics.conformal import softmax
from regnet.system.errors import ConversionError, ImageError, OutputError, reason_of
from regnet.system.files import new_folder_beside, replace_all
from regnet.system.parallel import BATCH_SIZE, cores
from regnet.system.runtime import ov

MAX_DELTA: Final = 1e-5
CHECKED_PHOTOS: Final = 64

_NODE: Final = "temperature"
_PRECISIONS: Final = ("-int8", "-fp16")


@dataclass(frozen=True)
class Written:
    """A calibrated IR on disk: its .xml, the names of all its files.

    On `photos` photos its probabilities were at most `max_delta` from softmax(logits / step) of the
    model it was made from.
    """

    path: Path
    files: tuple[str, ...]
    max_delta: float
    photos: int


def calibrated_name(path: Path) -> str:
    """Return the name of an IR's calibrated copy: `m-int8.xml` gives `m-calibrated-int8.xml`.

    So the INT8 model that belongs to a calibrated one is found by the same rule as to any.
    """
    precision = next((end for end in _PRECISIONS if path.stem.endswith(end)), "")
    stem = path.stem.removesuffix(precision).removesuffix("-calibrated")
    return f"{stem}-calibrated{precision}.xml"


def write_calibrated(
    path: Path,
    predictor: Predictor,
    metadata: ModelMetadata,
    *,
    step: float,
    dataset: Dataset,
    to: Path,
) -> Written:
    """Write a copy of the IR at `path` with what `metadata.calibration` says into a folder.

    `predictor` is the model at `path`, whose logits are to be divided by `step`. The copy is read
    back and run on photos first: nothing appears unless it does what it should; raises
    `ConversionError` where it does not, `OutputError`.
    """
    target = to / calibrated_name(path)
    if metadata.calibration is None:
        raise ValueError("metadata without a calibration")
    graph = read_graph(path)
    _set_temperature(graph, metadata.calibration.temperature)
    try:
        with new_folder_beside(target) as scratch:
            names = write_ir(graph, metadata, scratch / target.name)
            delta, photos = _checked(scratch / target.name, predictor, metadata, step, dataset)
            replace_all(scratch, to, names)
    except OSError as exc:
        raise OutputError(f"cannot write to {to}: {reason_of(exc)}") from exc
    return Written(target, tuple(names), delta, photos)


def graph_temperature(graph: ov.Model) -> float:
    """Return what an earlier calibration divides a graph's logits by; 1 where there was none."""
    divided = _softmax(graph).input_value(0).get_node()
    if divided.get_friendly_name() != _NODE:
        return 1.0
    return float(divided.input_value(1).get_node().data)


def _softmax(graph: ov.Model) -> ov.Node:
    last = graph.output(0).get_node().input_value(0).get_node()
    if last.get_type_name() != "Softmax":
        raise ConversionError("the graph does not end in a softmax; convert the model again")
    return last


def _set_temperature(graph: ov.Model, temperature: float) -> None:
    """Divide what goes into the softmax, instead of what an earlier calibration divided it by."""
    from openvino import opset13 as opset

    last = _softmax(graph)
    logits = last.input_value(0)
    if logits.get_node().get_friendly_name() == _NODE:
        logits = logits.get_node().input_value(0)
    divided = opset.divide(logits, np.float32(temperature), name=_NODE)
    last.input(0).replace_source_output(divided.output(0))


def _checked(
    path: Path, original: Predictor, metadata: ModelMetadata, step: float, dataset: Dataset
) -> tuple[float, int]:
    """Return how far probabilities are from what they should be at most, and on how many photos.

    Raises `ConversionError` where that is over `MAX_DELTA`, or the metadata is not the same.
    """
    model = read_model(path, logits=True)
    if model.metadata != metadata:
        raise ConversionError(f"{path.name}: its metadata is not what was written; nothing stays")
    copy = Engine(
        model, precision="int8" if metadata.precision == "int8" else "f32", streams=cores()
    )
    deltas: list[float] = []
    pixels = _pixels(original, dataset)
    while batch := list(itertools.islice(pixels, BATCH_SIZE)):
        expected = softmax(original.outputs(batch).logits, step)
        deltas += np.abs(copy.outputs(batch).probabilities - expected).max(axis=1).tolist()
    if not max(deltas) <= MAX_DELTA:
        raise ConversionError(
            f"the calibrated model's probabilities are {max(deltas):.3g} from softmax(logits / T), "
            f"where {MAX_DELTA:g} is allowed; nothing was written"
        )
    return max(deltas), len(deltas)


def _pixels(predictor: Predictor, dataset: Dataset) -> Iterator[Any]:
    """Yield what the model takes of the sample photos and of the first readable of the data set."""
    yield from map(predictor.pixels, sample_photos())
    readable = 0
    for item in dataset.items():
        if readable == CHECKED_PHOTOS:
            return
        with suppress(ImageError):
            yield predictor.pixels(item.read())
            readable += 1
