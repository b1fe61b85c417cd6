"""What a run begins with: a network at random, or one that has learnt before, and its input."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from regnet.checkpoints.shapes import describe_spec, same_architecture
from regnet.checkpoints.weights import Checkpoint, read_checkpoint
from regnet.conversion.convert import describe
from regnet.conversion.ir_weights import read_ir_weights
from regnet.conversion.store import Library
from regnet.ir.assumptions import without
from regnet.ir.metadata import ModelMetadata
from regnet.network.labels import Labels, imagenet_labels
from regnet.network.modules import RegNet
from regnet.network.spec import SPEC_SUFFIX, Spec, canonical_name, read_spec, spec_by_name
from regnet.pixels.protocol import Preprocess
from regnet.system.errors import MismatchError, TrainingError, UnknownModelError
from regnet.training.run_checkpoint import LAST
from regnet.training.teacher import matched_classes
from regnet.training.unfold import unfold_batch_norm
from regnet.zoo.catalogue import card_by_name

Images = Callable[[], Iterable[Tensor]]
"""Gives batches of normalised images (N, 3, S, S) to take BN's statistics from."""

_HEAD = ("head.fc.weight", "head.fc.bias")


@dataclass(frozen=True, kw_only=True)
class Start:
    """A network, and what it has learnt before: nothing where `state` is None.

    `state` has pycls's names, with BN inside the convolutions where it is `folded`; `labels` are
    its classes, `protocol` its input with channels in BGR, None if its file does not say them;
    `assumed` has a sentence for each such thing.
    """

    spec: Spec
    source: str = ""
    state: Mapping[str, Tensor] | None = None
    folded: bool = False
    labels: Labels | None = None
    protocol: Preprocess | None = None
    assumed: tuple[str, ...] = ()

    def at_random(self) -> "Start":
        """Return the same network with nothing learnt."""
        return replace(self, source="", state=None, folded=False, labels=None, assumed=())


def open_start(
    model: str | Path | Spec | None,
    weights: str | Path | None,
    *,
    pretrained: bool,
    library: Library,
) -> Start:
    """Return what `model` names, with the `weights` of a file or card if they are named.

    A spec, its file (.json), and its name unless `pretrained`, is a network at random. `bundled`, a
    card, an IR or a checkpoint file stands for its weights. Raises `UnknownModelError`,
    `WeightsError`, `DownloadError`, `ModelError`.
    """
    spec = _spec(model, pretrained=pretrained and weights is None)
    if weights is None:
        return Start(spec=spec) if spec is not None else _learnt(_named(model), library)
    found = _learnt(weights, library)
    if spec is None and model is not None:
        raise TrainingError(f"{model} has weights of its own: leave out {weights}, or the model")
    if spec is not None and not same_architecture(spec, found.spec):
        raise MismatchError(
            f"{weights}: holds {describe_spec(found.spec)}, not {describe_spec(spec)}; name that "
            "network with --model, or leave --model out"
        )
    return found


def _named(model: str | Path | Spec | None) -> str | Path:
    if not isinstance(model, str | Path):
        raise TrainingError(
            "which network? Name one, such as --model regnetx-400mf, which begins at random, or "
            "train a pretrained one further with --recipe finetune"
        )
    return model


def _spec(model: str | Path | Spec | None, *, pretrained: bool) -> Spec | None:
    """Return the network of a spec, its file or its name; None where a name stands for weights."""
    if isinstance(model, str | Path) and Path(model).suffix == SPEC_SUFFIX:
        return read_spec(Path(model))
    if model is None or isinstance(model, Path) or (isinstance(model, str) and pretrained):
        return None
    if not isinstance(model, str):
        return model
    try:
        return spec_by_name(canonical_name(model))
    except UnknownModelError:
        return None


