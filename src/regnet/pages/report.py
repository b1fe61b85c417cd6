"""A report as a value: a topic builds it once, `terminal` and `html` show it.

Nothing here imports jinja2 or matplotlib, and no photo is read: plots and galleries hold functions
that the page calls.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from regnet.system.text import counted, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Tone = Literal["plain", "good", "bad"]


@dataclass(frozen=True)
class Tile:
    """A figure to be seen first: its name and value, a note, and a verdict in colour."""

    name: str
    value: str
    note: str = ""
    verdict: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True)
class Tiles:
    """Large figures side by side."""

    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Facts:
    """Names and values, one per line; those with an empty value are left out."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Number:
    """A table cell with a number in a format of `format()`; None is a dash and sorts last."""

    value: float | None
    spec: str = ",.0f"

    share = None

    @property
    def text(self) -> str:
        """The number as it is shown; a percent sign stands apart."""
        return "-" if self.value is None else format(self.value, self.spec).replace("%", " %")


@dataclass(frozen=True)
class Bar:
    """A table cell with a bar behind it, `share` of its width in [0, 1]; None has no bar."""

    share: float | None
    label: str = ""

    @property
    def text(self) -> str:
        """The label, or else the share in percent."""
        return self.label or percent(self.share, 1)

    @property
    def value(self) -> float | None:
        """The number it is sorted by."""
        return self.share


Cell = str | Number | Bar


@dataclass(frozen=True)
class Table:
    """Rows of cells; the page sorts by a click if `sortable`, the terminal shows `first` rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    sortable: bool = False
    first: int = 8

    @property
    def numeric(self) -> list[bool]:
        """Whether each column has numbers, which are aligned right."""
        columns = range(len(self.columns))
        return [any(not isinstance(row[column], str) for row in self.rows) for column in columns]


@dataclass(frozen=True)
class Plot:
    """A plot that `draw` puts on an empty figure of `width` x `height` inches; not on terminals.

    `name` keeps its ids apart from those of other plots on the page; `label` describes it to those
    who do not see it.
    """

    name: str
    draw: Callable[["Figure"], None]
    label: str
    caption: str = ""
    width: float = 5.6
    height: float = 3.6


@dataclass(frozen=True)
class Photo:
    """A photo in a gallery: its path, and lines below it."""

    name: str
    lines: Sequence[str] = ()

    @property
    def short(self) -> str:
        """The last part of its path."""
        return self.name.rstrip("/").rpartition("/")[2]


Pictures = Callable[[Sequence[str]], Mapping[str, str | None]]
"""Returns photos by name as data URLs (`thumbnails`); None or no entry for unreadable ones."""


@dataclass(frozen=True)
class Gallery:
    """Photos side by side; the terminal lists the `first` of them.

    With `joined` the terminal shows their names on one line, as those of copies: a = b. `total` is
    how many there are if `photos` are the first of them.
    """

    photos: Sequence[Photo]
    pictures: Pictures
    first: int = 8
    joined: str = ""
    total: int = 0


@dataclass(frozen=True)
class Beside:
    """Blocks side by side where the window is wide."""

    blocks: "Sequence[Block]"


@dataclass(frozen=True)
class PageOnly:
    """Blocks that the terminal leaves out."""

    blocks: "Sequence[Block]"


Block = Tiles | Facts | Table | Plot | Gallery | Beside | PageOnly | str
"""A part of a section; a string is a paragraph."""


@dataclass(frozen=True)
class Section:
    """A heading, the blocks below it, and a lead: how to read them."""

    title: str
    blocks: Sequence[Block]
    lead: str = ""


@dataclass(frozen=True)
class Report:
    """A result as people read it. `command` made it; `verdict` is the terminal's last line."""

    title: str
    sections: Sequence[Section]
    subtitle: str = ""
    verdict: str = ""
    command: str = ""

    @property
    def titles(self) -> list[str]:
        """The sections' titles, for the table of contents of a long page."""
        return list(dict.fromkeys(section.title for section in self.sections if section.title))


def unreadable_section(
    failures: Sequence[tuple[str, str]], count: int, remark: str = "left out"
) -> list[Section]:
    """Return the section of `count` unreadable photos, (name, reason) each; none if there are none.

    `failures` may be the first of them only.
    """
    if not count:
        return []
    first = f" The first {len(failures)} are listed." if len(failures) < count else ""
    lead = f"{counted(count, 'photo')} could not be read: {remark}.{first}"
    return [Section("Unreadable photos", [Table(("Photo", "Reason"), failures)], lead)]
