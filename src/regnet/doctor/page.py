"""The report of `regnet doctor`."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from regnet.doctor.examine import Examination, Preview
from regnet.doctor.findings import File, Finding, counted, percent, share_text
from regnet.doctor.near_copies import ALIKE
from regnet.doctor.page_photos import Shot, shots
from regnet.doctor.table import size_lines, summary, verdict
from regnet.doctor.tree import Tree
from regnet.inference.result import readable
from regnet.pages.html import (
    Bar,
    Cell,
    Html,
    Number,
    Photo,
    Section,
    Tile,
    facts,
    gallery,
    page,
    side_by_side,
    table,
    tiles,
)
from regnet.system.version import TOOL_VERSION

_PHOTOS: Final = 12  # of a finding
_GROUPS: Final = 8  # of copies, of a finding
_MEMBERS: Final = 3  # of a group
_NAMES: Final = 200  # of a finding without photos to show
_NO_PHOTOS: Final = ("unreadable", "empty-files", "same-files")
_FRAMED: Final = "cropped"

Shots = dict[str, Shot]


def doctor_page(found: Examination, tree: Tree) -> str:
    """Return the report's HTML; the photos in it are read again. Raises `DatasetError`."""
    shown = shots(tree, _sources(found), found.preprocess)
    sections = [
        Section("", (tiles(list(_tiles(found))),)),
        *(_section(finding, shown) for finding in found.findings),
        *_crops(found, shown),
        *_classes(found),
        Section("How this was looked at", (facts(_facts(found)),)),
    ]
    return page(
        f"{Path(readable(found.path)).name}, examined",
        sections,
        subtitle=f"{summary(found)}: {verdict(found)}",
        foot=f"regnet {TOOL_VERSION}, regnet doctor",
    )


def _sources(found: Examination) -> set[str]:
    """Return the names of the photos that the page shows."""
    files = {file.source for finding in found.findings for file in _shown(finding)}
    return files | {preview.source for preview in (*found.cut_most, *found.typical)}


def _shown(finding: Finding) -> list[File]:
    if finding.code in _NO_PHOTOS:
        return []
    groups = _groups(finding)
    return [file for group in groups for file in group] or list(finding.files[:_PHOTOS])


def _groups(finding: Finding) -> list[list[File]]:
    """Return the first photos of the first groups of copies."""
    grouped = (file for file in finding.files if file.group is not None)
    groups = [list(group)[:_MEMBERS] for _, group in groupby(grouped, lambda file: file.group)]
    return groups[:_GROUPS]


def _tiles(found: Examination) -> Iterator[Tile]:
    numbers = {
        s: sum(f.severity == s for f in found.findings) for s in ("error", "warning", "note")
    }
    bad = bool(numbers["error"])
    yield Tile(
        "Errors",
        str(numbers["error"]),
        f"{counted(numbers['warning'], 'warning')}, {counted(numbers['note'], 'note')}",
        "a training would be wasted" if bad else "ready to train",
        "bad" if bad else "good",
    )
    splits = ", ".join(f"{name} {sum(n.values()):,}" for name, n in found.splits.items() if name)
    yield Tile("Photos", f"{found.photos:,}", splits or "no splits")
    sizes = [sum(n.get(name, 0) for n in found.splits.values()) for name in found.classes]
    span = f"{min(sizes):,} to {max(sizes):,} photos each" if sizes else "no class folders"
    if len(set(sizes)) == 1:
        span = f"{sizes[0]:,} photos each"
    yield Tile("Classes", f"{len(found.classes):,}", span)
    if found.kept is not None and found.short is not None and found.long is not None:
        yield Tile(
            "Kept by the centre crop",
            share_text(found.kept.median),
            f"of a photo, median; at least {share_text(found.kept.least)}",
        )


def _section(finding: Finding, shown: Shots) -> Section:
    title = f"{finding.severity.capitalize()}: {finding.code.replace('-', ' ')}"
    lead = f"{readable(finding.text)} {readable(finding.remedy)}{_more(finding)}"
    return Section(title, tuple(_parts(finding, shown)), lead=lead)


