"""Names of a RegNet's tensors in the four layouts found in published files, and their meaning.

A layout is data: what each part of the network is called. Keys are translated one to one; nothing
here reads a file or knows a tensor. Sources: the model definitions of pycls, timm
(`timm/models/regnet.py`), torchvision (`models/regnet.py`) and transformers (`models/regnet`).
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Literal

from regnet.pixels.protocol import Channels
from regnet.system.errors import MismatchError

LayoutName = Literal["pycls", "timm", "torchvision", "transformers"]

_CONV = ("weight",)
_AFFINE = ("weight", "bias")
_BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

# Names of the parts in pycls (which are ours), timm, torchvision and transformers, and the tensors
# that each part has. A star stands for a block.
_PARTS = (
    ("stem.conv", "stem.conv", "stem.0", "regnet.embedder.embedder.convolution", _CONV),
    ("stem.bn", "stem.bn", "stem.1", "regnet.embedder.embedder.normalization", _BN),
    ("head.fc", "head.fc", "fc", "classifier.1", _AFFINE),
    ("*proj", "*downsample.conv", "*proj.0", "*shortcut.convolution", _CONV),
    ("*bn", "*downsample.bn", "*proj.1", "*shortcut.normalization", _BN),
    ("*f.a", "*conv1.conv", "*f.a.0", "*layer.0.convolution", _CONV),
    ("*f.a_bn", "*conv1.bn", "*f.a.1", "*layer.0.normalization", _BN),
    ("*f.b", "*conv2.conv", "*f.b.0", "*layer.1.convolution", _CONV),
    ("*f.b_bn", "*conv2.bn", "*f.b.1", "*layer.1.normalization", _BN),
    ("*f.se.f_ex.0", "*se.fc1", "*f.se.fc1", "*layer.2.attention.0", _AFFINE),
    ("*f.se.f_ex.2", "*se.fc2", "*f.se.fc2", "*layer.2.attention.2", _AFFINE),
    ("*f.c", "*conv3.conv", "*f.c.0", "*layer.2.convolution", _CONV),
    ("*f.c_bn", "*conv3.bn", "*f.c.1", "*layer.2.normalization", _BN),
)
# Parts that RegNetV and RegNetZ alone have, ours and timm's: ours are named as in pycls.
_LATER_PARTS = (
    ("stem.conv2", "stem.conv2.conv", _CONV),
    ("stem.conv2_bn", "stem.conv2.bn", _BN),
    ("stem.conv3", "stem.conv3.conv", _CONV),
    ("stem.conv3_bn", "stem.conv3.bn", _BN),
    ("*pre_bn", "*norm1", _BN),
    ("*pooled_proj", "*downsample.1.conv", _CONV),
    ("final.conv", "final_conv.conv", _CONV),
    ("final.bn", "final_conv.bn", _BN),
)
_ENDS = {ours: ends for ours, *_, ends in (*_PARTS, *_LATER_PARTS)}
# timm's pre-activation blocks name bare layers, its networks of stages the convolutions' sizes.
_V_PARTS = {
    "stem.conv": "stem",
    "*f.a": "*conv1",
    "*f.a_bn": "*norm2",
    "*f.b": "*conv2",
    "*f.b_bn": "*norm3",
    "*f.c": "*conv3",
    "*proj": "*downsample",
    "*pooled_proj": "*downsample.1",
}
_Z_PARTS = {
    "*f.a": "*conv1_1x1.conv",
    "*f.a_bn": "*conv1_1x1.bn",
    "*f.b": "*conv2_kxk.conv",
    "*f.b_bn": "*conv2_kxk.bn",
    "*f.se.f_ex.0": "*attn.fc1",
    "*f.se.f_ex.2": "*attn.fc2",
    "*f.c": "*conv3_1x1.conv",
    "*f.c_bn": "*conv3_1x1.bn",
}
_TIERED_STEM = {"stem.conv": "stem.conv1.conv", "stem.bn": "stem.conv1.bn"}
# Squeeze-excite takes place 2 of transformers' list of layers and moves the last convolution to 3.
_MOVED = {"*f.c": "*layer.3.convolution", "*f.c_bn": "*layer.3.normalization"}

# Counters of wrappers (torch's AveragedModel) and profilers (thop), no part of the network.
_COUNTERS = frozenset({"n_averaged", "total_ops", "total_params"})
_LONGEST = 500
_INNER_WRAPPERS = re.compile(
    r"(?<=\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
# What transformers' network without a head (RegNetModel) lacks before all its keys.
_WITH_HEAD = "regnet."


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What one project calls the parts of a RegNet.

    `parts` maps our name of a part to theirs; `block` is what a star in it stands for, with
    `{stage}` and `{block}` numbers, which count from `first_stage` and `first_block`; `moved` is
    what changes in a network with the part `mover`. `channels` is the order of the input channels
    that files in this layout expect.
    """

    name: LayoutName
    channels: Channels = "RGB"
    block: str = "s{stage}.b{block}."
    first_stage: int = 1
    first_block: int = 1
    parts: Mapping[str, str]
    moved: Mapping[str, str] = field(default_factory=dict)
    mover: str = "*f.se.f_ex.0"

    def names(self, *, moved: bool) -> dict[str, str]:
        """Return our name -> theirs of every tensor, with a star for the block."""
        parts = {**self.parts, **(self.moved if moved else {})}
        rows = ((ours, end) for ours in parts for end in _ENDS[ours])
        return {f"{ours}.{end}": f"{parts[ours]}.{end}" for ours, end in rows}

    @cached_property
    def _all_names(self) -> frozenset[str]:
        names = (self.names(moved=moved).values() for moved in (False, True))
        return frozenset(itertools.chain(*names))

    def has_part(self, part: str, keys: Iterable[str]) -> bool:
        """Tell whether keys of this layout include a part, by our name."""
        mark = self.parts.get(part, part).replace("*", ".") + "."
        return any(mark in f".{key}" for key in keys)

    def block_prefix(self, key: str) -> str | None:
        """Return what precedes the network's names in a block's key; None for other keys."""
        match = _key_pattern(self.block.removeprefix(_WITH_HEAD)).fullmatch(key)
        if match is None or f"*{match['rest']}" not in self._all_names:
            return None
        prefix = match["prefix"]
        whole = f".{prefix}".endswith(f".{_WITH_HEAD}") and self.block.startswith(_WITH_HEAD)
        return prefix.removesuffix(_WITH_HEAD) if whole else prefix

    def plain_key(self, key: str, prefix: str) -> str:
        """Return a key of a network under a prefix as a network of its own has it."""
        rest = key.removeprefix(prefix)
        if self.block.startswith(_WITH_HEAD) and rest.startswith(("embedder.", "encoder.")):
            return _WITH_HEAD + rest
        return rest

    def split(self, key: str) -> tuple[str, int, int]:
        """Return (name with a star, stage, block), 0 outside the blocks; name "" if unknown."""
        if match := _block_pattern(self.block).fullmatch(key):
            stage = int(match["stage"]) - self.first_stage + 1
            block = int(match["block"]) - self.first_block + 1
            return (f"*{match['rest']}" if stage > 0 and block > 0 else ""), stage, block
        return ("" if key.startswith("*") else key), 0, 0

    def join(self, name: str, stage: int, block: int) -> str:
        """Return the key that `split` took apart."""
        numbers = {"stage": stage + self.first_stage - 1, "block": block + self.first_block - 1}
        return name.replace("*", self.block.format(**numbers))


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


