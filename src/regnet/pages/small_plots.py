"""Small plots in rows and columns, placed by fixed margins: many are laid out at once."""

from typing import TYPE_CHECKING, Final

import numpy as np

from regnet.statistics.draws import Reals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_EDGES: Final = (0.62, 0.12, 0.3, 0.48)  # inches left, right, above and below all plots
_BESIDE: Final = 0.22  # inches between plots, for labels where each has its own scale
_OWN: Final = 0.4


def rows_of(count: int, columns: int) -> int:
    """Return the rows that so many plots take."""
    return -(-count // columns)


def small_plots(
    canvas: "Figure",
    rows: int,
    columns: int,
    *,
    below: float,
    share_x: bool = False,
    share_y: bool = True,
) -> list[list["Axes"]]:
    """Return rows of plots, `below` inches between one and the next, of shared or own scales."""
    width, height = canvas.get_size_inches()
    left, right, above, under = _EDGES
    beside = _BESIDE if share_y else _BESIDE + _OWN
    plot_width = (width - left - right - (columns - 1) * beside) / columns
    plot_height = (height - above - under - (rows - 1) * below) / rows
    canvas.set_layout_engine(None)
    margins = {
        "left": left / width,
        "right": 1 - right / width,
        "top": 1 - above / height,
        "bottom": under / height,
        "wspace": beside / plot_width,
        "hspace": below / plot_height,
    }
    plots = canvas.subplots(
        rows, columns, sharex=share_x, sharey=share_y, squeeze=False, gridspec_kw=margins
    )
    return [list(row) for row in plots]


def first(plots: list[list["Axes"]], count: int) -> list["Axes"]:
    """Return so many plots row by row and take the rest away; the lowest keep their numbers."""
    flat, columns = [axes for row in plots for axes in row], len(plots[0])
    for axes in flat[count:]:
        axes.remove()
    for axes in flat[max(count - columns, 0) : count]:
        axes.tick_params(labelbottom=True)
    return flat[:count]


def label_outside(plots: list["Axes"], columns: int, *, x: str = "", y: str = "") -> None:
    """Give labels to the lowest plot of each column, and to the first of each row."""
    for axes in plots[max(len(plots) - columns, 0) :]:
        axes.set_xlabel(x)
    for axes in plots[::columns]:
        axes.set_ylabel(y)


def log_x(axes: "Axes", *, base: int = 10) -> None:
    """Give the x axis a scale of logarithms with plain numbers."""
    axes.set_xscale("log", base=base)
    _plain_numbers(axes.xaxis)


def log_y(axes: "Axes", values: Reals) -> None:
    """Likewise the y axis, numbered by 1, 2 and 5 within the values that are drawn."""
    from matplotlib.ticker import FixedLocator

    axes.set_yscale("log")
    _plain_numbers(axes.yaxis)
    low, high = 0.8 * values.min(), 1.25 * values.max()
    tens = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    ticks = np.outer(tens, (1, 2, 5)).ravel()
    axes.yaxis.set_major_locator(FixedLocator(ticks[(ticks >= low) & (ticks <= high)].tolist()))
    axes.set_ylim(low, high)


def _plain_numbers(axis: "Axis") -> None:
    from matplotlib.ticker import NullLocator

    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}")
