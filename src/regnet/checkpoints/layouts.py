"""Names of a RegNet's tensors in the four layouts found in published files, and their meaning.

A layout is data: what each part of the network is called. Keys are translated one to one; nothing
here reads a file or knows a tensor. Sources: the model definitions of pycls, timm
(`timm/models/regnet.py`), torchvision (`models/regnet.py`) and transformers (`models/regnet`).
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Literal

from regnet.pixels.protocol import Channels
from regnet.system.errors import MismatchError

LayoutName = Literal["pycls", "timm", "torchvision", "transformers"]

_CONV = ("weight",)
_AFFINE = ("weight", "bias")
_BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

# Our names (pycls's) of all parts, and the tensors that each part has.
_FRAME_PARTS = {"stem.conv": _CONV, "stem.bn": _BN, "head.fc": _AFFINE}
_BLOCK_PARTS = {
    "proj": _CONV,
    "bn": _BN,
    "f.a": _CONV,
    "f.a_bn": _BN,
    "f.b": _CONV,
    "f.b_bn": _BN,
    "f.se.f_ex.0": _AFFINE,
    "f.se.f_ex.2": _AFFINE,
    "f.c": _CONV,
    "f.c_bn": _BN,
}

# Counters of wrappers (torch's AveragedModel) and profilers (thop), no part of the network.
_COUNTERS = frozenset({"n_averaged", "total_ops", "total_params"})
_LONGEST = 500
_INNER_WRAPPERS = re.compile(
    r"(?<=\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
# What transformers' network without a head (RegNetModel) lacks before all its keys.
_WITH_HEAD = "regnet."


@dataclass(frozen=True)
class Layout:
    """What one project calls the parts of a RegNet.

    `frame` and `parts` map our name of a part to theirs, outside and inside the blocks; `block` is
    the prefix of a block with its `{stage}` and `{block}` numbers, which count from `first_stage`
    and `first_block`; `parts_with_squeeze` is what changes in a network with squeeze-excite.
    `channels` is the order of the input channels that files in this layout expect.
    """

    name: LayoutName
    channels: Channels
    block: str
    first_stage: int
    first_block: int
    frame: Mapping[str, str]
    parts: Mapping[str, str]
    parts_with_squeeze: Mapping[str, str] = field(default_factory=dict)

    def frame_names(self) -> dict[str, str]:
        """Return our name -> theirs of every tensor outside the blocks."""
        return _tensor_names(_FRAME_PARTS, self.frame)

    def block_names(self, *, squeeze: bool) -> dict[str, str]:
        """Return our name -> theirs of every tensor inside a block, without the block's prefix."""
        parts = {**self.parts, **self.parts_with_squeeze} if squeeze else self.parts
        return _tensor_names(_BLOCK_PARTS, parts)

    def block_prefix(self, key: str) -> str | None:
        """Return what stands before the whole network's names in the key of a block's tensor.

        None where the key is of no block in this layout.
        """
        match = _key_pattern(self.block.removeprefix(_WITH_HEAD)).fullmatch(key)
        if match is None or match["rest"] not in self._block_rests:
            return None
        prefix = match["prefix"]
        whole = f".{prefix}".endswith(f".{_WITH_HEAD}") and self.block.startswith(_WITH_HEAD)
        return prefix.removesuffix(_WITH_HEAD) if whole else prefix

    @cached_property
    def _block_rests(self) -> frozenset[str]:
        names = (self.block_names(squeeze=squeeze) for squeeze in (False, True))
        return frozenset(rest for group in names for rest in group.values())

    def plain_key(self, key: str, prefix: str) -> str:
        """Return a key of a network under a prefix as a network of its own has it."""
        rest = key.removeprefix(prefix)
        if self.block.startswith(_WITH_HEAD) and rest.startswith(("embedder.", "encoder.")):
            return _WITH_HEAD + rest
        return rest

    @property
    def head_base(self) -> str:
        """The first part of the names of the classifier's tensors."""
        return self.frame["head.fc"].partition(".")[0]

    def has_squeeze(self, keys: Iterable[str]) -> bool:
        """Tell whether keys of this layout include squeeze-excite."""
        mark = f".{self.parts['f.se.f_ex.0']}."
        return any(mark in key for key in keys)

    def split(self, key: str) -> tuple[int, int, str] | None:
        """Return (stage, block, rest) of a key inside a block, numbers from 1; None outside."""
        match = _block_pattern(self.block).fullmatch(key)
        if match is None:
            return None
        stage = int(match["stage"]) - self.first_stage + 1
        block = int(match["block"]) - self.first_block + 1
        return (stage, block, match["rest"]) if stage > 0 and block > 0 else None

    def join(self, stage: int, block: int, rest: str) -> str:
        """Return the key that `split` took apart."""
        prefix = self.block.format(
            stage=stage + self.first_stage - 1, block=block + self.first_block - 1
        )
        return prefix + rest


def _tensor_names(kinds: Mapping[str, tuple[str, ...]], parts: Mapping[str, str]) -> dict[str, str]:
    return {
        f"{ours}.{suffix}": f"{parts[ours]}.{suffix}"
        for ours, suffixes in kinds.items()
        for suffix in suffixes
    }