_COLUMNS = [{str(row[0]): str(row[n]) for row in _PARTS} for n in range(4)]
_OURS = {ours: ours for ours, *_ in _LATER_PARTS}
_TIMMS = {ours: theirs for ours, theirs, _ in _LATER_PARTS}
PYCLS = Layout(name="pycls", channels="BGR", parts=_COLUMNS[0] | _OURS)
TIMM = Layout(name="timm", parts=_COLUMNS[1] | _TIMMS)
_NOT_V = ("stem.bn", "*bn", "*f.c_bn")
TIMM_V = replace(
    TIMM, parts={k: v for k, v in {**TIMM.parts, **_V_PARTS}.items() if k not in _NOT_V}
)
TIMM_Z = replace(
    TIMM,
    block="stages.{stage}.{block}.",
    first_stage=0,
    first_block=0,
    parts={**TIMM.parts, **_Z_PARTS},
    moved=_TIERED_STEM,
    mover="stem.conv2",
)
TORCHVISION = Layout(
    name="torchvision",
    block="trunk_output.block{stage}.block{stage}-{block}.",
    first_block=0,
    parts=_COLUMNS[2],
)
TRANSFORMERS = Layout(
    name="transformers",
    block="regnet.encoder.stages.{stage}.layers.{block}.",
    first_stage=0,
    first_block=0,
    parts=_COLUMNS[3],
    moved=_MOVED,
)
LAYOUTS: tuple[Layout, ...] = (PYCLS, TIMM, TORCHVISION, TRANSFORMERS)
_ALL_LAYOUTS: tuple[Layout, ...] = (*LAYOUTS, TIMM_V, TIMM_Z)


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
    """Return each prefix under which a RegNet's blocks lie ("" for none), and their layout."""
    counts: dict[str, Counter[int]] = {}
    for key in sensible(keys):
        for place, layout in enumerate(_ALL_LAYOUTS):
            if (prefix := layout.block_prefix(key)) is not None:
                counts.setdefault(prefix, Counter())[place] += 1
    return {prefix: _most_named(places) for prefix, places in counts.items()}


