"""The plots of the report of `regnet space analyze`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from regnet.report.figures import ACCENT, INK, LINE, MUTED, SOFT, WARM, plain
from regnet.space.analysis import COSTS, SpaceResult
from regnet.space.draws import Reals
from regnet.space.findings import Difference
from regnet.space.spaces import SPACES
from regnet.space.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS: Final = 3  # of small plots side by side
UNITS: Final = {"macs": (1e6, "MMACs"), "params": (1e6, "million parameters"),
                "acts": (1e6, "million activations")}  # fmt: skip
_HUES: Final = (
    "#4a86e8", "#1fa3b3", "#2fa36b", "#b8901f", "#8c7bd8", "#e0662d", "#d6457f", "#9a6a4f",
)  # fmt: skip
_DASH: Final = (0, (4, 3))


def hue(space: str) -> str:
    """Return the colour of a space, right on light and dark: one for each of the paper's."""
    return dict(zip(SPACES, _HUES, strict=True)).get(space, MUTED)


def draw_edfs(canvas: "Figure", spaces: Sequence[SpaceResult]) -> None:
    """Draw the EDF of every space with its band, in one plot."""
    axes = canvas.subplots()
    for one in spaces:
        _draw_edf(axes, one, hue(one.space), band=0.14)
    _finish_edf(axes, spaces)
    axes.legend(loc="lower right")


def draw_each_edf(canvas: "Figure", spaces: Sequence[SpaceResult]) -> None:
    """Draw the EDF of each space with its band, before those of the others."""
    plots = grid(canvas, len(spaces), share=True)
    for axes, one in zip(plots, spaces, strict=True):
        for other in spaces:
            if other is not one:
                axes.plot(*_steps(other, other.edf.share), color=LINE, linewidth=1)
        _draw_edf(axes, one, hue(one.space), band=0.25)
        _finish_edf(axes, spaces)
        axes.set_title(one.space, fontsize=9.5, color=INK)
    _outer_labels(plots)


def _draw_edf(axes: "Axes", one: SpaceResult, colour: str, *, band: float) -> None:
    x, share = _steps(one, one.edf.share)
    if one.mean is not None:
        low, high = _steps(one, one.edf.low)[1], _steps(one, one.edf.high)[1]
        axes.fill_between(x, low, high, color=colour, alpha=band, linewidth=0)
    axes.plot(x, share, color=colour, linewidth=1.8, label=f"{one.space} ({len(one.population)})")


def _steps(one: SpaceResult, share: Reals) -> tuple[Reals, Reals]:
    """Return the corners of a staircase (errors in %, shares), from 0 at the first error."""
    x = np.repeat(100 * one.edf.errors, 2)
    y = np.concatenate([[0.0], np.repeat(share, 2)[:-1]])
    return x, y


def _finish_edf(axes: "Axes", spaces: Sequence[SpaceResult]) -> None:
    errors = np.concatenate([one.edf.errors for one in spaces])
    low, high = 100 * errors.min(), 100 * errors.max()
    pad = max(0.03 * (high - low), 0.5)
    axes.set(xlim=(low - pad, high + pad), ylim=(0, 1.02))
    axes.set(xlabel="top-1 error, %", ylabel="share of networks")
    plain(axes, grid="both")


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


def draw_parameters(canvas: "Figure", one: SpaceResult) -> None:
    """Draw error against each parameter of a space, with the best value and its band."""
    values = one.population.parameters
    plots = grid(canvas, len(values), share=False)
    for axes, (name, column) in zip(plots, values.items(), strict=True):
        _best_band(axes, one.best.get(name))
        _dots(axes, column, one)
        _scale(axes, column)
        axes.set_xlabel(name)
    _outer_labels(plots, x=False)


def _best_band(axes: "Axes", best: Interval | None) -> None:
    if best is not None:
        axes.axvspan(best.low, best.high, color=SOFT, linewidth=0, zorder=0)
        axes.axvline(best.value, color=ACCENT, linewidth=1.8, zorder=1)


def _dots(axes: "Axes", column: Reals, one: SpaceResult, **options: Any) -> None:
    """Draw a dot for each network: a value and its error."""
    count = len(one.population)
    options = {"color": INK, "alpha": 0.6 if count < 200 else 0.35, **options}
    size = 3.6 if count < 200 else 2.4
    axes.plot(
        column, 100 * one.population.errors, "o", markersize=size, markeredgewidth=0, **options
    )
    axes.set_ylabel("top-1 error, %")
    plain(axes, grid="both")


def _scale(axes: "Axes", column: Reals) -> None:
    """Give an axis of a parameter a scale: of logarithms where it spans more than tenfold."""
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

    few = np.unique(column)
    wide = column.min() > 0 and column.max() > 10 * column.min()
    if wide:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    if len(few) <= 6:
        axes.xaxis.set_major_locator(FixedLocator(few.tolist()))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.margins(x=0.12)
    elif not wide:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=bool((column % 1 == 0).all())))


def draw_costs(canvas: "Figure", spaces: Sequence[SpaceResult]) -> None:
    """Draw error against MACs, parameters and activations, a colour a space."""
    plots = canvas.subplots(1, len(COSTS), sharey=True)
    for axes, name in zip(plots, COSTS, strict=True):
        unit, label = UNITS[name]
        for one in spaces:
            column = one.population.costs(name) / unit
            _dots(axes, column, one, color=hue(one.space), alpha=0.8, label=one.space)
        axes.set_xlabel(label)
    for axes in plots[1:]:
        axes.set_ylabel("")
    _legend(canvas, plots[0])


def draw_fits(canvas: "Figure", spaces: Sequence[SpaceResult]) -> None:
    """Draw error against e_fit, a plot a space."""
    plots = grid(canvas, len(spaces), share=True)
    for axes, one in zip(plots, spaces, strict=True):
        _dots(axes, one.fit_errors, one, color=hue(one.space), alpha=0.85)
        axes.set(xlabel="e_fit", xlim=(0, None))
        axes.set_title(one.space, fontsize=9.5, color=INK)
    _outer_labels(plots)


def grid(canvas: "Figure", count: int, *, share: bool, columns: int = COLUMNS) -> list["Axes"]:
    """Return so many plots, `columns` in a row, all of one error axis, or one of both."""
    columns = min(columns, count)
    plots = canvas.subplots(
        rows_of(count, columns), columns, sharex=share, sharey=True, squeeze=False
    ).ravel()
    for axes in plots[count:]:
        axes.remove()
    return list(plots[:count])


def rows_of(count: int, columns: int = COLUMNS) -> int:
    """Return the rows that so many plots take."""
    return -(-count // max(min(columns, count), 1))


def _outer_labels(plots: Sequence["Axes"], *, x: bool = True) -> None:
    """Leave labels at the left and at the bottom of a grid alone."""
    columns = min(COLUMNS, len(plots))
    for place, axes in enumerate(plots):
        if place % columns:
            axes.set_ylabel("")
        if x and place + columns < len(plots):
            axes.set_xlabel("")
        elif x:
            axes.tick_params(labelbottom=True)


def _legend(canvas: "Figure", axes: "Axes") -> None:
    """Put the legend of one plot over all."""
    handles, labels = axes.get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 8))


def power_line(x: Reals, y: Reals, exponent: float) -> Reals:
    """Return the line of that exponent through the mean of the logarithms, at x."""
    middle = float(np.mean(np.log(y)) - exponent * np.mean(np.log(x)))
    return np.exp(middle + exponent * np.log(x))


Exponents = Mapping[str, Interval]
