"""The network that a set of tensors belongs to, found from their names (pycls's) and shapes."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any

from regnet.network.blocks import blocks
from regnet.network.layers import layers
from regnet.network.spec import (
    AnyNetSpec,
    Spec,
    Stage,
    published_name,
    spec_by_name,
    squeeze_width,
)
from regnet.system.errors import MismatchError, SpecError

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

_BLOCK = re.compile(r"s([1-9][0-9]{0,3})\.b([1-9][0-9]{0,3})\.")
_SHOWN = 6


def infer_spec(shapes: Shapes, *, classes: int | None = None) -> Spec:
    """Return the spec of the network whose tensors have these shapes.

    A published network comes as its `RegNetSpec`, any other as an `AnyNetSpec`. The head gives the
    number of classes unless `classes` does. Shapes cannot show the stem's stride: 2 is assumed.
    Raises `MismatchError` that names the tensor which is missing or has an impossible shape.
    """
    depths = _depths(shapes)
    if classes is None and "head.fc.weight" not in shapes:
        raise MismatchError(
            "head.fc.weight is missing: the weights have no classifier (ask for a new head)"
        )
    stem = _shape(shapes, "stem.conv.weight", 4)
    if stem[1:] != (3, 3, 3):
        raise MismatchError(
            f"stem.conv.weight has shape {stem}: a RegNet's stem is (width, 3, 3, 3)"
        )
    last_stem = "stem.conv3.weight" if "stem.conv3.weight" in shapes else "stem.conv.weight"
    try:
        stages = tuple(_stage(shapes, f"s{i}", d) for i, d in enumerate(depths, start=1))
        spec = AnyNetSpec(
            stages=stages,
            stem_width=_shape(shapes, last_stem, 4)[0],
            classes=_shape(shapes, "head.fc.weight", 2)[0] if classes is None else classes,
            **_kind(shapes, stages),
        )
        spec = replace(spec, se_ratio=_se_ratio(shapes, spec))
    except SpecError as exc:
        raise MismatchError(f"the tensors' shapes make no network: {exc}") from exc
    name = published_name(spec)
    return spec if name is None else spec_by_name(name, classes=spec.classes)


def _depths(shapes: Shapes) -> list[int]:
    """Return the number of blocks in each stage; both must be numbered from 1 without a gap."""
    matches = [match for match in map(_BLOCK.match, shapes) if match]
    numbered = sorted({(int(match[1]), int(match[2])) for match in matches})
    blocks = {stage: [b for _, b in rows] for stage, rows in groupby(numbered, key=lambda x: x[0])}
    if not blocks:
        raise MismatchError("no tensor belongs to a block (s1.b1.f.a.weight and so on)")
    runs = [("stage", "s", list(blocks))]
    runs += [(f"block of stage s{s}", f"s{s}.b", numbers) for s, numbers in blocks.items()]
    for what, prefix, numbers in runs:
        for expected, number in enumerate(numbers, start=1):
            if number != expected:
                raise MismatchError(
                    f"a {what} is missing: there is {prefix}{number} but no {prefix}{expected}"
                )
    return [len(numbers) for numbers in blocks.values()]


def _shape(shapes: Shapes, key: str, rank: int) -> Shape:
    shape = shapes.get(key)
    if shape is None:
        raise MismatchError(f"{key} is missing")
    if len(shape) != rank:
        raise MismatchError(f"{key} has shape {shape}: {rank} dimensions expected")
    return shape


def _stage(shapes: Shapes, name: str, depth: int) -> Stage:
    blocks = [
        [_shape(shapes, f"{name}.b{number}.f.{part}.weight", 4) for part in "bc"]
        for number in range(1, depth + 1)
    ]
    last = blocks[-1]
    for number, other in enumerate(blocks, start=1):
        # What is inside of the first block may follow from its input.
        alike = (other[0][1:], other[1][0]) == (last[0][1:], last[1][0])
        if other != last if number > 1 else not alike:
            raise MismatchError(
                f"blocks of one stage differ: {name}.b{number}.f.b.weight and f.c.weight have "
                f"shapes {other[0]} and {other[1]}, those of {name}.b{depth} {last[0]} and "
                f"{last[1]}"
            )
    (inner, group_width, *kernel), (width, *_) = last
    if kernel != [3, 3]:
        raise MismatchError(f"{name}.b1.f.b.weight has shape {last[0]}: a 3x3 kernel expected")
    if not inner or not width or (width % inner and inner % width):
        raise MismatchError(
            f"{name}.b{depth}.f.b.weight has {inner} channels, which do not divide the {width} of "
            f"{name}.b{depth}.f.c.weight: the bottleneck ratio must be a whole number"
        )
    return Stage(depth, width, group_width, max(1, width // inner), max(1, inner // width))


def _kind(shapes: Shapes, stages: tuple[Stage, ...]) -> dict[str, Any]:
    """Return the fields that tell a RegNetV or RegNetZ, which have SiLU, from the paper's."""
    parts = {key.partition(".b")[2].partition(".")[2].partition(".")[0] for key in shapes}
    pre, pooled = "pre_bn" in parts, "pooled_proj" in parts
    linear = any(stage.expansion > 1 for stage in stages) and not parts & {"proj", "pooled_proj"}
    head = _shape(shapes, "final.conv.weight", 4)[0] if "final.conv.weight" in shapes else None
    firsts = [_shape(shapes, f"s{i}.b1.f.b.weight", 4)[0] for i in range(1, len(stages) + 1)]
    inner = [stage.inner_width for stage in stages]
    follows = inner == firsts or not linear
    return {
        "activation": "silu" if pre or linear else "relu",
        "block": "pre-activation" if pre else "linear" if linear else "bottleneck",
        "shortcut": "pool" if pooled else "none" if linear else "convolution",
        "inner_from": "output" if follows else "input",
        "squeeze_from": "input" if follows else "inner",
        "tiered_stem": "stem.conv3.weight" in shapes,
        "head_width": head,
    }


