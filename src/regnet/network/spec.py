"""Network descriptions: the RegNet design space in the paper's symbols, and its published members.

Source: Radosavovic et al., Designing Network Design Spaces (arXiv 2003.13678), sections 3.2-3.3.
"""

import json
import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from regnet.network.timm_only import TIMM_ONLY
from regnet.system.checked import Checked, Rule, within
from regnet.system.errors import SpecError, UnknownModelError, reason_of
from regnet.system.files import write_whole
from regnet.system.json_text import json_bytes
from regnet.system.output_file import naming

Rounding = Literal["pycls", "torchvision"]

MAX_DEPTH = 512
MAX_WIDTH = 65536
MAX_CLASSES = 1_000_000
SPEC_SUFFIX: Final = ".json"
_MAX_SPEC_BYTES: Final = 1 << 20

Depth = Annotated[int, within(ge=1, le=MAX_DEPTH)]
Width = Annotated[int, within(ge=1, le=MAX_WIDTH)]
Bottleneck = Annotated[int, within(ge=1, le=64)]


@dataclass(frozen=True)
class Stage(Checked, error=SpecError):
    """A run of `depth` blocks of one width; the first halves height and width.

    The 3x3 convolution has `width / bottleneck * expansion` channels in groups of `group_width`.
    Raises `SpecError` if the group width does not divide them.
    """

    depth: Depth
    width: Width
    group_width: Width
    bottleneck: Bottleneck = 1
    expansion: Bottleneck = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        divides = self.width % self.bottleneck == 0
        self._require(divides, "bottleneck", f"a divisor of width {self.width}")
        channels = f"a divisor of the 3x3 convolution's {self.inner_width} channels"
        self._require(self.inner_width % self.group_width == 0, "group_width", channels)

    @property
    def inner_width(self) -> int:
        """Channels of the 3x3 convolution."""
        return self.inner_of(self.width)

    def inner_of(self, width: int) -> int:
        """Channels of the 3x3 convolution where they follow from another width than the stage's."""
        return width // self.bottleneck * self.expansion