def _learnt(source: str | Path, library: Library) -> Start:
    """Return the weights of a card, an IR or a checkpoint file."""
    if path := converted(source, library):
        found = read_ir_weights(path)
        return Start(
            spec=found.metadata.spec,
            source=str(source),
            state={name: torch.from_numpy(array) for name, array in found.state.items()},
            folded=True,
            labels=found.metadata.labels,
            protocol=_in_bgr(found.metadata.preprocess),
            assumed=found.metadata.assumed,
        )
    if Path(source).name == LAST:
        raise TrainingError(
            f"{source}: is the checkpoint of a run: go on with that run (--resume), or name the "
            "weights.safetensors or the .xml that it ended with"
        )
    request = library.request(source)
    card = request.card
    checkpoint = read_checkpoint(
        request.weights, spec=card.build_spec() if card else None, entry=request.entry
    )
    known = imagenet_labels()
    labels = checkpoint.labels or (known if checkpoint.classes == len(known) else None)
    protocol = card.preprocess if card else checkpoint.preprocess
    return Start(
        spec=checkpoint.spec,
        source=str(source),
        state=checkpoint.state,
        labels=labels,
        protocol=protocol and _in_bgr(protocol),
        assumed=_assumed(describe(request, checkpoint), checkpoint),
    )


def _assumed(metadata: ModelMetadata, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return what is assumed about a checkpoint: its input, if unknown, is the recipe's."""
    if metadata.card or checkpoint.preprocess:
        return metadata.assumed
    return (*without(metadata.assumed, "protocol"), "protocol: the recipe's input")


def converted(source: str | Path, library: Library) -> Path | None:
    """Return the .xml of a name or path that stands for an IR, else None."""
    if Path(source).suffix == ".xml":
        return library.ir(source)
    if Path(source).exists():
        return None
    try:
        card = card_by_name(str(source))
    except UnknownModelError:  # a file that is not there: whoever opens it says so
        return None
    return library.ir(source) if card.bundled else None


def _in_bgr(protocol: Preprocess) -> Preprocess:
    """Return the protocol of the same network once its stem takes BGR."""
    if protocol.channels == "BGR":
        return protocol
    b, g, r = protocol.mean[::-1]
    scale_b, scale_g, scale_r = protocol.scale[::-1]
    return replace(protocol, channels="BGR", mean=(b, g, r), scale=(scale_b, scale_g, scale_r))


def begin(start: Start, labels: Labels, *, seed: int, new_head: bool, images: Images) -> RegNet:
    """Return the network for these classes; `seed` makes what is random in it.

    A head that tells these classes already is kept, their rows in order. Else it begins anew, where
    `new_head` allows that; raises `TrainingError` where it does not.
    """
    spec = start.spec.with_classes(len(labels))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if start.state is None:
            return RegNet(spec)
        state = {name: t for name, t in start.state.items() if name not in _HEAD}
        state |= _head(start, labels, new_head=new_head)
        if start.folded:
            return unfold_batch_norm(spec, state, images())
        network = RegNet(spec)
    network.load_state_dict(network.state_dict() | state)
    return network


def _head(start: Start, labels: Labels, *, new_head: bool) -> dict[str, Tensor]:
    """Return the head's rows of these classes, or nothing for a new head."""
    assert start.state is not None
    rows = _rows(start, labels)
    if rows is not None:
        return {name: start.state[name][rows].clone() for name in _HEAD}
    if new_head:
        return {}
    raise TrainingError(
        f"{start.source} tells {start.spec.classes:,} classes, and the {len(labels):,} of the "
        "photos are not all among them: train it with a new head (--recipe finetune, or "
        "[transfer] pretrained = true in your recipe), or begin at random (--from-scratch)"
    )


def _rows(start: Start, labels: Labels) -> list[int] | None:
    """Return the head's row of each class, None where it does not tell all of them."""
    if start.labels is None:
        return list(range(len(labels))) if start.spec.classes == len(labels) else None
    try:
        return matched_classes(start.labels, labels, teacher=start.source)
    except TrainingError:
        return None
