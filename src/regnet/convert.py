"""A checkpoint file -> a converted model: weights, network, metadata and export put together."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from regnet.checkpoints.weights import Checkpoint, load_into, read_checkpoint
from regnet.conversion import Conversion, Request, write_conversion
from regnet.export import export_network
from regnet.labels import Label, Labels, imagenet_labels
from regnet.metadata import ModelMetadata
from regnet.network import RegNet
from regnet.preprocess import rgb_pixels
from regnet.protocol import OMZ, Preprocess
from regnet.samples import sample_crops, sample_photos
from regnet.version import TOOL_VERSION


def convert(request: Request, folder: Path) -> Conversion:
    """Convert as requested into a folder and return what was measured.

    Nothing is written unless the converted model agrees with the network on the sample photos.
    Raises `WeightsError` where the checkpoint cannot be used, `ProtocolError` where its protocol
    cannot be put into the graph, `ConversionError`.
    """
    network, metadata, notes = read_network(request)
    conversion = export_network(
        network,
        metadata,
        folder / request.file_name,
        _sample_images(metadata),
        notes=notes,
    )
    write_conversion(folder, conversion)
    return conversion


def read_network(request: Request) -> tuple[RegNet, ModelMetadata, tuple[str, ...]]:
    """Return the network in a checkpoint, its description, and notes on what was assumed.

    Raises `WeightsError` where the checkpoint cannot be used.
    """
    spec = request.card.build_spec() if request.card and not request.spec else request.spec
    checkpoint = read_checkpoint(
        request.weights, spec=spec, channels=request.channels, entry=request.entry
    )
    metadata, notes = _metadata(request, checkpoint)
    network = RegNet(checkpoint.spec)
    load_into(network, checkpoint.state)
    return network, metadata, notes


def _sample_images(metadata: ModelMetadata) -> list[NDArray[np.uint8]]:
    """Return the sample photos as the model takes them: crops, or whole."""
    if metadata.preprocessing == "graph":
        return [rgb_pixels(path) for path in sample_photos()]
    return sample_crops(metadata.preprocess)


def _metadata(request: Request, checkpoint: Checkpoint) -> tuple[ModelMetadata, tuple[str, ...]]:
    labels, labels_note = _labels(request, checkpoint)
    preprocess, protocol_note = _preprocess(request, checkpoint)
    metadata = ModelMetadata(
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
    )
    return metadata, tuple(note for note in (labels_note, protocol_note) if note)


def _labels(request: Request, checkpoint: Checkpoint) -> tuple[Labels, str | None]:
    """Return the class list, and a note where it had to be assumed."""
    if known := request.labels or checkpoint.labels:
        return known, None
    if checkpoint.classes == len(imagenet_labels()):
        note = None if request.card else "its 1,000 classes are taken to be ImageNet-1k's"
        return imagenet_labels(), note
    numbered = tuple(Label("", f"class {i}") for i in range(checkpoint.classes))
    return numbered, "it names no classes: they are numbered (give a list with --labels FILE)"


def _preprocess(request: Request, checkpoint: Checkpoint) -> tuple[Preprocess, str | None]:
    """Return the protocol with the changes asked for, and a note where it had to be assumed."""
    card_protocol = request.card.preprocess if request.card else None
    known = card_protocol or checkpoint.preprocess
    base = known or OMZ
    chosen = replace(base, **({"name": "custom"} | dict(request.protocol)))
    note = (
        f"it names no protocol: omz is taken (short side {OMZ.resize}, Pillow's bicubic, crop "
        f"{OMZ.crop}) but for --resize, --crop, --interpolation"
    )
    return (chosen if request.protocol else base), (None if known else note)