def squeeze_width(ratio: float, width: int, of_inner: bool) -> int:
    """Return the width of the squeeze for a block's input, or for its inner width."""
    if of_inner:
        return max(8, int(width * ratio + 4) // 8 * 8)
    return max(1, round(width * ratio))


@dataclass(frozen=True, kw_only=True)
class _Frame(Checked, error=SpecError):
    """What surrounds the stages in every spec (stem, squeeze-excite, head) and what blocks are.

    Defaults are the paper's RegNetX. `activation` is that of stem, blocks and head. A "linear"
    `block` has none after the sum; a "pre-activation" block begins with batch norm and activation,
    and its stem is a convolution alone. Both have one more activation before the head. `shortcut`
    is that of blocks which change size or width: a 1x1 convolution, an average "pool" before it, or
    "none". The width inside of a block follows from the block's output, or its input
    (`inner_from`); `se_ratio` is a share of the block's "input" or, with `squeeze_from` "inner", of
    that width, to the nearest multiple of 8, and ReLU follows. A `tiered_stem` is three
    convolutions that halve twice, and the first stage does not halve. `head_width` adds a 1x1
    convolution before the head.
    """

    stem_width: Width = 32
    stem_stride: Annotated[int, within(ge=1, le=2)] = 2
    se_ratio: Annotated[float, within(gt=0, le=1)] | None = None
    classes: Annotated[int, within(ge=1, le=MAX_CLASSES)] = 1000
    activation: Literal["relu", "silu"] = "relu"
    block: Literal["bottleneck", "linear", "pre-activation"] = "bottleneck"
    shortcut: Literal["convolution", "pool", "none"] = "convolution"
    inner_from: Literal["output", "input"] = "output"
    squeeze_from: Literal["input", "inner"] = "input"
    tiered_stem: bool = False
    head_width: Width | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        plain = self.block != "pre-activation" and self.stem_stride == 2
        self._require(plain or not self.tiered_stem, "tiered_stem", "false with this block or stem")

    def with_classes(self, classes: int) -> Self:
        """Return the same network with another number of classes."""
        return replace(self, classes=classes)

    def with_small_stem(self, width: int = 16) -> Self:
        """Return the same network with the stem for images of 32 to 64 pixels: 3x3, stride 1."""
        return replace(self, stem_width=width, stem_stride=1, tiered_stem=False)

    def se_width(self, width_in: int, inner: int) -> int | None:
        """Width of the squeeze in a block with these input and inner channels; None without it."""
        if self.se_ratio is None:
            return None
        of_inner = self.squeeze_from == "inner"
        return squeeze_width(self.se_ratio, inner if of_inner else width_in, of_inner)

    def _require_groups(self, stages: tuple[Stage, ...]) -> None:
        """Raise unless group widths divide inner widths that follow from the blocks' input."""
        widths = (self.stem_width, *(stage.width for stage in stages))
        for stage, width in zip(stages, widths, strict=False):
            fits = width % stage.bottleneck == stage.inner_of(width) % stage.group_width == 0
            self._require(
                fits or self.inner_from == "output",
                "inner_from",
                f"'output' where groups of {stage.group_width} do not divide "
                f"{stage.inner_of(width)} channels",
            )


@dataclass(frozen=True, kw_only=True)
class AnyNetSpec(_Frame):
    """A network by its stages, free of any rule between them (the paper's AnyNetX)."""

    stages: Annotated[
        tuple[Stage, ...],
        Rule(f"with 1 to {MAX_DEPTH} items", lambda stages: 1 <= len(stages) <= MAX_DEPTH),
    ]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_groups(self.stages)


@dataclass(frozen=True, kw_only=True)
class RegNetSpec(_Frame):
    """A RegNet: widths on a quantised line (paper, section 3.3).

    d depth in blocks (1..512), w0 initial width (multiple of q), wa slope (>= 0), wm width
    multiplier (> 1), g group width, b bottleneck ratio (width over inner width), q quantum;
    `expansion` is what the inner width is multiplied by.
    `rounding` makes widths divisible by the group width: "pycls" to the nearest multiple,
    "torchvision" the same but one group more if that would lose over 10 %.
    Raises `SpecError` naming the parameter and its allowed range.
    """

    d: Depth
    w0: Width
    wa: Annotated[float, within(ge=0, le=MAX_WIDTH)]
    wm: Annotated[float, within(gt=1, le=64)]
    g: Width
    b: Bottleneck = 1
    q: Annotated[int, within(ge=1, le=1024)] = 8
    rounding: Rounding = "pycls"
    expansion: Bottleneck = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.w0 % self.q == 0, "w0", f"a multiple of q={self.q}")
        narrow = max(self.block_widths) <= MAX_WIDTH
        self._require(narrow, "wa", f"such that no width exceeds {MAX_WIDTH}")
        if self.inner_from == "input":
            self._require_groups(self.stages)

    @cached_property
    def block_widths(self) -> tuple[int, ...]:
        """Width of each block before group widths are taken into account: equations 2 to 4."""
        u = [self.w0 + self.wa * j for j in range(self.d)]
        s = [round(math.log(u_j / self.w0) / math.log(self.wm)) for u_j in u]
        return tuple(self.q * round(self.w0 * self.wm**s_j / self.q) for s_j in s)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The stages: blocks of equal width, made divisible by the group width."""
        widths = sorted(set(self.block_widths))
        return tuple(self._stage(self.block_widths.count(w), w) for w in widths)

    def _stage(self, depth: int, width: int) -> Stage:
        inner = max(1, width // self.b) * self.expansion
        g = min(self.g, inner)
        inner = _nearest_multiple(inner, math.lcm(g, self.expansion), self.rounding)
        return Stage(depth, inner // self.expansion * self.b, g, self.b, self.expansion)


def _nearest_multiple(width: int, g: int, rounding: Rounding) -> int:
    """Return the multiple of g nearest to a width; a half goes to even (pycls) or up."""
    if rounding == "pycls":
        return max(g, round(width / g) * g)
    rounded = max(g, int(width + g / 2) // g * g)
    return rounded + g if rounded < 0.9 * width else rounded


Spec = RegNetSpec | AnyNetSpec

_ADDED_TO_BLOCKS: Final = (
    "activation",
    "block",
    "shortcut",
    "inner_from",
    "squeeze_from",
    "expansion",
)
_ADDED: Final = frozenset((*_ADDED_TO_BLOCKS, "tiered_stem", "head_width"))

# name: d, w0, wa, wm, g (pycls model zoo, dds_baselines); Y adds squeeze-excite of 1/4.
_PUBLISHED: dict[str, tuple[int, int, float, float, int]] = {
    "regnetx-200mf": (13, 24, 36.44, 2.49, 8),
    "regnetx-400mf": (22, 24, 24.48, 2.54, 16),
    "regnetx-600mf": (16, 48, 36.97, 2.24, 24),
    "regnetx-800mf": (16, 56, 35.73, 2.28, 16),
    "regnetx-1.6gf": (18, 80, 34.01, 2.25, 24),
    "regnetx-3.2gf": (25, 88, 26.31, 2.25, 48),
    "regnetx-4.0gf": (23, 96, 38.65, 2.43, 40),
    "regnetx-6.4gf": (17, 184, 60.83, 2.07, 56),
    "regnetx-8.0gf": (23, 80, 49.56, 2.88, 120),
    "regnetx-12gf": (19, 168, 73.36, 2.37, 112),
    "regnetx-16gf": (22, 216, 55.59, 2.1, 128),
    "regnetx-32gf": (23, 320, 69.86, 2.0, 168),
    "regnety-200mf": (13, 24, 36.44, 2.49, 8),
    "regnety-400mf": (16, 48, 27.89, 2.09, 8),
    "regnety-600mf": (15, 48, 32.54, 2.32, 16),
    "regnety-800mf": (14, 56, 38.84, 2.4, 16),
    "regnety-1.6gf": (27, 48, 20.71, 2.65, 24),
    "regnety-3.2gf": (21, 80, 42.63, 2.66, 24),
    "regnety-4.0gf": (22, 96, 31.41, 2.24, 64),
    "regnety-6.4gf": (25, 112, 33.22, 2.27, 72),
    "regnety-8.0gf": (17, 192, 76.82, 2.19, 56),
    "regnety-12gf": (19, 168, 73.36, 2.37, 112),
    "regnety-16gf": (18, 200, 106.23, 2.48, 112),
    "regnety-32gf": (20, 232, 115.89, 2.53, 232),
}

# Networks that only torchvision published: three of the above with its own rounding, and one more.
_TORCHVISION_ONLY: dict[str, tuple[int, int, float, float, int]] = {
    "regnetx-400mf-tv": _PUBLISHED["regnetx-400mf"],
    "regnety-800mf-tv": _PUBLISHED["regnety-800mf"],
    "regnety-8.0gf-tv": _PUBLISHED["regnety-8.0gf"],
    "regnety-128gf": (27, 456, 160.83, 2.52, 264),
}

PUBLISHED_NAMES: tuple[str, ...] = tuple(_PUBLISHED)
SPEC_NAMES: tuple[str, ...] = (*_PUBLISHED, *_TORCHVISION_ONLY, *TIMM_ONLY)


def _timm_name(name: str) -> str:
    """Return timm's name: regnetx-3.2gf -> regnetx_032, regnetx-400mf-tv -> regnetx_004_tv."""
    family, size, *suffix = name.split("-")
    if not size.endswith("f"):
        return name.replace("-", "_")
    tenths = round(float(size[:-2]) * (10 if size.endswith("gf") else 0.01))
    return "_".join([family, f"{tenths:03d}", *suffix])


