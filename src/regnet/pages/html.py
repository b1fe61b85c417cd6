"""A report as one HTML file that loads nothing: tables, plots, photos, light and dark.

jinja2 escapes every text and is imported when the first page is made.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regnet.pages import report
from regnet.pages.figures import svg
from regnet.pages.report import Block, Plot, Report
from regnet.system.errors import MissingExtraError
from regnet.system.files import write_whole
from regnet.system.output_file import naming
from regnet.system.version import TOOL_VERSION

if TYPE_CHECKING:
    from jinja2 import Environment


def require_report() -> None:
    """Raise `MissingExtraError` if jinja2 or matplotlib is missing."""
    if find_spec("jinja2") is None or find_spec("matplotlib") is None:
        raise MissingExtraError("an HTML report", "report")


def report_html(result: Report) -> str:
    """Return a report as HTML that loads nothing and runs only its own script.

    Plots are drawn and the photos of galleries read. Raises `MissingExtraError` without the extra
    `report`.
    """
    script = _text("sort.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("page.html")
        .render(
            report=result,
            version=TOOL_VERSION,
            style=_text("page.css"),
            script=script,
            digest=digest,
        )
    )


def write_report(path: Path, result: Report) -> None:
    """Write a report's HTML atomically. Raises `OutputError`, and as `report_html`."""
    html = report_html(result)
    with naming(path):
        write_whole(path, html.encode("utf-8", "backslashreplace"))


def block_html(block: Block) -> str:
    """Return a block of a report as HTML."""
    macros = _environment().get_template("parts.html").module
    return str(getattr(macros, type(block).__name__)(block))


def _svg(plot: Plot) -> str:
    return svg(plot.name, plot.draw, width=plot.width, height=plot.height, label=plot.label)


@cache
def _environment() -> "Environment":
    require_report()
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("regnet.pages", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_unbroken,
    )
    environment.globals.update(html=block_html, svg=_svg)
    return environment


def _unbroken(value: Any) -> Any:
    """Keep a number and its percent sign on one line."""
    return value.replace(" %", "\u00a0%") if isinstance(value, str) else value


def _text(name: str) -> str:
    return files("regnet.pages").joinpath("templates", name).read_text("utf-8")


# The kit before `Report`: goes when training, quantization, benchmarking and space build reports.

Html = Any
Section = report.Section
Tile = report.Tile
Tone = report.Tone
Cell = Any


@dataclass(frozen=True)
class Number:
    """A table cell: what is shown, and the number it is sorted by; None sorts last."""

    text: str
    value: float | None
    share = None


@dataclass(frozen=True)
class Bar:
    """A table cell with a bar behind it, `share` of its width in [0, 1]; None has no bar."""

    text: str
    share: float | None

    @property
    def value(self) -> float | None:
        """The number it is sorted by."""
        return self.share


@dataclass(frozen=True)
class Photo:
    """A photo as a data URL, None where it is gone; lines below it; its path."""

    address: str | None
    lines: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class Svg:
    """A drawn plot."""

    drawing: str
    caption: str = ""


def page(title: str, sections: Sequence[Any], *, subtitle: str = "", foot: str = "") -> str:
    """Return the HTML of a report."""
    command = foot.partition(", ")[2]
    return report_html(Report(title, sections, subtitle=subtitle, command=command))


def write_page(path: Path, html: str) -> None:
    """Write a page."""
    with naming(path):
        write_whole(path, html.encode("utf-8", "backslashreplace"))


def tiles(figures: Sequence[Tile]) -> Any:
    """Return tiles."""
    return report.Tiles(figures)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, sortable: bool = False) -> Any:
    """Return a table."""
    return report.Table(columns, rows, sortable)


def figure(svg: str, caption: str = "") -> Any:
    """Return a drawn plot."""
    return Svg(svg, caption)


def gallery(photos: Sequence[Photo]) -> Any:
    """Return a gallery."""
    pictures = {photo.name: photo.address for photo in photos}
    return report.Gallery([report.Photo(p.name, p.lines) for p in photos], lambda names: pictures)


def facts(pairs: Sequence[tuple[str, str]]) -> Any:
    """Return facts."""
    return report.Facts(pairs)


def assumed_facts(assumed: Sequence[str], name: str = "Assumed") -> list[tuple[str, str]]:
    """Return the fact about what was assumed about a model; none if nothing was."""
    return [(name, "; ".join(assumed))] if assumed else []


def note(text: str) -> Any:
    """Return a paragraph."""
    return text


def side_by_side(*parts: Any) -> Any:
    """Return blocks side by side."""
    return report.Beside(parts)
