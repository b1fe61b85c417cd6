"""Plots as SVG that takes its colours and type from the page, so it is right in light and dark."""

import io
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from regnet.pages.report import Plot

INK: Final = "#010203"
MUTED: Final = "#010204"
LINE: Final = "#010205"
ACCENT: Final = "#010206"
WARM: Final = "#010207"
SOFT: Final = "#010208"
CARD: Final = "#010209"
"""Colours to draw with. Each stands for the page's colour of that name, light or dark."""

_NAMES: Final = {
    INK: "ink",
    MUTED: "muted",
    LINE: "line",
    ACCENT: "accent",
    WARM: "warm",
    SOFT: "soft",
    CARD: "card",
}
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def svg(plot: "Plot") -> str:
    """Return a drawn plot as SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({**_STYLE, "svg.hashsalt": plot.name}):
        figure = Figure(figsize=(plot.width, plot.height), layout="constrained")
        plot.draw(figure)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    return _inline(buffer.getvalue(), plot.name, plot.label)


def plain(axes: "Axes", *, grid: str = "y") -> None:
    """Give axes light grid lines along `grid` ("x", "y", "both") and no tick marks."""
    axes.grid(True, axis=grid)  # type: ignore[arg-type]
    axes.tick_params(length=0, pad=5)


def legend_above(axes: "Axes") -> None:
    """Put the legend above the axes, off what is drawn."""
    count = len(axes.get_legend_handles_labels()[1])
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=min(count, 4), borderaxespad=0.3)


def _inline(text: str, name: str, label: str) -> str:
    """Return an SVG file's element with the page's colours, ids of its own and no fixed size."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="([\d.]+)pt" height="[\d.]+pt"', _sized, text, count=1)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    for colour, variable in _NAMES.items():
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(r"\n\s*", "\n", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{_escaped(label)}" ', 1)


def _sized(found: re.Match[str]) -> str:
    """Let a plot grow by a fifth at most, and shrink to where its text can be read: 8 pixels."""
    width = float(found[2])
    return f'{found[1]} style="max-width:{1.6 * width:.0f}px;min-width:{0.86 * width:.0f}px"'


def _escaped(text: str) -> str:
    from markupsafe import escape

    return str(escape(text))