def _most_named(places: Counter[int]) -> Layout:
    (best, most), *others = places.most_common()
    tied = [place for place, count in others if count == most]
    if any(_ALL_LAYOUTS[place].name != _ALL_LAYOUTS[best].name for place in tied):
        raise MismatchError("the tensors are named half by one project, half by another")
    return _ALL_LAYOUTS[best]


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
    prefixes = find_prefixes(keys)
    if not prefixes:
        raise not_a_regnet(keys)
    if len(prefixes) > 1:
        raise MismatchError(f"these are {len(prefixes)} networks: {', '.join(prefixes)}")
    ((prefix, layout),) = prefixes.items()
    if outside := [key for key in keys if not key.startswith(prefix)]:
        raise _unknown(outside, layout)
    plain = [layout.plain_key(key, prefix) for key in keys]
    heads = _plain_heads(plain, layout)
    names = [heads.get(key, key) for key in plain]
    ours = _translate(names, layout, PYCLS)
    return {key: ours[name] for key, name in zip(keys, names, strict=True)}


def _plain_heads(keys: Iterable[str], layout: Layout) -> dict[str, str]:
    """Return usual keys for a classifier inside a Sequential, which must be one linear layer."""
    usual = layout.parts["head.fc"]
    heads = [key for key in keys if key.partition(".")[0] == usual.partition(".")[0]]
    if not heads or any(key in (f"{usual}.weight", f"{usual}.bias") for key in heads):
        return {}
    layers = list(dict.fromkeys(key.rpartition(".")[0] for key in heads))
    if len(layers) == 1:
        names = {f"{layers[0]}.{end}": f"{usual}.{end}" for end in _AFFINE}
        return names if set(heads) == names.keys() else {}
    raise MismatchError(
        f"its classifier is not the one linear layer of a RegNet but {len(layers)} layers: "
        f"{', '.join(layers[:6])}{', ...' * (len(layers) > 6)}"
    )


def from_pycls(keys: Iterable[str], layout: Layout) -> dict[str, str]:
    """Return our key -> the key in another layout, one to one; raises `MismatchError`."""
    return _translate(keys, PYCLS, layout)