def _more(finding: Finding) -> str:
    """Return how many of a finding's files are shown, where not all are."""
    if groups := _groups(finding):
        shown, total = len(groups), len({file.group for file in finding.files})
    else:
        listed = _NAMES if finding.code in _NO_PHOTOS else _PHOTOS
        shown, total = min(listed, len(finding.files)), len(finding.files)
    return f" Here are the first {shown} of {total:,}; --json lists more." if shown < total else ""


def _parts(finding: Finding, shown: Shots) -> Iterator[Html]:
    """Yield the photos of a finding, or their names."""
    if groups := _groups(finding):
        yield side_by_side(*(gallery([_photo(file, shown) for file in g]) for g in groups))
    elif finding.code in _NO_PHOTOS and finding.files:
        rows = [(readable(f.source), readable(f.detail)) for f in finding.files[:_NAMES]]
        told = any(detail for _, detail in rows)
        yield table(
            ("File", "What") if told else ("File",), rows if told else [r[:1] for r in rows]
        )
    elif finding.files:
        framed = finding.code == _FRAMED
        yield gallery([_photo(f, shown, framed=framed) for f in finding.files[:_PHOTOS]])


def _photo(file: File, shown: Shots, *, framed: bool = False) -> Photo:
    shot = shown.get(file.source, Shot(file.source))
    lines = tuple(readable(line) for line in (file.place, file.detail) if line)
    return Photo(shot.framed if framed else shot.whole, lines, readable(file.source))


def _crops(found: Examination, shown: Shots) -> Iterator[Section]:
    """Yield the sheets of previews: photos as they come, and those that lose most."""
    side = f"{found.preprocess.resize} and the centre crop to {found.preprocess.crop}"
    if found.typical:
        yield Section(
            "What the centre crop keeps",
            (gallery(_previews(found.typical, shown)),),
            lead=f"Photos drawn evenly from all. After the resize to {side}, a model sees what "
            "is inside the frame.",
        )
    if found.kept is not None and found.kept.least < found.kept.median:
        yield Section(
            "What it cuts off most",
            (gallery(_previews(found.cut_most, shown)),),
            lead="The photos of which it keeps least. If what matters lies outside the frame, cut "
            "the photos to it, or pad them to squares.",
        )


def _previews(previews: Sequence[Preview], shown: Shots) -> list[Photo]:
    return [
        Photo(
            shown.get(preview.source, Shot("")).framed,
            (
                f"{share_text(preview.kept)} of {preview.width} x {preview.height}",
                *((readable(preview.place),) if preview.place else ()),
            ),
            readable(preview.source),
        )
        for preview in previews
    ]


def _classes(found: Examination) -> Iterator[Section]:
    if not found.classes:
        return
    splits = [split for split, numbers in found.splits.items() if set(numbers) - {""}]
    most = max(max(numbers.values(), default=0) for numbers in found.splits.values())
    rows: list[list[Cell]] = [
        [readable(name), *(_cell(found.splits[split].get(name, 0), most) for split in splits)]
        for name in found.classes
    ]
    columns = ("Class", *(split or "photos" for split in splits))
    yield Section("Photos of each class", (table(columns, rows, sortable=True),))


def _cell(count: int, most: int) -> Cell:
    return Bar(f"{count:,}", count / most) if most else Number("0", 0)


def _facts(found: Examination) -> list[tuple[str, str]]:
    return [
        ("Data set", readable(found.path)),
        ("Unreadable", f"{found.unreadable:,} ({percent(found.unreadable, found.photos)})"),
        *(("Sizes", line.strip().capitalize()) for line in size_lines(found)),
        ("Copies", "Files that are equal byte by byte"),
        (
            "Near copies",
            "Pictures that correlate by at least "
            f"{ALIKE:g} at 24 x 24 grey pixels, detail too, once stretched and moved onto each "
            "other: recompressed, resized, or cropped a little",
        ),
        ("Time", f"{found.seconds:.1f} s"),
    ]
