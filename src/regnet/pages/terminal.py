"""A report as lines of text."""

from collections.abc import Iterator, Sequence

from regnet.pages import report as page
from regnet.system.text import visible

_WIDEST = 48  # columns: a longer text moves its own row only


def report_lines(report: page.Report) -> Iterator[str]:
    """Yield the lines of a report, control characters written out; its verdict comes last."""
    yield from (visible(text) for text in (report.title, report.subtitle) if text)
    for section in report.sections:
        yield from map(visible, _section(section))
    if report.verdict:
        yield ""
        yield visible(report.verdict)


def aligned(rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> Iterator[str]:
    """Yield rows of cells as text, numeric columns set right."""
    widths = [min(max(map(len, column)), _WIDEST) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        )
        yield "  ".join(cells).rstrip()


def _section(section: page.Section) -> Iterator[str]:
    """Yield the lines of a section; none where only a page can show its blocks."""
    lines = [line for block in section.blocks for line in _block(block)]
    if section.blocks and not lines:
        return
    yield ""
    yield from (text for text in (section.title, section.lead) if text)
    yield from (f"  {line}" if section.title else line for line in lines)


def _block(block: page.Block) -> Iterator[str]:
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
            yield from _table(block)
        case page.Gallery():
            yield from _gallery(block)
        case page.Beside(blocks):
            for inner in blocks:
                yield from _block(inner)
        case page.Plot() | page.PageOnly():
            pass


def _table(table: page.Table) -> Iterator[str]:
    shown = table.rows[: table.first]
    rows = [[cell if isinstance(cell, str) else cell.text for cell in row] for row in shown]
    yield from aligned([table.columns, *rows], table.numeric)
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