@cache
def _block_pattern(block: str) -> re.Pattern[str]:
    """Return the pattern of a key inside a block; a stage named twice must be the same stage."""
    number = "(?P<{}>0|[1-9][0-9]{{0,3}})"
    pattern = re.escape(block)
    pattern = pattern.replace(r"\{stage\}", number.format("stage"), 1)
    pattern = pattern.replace(r"\{stage\}", "(?P=stage)")
    pattern = pattern.replace(r"\{block\}", number.format("block"))
    return re.compile(pattern + "(?P<rest>.+)")


@cache
def _key_pattern(block: str) -> re.Pattern[str]:
    """Return the pattern of a key inside a block of a network under any prefix."""
    return re.compile(r"(?P<prefix>(?:.*\.)?)" + _block_pattern(block).pattern)


PYCLS = Layout(
    name="pycls",
    channels="BGR",
    block="s{stage}.b{block}.",
    first_stage=1,
    first_block=1,
    frame={name: name for name in _FRAME_PARTS},
    parts={name: name for name in _BLOCK_PARTS},
)

TIMM = Layout(
    name="timm",
    channels="RGB",
    block="s{stage}.b{block}.",
    first_stage=1,
    first_block=1,
    frame={name: name for name in _FRAME_PARTS},
    parts={
        "proj": "downsample.conv",
        "bn": "downsample.bn",
        "f.a": "conv1.conv",
        "f.a_bn": "conv1.bn",
        "f.b": "conv2.conv",
        "f.b_bn": "conv2.bn",
        "f.se.f_ex.0": "se.fc1",
        "f.se.f_ex.2": "se.fc2",
        "f.c": "conv3.conv",
        "f.c_bn": "conv3.bn",
    },
)

TORCHVISION = Layout(
    name="torchvision",
    channels="RGB",
    block="trunk_output.block{stage}.block{stage}-{block}.",
    first_stage=1,
    first_block=0,
    frame={"stem.conv": "stem.0", "stem.bn": "stem.1", "head.fc": "fc"},
    parts={
        "proj": "proj.0",
        "bn": "proj.1",
        "f.a": "f.a.0",
        "f.a_bn": "f.a.1",
        "f.b": "f.b.0",
        "f.b_bn": "f.b.1",
        "f.se.f_ex.0": "f.se.fc1",
        "f.se.f_ex.2": "f.se.fc2",
        "f.c": "f.c.0",
        "f.c_bn": "f.c.1",
    },
)

TRANSFORMERS = Layout(
    name="transformers",
    channels="RGB",
    block="regnet.encoder.stages.{stage}.layers.{block}.",
    first_stage=0,
    first_block=0,
    frame={
        "stem.conv": "regnet.embedder.embedder.convolution",
        "stem.bn": "regnet.embedder.embedder.normalization",
        "head.fc": "classifier.1",
    },
    parts={
        "proj": "shortcut.convolution",
        "bn": "shortcut.normalization",
        "f.a": "layer.0.convolution",
        "f.a_bn": "layer.0.normalization",
        "f.b": "layer.1.convolution",
        "f.b_bn": "layer.1.normalization",
        "f.se.f_ex.0": "layer.2.attention.0",
        "f.se.f_ex.2": "layer.2.attention.2",
        "f.c": "layer.2.convolution",
        "f.c_bn": "layer.2.normalization",
    },
    # Squeeze-excite takes place 2 of the layer list and moves the last convolution to 3.
    parts_with_squeeze={"f.c": "layer.3.convolution", "f.c_bn": "layer.3.normalization"},
)

LAYOUTS: tuple[Layout, ...] = (PYCLS, TIMM, TORCHVISION, TRANSFORMERS)


def without_inner_wrappers(key: str) -> str:
    """Return a key without what torch.compile, FSDP and recomputing put inside of it."""
    return _INNER_WRAPPERS.sub("", key)


def is_counter(key: str) -> bool:
    """Tell whether a tensor is a counter that tools add to a network."""
    return key.rpartition(".")[2] in _COUNTERS


def prefix_of(key: str, prefixes: Mapping[str, Layout]) -> str | None:
    """Return the longest of some networks' prefixes that a key begins with, if any."""
    ends = [place + 1 for place, letter in enumerate(key[:_LONGEST]) if letter == "."]
    starts = (key[:end] for end in (*reversed(ends), 0))
    return next((start for start in starts if start in prefixes), None)


def sensible(keys: Iterable[str]) -> Iterator[str]:
    """Yield the keys that are not too long to be a tensor's name; searching others takes long."""
    return (key for key in keys if len(key) <= _LONGEST)


def find_prefixes(keys: Iterable[str]) -> dict[str, Layout]:
    """Return each prefix under which blocks of a RegNet lie ("" for none), and their layout.

    Raises `MismatchError` if two layouts name as many tensors under a prefix.
    """
    counts: dict[str, Counter[LayoutName]] = {}
    for key in sensible(keys):
        for layout in LAYOUTS:
            if (prefix := layout.block_prefix(key)) is not None:
                counts.setdefault(prefix, Counter())[layout.name] += 1
    return {prefix: _most_named(names) for prefix, names in counts.items()}


