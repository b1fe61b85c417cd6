"""Networks that only timm names (RegNetV, RegNetZ, the largest of SEER), as fields of their specs.

Figures: timm's model definitions (`timm/models/regnet.py` and `byobnet.py`).
"""

from typing import Any, Final

_Fields = dict[str, Any]


def _stages(
    depths: tuple[int, ...], widths: tuple[int, ...], g: int, expansion: int
) -> list[list[int]]:
    return [[depth, width, g, 1, expansion] for depth, width in zip(depths, widths, strict=True)]


_V: _Fields = {"se_ratio": 0.25, "activation": "silu", "block": "pre-activation"}
_Z: _Fields = {"se_ratio": 0.25, "activation": "silu", "block": "linear", "shortcut": "none"}
_Z4 = _Z | {"d": 28, "w0": 48, "wa": 14.5, "wm": 2.226, "g": 8, "expansion": 4}
_B = _Z | {"inner_from": "input", "squeeze_from": "inner", "head_width": 1536}
_D = _B | {"stem_width": 64, "tiered_stem": True, "head_width": 1792}
_B_BLOCKS = (2, 6, 12, 2), (48, 96, 192, 288)
_D_BLOCKS = (3, 6, 12, 3), (64, 128, 256, 384)
_E_BLOCKS = (3, 8, 16, 3), (96, 192, 384, 512)

TIMM_ONLY: Final[dict[str, _Fields]] = {
    "regnety-64gf": {"d": 20, "w0": 352, "wa": 147.48, "wm": 2.4, "g": 328, "se_ratio": 0.25},
    "regnety-256gf": {"d": 27, "w0": 640, "wa": 230.83, "wm": 2.53, "g": 373, "se_ratio": 0.25},
    "regnetv-4.0gf": _V | {"d": 22, "w0": 96, "wa": 31.41, "wm": 2.24, "g": 64},
    "regnetv-6.4gf": _V
    | {"d": 25, "w0": 112, "wa": 33.22, "wm": 2.27, "g": 72, "shortcut": "pool"},
    "regnetz-500mf": _Z
    | {"d": 21, "w0": 16, "wa": 10.7, "wm": 2.51, "g": 4, "expansion": 4, "head_width": 1024},
    "regnetz-4.0gf": _Z4,
    "regnetz-4.0gf-h": _Z4 | {"head_width": 1536},
    "regnetz-b16": _B | {"stages": _stages(*_B_BLOCKS, 16, 3)},
    "regnetz-c16": _B | {"stages": _stages(*_B_BLOCKS, 16, 4)},
    "regnetz-d8": _D | {"stages": _stages(*_D_BLOCKS, 8, 4)},
    "regnetz-d32": _D | {"stages": _stages(*_D_BLOCKS, 32, 4)},
    "regnetz-e8": _D | {"stages": _stages(*_E_BLOCKS, 8, 4), "head_width": 2048},
}
