"""A checkpoint file -> a converted model: weights, metadata and export put together."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from regnet.checkpoints.weights import Checkpoint, load_into, read_checkpoint
from regnet.conversion.foreign_files import foreign_model
from regnet.conversion.values import Conversion, Request, write_conversion
from regnet.ir.assumptions import CONVERTED, subject, without
from regnet.ir.metadata import ModelMetadata
from regnet.network.labels import Labels, imagenet_labels, numbered_labels
from regnet.pixels.preprocess import rgb_pixels
from regnet.pixels.protocol import OMZ, Preprocess, by_protocol
from regnet.pixels.samples import sample_crops, sample_photos
from regnet.system.version import TOOL_VERSION

if TYPE_CHECKING:
    from regnet.network.modules import RegNet


def convert(request: Request, folder: Path) -> Conversion:
    """Convert a checkpoint, or ONNX of regnet's, into a folder and return the measurements.

    Nothing is written unless the outputs on the sample photos agree with the network's. Raises
    `WeightsError`, `ProtocolError` if the protocol cannot be put into the graph, `ConversionError`.
    """
    from regnet.conversion.adopt import adopt  # these import OpenVINO
    from regnet.conversion.export import export_network
    from regnet.conversion.onnx_to_ir import ir_of_onnx

    if request.weights.suffix in CONVERTED and foreign_model(request.weights):
        return adopt(request, folder)
    if request.weights.suffix == ".onnx":
        conversion = ir_of_onnx(request.weights, folder / request.file_name)
        write_conversion(folder, conversion)
        return conversion
    checkpoint, metadata = read_request(request)
    if metadata.preprocessing == "graph":
        images = [rgb_pixels(path) for path in sample_photos()]
    else:
        images = sample_crops(metadata.preprocess)
    conversion = export_network(checkpoint.state, metadata, folder / request.file_name, images)
    if checkpoint.beside:
        beside = ", ".join(checkpoint.beside)
        note = f"taken from {checkpoint.entry_name}; not used: {beside}"
        conversion = replace(conversion, notes=(note,))
    write_conversion(folder, conversion)
    return conversion


def read_request(request: Request) -> tuple[Checkpoint, ModelMetadata]:
    """Return the checkpoint to convert and the model's description; raises `WeightsError`."""
    spec = request.card.build_spec() if request.card and not request.spec else request.spec
    checkpoint = read_checkpoint(
        request.weights, spec=spec, channels=request.channels, entry=request.entry
    )
    return checkpoint, describe(request, checkpoint)


def read_network(request: Request) -> tuple["RegNet", ModelMetadata]:
    """Return the network in a checkpoint and its description; raises `WeightsError`."""
    from regnet.network.modules import RegNet

    checkpoint, metadata = read_request(request)
    network = RegNet(checkpoint.spec)
    load_into(network, checkpoint.state)
    return network, metadata


def describe(request: Request, checkpoint: Checkpoint) -> ModelMetadata:
    """Return the description of the model that a checkpoint becomes, with all that is assumed."""
    labels, about_names = _labels(request, checkpoint)
    preprocess, about_protocol = _preprocess(request, checkpoint)
    others = without(without(checkpoint.assumed, "protocol"), "names")
    assumed = (*about_names, *about_protocol, *others)
    if request.card:
        assumed = about_names if request.card.labels == "numbered" else ()
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
        assumed=assumed,
    )


Sentences = tuple[str, ...]
_PARTS = frozenset(("resize", "crop", "interpolation"))


def _labels(request: Request, checkpoint: Checkpoint) -> tuple[Labels, Sentences]:
    """Return the class list, and a sentence if it had to be assumed."""
    if known := request.labels or checkpoint.labels:
        return known, ()
    labels, text = imagenet_labels(), "its 1,000 classes are taken to be ImageNet-1k's"
    if checkpoint.classes != len(labels):
        labels = numbered_labels(checkpoint.classes)
        text = "its classes are numbered"
    about = [said for said in checkpoint.assumed if subject(said) == "names"]
    return labels, (", so ".join([*about, text]) if about else f"names: {text}",)


def _preprocess(request: Request, checkpoint: Checkpoint) -> tuple[Preprocess, Sentences]:
    """Return the protocol with the changes asked for, and a sentence if parts are assumed."""
    changes = dict(request.protocol)
    for field in changes.keys() & {"mean", "scale"} if checkpoint.channels == "RGB" else ():
        changes[field] = changes[field][::-1]  # the converted stem takes BGR
    known = request.card.preprocess if request.card else checkpoint.preprocess
    named = changes.pop("name", None)
    base = known or OMZ
    if "named" in changes:
        maker = Preprocess.from_dict(changes.pop("named"))
        named = maker.name
        base = maker.in_order("BGR").at(changes.get("crop", maker.crop))
    elif named is not None:
        base = by_protocol(base, named)
    if changes.get("fit", base.fit) != base.fit:
        changes.setdefault("resize", changes.get("crop", base.crop))
    chosen = replace(base, **({"name": "custom"} | changes)) if changes else base
    if named or request.card:
        return chosen, ()
    if known:  # what of the file's protocol cannot be had, unless all was given
        about = tuple(text for text in checkpoint.assumed if subject(text) == "protocol")
        if changes:
            about = () if changes.keys() >= _PARTS else tuple(t.partition(";")[0] for t in about)
        return chosen, about
    parts = {
        "resize": f"short side {chosen.resize}",
        "crop": f"crop {chosen.crop}",
        "interpolation": f"{chosen.interpolation} interpolation",
    }
    texts = [text for name, text in parts.items() if name not in changes]
    texts += [] if {"mean", "scale"} <= changes.keys() else ["ImageNet's mean and scale"]
    if not texts:
        return chosen, ()
    listed = ", ".join(texts)
    return chosen, (f"protocol: {listed if changes else f'{OMZ.name} ({listed})'}",)
