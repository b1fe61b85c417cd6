"""What a run begins with: a randomly initialised network or a pretrained one, and its input."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from regnet.checkpoints.shapes import describe_spec, same_architecture
from regnet.checkpoints.weights import read_checkpoint
from regnet.conversion.convert import describe
from regnet.conversion.store import Library
from regnet.ir.assumptions import CONVERTED, without
from regnet.network.labels import Labels, imagenet_labels
from regnet.network.modules import RegNet, to_tensors
from regnet.network.spec import SPEC_SUFFIX, Spec, canonical_name, read_spec, spec_by_name
from regnet.pixels.protocol import Preprocess
from regnet.system.errors import MismatchError, TrainingError, UnknownModelError
from regnet.training.batch_norm import unfold_batch_norm
from regnet.training.recipe import Input, Recipe
from regnet.training.run_folder import LAST
from regnet.training.teacher import matched_classes
from regnet.zoo.catalogue import card_by_name

Images = Callable[[], Iterable[Tensor]]
"""Returns batches of normalised images (N, 3, S, S) for batch-norm statistics."""

_HEAD = ("head.fc.weight", "head.fc.bias")


@dataclass(frozen=True, kw_only=True)
class Start:
    """A network and its pretrained weights; `state` is None for random ones.

    `state` has pycls's names, with BN inside the convolutions if it is `folded`; `labels` are its
    classes, `protocol` its input in BGR, None if unknown; `assumed` has a sentence per assumption.
    """

    spec: Spec
    source: str = ""
    state: Mapping[str, Tensor] | None = None
    folded: bool = False
    labels: Labels | None = None
    protocol: Preprocess | None = None
    assumed: tuple[str, ...] = ()

    def at_random(self) -> "Start":
        """Return the same network, randomly initialised."""
        return replace(self, source="", state=None, folded=False, labels=None, assumed=())


def open_start(
    model: str | Path | Spec | None,
    weights: str | Path | None,
    *,
    pretrained: bool,
    library: Library,
) -> Start:
    """Return the network that `model` names, with `weights` of a file or card if given.

    A spec, its file (.json), and its name unless `pretrained`, is randomly initialised. `bundled`,
    a card, an IR or a checkpoint file stands for its weights. Raises `UnknownModelError`,
    `WeightsError`, `DownloadError`, `ModelError`.
    """
    spec = _spec(model, pretrained=pretrained and weights is None)
    if weights is None:
        if spec is not None:
            return Start(spec=spec)
        if not isinstance(model, str | Path):
            raise TrainingError(
                "which network? Name one, such as --model regnetx-400mf, which begins at random, "
                "or train a pretrained one further with --recipe finetune"
            )
        return _pretrained(model, library)
    start = _pretrained(weights, library)
    if spec is None and model is not None:
        raise TrainingError(f"{model} has weights of its own: leave out {weights}, or the model")
    if spec is not None and not same_architecture(spec, start.spec):
        raise MismatchError(
            f"{weights}: holds {describe_spec(start.spec)}, not {describe_spec(spec)}; name that "
            "network with --model, or leave --model out"
        )
    return start


def _spec(model: str | Path | Spec | None, *, pretrained: bool) -> Spec | None:
    """Return the network of a spec, its file or its name; None if it stands for weights."""
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


def _pretrained(source: str | Path, library: Library) -> Start:
    """Return the weights of a card, an IR or a checkpoint file."""
    if path := converted(source, library):
        from regnet.conversion.ir_weights import read_ir_weights  # it imports OpenVINO

        weights = read_ir_weights(path)
        return Start(
            spec=weights.metadata.regnet,
            source=str(source),
            state=to_tensors(weights.state),
            folded=True,
            labels=weights.metadata.labels,
            protocol=weights.metadata.preprocess.in_order("BGR"),
            assumed=weights.metadata.assumed,
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
    protocol = card.preprocess if card else checkpoint.preprocess
    metadata = describe(request, checkpoint)
    assumed = metadata.assumed
    if not (metadata.card or checkpoint.preprocess):
        assumed = (*without(assumed, "protocol"), "protocol: the recipe's input")
    return Start(
        spec=checkpoint.spec,
        source=str(source),
        state=to_tensors(checkpoint.state),
        labels=checkpoint.labels or (known if checkpoint.classes == len(known) else None),
        protocol=protocol and protocol.in_order("BGR"),
        assumed=assumed,
    )


def converted(source: str | Path, library: Library) -> Path | None:
    """Return the .xml of a name or path that stands for a converted model, else None."""
    if Path(source).suffix in CONVERTED:
        return library.ir(source)
    if Path(source).exists():
        return None
    try:
        card = card_by_name(str(source))
    except UnknownModelError:  # a missing file: opening it says so
        return None
    return library.ir(source) if card.bundled else None


def begin(
    start: Start,
    labels: Labels,
    *,
    seed: int,
    new_head: bool,
    images: Images,
    fit_head: Callable[[RegNet], object] = lambda network: None,
) -> RegNet:
    """Return the network for these classes; `seed` initialises what is random in it.

    A head that knows these classes is kept, with their rows in order. Else it is reinitialised if
    `new_head` allows that, then given to `fit_head`; raises `TrainingError` if not.
    """
    spec = start.spec.with_classes(len(labels))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if start.state is None:
            return RegNet(spec)
        state = {name: t for name, t in start.state.items() if name not in _HEAD}
        rows = _rows(start, labels)
        if rows is not None:
            state |= {name: start.state[name][rows].clone() for name in _HEAD}
        elif not new_head:
            raise TrainingError(
                f"{start.source} knows {start.spec.classes:,} classes, and the {len(labels):,} of "
                "the photos are not all among them: train it with a new head (--recipe finetune, "
                "or [transfer] pretrained = true in your recipe), or begin at random "
                "(--from-scratch)"
            )
        if start.folded:
            network = unfold_batch_norm(spec, state, images())
        else:
            network = RegNet(spec)
            network.load_state_dict(network.state_dict() | state)
    if rows is None:
        fit_head(network)
    return network


def _rows(start: Start, labels: Labels) -> list[int] | None:
    """Return the head's row of each class, None if it does not know all of them."""
    if start.labels is None:
        return list(range(len(labels))) if start.spec.classes == len(labels) else None
    try:
        return matched_classes(start.labels, labels, teacher=start.source)
    except TrainingError:
        return None


