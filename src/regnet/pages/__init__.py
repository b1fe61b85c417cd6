"""Reports as one HTML file that needs nothing else: tables, plots, photos, light and dark."""

from regnet.pages.html import (
    Bar,
    Number,
    Photo,
    Section,
    Tile,
    facts,
    figure,
    gallery,
    note,
    page,
    require_report,
    side_by_side,
    table,
    tiles,
    write_page,
)

__all__ = [
    "Bar",
    "Number",
    "Photo",
    "Section",
    "Tile",
    "facts",
    "figure",
    "gallery",
    "note",
    "page",
    "require_report",
    "side_by_side",
    "table",
    "tiles",
    "write_page",
]