def _torchvision_name(name: str) -> str | None:
    """Return torchvision's name: regnetx-3.2gf -> regnet_x_3_2gf; None where it has no such net."""
    base = name.removesuffix("-tv")
    if name in TIMM_ONLY or (base == name and f"{name}-tv" in _TORCHVISION_ONLY):
        return None
    family, size = base.split("-")
    if size in ("200mf", "600mf", "4.0gf", "6.4gf", "12gf"):
        return None
    return f"regnet_{family[-1]}_{size.replace('.0gf', 'gf').replace('.', '_')}"


def spec_aliases(name: str) -> tuple[str, ...]:
    """Return the other names of a canonical spec name: timm's, then torchvision's if it has one."""
    return tuple(alias for alias in (_timm_name(name), _torchvision_name(name)) if alias)


def spec_by_name(name: str, *, classes: int = 1000) -> Spec:
    """Return the published network of a card, timm or torchvision name (case does not matter).

    torchvision's regnet_x_400mf, regnet_y_800mf and regnet_y_8gf are networks of their own,
    `regnetx-400mf-tv` and so on here. Raises `UnknownModelError`.
    """
    canonical = canonical_name(name)
    if canonical in TIMM_ONLY:
        return spec_from_dict(TIMM_ONLY[canonical]).with_classes(classes)
    d, w0, wa, wm, g = (_PUBLISHED | _TORCHVISION_ONLY)[canonical]
    return RegNetSpec(
        d=d,
        w0=w0,
        wa=wa,
        wm=wm,
        g=g,
        se_ratio=0.25 if canonical.startswith("regnety") else None,
        rounding="torchvision" if canonical in _TORCHVISION_ONLY else "pycls",
        classes=classes,
    )


