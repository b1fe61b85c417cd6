"""The plots of the report of `regnet space analyze`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from regnet.pages.figures import ACCENT, INK, LINE, MUTED, SOFT, WARM, legend_above, plain
from regnet.pages.small_plots import first, label_outside, log_x, log_y, rows_of, small_plots
from regnet.space.analysis import COSTS, SpaceResult
from regnet.space.findings import Difference
from regnet.space.published import Published, column
from regnet.space.sampling import SPACES
from regnet.statistics.bootstrap import Interval
from regnet.statistics.draws import Reals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Networks = Sequence[Published]
Exponents = Mapping[str, Interval]

COLUMNS: Final = 3  # of small plots side by side
ERROR: Final = "top-1 error, %"
SHARE_OF_NETWORKS: Final = "share of networks"
UNITS: Final = {"macs": (1e6, "MMACs"), "params": (1e6, "million parameters"),
                "acts": (1e6, "million activations")}  # fmt: skip
_HUES: Final = (
    "#4a86e8", "#1fa3b3", "#2fa36b", "#b8901f", "#8c7bd8", "#e0662d", "#d6457f", "#9a6a4f",
)  # fmt: skip
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


def hue(space: str) -> str:
    """Return the colour of a space, right on light and dark: one for each of the paper's."""
    return dict(zip(SPACES, _HUES, strict=True)).get(space, MUTED)


def draw_edfs(canvas: "Figure", spaces: Sequence[SpaceResult]) -> None:
    """Draw the EDF of every space with its band, in one plot."""
    axes, limits = canvas.subplots(), _limits(spaces)
    for one in spaces:
        _draw_edf(axes, one, limits, band=0.14)
    axes.set(xlabel=ERROR, ylabel=SHARE_OF_NETWORKS)
    legend_above(axes)


def draw_each_edf(canvas: "Figure", spaces: Sequence[SpaceResult]) -> None:
    """Draw the EDF of each space with its band, before those of the others."""
    limits = _limits(spaces)
    plots = _titled(canvas, spaces, y=SHARE_OF_NETWORKS, x=ERROR)
    for axes, one in zip(plots, spaces, strict=True):
        for other in spaces:
            if other is not one:
                axes.plot(*_steps(other, other.edf.share, limits), color=LINE, linewidth=1)
        _draw_edf(axes, one, limits, band=0.25)


def _draw_edf(axes: "Axes", one: SpaceResult, limits: tuple[float, float], *, band: float) -> None:
    colour = hue(one.space)
    x, share = _steps(one, one.edf.share, limits)
    if one.mean is not None:
        low, high = (_steps(one, end, limits)[1] for end in (one.edf.low, one.edf.high))
        axes.fill_between(x, low, high, color=colour, alpha=band, linewidth=0)
    axes.plot(x, share, color=colour, linewidth=1.8, label=f"{one.space} ({len(one.population)})")
    axes.set(xlim=limits, ylim=(0, 1.02))
    plain(axes, grid="both")


def _steps(one: SpaceResult, share: Reals, limits: tuple[float, float]) -> tuple[Reals, Reals]:
    """Return the corners of a staircase (errors in %, shares) from 0 to 1, within limits."""
    x = [limits[0], *np.repeat(100 * one.edf.errors, 2), limits[1]]
    return np.array(x), np.array([0.0, 0.0, *np.repeat(share, 2)])


def _limits(spaces: Sequence[SpaceResult]) -> tuple[float, float]:
    """Return the ends of an axis of errors in %."""
    errors = np.concatenate([one.edf.errors for one in spaces])
    low, high = 100 * float(errors.min()), 100 * float(errors.max())
    pad = max(0.03 * (high - low), 0.5)
    return low - pad, high + pad


def _titled(canvas: "Figure", spaces: Sequence[SpaceResult], *, x: str, y: str) -> list["Axes"]:
    """Return a plot for each space with its name above, all of the same scales."""
    columns = min(COLUMNS, len(spaces))
    rows = rows_of(len(spaces), columns)
    plots = first(small_plots(canvas, rows, columns, below=0.5, share_x=True), len(spaces))
    for axes, one in zip(plots, spaces, strict=True):
        axes.set_title(one.space, fontsize=9.5, color=INK)
    label_outside(plots, columns, x=x, y=y)
    return plots


