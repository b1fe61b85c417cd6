"""The paper's design spaces as values.

Source: Radosavovic et al., Designing Network Design Spaces (arXiv 2003.13678), sections 3 and 4,
and their code's samplers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import numpy as np

from regnet.statistics.draws import Reals
from regnet.system.errors import UnknownModelError

Range = tuple[float, float]

_GROUP_WIDTHS: Final = (1, 2, 4, 8, 16, 32)
_BOTTLENECKS: Final = (1, 2, 4)


@dataclass(frozen=True, kw_only=True)
class AnyNetSpace:
    """Networks of `stages` stages, each with its own depth, width, bottleneck and group width.

    Depths go from 1 to `depth`, widths from 8 to `width` in steps of 8, both log-uniform. A
    `shared_` value is the same in all stages; `rising_` ones never fall from stage to stage.
    """

    name: str
    stages: int = 4
    depth: int = 16
    width: int = 1024
    bottlenecks: tuple[int, ...] = _BOTTLENECKS
    group_widths: tuple[int, ...] = _GROUP_WIDTHS
    shared_bottleneck: bool = False
    shared_group_width: bool = False
    rising_widths: bool = False
    rising_depths: bool = False
    se_ratio: float | None = None


@dataclass(frozen=True, kw_only=True)
class RegNetSpace:
    """Networks whose widths lie on a quantised line, of `stages` stages.

    The depth is uniform up to `depth`; w0 (from 8 in steps of 8), wa (from 0.1 in steps of 0.1) and
    wm (in steps of 0.001) are log-uniform, as are group widths from 8 to `group_width` in steps of
    8; without `group_width` they are one of `group_widths`. `enveloped` spaces keep to
    `largest_params` and `largest_acts`.
    """

    name: str
    stages: int = 4
    depth: int = 63
    w0: int = 256
    wa: float = 256.0
    wm: Range = (1.5, 3.0)
    bottlenecks: tuple[int, ...] = _BOTTLENECKS
    group_widths: tuple[int, ...] = _GROUP_WIDTHS
    group_width: int | None = None
    enveloped: bool = False
    se_ratio: float | None = None


Space = AnyNetSpace | RegNetSpace

_A: Final = AnyNetSpace(name="anynetx-a")
_B: Final = replace(_A, name="anynetx-b", shared_bottleneck=True)
_C: Final = replace(_B, name="anynetx-c", shared_group_width=True)
_D: Final = replace(_C, name="anynetx-d", rising_widths=True)
_E: Final = replace(_D, name="anynetx-e", rising_depths=True)
_R: Final = RegNetSpace(name="regnet")
_X: Final = RegNetSpace(
    name="regnetx", depth=40, wm=(2.0, 3.0), bottlenecks=(1,), group_width=256, enveloped=True
)
_Y: Final = replace(_X, name="regnety", se_ratio=0.25)

SPACES: Final[Mapping[str, Space]] = MappingProxyType(
    {space.name: space for space in (_A, _B, _C, _D, _E, _R, _X, _Y)}
)


def space_by_name(name: str) -> Space:
    """Return a space by its name in any case; raises `UnknownModelError` that lists the names."""
    if (space := SPACES.get(name.lower())) is None:
        known = ", ".join(SPACES)
        raise UnknownModelError(f"no design space is called {name!r}; known are {known}")
    return space


def largest_params(macs: Reals) -> Reals:
    """Return the largest parameters of good models by MACs at 224 pixels: the paper's figure 12."""
    return 3.0e6 + 5.5e-3 * macs


def largest_acts(macs: Reals) -> Reals:
    """Return the largest activations of good models by MACs at 224 pixels: likewise."""
    return 6.5e6 * np.sqrt(macs / 1e9)
