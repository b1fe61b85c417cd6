"""A checkpoint file -> a converted model: weights, network, metadata and export put together."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regnet.checkpoints.weights import Checkpoint, load_into, read_checkpoint
from regnet.conversion.export import export_network
from regnet.conversion.values import Conversion, Request, write_conversion
from regnet.ir.assumptions import subject, without
from regnet.ir.metadata import ModelMetadata
from regnet.network.labels import Label, Labels, imagenet_labels
from regnet.network.modules import RegNet
from regnet.pixels.preprocess import rgb_pixels
from regnet.pixels.protocol import OMZ, Preprocess, by_protocol
from regnet.pixels.samples import sample_crops, sample_photos
from regnet.system.version import TOOL_VERSION


def convert(request: Request, folder: Path) -> Conversion:
    """Convert as requested into a folder and return what was measured.

    Nothing is written unless the converted model agrees with the network on the sample photos.
    Raises `WeightsError` where the checkpoint cannot be used, `ProtocolError` where its protocol
    cannot be put into the graph, `ConversionError`.
    """
    checkpoint = _read(request)
    metadata = describe(request, checkpoint)
    conversion = export_network(
        _network(checkpoint), metadata, folder / request.file_name, _sample_images(metadata)
    )
    conversion = replace(conversion, notes=_left_out(checkpoint))
    write_conversion(folder, conversion)
    return conversion


def read_network(request: Request) -> tuple[RegNet, ModelMetadata]:
    """Return the network in a checkpoint and its description.

    Raises `WeightsError` where the checkpoint cannot be used.
    """
    checkpoint = _read(request)
    return _network(checkpoint), describe(request, checkpoint)


def _read(request: Request) -> Checkpoint:
    spec = request.card.build_spec() if request.card and not request.spec else request.spec
    return read_checkpoint(
        request.weights, spec=spec, channels=request.channels, entry=request.entry
    )


def _network(checkpoint: Checkpoint) -> RegNet:
    network = RegNet(checkpoint.spec)
    load_into(network, checkpoint.state)
    return network


def _left_out(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return a sentence about the tensors in the file that are not the network's, if any."""
    if not checkpoint.beside:
        return ()
    return (f"taken from {checkpoint.entry_name}; not used: {', '.join(checkpoint.beside)}",)


def _sample_images(metadata: ModelMetadata) -> list[NDArray[np.uint8]]:
    """Return the sample photos as the model takes them: crops, or whole."""
    if metadata.preprocessing == "graph":
        return [rgb_pixels(path) for path in sample_photos()]
    return sample_crops(metadata.preprocess)


def describe(request: Request, checkpoint: Checkpoint) -> ModelMetadata:
    """Return the description of the model that a checkpoint becomes, with all that is assumed."""
    labels, about_names = _labels(request, checkpoint)
    preprocess, about_protocol = _preprocess(request, checkpoint)
    others = without(without(checkpoint.assumed, "protocol"), "names")
    assumed = (*about_names, *about_protocol, *others)
    return ModelMetadata(
        name=request.model_name,
        card=request.card.name if request.card else "",
        spec=checkpoint.spec,
        preprocess=preprocess,
        labels=labels,
        weights_sha384=checkpoint.sha384,
        precision=request.precision,
        preprocessing=request.preprocessing,
        licence=request.card.licence.id if request.card else "unknown",
        version=TOOL_VERSION,
        assumed=() if request.card else assumed,
    )


Sentences = tuple[str, ...]
_PARTS = frozenset(("resize", "crop", "interpolation"))


def _labels(request: Request, checkpoint: Checkpoint) -> tuple[Labels, Sentences]:
    """Return the class list, and a sentence if it had to be assumed."""
    if known := request.labels or checkpoint.labels:
        return known, ()
    labels, text = imagenet_labels(), "its 1,000 classes are taken to be ImageNet-1k's"
    if checkpoint.classes != len(labels):
        labels = tuple(Label("", f"class {i}") for i in range(checkpoint.classes))
        text = "its classes are numbered"
    about = [said for said in checkpoint.assumed if subject(said) == "names"]
    return labels, (", so ".join([*about, text]) if about else f"names: {text}",)


def _preprocess(request: Request, checkpoint: Checkpoint) -> tuple[Preprocess, Sentences]:
    """Return the protocol with the changes asked for, and a sentence if parts are assumed."""
    changes = dict(request.protocol)
    known = request.card.preprocess if request.card else checkpoint.preprocess
    named = changes.pop("name", None)
    base = known or OMZ
    if named is not None:
        base = by_protocol(base, named)
    chosen = replace(base, **({"name": "custom"} | changes)) if changes else base
    if known and not named and not request.card:
        return chosen, _approximated(checkpoint.assumed, changes)
    return chosen, () if known or named else _assumed_protocol(chosen, changes)


def _approximated(assumed: Sentences, given: Mapping[str, Any]) -> Sentences:
    """Return the sentence about what of a file's protocol cannot be had; not if all was given."""
    sentences = tuple(text for text in assumed if subject(text) == "protocol")
    if not given:
        return sentences
    return () if given.keys() >= _PARTS else tuple(text.partition(";")[0] for text in sentences)


def _assumed_protocol(chosen: Preprocess, given: Mapping[str, Any]) -> Sentences:
    """Return the sentence about the parts of a protocol that were not given."""
    parts = {
        "resize": f"short side {chosen.resize}",
        "crop": f"crop {chosen.crop}",
        "interpolation": f"{chosen.interpolation} interpolation",
    }
    texts = [text for name, text in parts.items() if name not in given]
    listed = ", ".join([*texts, "ImageNet's mean and scale"])
    return (f"protocol: {listed if given else f'{OMZ.name} ({listed})'}",)