def require_size(spec: Spec, input: Input) -> None:
    """Raise `TrainingError` if crops are so small that the last stage gets one pixel.

    It can learn nothing from that; and on CPUs, torch 2.13's gradients in bf16 of a 3x3
    convolution of stride 2 over one pixel hold whatever was in memory.
    """
    needed = spec.stem_stride * 2 ** (len(spec.stages) - 1) + 1
    smallest = min(input.crops)
    if smallest < needed:
        raise TrainingError(
            f"crops of {smallest} pixels are one pixel before the last stage: take {needed} or "
            "more (--crop, [input] progressive), or the stem for small images (--small-stem)"
        )


def require_statistics(spec: Spec, recipe: Recipe, accumulate: int, photos: int) -> None:
    """Raise `TrainingError` if BN of the last stage would get one value per channel.

    That is: one image at a time, with crops of one pixel after the last stage.
    """
    batch = min(recipe.schedule.batch, photos)
    largest_bad = spec.stem_stride * 2 ** len(spec.stages)
    smallest = min(recipe.input.crops)
    frozen = recipe.transfer.freeze > len(spec.stages)
    if frozen or batch // accumulate > 1 or smallest > largest_bad:
        return
    how = "--batch 2 or more" if batch < 2 else f"--accumulate {max(batch // 2, 1)} or less"
    raise TrainingError(
        f"one image at a time, with crops of {smallest} pixels, leaves batch normalisation of the "
        f"last stage one value per channel: take {how}, or crops of {largest_bad + 1} or more "
        "(--crop, [input] progressive)"
    )
