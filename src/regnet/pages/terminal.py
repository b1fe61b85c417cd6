"""A report as lines of text."""

from collections.abc import Iterator, Sequence

from regnet.pages import report as page
from regnet.system.text import visible

_WIDEST = 48  # columns: a longer text moves its own row only
_NARROWEST = 8


def report_lines(report: page.Report, width: int | None = None) -> Iterator[str]:
    """Yield the lines of a report, control characters written out; its verdict comes last.

    Tables fit into the `width` of a terminal if it is given, by shorter texts.
    """
    yield from (visible(text) for text in (report.title, report.subtitle) if text)
    for section in report.sections:
        yield from map(visible, _section(section, width))
    if report.verdict:
        yield ""
        yield visible(report.verdict)


def aligned(
    rows: Sequence[Sequence[str]], numeric: Sequence[bool], width: int | None = None
) -> Iterator[str]:
    """Yield rows of cells as text, numeric columns set right, and whole in any `width`."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if width is None:
        widths = [min(columns, _WIDEST) for columns in widths]
    else:
        widths = _narrowed(widths, numeric, width)
        rows = [[_cut(*cell) for cell in zip(row, widths, numeric, strict=True)] for row in rows]
    for row in rows:
        cells = (
            text.rjust(columns) if right else text.ljust(columns)
            for text, columns, right in zip(row, widths, numeric, strict=True)
        )
        yield "  ".join(cells).rstrip()


def _narrowed(widths: list[int], numeric: Sequence[bool], width: int) -> list[int]:
    """Return the columns' widths, those of text smaller until a row fits.

    The widest gives first; the first one that can, which names the row, last.
    """
    widths = widths.copy()
    texts = [n for n, right in enumerate(numeric) if not right and widths[n] > _NARROWEST]
    name = min(texts, default=0)
    while texts and sum(widths) + 2 * (len(widths) - 1) > width:
        widest = max(texts, key=lambda n: (n > name, widths[n]))
        widths[widest] -= 1
        if widths[widest] == _NARROWEST:
            texts.remove(widest)
    return widths


def _cut(text: str, width: int, numeric: bool) -> str:
    return text if numeric or len(text) <= width else f"{text[: width - 1]}\N{HORIZONTAL ELLIPSIS}"


def _section(section: page.Section, width: int | None) -> Iterator[str]:
    """Yield the lines of a section; none where only a page can show its blocks."""
    room = width and width - 2 * bool(section.title)
    lines = [line for block in section.blocks for line in _block(block, room)]
    if section.blocks and not lines:
        return
    yield ""
    yield from (text for text in (section.title, section.lead) if text)
    yield from (f"  {line}" if section.title else line for line in lines)


def _block(block: page.Block, width: int | None) -> Iterator[str]:
    match block:
        case str():
            yield block
        case page.Tiles(tiles):
            notes = ("; ".join(filter(None, (tile.note, tile.verdict))) for tile in tiles)
            rows = [(tile.name, tile.value, note) for tile, note in zip(tiles, notes, strict=True)]
            yield from aligned(rows, (False, True, False))
        case page.Facts(pairs):
            yield from aligned([pair for pair in pairs if pair[1]], (False, False))
        case page.Table():
            yield from _table(block, width)
        case page.Gallery():
            yield from _gallery(block)
        case page.Beside(blocks):
            for inner in blocks:
                yield from _block(inner, width)
        case page.Plot() | page.PageOnly():
            pass


def _table(table: page.Table, width: int | None) -> Iterator[str]:
    shown = table.rows[: table.first]
    rows = [[cell if isinstance(cell, str) else cell.text for cell in row] for row in shown]
    yield from aligned([table.columns, *rows], table.numeric, width)
    yield from _more(len(table.rows) - len(shown))


def _gallery(gallery: page.Gallery) -> Iterator[str]:
    shown = gallery.photos[: gallery.first]
    if gallery.joined:
        names = [photo.name for photo in shown]
        if (total := max(gallery.total, len(gallery.photos))) > len(shown):
            names.append(f"... ({total:,} in all)")
        yield gallery.joined.join(names)
        return
    for photo in shown:
        yield ": ".join(filter(None, (photo.name, ", ".join(photo.lines))))
    yield from _more(len(gallery.photos) - len(shown))


def _more(count: int) -> Iterator[str]:
    if count > 0:
        yield f"... and {count:,} more: --json or --html FILE"
