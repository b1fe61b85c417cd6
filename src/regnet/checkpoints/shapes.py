"""The network that a set of tensors belongs to, found from their names (pycls's) and shapes."""

import re
from collections.abc import Iterable, Mapping
from itertools import groupby

from regnet.network.spec import AnyNetSpec, Spec, Stage, published_name, spec_by_name
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
    stem = _shape(shapes, "stem.conv.weight", 4)
    if stem[1:] != (3, 3, 3):
        raise MismatchError(
            f"stem.conv.weight has shape {stem}: a RegNet's stem is (width, 3, 3, 3)"
        )
    try:
        stages = tuple(_stage(shapes, f"s{i}", d) for i, d in enumerate(depths, start=1))
        spec = AnyNetSpec(
            stages=stages,
            stem_width=stem[0],
            se_ratio=_se_ratio(shapes, stem[0], stages),
            classes=_classes(shapes) if classes is None else classes,
        )
    except SpecError as exc:
        raise MismatchError(f"the tensors' shapes make no network: {exc}") from exc
    name = published_name(spec)
    return spec if name is None else spec_by_name(name, classes=spec.classes)


def _depths(shapes: Shapes) -> list[int]:
    """Return the number of blocks in each stage; both must be numbered from 1 without a gap."""
    matches = [match for match in map(_BLOCK.match, shapes) if match]
    found = sorted({(int(match[1]), int(match[2])) for match in matches})
    blocks = {stage: [b for _, b in rows] for stage, rows in groupby(found, key=lambda x: x[0])}
    if not blocks:
        raise MismatchError("no tensor belongs to a block (s1.b1.f.a.weight and so on)")
    _require_no_gap("stage", "s", list(blocks))
    for stage, numbers in blocks.items():
        _require_no_gap(f"block of stage s{stage}", f"s{stage}.b", numbers)
    return [len(numbers) for numbers in blocks.values()]


def _require_no_gap(what: str, prefix: str, numbers: list[int]) -> None:
    for expected, number in enumerate(numbers, start=1):
        if number != expected:
            raise MismatchError(
                f"a {what} is missing: there is {prefix}{number} but no {prefix}{expected}"
            )


def _shape(shapes: Shapes, key: str, rank: int) -> Shape:
    shape = shapes.get(key)
    if shape is None:
        raise MismatchError(f"{key} is missing")
    if len(shape) != rank:
        raise MismatchError(f"{key} has shape {shape}: {rank} dimensions expected")
    return shape


