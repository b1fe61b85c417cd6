"""Checkpoints: any published layout -> our spec and tensors, loaded strictly; and safetensors back.

Weights in memory have pycls's names, are float32 and take their input channels in BGR.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import save

from regnet.checkpoints.arrays import plain_array
from regnet.checkpoints.entries import FoundNetwork, entry_name, find_network, shapes_of
from regnet.checkpoints.fields import Provenance, provenance_from_json
from regnet.checkpoints.hub_settings import read_settings, recorded_names, recorded_protocol
from regnet.checkpoints.layouts import LayoutName, to_pycls
from regnet.checkpoints.model_files import ModelFiles, model_files
from regnet.checkpoints.shapes import (
    Shape,
    describe_spec,
    difference,
    infer_spec,
    network_shapes,
    same_architecture,
)
from regnet.checkpoints.tensorfile import Content, read_content
from regnet.network.labels import Labels
from regnet.network.spec import Spec, published_name, spec_by_name
from regnet.pixels.protocol import Channels, Preprocess
from regnet.system.errors import MismatchError, OutputError, WeightsError, reason_of
from regnet.system.files import write_whole

if TYPE_CHECKING:
    from torch import nn

Weights = Mapping[str, NDArray[Any]]
"""Weights by pycls's names: float32, but int64 for BN's step counters, contiguous, in BGR."""

Sentences = tuple[str, ...]

_STEM = "stem.conv.weight"
_HEAD = ("head.fc.weight", "head.fc.bias")
_METADATA_KEY = "regnet"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights ready for `load_into`, and all that their file says about them.

    `state` (`Weights`) has pycls's names, float32, the stem's input channels in BGR. `layout` and
    `channels` are the file's own; `entry` is where in it the weights were (as `("ema_state",)`),
    `prefix` what was before each of their names, `beside` what else in the file has tensors.
    `labels`, `preprocess`, `name` and `extra` come from our own metadata; `name` is otherwise that
    of the published network with this architecture, None where there is none. `assumed` has a
    sentence each if neither the file nor the caller says the channels' order or the stem's stride,
    or a JSON file describes a protocol that can only be approximated, or lists of names in the file
    do not fit the classes.
    """

    spec: Spec
    state: dict[str, NDArray[Any]]
    layout: LayoutName
    channels: Channels
    source: Path
    sha384: str
    entry: tuple[str, ...] = ()
    prefix: str = ""
    beside: tuple[str, ...] = ()
    name: str | None = None
    labels: Labels | None = None
    preprocess: Preprocess | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()

    @property
    def entry_name(self) -> str:
        """The name by which `entry` chooses these weights in their file; "." for all of it."""
        return entry_name(self.entry, self.prefix)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.spec.classes


