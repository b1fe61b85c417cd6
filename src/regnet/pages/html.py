"""A report as one HTML file that loads nothing: tables, plots, photos, light and dark.

jinja2 escapes every text and is imported when the first page is made.
"""

import base64
import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regnet.pages.figures import svg
from regnet.pages.report import Block, Report
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
    environment.globals.update(html=block_html, svg=svg)
    return environment


def _unbroken(value: Any) -> Any:
    """Keep a number and its percent sign on one line."""
    return value.replace(" %", "\u00a0%") if isinstance(value, str) else value


def _text(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text("utf-8")