def _translate(keys: Iterable[str], source: Layout, target: Layout) -> dict[str, str]:
    keys = list(keys)
    theirs = target.names(moved=source.has_part(target.mover, keys))
    own = source.names(moved=source.has_part(source.mover, keys))
    names = {name: theirs[ours] for ours, name in own.items() if ours in theirs}
    places = {key: source.split(key) for key in keys}
    if unknown := [key for key, (name, _, _) in places.items() if name not in names]:
        raise _unknown(unknown, source)
    return {key: target.join(names[name], *numbers) for key, (name, *numbers) in places.items()}


def known_keys(keys: Iterable[str], layout: Layout) -> list[str]:
    """Return the keys that a RegNet in a layout has."""
    keys = list(keys)
    names = set(layout.names(moved=layout.has_part(layout.mover, keys)).values())
    return [key for key in keys if layout.split(key)[0] in names]


def _unknown(keys: list[str], layout: Layout) -> MismatchError:
    shown = "".join(f"\n  {key}" for key in keys[:10])
    more = f"\n  ... and {len(keys) - 10} more" if len(keys) > 10 else ""
    return MismatchError(
        f"a RegNet in the layout of {layout.name} has no tensors of these {len(keys)} names:"
        f"{shown}{more}"
    )


# Network -> the end of a key that it alone has, under whatever prefix; the first match counts.
_FAMILIES: tuple[tuple[str, str], ...] = (
    ("timm's regnetz with EvoNorm (evos)", r"stages\.0\.0\.conv1_1x1\.bn\.v"),
    ("a ResNet", r"layer1\.0\.conv1\.(0\.)?weight"),
    ("a ResNet of transformers", r"resnet\.embedder\.embedder\.convolution\.weight"),
    ("a torchvision RegNet taken apart, as by fastai", r"block1\.block1-0\.f\.a\.0\.weight"),
    ("a Swin Transformer", r"attn\.relative_position_bias_table"),
    ("a Vision Transformer", r"blocks\.0\.attn\.qkv\.weight"),
    ("a Vision Transformer", r"encoder_layer_0\.self_attention\.in_proj_weight"),
    ("a Vision Transformer of transformers", r"encoder\.layer\.0\.attention\..*query\.weight"),
    ("a ConvNeXt", r"stages\.0\.(blocks\.|layers\.)?0\.(conv_dw|dwconv)\.weight"),
    ("a ConvNeXt", r"features\.1\.0\.layer_scale"),
    ("an EfficientNet", r"features\.1\.0\.block\.0\.0\.weight"),
    ("an EfficientNet", r"_blocks\.0\._depthwise_conv\.weight"),
    ("an EfficientNet, MobileNet or GhostNet", r"conv_stem\.weight"),
    ("a MobileNet", r"features\.1\.(conv|block)\.0\.0\.weight"),
    ("a MNASNet", r"layers\.8\.0\.layers\.0\.weight"),
    ("a DenseNet", r"denseblock1\.denselayer1\.norm1\.weight"),
    ("a GoogLeNet", r"inception3a\.branch1\.conv\.weight"),
    ("an Inception network", r"Mixed_5b\.branch1x1\.conv\.weight"),
    ("a ShuffleNet", r"stage2\.0\.branch1\.0\.weight"),
    ("a SqueezeNet", r"features\.3\.squeeze\.weight"),
    ("a YOLO detector", r"model\.0\.conv\.weight"),
    ("an AlexNet or VGG network", r"features\.0\.weight"),
)


def foreign_network(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return what tensors belong to, as "a ResNet (layer1.0.conv1.weight)"; None if unknown."""
    for network, pattern in _FAMILIES:
        if key := _first_ending(shapes, pattern):
            return f"{network} ({key})"
    norm = _first_ending(shapes, r"(stem\.(bn|1)|embedder\.normalization)\.weight")
    if norm and not any(key.endswith("running_mean") for key in shapes):
        return f"a variant with group norm, or another norm without running statistics ({norm})"
    return None


def _first_ending(keys: Iterable[str], pattern: str) -> str | None:
    found = re.compile(rf"(.*\.)?{pattern}")
    return next((key for key in sensible(keys) if found.fullmatch(key)), None)
