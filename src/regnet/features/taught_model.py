"""A head in closed form, written into a copy of the model whose features it takes."""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.inference.classify import Classifier
from regnet.ir.constants import set_values
from regnet.ir.engine import Engine, read_model
from regnet.ir.features import ROOT, last_layer
from regnet.ir.graph import read_graph, write_ir
from regnet.ir.metadata import ModelMetadata
from regnet.ir.records import Taught
from regnet.pixels.samples import sample_photos
from regnet.statistics.conformal import softmax64
from regnet.statistics.discriminant import Head, Moments, Root, Tuning, rooted
from regnet.system.errors import ConversionError, ModelError, OutputError, reason_of
from regnet.system.files import new_folder_beside, replace_all
from regnet.system.runtime import ov

MAX_DELTA: Final = 1e-5
MOST_BYTES: Final = 32 << 20
"""Moments that are larger do not travel in the model."""

_opset: Final = ov.opset15


def require_output(path: Path, *, force: bool) -> None:
    """Raise `OutputError` unless a model may be written to a path."""
    if path.suffix != ".xml":
        raise OutputError(f"cannot write {path}: name a file that ends in .xml")
    if path.exists() and not force:
        raise OutputError(f"{path} exists: name another file, or replace it with --force")


def moments_text(moments: Moments) -> str:
    """Return moments as a model stores them; "" if they are too large."""
    rows = np.vstack([moments.centre, moments.means, moments.factor]).astype("<f4")
    return b64encode(rows.tobytes()).decode() if rows.nbytes <= MOST_BYTES else ""


def read_moments(metadata: ModelMetadata, width: int, *, source: Path) -> tuple[Moments, Tuning]:
    """Return what a taught model's head was made of; raises `ModelError` if it has not got it."""
    taught = metadata.taught
    if taught is None:
        raise ModelError(f"{source}: was not made by `regnet teach`, so no class can be added")
    if not taught.moments:
        raise ModelError(
            f"{source}: its class means and covariance are too large to travel in the file; teach "
            "it again with the photos of all classes"
        )
    classes = len(taught.photos)
    try:
        rows = np.frombuffer(b64decode(taught.moments, validate=True), "<f4").reshape(-1, width)
    except ValueError:
        rows = np.empty((0, width), np.float32)
    if len(rows) < 1 + classes or classes != len(metadata.labels) or not np.isfinite(rows).all():
        raise ModelError(f"{source}: its class means are damaged; teach it again")
    moments = Moments(
        np.array(taught.photos, np.int64),
        rows[1 : 1 + classes],
        rows[0],
        rows[1 + classes :],
        taught.degrees,
    )
    tuning = Tuning(
        root=taught.root,
        shrinkage=taught.shrinkage,
        noise=taught.noise,
        temperature=taught.temperature,
    )
    return moments, tuning


def write_taught(
    path: Path, source: Path, classifier: Classifier, metadata: ModelMetadata, head: Head
) -> tuple[str, ...]:
    """Write a copy of the IR at `source` with this head instead of its own; return its files.

    `classifier` is the model at `source`. The copy is read back and run on photos first: nothing
    appears unless its probabilities are the head's. Raises `ConversionError`, `OutputError`.
    """
    assert metadata.taught is not None
    if metadata.precision == "fp16":  # as all weights of the model
        head = replace(head, weights=head.weights.astype(np.float16).astype(np.float64))
    graph = read_graph(source)
    _set_head(graph, head, metadata.taught.root, source=str(source))
    try:
        with new_folder_beside(path) as scratch:
            names = write_ir(graph, metadata, scratch / path.name)
            _check(scratch / path.name, classifier, metadata, head)
            replace_all(scratch, path.parent, names)
    except OSError as exc:
        raise OutputError(f"cannot write {path}: {reason_of(exc)}") from exc
    return tuple(names)


def _set_head(graph: ov.Model, head: Head, root: Root, *, source: str) -> None:
    """Replace the last linear layer and all that follows it."""
    layer = last_layer(graph, source=source)
    features = layer.features
    if len(features.get_partial_shape()) != 2:
        shape = _opset.constant(np.array([0, layer.width]))  # 0: as it is
        features = _opset.reshape(features, shape, special_zero=True, name=f"{ROOT}.flat").output(0)
    weights, bias = head.weights.astype(np.float32), head.bias.astype(np.float32)
    product = _opset.matmul(_roots(features, root), weights, False, False, name="head.fc")
    set_values(product, 1, weights)  # in FP16 if that loses nothing
    logits = _opset.add(product, bias[None], name="logits")
    old = graph.output(0).get_node().input_value(0)
    names = graph.output(0).get_names()
    name = old.get_node().get_friendly_name()
    old.get_node().set_friendly_name(f"{name}.replaced")
    probabilities = _opset.softmax(logits, 1, name=name).output(0)
    graph.output(0).get_node().input(0).replace_source_output(probabilities)
    probabilities.get_tensor().set_names(names)
    graph.validate_nodes_and_infer_types()


def _roots(features: Any, root: Root) -> Any:
    """Return the roots of features, as `rooted` takes them, in a graph."""
    if root == "root":
        return _opset.sqrt(_opset.relu(features, name=f"{ROOT}.relu"), name=ROOT)
    if root == "signed":
        roots = _opset.sqrt(_opset.abs(features, name=f"{ROOT}.abs"), name=f"{ROOT}.sqrt")
        return _opset.multiply(_opset.sign(features, name=f"{ROOT}.sign"), roots, name=ROOT)
    return features


def _check(path: Path, classifier: Classifier, metadata: ModelMetadata, head: Head) -> None:
    """Raise `ConversionError` unless a written model has the head's probabilities."""
    assert metadata.taught is not None
    model = read_model(path)
    if model.metadata != metadata:
        raise ConversionError(f"{path.name}: its metadata is not what was written; nothing stays")
    engine = Engine(model)
    photos: Sequence[Path] = list(sample_photos())
    found = engine.infer([engine.pixels(photo) for photo in photos])
    features: NDArray[np.float32] = classifier.embed(list(photos))
    logits = head.logits(rooted(features, metadata.taught.root))
    delta = float(np.abs(found - softmax64(logits)).max())
    if not delta <= MAX_DELTA:
        raise ConversionError(
            f"the taught model's probabilities are {delta:.3g} from those of its features and "
            f"head, where {MAX_DELTA:g} is allowed; nothing was written"
        )


def taught_record(
    moments: Moments, tuning: Tuning, *, measured: int = 0, correct: int = 0
) -> Taught:
    """Return what a model says of its head."""
    return Taught(
        root=tuning.root,
        shrinkage=tuning.shrinkage,
        noise=tuning.noise,
        temperature=tuning.temperature,
        degrees=moments.degrees,
        photos=tuple(moments.counts.tolist()),
        measured=measured,
        correct=correct,
        moments=moments_text(moments),
    )