def _stage(shapes: Shapes, name: str, depth: int) -> Stage:
    first = _grouped_and_last(shapes, f"{name}.b1")
    for number in range(2, depth + 1):
        other = _grouped_and_last(shapes, f"{name}.b{number}")
        if other != first:
            raise MismatchError(
                f"blocks of one stage differ: {name}.b1.f.b.weight and f.c.weight have shapes "
                f"{first[0]} and {first[1]}, those of {name}.b{number} {other[0]} and {other[1]}"
            )
    (inner, group_width, *kernel), (width, *_) = first
    if kernel != [3, 3]:
        raise MismatchError(f"{name}.b1.f.b.weight has shape {first[0]}: a 3x3 kernel expected")
    if not inner or width % inner:
        raise MismatchError(
            f"{name}.b1.f.b.weight has {inner} channels, which do not divide the {width} of "
            f"{name}.b1.f.c.weight: the bottleneck ratio must be a whole number"
        )
    return Stage(depth, width, group_width, max(1, width // inner))


def _grouped_and_last(shapes: Shapes, block: str) -> tuple[Shape, Shape]:
    return _shape(shapes, f"{block}.f.b.weight", 4), _shape(shapes, f"{block}.f.c.weight", 4)


def _classes(shapes: Shapes) -> int:
    if "head.fc.weight" not in shapes:
        raise MismatchError(
            "head.fc.weight is missing: the weights have no classifier (ask for a new head)"
        )
    return _shape(shapes, "head.fc.weight", 2)[0]


def _se_ratio(shapes: Shapes, stem_width: int, stages: tuple[Stage, ...]) -> float | None:
    """Return the squeeze-excite ratio that gives every block's squeeze width; None without."""
    if not any(".f.se." in key for key in shapes):
        return None
    squeezes: list[tuple[int, int]] = []
    width_in = stem_width
    for i, stage in enumerate(stages, start=1):
        for j in range(1, stage.depth + 1):
            squeeze = _shape(shapes, f"s{i}.b{j}.f.se.f_ex.0.weight", 4)[0]
            squeezes.append((width_in, squeeze))
            width_in = stage.width
    return _common_ratio(list(dict.fromkeys(squeezes)))


def _common_ratio(squeezes: list[tuple[int, int]]) -> float:
    """Return the ratio r with max(1, round(width * r)) == squeeze for all (width, squeeze)."""
    for ratio in _candidate_ratios(squeezes):
        if 0 < ratio <= 1 and all(max(1, round(w * ratio)) == s for w, s in squeezes):
            return ratio
    pairs = ", ".join(f"{s} of {w}" for w, s in squeezes[:6])
    raise MismatchError(
        f"no one squeeze-excite ratio gives the squeeze widths in f.se.f_ex.0.weight ({pairs})"
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
    """Return the name and shape of every tensor in a spec's network, without building it."""
    shapes = {"stem.conv.weight": (spec.stem_width, 3, 3, 3), **_bn("stem.bn", spec.stem_width)}
    width_in = spec.stem_width
    for i, stage in enumerate(spec.stages, start=1):
        for j in range(1, stage.depth + 1):
            block = f"s{i}.b{j}"
            if j == 1:
                shapes[f"{block}.proj.weight"] = (stage.width, width_in, 1, 1)
                shapes |= _bn(f"{block}.bn", stage.width)
            shapes |= _transform(f"{block}.f", stage, width_in, spec.se_width(width_in))
            width_in = stage.width
    shapes |= {"head.fc.weight": (spec.classes, width_in), "head.fc.bias": (spec.classes,)}
    return shapes


def _transform(name: str, stage: Stage, width_in: int, squeeze: int | None) -> dict[str, Shape]:
    inner = stage.inner_width
    shapes: dict[str, Shape] = {f"{name}.a.weight": (inner, width_in, 1, 1)}
    shapes |= _bn(f"{name}.a_bn", inner)
    shapes[f"{name}.b.weight"] = (inner, stage.group_width, 3, 3)
    shapes |= _bn(f"{name}.b_bn", inner)
    if squeeze is not None:
        shapes[f"{name}.se.f_ex.0.weight"] = (squeeze, inner, 1, 1)
        shapes[f"{name}.se.f_ex.0.bias"] = (squeeze,)
        shapes[f"{name}.se.f_ex.2.weight"] = (inner, squeeze, 1, 1)
        shapes[f"{name}.se.f_ex.2.bias"] = (inner,)
    shapes[f"{name}.c.weight"] = (stage.width, inner, 1, 1)
    return shapes | _bn(f"{name}.c_bn", stage.width)


def _bn(name: str, width: int) -> dict[str, Shape]:
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{v}": (width,) for v in vectors} | {f"{name}.num_batches_tracked": ()}


def describe_spec(spec: Spec) -> str:
    """Return a network's name or, where it has none, its figures: one line for messages."""
    if name := published_name(spec):
        return name
    stages = spec.stages
    text = (
        f"stem {spec.stem_width}, depths {_slashed(s.depth for s in stages)}, "
        f"widths {_slashed(s.width for s in stages)}, "
        f"group widths {_slashed(s.group_width for s in stages)}"
    )
    if any(s.bottleneck != 1 for s in stages):
        text += f", bottleneck ratios {_slashed(s.bottleneck for s in stages)}"
    if spec.se_ratio is not None:
        text += f", squeeze-excite {spec.se_ratio:g}"
    return f"the network of {text}"


def _slashed(numbers: Iterable[int]) -> str:
    return "/".join(map(str, numbers))


def same_architecture(a: Spec, b: Spec) -> bool:
    """Tell whether two specs have tensors of the same shapes, their heads aside."""
    return (a.stem_width, a.stages, _squeezes(a)) == (b.stem_width, b.stages, _squeezes(b))


def _squeezes(spec: Spec) -> list[int | None]:
    """Return the squeeze width for each width that enters a block."""
    widths = [spec.stem_width, *(stage.width for stage in spec.stages)]
    if spec.stages[-1].depth == 1:
        widths.pop()
    return [spec.se_width(width) for width in widths]


def difference(network: Shapes, weights: Shapes) -> str | None:
    """Return both sides of what differs between a network's tensors and weights; None if nothing.

    BN's `num_batches_tracked` may be absent from the weights: it plays no part in the result.
    """
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
