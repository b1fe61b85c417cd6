"""The plots of the 24 published networks: what grows with MACs, and how."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from regnet.pages.figures import ACCENT, INK, MUTED, WARM, plain
from regnet.pages.small_plots import first, label_outside, log_x, log_y, rows_of, small_plots
from regnet.space.published import Published
from regnet.space.trends import column
from regnet.statistics.bootstrap import Interval
from regnet.statistics.draws import Reals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Networks = Sequence[Published]
Exponents = Mapping[str, Interval]

_NAMES: Final = {
    "d": "depth d, blocks",
    "w0": "initial width w0",
    "wa": "slope of widths wa",
    "wm": "width multiplier wm",
    "g": "group width g",
    "params": "parameters, millions",
    "acts": "activations, millions",
}
_FLAT: Final = ("d", "wm")  # what does not grow: drawn with its mean, and from 0
_ACROSS: Final = 6


def draw_trends(canvas: "Figure", networks: Networks, exponents: Exponents) -> None:
    """Draw depth, widths, group width and error against MACs, the families in two colours."""
    plots = first(small_plots(canvas, 2, 3, below=0.3, share_x=True, share_y=False), 6)
    for axes, name in zip(plots, ("d", "g", "w0", "wa", "wm"), strict=False):
        _draw_trend(axes, networks, name, exponents)
    _draw_families(plots[5], networks, 100 * np.array([one.error for one in networks]))
    plots[5].set_ylabel("top-1 error, %")
    for axes in plots[3:]:
        axes.set_xlabel("GMACs")
    plots[5].legend(loc="upper right")


def draw_published_costs(canvas: "Figure", networks: Networks, exponents: Exponents) -> None:
    """Draw activations and parameters against MACs, with the powers of MACs they grow with."""
    plots = small_plots(canvas, 1, 2, below=0, share_y=False)[0]
    for axes, name in zip(plots, ("acts", "params"), strict=True):
        _draw_trend(axes, networks, name, exponents)
        axes.set_xlabel("GMACs")
    plots[0].legend(loc="lower right")


def _draw_trend(axes: "Axes", networks: Networks, name: str, exponents: Exponents) -> None:
    values = column(networks, name) / (1e6 if name in ("params", "acts") else 1)
    macs = column(networks, "macs") / 1e9
    if name in _FLAT:
        axes.axhline(float(values.mean()), color=MUTED, linewidth=1.4)
        axes.set_ylim(0, 1.15 * values.max())
        _note(axes, f"mean {values.mean():.1f}", top=False)
    else:
        exponent, order = exponents[name].value, np.argsort(macs)
        line = power_line(macs, values, exponent)
        axes.plot(macs[order], line[order], color=MUTED, linewidth=1.4)
        log_y(axes, values)
        _note(axes, f"MACs to the power {exponent:.2f}", top=True)
    _draw_families(axes, networks, values)
    axes.set_ylabel(_NAMES[name])


def power_line(x: Reals, y: Reals, exponent: float) -> Reals:
    """Return the line of that exponent through the mean of the logarithms, at x."""
    middle = float(np.mean(np.log(y)) - exponent * np.mean(np.log(x)))
    return np.exp(middle + exponent * np.log(x))


def _draw_families(axes: "Axes", networks: Networks, values: Reals) -> None:
    for family, colour in (("regnetx", ACCENT), ("regnety", WARM)):
        chosen = [place for place, one in enumerate(networks) if one.family == family]
        macs = column([networks[place] for place in chosen], "macs") / 1e9
        axes.plot(macs, values[chosen], "o", color=colour, markersize=4.5, label=family)
    log_x(axes)
    plain(axes, grid="both")


def _note(axes: "Axes", text: str, *, top: bool) -> None:
    y, va = (0.96, "top") if top else (0.04, "bottom")
    axes.text(0.03, y, text, transform=axes.transAxes, va=va, color=INK, fontsize=9)


def draw_widths(canvas: "Figure", networks: Networks) -> None:
    """Draw the width of every block of every network, and the line it was rounded from."""
    rows = rows_of(len(networks), _ACROSS)
    plots = first(small_plots(canvas, rows, _ACROSS, below=0.3, share_x=True), len(networks))
    for axes, one in zip(plots, networks, strict=True):
        colour = ACCENT if one.family == "regnetx" else WARM
        widths = [w for stage in one.spec.stages for w in [stage.width] * stage.depth]
        blocks = np.arange(one.spec.d)
        axes.plot(blocks, one.spec.w0 + one.spec.wa * blocks, color=MUTED, linewidth=1)
        axes.step(blocks, widths, where="mid", color=colour, linewidth=1.8)
        axes.set_title(one.name, fontsize=9, color=INK)
        plain(axes, grid="both")
    log_y(plots[0], np.array([24.0, 4096.0]))
    label_outside(plots, _ACROSS, x="block", y="width")