def draw_differences(canvas: "Figure", differences: Sequence[Difference]) -> None:
    """Draw the difference of mean errors of each pair with its interval; separated ones bold."""
    axes = canvas.subplots()
    for place, one in enumerate(reversed(differences)):
        colour = MUTED
        if one.separated:
            colour = ACCENT if one.mean.value < 0 else WARM
        ends = (100 * one.mean.low, 100 * one.mean.high)
        axes.plot(ends, (place, place), color=colour, linewidth=2)
        axes.plot([100 * one.mean.value], [place], "o", color=colour, markersize=5)
    axes.axvline(0, color=INK, linewidth=1)
    names = [f"{one.first} \N{MINUS SIGN} {one.second}" for one in reversed(differences)]
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="difference of mean errors, points", ylim=(-0.7, len(names) - 0.3))
    plain(axes, grid="x")


def parameter_rows(one: SpaceResult) -> list[list[str]]:
    """Return the parameters of a space as they are drawn: what stages share, then by stages."""
    names = list(one.population.parameters)
    if one.population.is_line:
        return [names[at : at + COLUMNS] for at in range(0, len(names), COLUMNS)]
    shared = [name for name in names if len(name) == 1]
    by_stage = [[name for name in names if name[0] == c and len(name) > 1] for c in "dwbg"]
    return [row for row in (shared, *by_stage) if row]


def draw_parameters(canvas: "Figure", one: SpaceResult) -> None:
    """Draw error against each parameter of a space, with the best value and its band."""
    rows = parameter_rows(one)
    plots = small_plots(canvas, len(rows), max(map(len, rows)), below=0.58)
    for names, row in zip(rows, plots, strict=True):
        for axes in row[len(names) :]:
            axes.remove()
        row[0].set_ylabel(ERROR)
        by_stage = len({name[0] for name in names}) == 1
        values = [one.population.parameters[name] for name in names]
        for axes, name, scale in zip(row, names, values, strict=False):
            _draw_parameter(axes, one, name, np.concatenate(values) if by_stage else scale)


def _draw_parameter(axes: "Axes", one: SpaceResult, name: str, scale: Reals) -> None:
    """Draw one of them on an axis for the values `scale`."""
    if (best := one.best.get(name)) is not None:
        axes.axvspan(best.low, best.high, color=SOFT, linewidth=0, zorder=0)
        axes.axvline(best.value, color=ACCENT, linewidth=1.8, zorder=1)
    _dots(axes, one.population.parameters[name], one)
    _scale(axes, scale, log=name not in ("d", "wm"))
    axes.set_xlabel(name)


def _dots(axes: "Axes", column: Reals, one: SpaceResult, **options: Any) -> None:
    """Draw a dot for each network: a value and its error."""
    many = len(one.population) >= 200
    options = {"color": INK, "alpha": 0.35 if many else 0.6, **options}
    errors, size = 100 * one.population.errors, 2.4 if many else 3.6
    axes.plot(column, errors, "o", markersize=size, markeredgewidth=0, **options)
    plain(axes, grid="both")


def _scale(axes: "Axes", values: Reals, *, log: bool) -> None:
    """Give an axis the scale of a parameter, with a number at each value where they are few."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    few = np.unique(values)
    low, high = float(few[0]), float(few[-1])
    if log and low > 0:
        log_x(axes, base=2)
        pad = max((high / low) ** 0.07, 1.02)
        axes.set_xlim(low / pad, high * pad)
    else:
        pad = max(0.07 * (high - low), 0.02)
        axes.set_xlim(low - pad, high + pad)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=bool((values % 1 == 0).all())))
    if len(few) <= 4:
        axes.xaxis.set_major_locator(FixedLocator(few.tolist()))


def draw_costs(canvas: "Figure", spaces: Sequence[SpaceResult]) -> None:
    """Draw error against MACs, parameters and activations, a colour a space."""
    plots = small_plots(canvas, 1, len(COSTS), below=0)[0]
    for axes, name in zip(plots, COSTS, strict=True):
        unit, label = UNITS[name]
        for one in spaces:
            column = one.population.costs(name) / unit
            _dots(axes, column, one, color=hue(one.space), alpha=0.8, label=one.space)
        axes.set_xlabel(label)
    plots[0].set_ylabel(ERROR)
    handles, labels = plots[0].get_legend_handles_labels()
    canvas.legend(
        handles, labels, loc="upper center", ncols=len(labels), borderaxespad=0, columnspacing=1.4,
        handletextpad=0.1,
    )  # fmt: skip


def draw_fits(canvas: "Figure", spaces: Sequence[SpaceResult]) -> None:
    """Draw error against e_fit, a plot a space."""
    plots = _titled(canvas, spaces, x="e_fit", y=ERROR)
    for axes, one in zip(plots, spaces, strict=True):
        _dots(axes, one.fit_errors, one, color=hue(one.space), alpha=0.85)
    most = max(float(one.fit_errors.max()) for one in spaces)
    plots[0].set_xlim(-0.03 * most, 1.05 * most or 1)


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