def read_checkpoint(
    path: str | Path,
    *,
    spec: Spec | str | None = None,
    new_head: int | None = None,
    channels: Channels | None = None,
    entry: str | None = None,
    seed: int = 0,
) -> Checkpoint:
    """Read a checkpoint in any known layout from .pyth, .pth, .pt, .bin or .safetensors.

    `path` is a file, or a folder that transformers or timm wrote, of which classes and
    preprocessing are taken too.

    The architecture is found from the tensors' shapes. `spec` insists on one: a name on the
    architecture, a spec on the number of classes as well. `new_head` replaces the classifier by a
    fresh one of so many classes (normal with deviation 0.01 from `seed`, bias 0). `channels` is the
    input order where the file's is not its layout's own (BGR in pycls's, RGB in the others).
    `entry` names one of several networks in the file, as "ema/model".
    Raises `UnsafeError` where reading would run code, `MismatchError` where the tensors are not a
    RegNet's or not the one asked for, `WeightsError` where the file cannot be used otherwise.
    """
    path = Path(path)
    files = model_files(path)
    settings = read_settings(files)
    content = _content(files)
    with _naming(path):
        text = content.metadata.get(_METADATA_KEY)
        recorded = Provenance() if text is None else provenance_from_json(text)
        network = find_network(content.value, entry)
    layout, asked = network.entry.layout, spec
    with _naming(path, network.entry.name if network.beside else "."):
        tensors = _named_tensors(network, with_head=new_head is None)
        found = infer_spec(shapes_of(tensors), classes=new_head)
        spec = _agreed_spec(asked, recorded.spec, found, new_head)
        check_state(spec, tensors, with_head=new_head is None)
        state = {key: plain_array(key, tensor) for key, tensor in tensors.items()}
        labels, about_names = recorded.labels or settings.labels, Sentences()
        if new_head is not None:
            labels = None
        elif labels is None:
            labels, about_names = recorded_names(content.value, spec.classes, apart=network.apart)
        elif not recorded.labels and len(labels) != spec.classes:
            raise MismatchError(
                f"{len(labels)} labels in config.json, {spec.classes} in the weights"
            )
    preprocess, about_protocol = settings.preprocess, settings.assumed
    if not preprocess and (protocol := recorded_protocol(content.value)):
        preprocess, about_protocol = protocol
    order = channels or recorded.channels or layout.channels
    if order == "RGB":
        state[_STEM] = np.ascontiguousarray(state[_STEM][:, ::-1])
    if new_head is not None:
        state |= _fresh_head(spec, seed)
    # Projects that describe their files have one order and one stride.
    has_order = channels or recorded.channels or (files.config and layout.channels == "RGB")
    about_order = () if has_order else (f"channels: {layout.channels}, the order of {layout.name}",)
    has_stride = files.config or asked or recorded.spec
    about_stride = () if has_stride else (f"stem stride: {spec.stem_stride}",)
    return Checkpoint(
        spec=spec,
        state=state,
        layout=layout.name,
        channels=order,
        source=path,
        sha384=files.weights_sha384,
        entry=network.entry.path,
        prefix=network.entry.prefix,
        beside=network.beside,
        name=recorded.name or published_name(spec),
        labels=labels,
        preprocess=recorded.preprocess or preprocess,
        extra=recorded.extra,
        assumed=(
            *about_names,
            *(() if recorded.preprocess else about_protocol),
            *about_order,
            *about_stride,
        ),
    )


def _named_tensors(network: FoundNetwork, *, with_head: bool) -> dict[str, NDArray[Any]]:
    """Return the tensors by pycls's names; raises `MismatchError` without a needed head."""
    names = to_pycls(network.tensors)
    if with_head and network.entry.spec and not network.entry.has_head:
        beside = f" (beside it: {', '.join(network.beside[:5])})" if network.beside else ""
        raise MismatchError(
            f"the network has no classifier{beside}: ask for a new head, or train one with "
            "`regnet train --weights`"
        )
    named = {ours: network.tensors[theirs] for theirs, ours in names.items()}
    return {key: tensor for key, tensor in named.items() if with_head or key not in _HEAD}


def _content(files: ModelFiles) -> Content:
    """Return what is in the weights, all parts together if they are sharded."""
    if len(files.weights) == 1:
        return read_content(files.weights[0])
    tensors: dict[str, Any] = {}
    for path in files.weights:
        part = read_content(path).value
        if not isinstance(part, Mapping):
            raise WeightsError(f"{path}: is not a part of a model")
        if twice := next((key for key in part if key in tensors), None):
            raise WeightsError(f"{path}: has {twice!r:.80}, as another part of the model has")
        tensors |= part
    return Content(tensors)


@contextlib.contextmanager
def _naming(path: Path, entry: str = ".") -> Iterator[None]:
    """Put the file's path, and the entry in it, before the message of what is wrong with it."""
    try:
        yield
    except WeightsError as exc:
        where = path if entry == "." else f"{path}: entry {entry}"
        raise type(exc)(f"{where}: {exc}") from exc