def _most_named(names: Counter[LayoutName]) -> Layout:
    (best, most), *others = names.most_common()
    if others and others[0][1] == most:
        raise MismatchError("the tensors are named half by one project, half by another")
    return next(layout for layout in LAYOUTS if layout.name == best)


def _only_network(keys: list[str]) -> tuple[str, Layout]:
    prefixes = find_prefixes(keys)
    if not prefixes:
        raise not_a_regnet(keys)
    if len(prefixes) > 1:
        raise MismatchError(f"these are {len(prefixes)} networks: {', '.join(prefixes)}")
    return next(iter(prefixes.items()))


def not_a_regnet(keys: Iterable[str]) -> MismatchError:
    """Return the error for tensors of which none is named as a RegNet's."""
    some = ", ".join(f"{key:.80}" for key in itertools.islice(keys, 4))
    return MismatchError(
        f"these are not a RegNet's weights: no tensor is named as pycls, timm, torchvision or "
        f"transformers name a RegNet's blocks (the names here: {some or 'none'})"
    )


def to_pycls(keys: Iterable[str]) -> dict[str, str]:
    """Return their key -> our key (pycls's), one to one, whatever the layout and the prefix.

    A classifier inside a Sequential is taken where it is one linear layer. Raises `MismatchError`
    that lists the keys which a RegNet in this layout does not have.
    """
    keys = [key for key in keys if not is_counter(key)]
    prefix, layout = _only_network(keys)
    if outside := [key for key in keys if not key.startswith(prefix)]:
        raise MismatchError(_unknown_message(outside, layout))
    plain = [layout.plain_key(key, prefix) for key in keys]
    heads = _plain_heads(plain, layout)
    names = [heads.get(key, key) for key in plain]
    ours = _translate(names, layout, PYCLS)
    return {key: ours[name] for key, name in zip(keys, names, strict=True)}


def _plain_heads(keys: Iterable[str], layout: Layout) -> dict[str, str]:
    """Return the keys of a classifier inside a Sequential -> its usual keys; none for the usual.

    Raises `MismatchError` where it has more than one linear layer.
    """
    usual = layout.frame["head.fc"]
    heads = [key for key in keys if key.partition(".")[0] == layout.head_base]
    if not heads or any(key in (f"{usual}.weight", f"{usual}.bias") for key in heads):
        return {}
    layers = list(dict.fromkeys(key.rpartition(".")[0] for key in heads))
    whole = {f"{layers[0]}.{name}" for name in ("weight", "bias")}
    if len(layers) == 1 and set(heads) == whole:
        return {f"{layers[0]}.{name}": f"{usual}.{name}" for name in ("weight", "bias")}
    if len(layers) == 1:
        return {}
    raise MismatchError(
        f"its classifier is not the one linear layer of a RegNet but {len(layers)} layers: "
        f"{', '.join(layers[:6])}{', ...' * (len(layers) > 6)}"
    )


def from_pycls(keys: Iterable[str], layout: Layout) -> dict[str, str]:
    """Return our key -> the key in another layout, one to one; raises `MismatchError`."""
    return _translate(keys, PYCLS, layout)


def _translate(keys: Iterable[str], source: Layout, target: Layout) -> dict[str, str]:
    keys = list(keys)
    squeeze = source.has_squeeze(keys)
    frame = _through(source.frame_names(), target.frame_names())
    block = _through(source.block_names(squeeze=squeeze), target.block_names(squeeze=squeeze))
    names: dict[str, str] = {}
    unknown: list[str] = []
    for key in keys:
        parts = source.split(key)
        if key in frame:
            names[key] = frame[key]
        elif parts and parts[2] in block:
            names[key] = target.join(parts[0], parts[1], block[parts[2]])
        else:
            unknown.append(key)
    if unknown:
        raise MismatchError(_unknown_message(unknown, source))
    return names


def known_keys(keys: Iterable[str], layout: Layout) -> list[str]:
    """Return the keys that a RegNet in a layout has."""
    keys = list(keys)
    frame = set(layout.frame_names().values())
    block = set(layout.block_names(squeeze=layout.has_squeeze(keys)).values())
    parts = {key: layout.split(key) for key in keys}
    return [key for key, place in parts.items() if key in frame or (place and place[2] in block)]


def _through(source: Mapping[str, str], target: Mapping[str, str]) -> dict[str, str]:
    """Return their name -> the target's name, by way of ours."""
    return {theirs: target[ours] for ours, theirs in source.items()}


def _unknown_message(keys: list[str], layout: Layout) -> str:
    shown = "".join(f"\n  {key}" for key in keys[:10])
    more = f"\n  ... and {len(keys) - 10} more" if len(keys) > 10 else ""
    return (
        f"a RegNet in the layout of {layout.name} has no tensors of these {len(keys)} names:"
        f"{shown}{more}"
    )