def _se_ratio(shapes: Shapes, spec: Spec) -> float | None:
    """Return the ratio that gives the squeeze width of each block, if any."""
    if not any(".f.se." in key for key in shapes):
        return None
    widths: dict[tuple[int, int, int], None] = {}
    for block in blocks(spec):
        squeeze = _shape(shapes, f"{block.name}.f.se.f_ex.0.weight", 4)[0]
        widths[block.width_in, block.inner, squeeze] = None
    share = spec.squeeze_from == "inner"
    pairs = list(dict.fromkeys((row[share], row[2]) for row in widths))
    for ratio in _candidate_ratios(pairs):
        if 0 < ratio <= 1 and all(squeeze_width(ratio, w, share) == s for w, s in pairs):
            return ratio
    text = ", ".join(f"{s} of {w}" for w, s in pairs[:6])
    raise MismatchError(
        f"no one squeeze-excite ratio gives the squeeze widths in f.se.f_ex.0.weight ({text})"
    )


def _candidate_ratios(squeezes: list[tuple[int, int]]) -> Iterable[float]:
    """Give the usual ratio, then simple fractions, then the range that all the widths allow."""
    yield 0.25
    yield from (n / 64 for n in (32, 8, 4, 16, 64, *range(1, 64)))
    yield from (n / 100 for n in range(1, 100))
    low = max(0.0 if s == 1 else (s - 0.5) / w for w, s in squeezes)
    high = min((s + 0.5) / w for w, s in squeezes)
    yield from ((low + high) / 2, min(high, 1.0), low)
    yield from (s / w for w, s in squeezes)


def network_shapes(spec: Spec) -> dict[str, Shape]:
    """Return the name and shape of every tensor in a spec's network, in its order."""
    shapes: dict[str, Shape] = {}
    for layer in layers(spec):
        shapes[f"{layer.name}.weight"] = layer.shape
        if layer.has_bias:
            shapes[f"{layer.name}.bias"] = (layer.width_out,)
        if layer.norm is not None:
            vectors = ("weight", "bias", "running_mean", "running_var")
            shapes |= {f"{layer.norm}.{vector}": (layer.width_out,) for vector in vectors}
            shapes[f"{layer.norm}.num_batches_tracked"] = ()
    return shapes


def describe_spec(spec: Spec) -> str:
    """Return a network's name or, where it has none, its figures: one line for messages."""
    if name := published_name(spec):
        return name

    def each(figure: str) -> str:
        return "/".join(str(getattr(stage, figure)) for stage in spec.stages)

    text = (
        f"the network of stem {spec.stem_width}, depths {each('depth')}, widths {each('width')}, "
        f"group widths {each('group_width')}"
    )
    if any(stage.bottleneck != 1 for stage in spec.stages):
        text += f", bottleneck ratios {each('bottleneck')}"
    return text if spec.se_ratio is None else f"{text}, squeeze-excite {spec.se_ratio:g}"


def same_architecture(a: Spec, b: Spec) -> bool:
    """Tell whether two specs have tensors of the same shapes, their heads aside."""
    return network_shapes(a.with_classes(1)) == network_shapes(b.with_classes(1))


def difference(network: Shapes, weights: Shapes) -> str | None:
    """Return both sides of each difference, if any. `num_batches_tracked` may be absent."""
    missing = [k for k in network if k not in weights and not k.endswith(".num_batches_tracked")]
    unexpected = [k for k in weights if k not in network]
    shapes = [k for k in network if k in weights and network[k] != weights[k]]
    lines = [
        *_listed("missing from the weights", _by_block(missing, network)),
        *_listed("in the weights, not in the network", _by_block(unexpected, weights)),
        *_listed(
            "of different shapes",
            [(f"{k}: network {network[k]}, weights {weights[k]}", 1) for k in shapes],
        ),
    ]
    return "\n".join(lines) if lines else None


def _by_block(keys: list[str], shapes: Shapes) -> list[tuple[str, int]]:
    """Return a line for each block (or layer) and the number of tensors that it stands for."""
    blocks: dict[str, list[str]] = {}
    for key in keys:
        blocks.setdefault(".".join(key.split(".")[:2]), []).append(key)
    return [
        (f"{group[0]} {shapes[group[0]]}", 1)
        if len(group) == 1
        else (
            f"{block}.*: {len(group)} tensors, the first {group[0]} {shapes[group[0]]}",
            len(group),
        )
        for block, group in blocks.items()
    ]


def _listed(title: str, rows: list[tuple[str, int]]) -> list[str]:
    if not rows:
        return []
    lines = [f"  {sum(count for _, count in rows)} {title}:"]
    lines += [f"    {text}" for text, _ in rows[:_SHOWN]]
    if rest := sum(count for _, count in rows[_SHOWN:]):
        lines.append(f"    ... and {rest} more")
    return lines