def _agreed_spec(
    asked: Spec | str | None, recorded: Spec | None, found: Spec, new_head: int | None
) -> Spec:
    """Return the spec on which the caller, the file's metadata and its tensors agree."""
    if recorded is not None:
        recorded = recorded if new_head is None else recorded.with_classes(new_head)
        _require_same(recorded, found, "in the metadata")
        found = recorded
    if asked is None:
        return found
    if isinstance(asked, str):
        asked = spec_by_name(asked, classes=found.classes)
    if new_head is not None:
        asked = asked.with_classes(new_head)
    _require_same(asked, found, "asked")
    if recorded is not None and asked.stem_stride != recorded.stem_stride:
        raise MismatchError(
            f"a stem of stride {asked.stem_stride} asked, the file was written for one of stride "
            f"{recorded.stem_stride}"
        )
    return asked


def _require_same(expected: Spec, found: Spec, how: str) -> None:
    if not same_architecture(expected, found):
        raise MismatchError(
            f"{describe_spec(expected)} {how}, the file holds {describe_spec(found)}"
        )
    if expected.classes != found.classes:
        raise MismatchError(
            f"{expected.classes} classes {how}, the file has {found.classes}: ask for as many, or "
            f"for a new head of {expected.classes}, which starts untrained"
        )


def _fresh_head(spec: Spec, seed: int) -> dict[str, NDArray[Any]]:
    """Return a classifier initialised as in the paper's training code."""
    size = (spec.classes, spec.stages[-1].width)
    weight = np.random.default_rng(seed).normal(scale=0.01, size=size).astype(np.float32)
    return dict(zip(_HEAD, (weight, np.zeros(spec.classes, np.float32)), strict=True))


def check_state(spec: Spec, state: Weights, *, with_head: bool = True) -> None:
    """Raise `MismatchError` unless weights have the names and shapes of a spec's network."""
    shapes = {k: s for k, s in network_shapes(spec).items() if with_head or k not in _HEAD}
    _require_equal(shapes, state, describe_spec(spec))


def _require_equal(network: Mapping[str, Shape], state: Mapping[str, Any], name: str) -> None:
    if text := difference(network, shapes_of(state)):
        raise MismatchError(f"the weights are not those of {name}:\n{text}")


def load_into(network: "nn.Module", state: Mapping[str, Any]) -> None:
    """Load arrays or tensors into a network strictly, in its own type and device.

    Raises `MismatchError`.
    """
    from regnet.network.modules import to_tensors

    spec = getattr(network, "spec", None)
    own = network.state_dict()
    _require_equal(shapes_of(own), state, describe_spec(spec) if spec else "this network")
    network.load_state_dict(own | to_tensors(state), strict=True)


def write_safetensors(
    path: str | Path,
    state: Mapping[str, ArrayLike],
    *,
    spec: Spec,
    labels: Labels | None = None,
    preprocess: Preprocess | None = None,
    name: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write weights, as in `Checkpoint.state`, with their description to one file, atomically.

    Equal content gives equal bytes. Raises `MismatchError`, `WeightsError` if the content could not
    be read back, `OutputError` if the file cannot be written.
    """
    tensors = {key: _as_array(key, value) for key, value in state.items()}
    check_state(spec, tensors)
    provenance = Provenance(
        spec=spec,
        classes=spec.classes,
        channels="BGR",
        name=name,
        labels=labels,
        preprocess=preprocess,
        extra=dict(extra or {}),
    )
    # One entry, because safetensors writes several in any order and equal files should hash equal.
    metadata = {_METADATA_KEY: provenance.to_json()}
    data = save({key: plain_array(key, tensor) for key, tensor in tensors.items()}, metadata)
    try:
        write_whole(Path(path), data)
    except OSError as exc:
        raise OutputError(f"cannot write {path}: {reason_of(exc)}") from exc


def _as_array(key: str, value: ArrayLike) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except (TypeError, RuntimeError) as exc:  # as torch's tensors on a GPU raise
        raise WeightsError(f"{key} cannot be made an array: {exc}") from exc
