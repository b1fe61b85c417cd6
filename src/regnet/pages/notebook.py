"""Results as notebooks show them; pages that stand in a frame, so that styles stay apart."""

from collections.abc import Callable, Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from regnet.pages.report import Report
from regnet.system.text import percent

_BAR: Final = "background:#2f6fdf;height:.5rem;border-radius:3px;width:{:.1f}%"


def photo_card(source: str, bars: Sequence[tuple[str, float]], note: str) -> str:
    """Return a photo, if `source` is a file that can be read, beside bars of shares in [0, 1]."""
    from regnet.pages.thumbnails import thumbnail

    picture = thumbnail(Path(source)) if Path(source).is_file() else None
    image = f'<img src="{picture}" alt="" width="128" style="border-radius:8px">' if picture else ""
    rows = "".join(
        f"<tr><td style='text-align:left'>{escape(name)}</td>"
        f"<td style='text-align:right'>{percent(share, 1)}</td>"
        f"<td style='width:10rem'><div style='{_BAR.format(100 * share)}'></div></td></tr>"
        for name, share in bars
    )
    return (
        f"<div style='display:flex;flex-wrap:wrap;gap:1rem;align-items:center'>{image}<div>"
        f"<strong>{escape(source)}</strong><table>{rows}</table>"
        f"<small>{escape(note)}</small></div></div>"
    )


def framed(report: Callable[[], Report]) -> str | None:
    """Return a report's page in a frame; None, so that notebooks show text, without its extra."""
    if find_spec("jinja2") is None or find_spec("matplotlib") is None:
        return None
    from regnet.pages.html import report_html

    return page_frame(report_html(report()))


def page_frame(page: str) -> str:
    """Return a whole page in a frame that scrolls."""
    style = "width:100%;height:36rem;border:1px solid #8884;border-radius:8px"
    return f'<iframe srcdoc="{escape(page)}" style="{style}"></iframe>'