def canonical_name(name: str) -> str:
    """Return the canonical spec name behind any alias; raises `UnknownModelError`."""
    wanted = name.lower()
    for known in SPEC_NAMES:
        if wanted == known or wanted in spec_aliases(known):
            return known
    raise UnknownModelError(
        f"no RegNet is called {name!r}; known are {', '.join(SPEC_NAMES)} "
        "and their timm and torchvision names"
    )


def published_name(spec: Spec) -> str | None:
    """Return the canonical name of a network, if any; the number of classes may differ."""
    for name in SPEC_NAMES:
        known = spec_by_name(name, classes=spec.classes)
        if known.stages == spec.stages and _around(known) == _around(spec):
            return name
    return None


def _around(spec: Spec) -> list[Any]:
    """Return what surrounds the stages."""
    return [getattr(spec, f.name) for f in fields(_Frame)]


def network_title(spec: Spec) -> str:
    """Return what to call a network: its published name, or "a RegNetX of 31 blocks"."""
    family = "RegNetX" if spec.se_ratio is None else "RegNetY"
    if spec.block != "bottleneck":
        family = "RegNetZ" if spec.block == "linear" else "RegNetV"
    blocks = sum(stage.depth for stage in spec.stages)
    return published_name(spec) or f"a {family} of {blocks} blocks"


def spec_to_dict(spec: Spec) -> dict[str, Any]:
    """Return a spec as plain JSON values; `spec_from_dict` reads it back.

    What later versions added is left out where it is at its default: old specs stay as they were.
    """
    values = {f.name: getattr(spec, f.name) for f in fields(spec)}
    for f in fields(spec):
        if f.name in _ADDED and values[f.name] == f.default:
            del values[f.name]
    if isinstance(spec, AnyNetSpec):
        values["stages"] = [_row(stage) for stage in spec.stages]
    return values


def _row(stage: Stage) -> list[int]:
    row = [getattr(stage, f.name) for f in fields(Stage)]
    return row if stage.expansion > 1 else row[:-1]


def spec_from_dict(values: dict[str, Any]) -> Spec:
    """Return the spec that `spec_to_dict` wrote; raises `SpecError` on unknown or bad fields."""
    return (AnyNetSpec if "stages" in values else RegNetSpec).from_dict(values)


def read_spec(path: Path) -> Spec:
    """Return the spec in a file of one JSON object; raises `UnknownModelError` where it is none."""
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(_MAX_SPEC_BYTES))
        if not isinstance(values, dict):
            raise ValueError("it is not a JSON object")
        return spec_from_dict(values)
    except OSError as exc:
        raise UnknownModelError(f"{path}: cannot be read ({reason_of(exc)})") from exc
    except (SpecError, ValueError, RecursionError) as exc:
        raise UnknownModelError(
            f"{path}: is not a network's spec ({exc}); `regnet space search -o` writes one, and "
            "each line of `regnet space sample` is one"
        ) from exc


def write_spec(path: Path, spec: Spec) -> None:
    """Write a spec to a file, whole or not at all. Raises `OutputError`."""
    with naming(path):
        write_whole(path, json_bytes(spec_to_dict(spec)) + b"\n")
