"""The parts of a report, each a piece of HTML with every text in it escaped.

Parts are made with `tiles`, `table`, `figure`, `gallery`, `facts` and `note`, put into sections,
and the sections into a `page`. jinja2 is imported when the first part is made.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NewType

from regnet.system.errors import MissingExtraError
from regnet.system.files import write_whole
from regnet.system.output_file import naming

if TYPE_CHECKING:
    from jinja2 import Environment

Html = NewType("Html", str)
"""A piece of HTML that is safe to put into a page as it is."""

Tone = Literal["plain", "good", "bad"]


@dataclass(frozen=True)
class Tile:
    """A figure to be seen first: what it is, its value, a line below, and a verdict in colour."""

    name: str
    value: str
    note: str = ""
    verdict: str = ""
    tone: Tone = "plain"


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


Cell = str | Number | Bar


@dataclass(frozen=True)
class Photo:
    """A photo as a data address (`thumbnail`), None where it is gone; lines below it; its path."""

    address: str | None
    lines: tuple[str, ...]
    name: str

    @property
    def short(self) -> str:
        """The last part of its path."""
        return self.name.rstrip("/").rpartition("/")[2]


@dataclass(frozen=True)
class Section:
    """A heading, a sentence on how to read what follows, and the parts."""

    title: str
    parts: tuple[Html, ...]
    lead: str = ""


def require_report() -> None:
    """Raise `MissingExtraError` where reports cannot be made."""
    if find_spec("jinja2") is None or find_spec("matplotlib") is None:
        raise MissingExtraError("an HTML report", "report")


def page(title: str, sections: Sequence[Section], *, subtitle: str = "", foot: str = "") -> str:
    """Return the HTML of a whole report; it loads nothing and runs only its own script."""
    script = _text("sort.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = _environment().get_template("page.html")
    return template.render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        foot=foot,
        style=_text("page.css"),
        script=script,
        digest=digest,
    )


def write_page(path: Path, html: str) -> None:
    """Write a report, whole or not at all. Raises `OutputError`."""
    with naming(path):
        write_whole(path, html.encode("utf-8", "backslashreplace"))


def tiles(figures: Sequence[Tile]) -> Html:
    """Return large figures side by side."""
    return _part("tiles", figures)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, sortable: bool = False
) -> Html:
    """Return a table; columns of numbers are set right, `sortable` ones sort by a click."""
    numeric = [any(not isinstance(row[i], str) for row in rows) for i in range(len(columns))]
    return _part("table", columns, rows, numeric, sortable)


def figure(svg: str, caption: str = "") -> Html:
    """Return a plot of `figures.svg` with a caption."""
    return _part("figure", svg, caption)


def gallery(photos: Sequence[Photo]) -> Html:
    """Return photos with their lines, as many side by side as fit."""
    return _part("gallery", photos)


def facts(pairs: Sequence[tuple[str, str]]) -> Html:
    """Return names and values, a line each."""
    return _part("facts", pairs)


def assumed_facts(assumed: Sequence[str], name: str = "Assumed") -> list[tuple[str, str]]:
    """Return the fact about what was assumed about a model; none if nothing was."""
    return [(name, "; ".join(assumed))] if assumed else []


def note(text: str) -> Html:
    """Return a paragraph."""
    return _part("note", text)


def side_by_side(*parts: Html) -> Html:
    """Return parts side by side where the window is wide."""
    return _part("side_by_side", parts)


def _part(name: str, *values: Any) -> Html:
    return Html(str(getattr(_environment().get_template("parts.html").module, name)(*values)))


@cache
def _environment() -> "Environment":
    require_report()
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("regnet.pages", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_unbroken,
    )


def _unbroken(value: Any) -> Any:
    """Keep a number and its percent sign on one line."""
    return value.replace(" %", "\u00a0%") if isinstance(value, str) else value


def _text(name: str) -> str:
    return files("regnet.pages").joinpath("templates", name).read_text("utf-8")
