"""The report of `regnet doctor`."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Final

from regnet.doctor.examine import Examination, Preview
from regnet.doctor.findings import SEVERITIES, File, Finding, share_text
from regnet.doctor.near_copies import ALIKE
from regnet.doctor.previews import Album
from regnet.doctor.tree import Tree
from regnet.pages.report import (
    Bar,
    Beside,
    Block,
    Cell,
    Facts,
    PageOnly,
    Photo,
    Report,
    Section,
    Table,
    Tile,
    Tiles,
)
from regnet.system.text import counted, percent

_PHOTOS: Final = 12  # of a finding
_GROUPS: Final = 8  # of copies, of a finding
_MEMBERS: Final = 3  # of a group
_NAMES: Final = 200  # of a finding without photos to show
_NO_PHOTOS: Final = ("unreadable", "empty-files", "same-files")


def doctor_report(result: Examination, tree: Tree) -> Report:
    """Return an examination as a report; its page reads photos of the tree again."""
    album = Album(tree, result.preprocess)
    splits = [f"{split} {sum(n.values()):,}" for split, n in result.splits.items() if split]
    classes = counted(len(result.classes), "class", "classes")
    return Report(
        f"{Path(result.path).name}, examined",
        [
            Section("", [Tiles(list(_tiles(result)))]),
            *(_finding(finding, album) for finding in result.findings),
            *_crops(result, album),
            *_classes(result),
            Section("How this was examined", [Facts(_facts(result))]),
        ],
        subtitle=", ".join((f"{counted(result.photos, 'photo')} of {classes}", *splits)),
        verdict=_verdict(result),
        command="regnet doctor",
    )


def _verdict(result: Examination) -> str:
    numbers = {s: sum(f.severity == s for f in result.findings) for s in SEVERITIES}
    text = ", ".join(counted(count, severity) for severity, count in numbers.items() if count)
    return f"{text}: a training would be wasted" if result.wasteful else text or "nothing wrong"


def _tiles(result: Examination) -> Iterator[Tile]:
    errors, warnings, notes = (
        sum(f.severity == severity for f in result.findings) for severity in SEVERITIES
    )
    yield Tile(
        "Errors",
        str(errors),
        f"{counted(warnings, 'warning')}, {counted(notes, 'note')}",
        "a training would be wasted" if errors else "ready to train",
        "bad" if errors else "good",
    )
    yield Tile("Photos", f"{result.photos:,}", f"{result.unreadable:,} unreadable")
    sizes = [sum(n.get(name, 0) for n in result.splits.values()) for name in result.classes]
    span = "no class folders"
    if sizes:
        least, most = min(sizes), max(sizes)
        span = f"{least:,} photos each" if least == most else f"{least:,} to {most:,} photos each"
    yield Tile("Classes", f"{len(result.classes):,}", span)
    if result.kept is not None:
        yield Tile(
            "Kept by the centre crop",
            share_text(result.kept.median),
            f"of a photo, median; at least {share_text(result.kept.least)}",
        )


def _finding(finding: Finding, album: Album) -> Section:
    """Return a finding with the first of its photos, or their names."""
    groups = [
        list(files)
        for group, files in groupby(finding.files, lambda file: file.group)
        if group is not None
    ]
    blocks: list[Block] = []
    shown, total = 0, len(groups) or len(finding.files)
    if groups:
        sign = " ~ " if finding.code.startswith("near") else " = "
        shown = min(_GROUPS, total)
        galleries = [
            album.gallery([_photo(f) for f in group[:_MEMBERS]], joined=sign, total=len(group))
            for group in groups[:_GROUPS]
        ]
        blocks = [Beside(galleries)]
    elif finding.code in _NO_PHOTOS:
        rows = [(file.source, file.detail) for file in finding.files[:_NAMES]]
        shown = len(rows)
        blocks = [Table(("File", "What"), rows, first=5)] if rows else []
    elif finding.files:
        photos = [_photo(file) for file in finding.files[:_PHOTOS]]
        shown = len(photos)
        blocks = [album.gallery(photos, framed=finding.code == "cropped", first=5)]
    more = f" Here are the first {shown} of {total:,}; --json lists more." if shown < total else ""
    title = f"{finding.severity.capitalize()}: {finding.code.replace('-', ' ')}"
    return Section(title, blocks, f"{finding.text} {finding.remedy}{more}")


def _photo(file: File) -> Photo:
    return Photo(file.source, [line for line in (file.place, file.detail) if line])


def _crops(result: Examination, album: Album) -> Iterator[Section]:
    """Yield the previews: photos as they come, and those that lose most."""
    side = f"{result.preprocess.resize} and the centre crop to {result.preprocess.crop}"
    if result.typical:
        yield Section(
            "What the centre crop keeps",
            [_previews(result.typical, album)],
            lead=f"Photos drawn evenly from all. After the resize to {side}, a model sees what "
            "is inside the frame.",
        )
    if result.kept is not None and result.kept.least < result.kept.median:
        yield Section(
            "What it cuts off most",
            [_previews(result.cut_most, album)],
            lead="The photos of which it keeps least. If what matters lies outside the frame, cut "
            "the photos to it, or pad them to squares.",
        )


def _previews(previews: tuple[Preview, ...], album: Album) -> PageOnly:
    photos = []
    for one in previews:
        kept = f"{share_text(one.kept)} of {one.width} x {one.height}"
        photos.append(Photo(one.source, [kept, one.place] if one.place else [kept]))
    return PageOnly([album.gallery(photos, framed=True)])


def _classes(result: Examination) -> Iterator[Section]:
    splits = [split for split, numbers in result.splits.items() if set(numbers) - {""}]
    counts = [[result.splits[split].get(name, 0) for split in splits] for name in result.classes]
    most = max((max(row) for row in counts), default=0) or 1
    rows: list[tuple[Cell, ...]] = [
        (name, *(Bar(count / most, f"{count:,}") for count in row))
        for name, row in zip(result.classes, counts, strict=True)
    ]
    if rows:
        columns = ("Class", *(split or "photos" for split in splits))
        table = Table(columns, rows, sortable=True)
        yield Section("Photos of each class", [PageOnly([table])])


def _facts(result: Examination) -> list[tuple[str, str]]:
    sides = crop = ""
    if result.short is not None and result.long is not None and result.kept is not None:
        sides = (
            f"{result.short.median:.0f} x {result.long.median:.0f} pixels (medians), shortest "
            f"{result.short.least:.0f}, longest {result.long.most:.0f}"
        )
        crop = f"{result.preprocess.crop} of {result.preprocess.resize}"
    unreadable = result.unreadable / result.photos if result.photos else 0
    return [
        ("Data set", result.path),
        ("Unreadable", f"{result.unreadable:,} ({percent(unreadable)})"),
        ("Sides", sides),
        ("Centre crop", crop),
        ("Copies", "Files that are equal byte by byte"),
        (
            "Near copies",
            "Pictures that correlate by at least "
            f"{ALIKE:g} at 24 x 24 grey pixels, detail too, once stretched and moved onto each "
            "other: recompressed, resized, or cropped a little",
        ),
        ("Time", f"{result.seconds:.1f} s"),
    ]
