"""The report of `regnet doctor`; the photos that its page shows are read in one pass."""

import base64
import io
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageDraw, ImageOps

from regnet.data.sources import Item
from regnet.doctor.examine import Examination, Preview
from regnet.doctor.findings import SEVERITIES, File, Finding
from regnet.doctor.near_copies import ALIKE
from regnet.doctor.tree import Tree
from regnet.pages import report as page
from regnet.pixels.preprocess import rgb_pixels
from regnet.pixels.protocol import Box, Preprocess
from regnet.system.errors import ImageError
from regnet.system.parallel import cores, in_order
from regnet.system.text import counted, percent

_PHOTOS: Final = 12  # of a finding
_GROUPS: Final = 8  # of copies, of a finding
_MEMBERS: Final = 3  # of a group
_NAMES: Final = 200  # of a finding without photos to show
_NO_PHOTOS: Final = ("unreadable", "empty-files", "same-files")

SIDE: Final = 256  # pixels of the long side, and of the square that it stands in
_FRAME: Final = (255, 122, 60)
_EDGE: Final = (128, 132, 140)
_VEIL: Final = (18, 20, 24)
_VEILED: Final = 0.62


@dataclass(frozen=True)
class Shot:
    """A photo as data addresses: `whole`, and `framed` with the centre crop; None where gone."""

    source: str
    whole: str | None = None
    framed: str | None = None


@dataclass(frozen=True, eq=False)
class Album:
    """Makes the galleries of a report, and knows which photos they have."""

    tree: Tree
    preprocess: Preprocess
    names: set[str] = field(default_factory=set)

    def gallery(
        self, photos: Sequence[page.Photo], *, framed: bool = False, **options: Any
    ) -> page.Gallery:
        """Return a gallery, `framed` with the centre crop; `options` are `Gallery`'s."""
        self.names.update(photo.name for photo in photos)
        return page.Gallery(photos, partial(self._pictures, framed), **options)

    def _pictures(self, framed: bool, names: Sequence[str]) -> dict[str, str | None]:
        found = {name: self._shots[name] for name in names if name in self._shots}
        return {name: shot.framed if framed else shot.whole for name, shot in found.items()}

    @cached_property
    def _shots(self) -> dict[str, Shot]:
        return shots(self.tree, self.names, self.preprocess)


def shots(tree: Tree, sources: Collection[str], preprocess: Preprocess) -> dict[str, Shot]:
    """Return the photos of these names, read again in one pass. Raises `DatasetError`."""
    if not sources:
        return {}
    wanted = (item for item in tree.items() if item.source in sources)
    made = in_order(wanted, lambda part: [_shot(i, preprocess) for i in part], workers=cores())
    return {shot.source: shot for shot in made}


def _shot(item: Item, preprocess: Preprocess) -> Shot:
    try:
        photo = Image.fromarray(rgb_pixels(item.read()))
    except ImageError:
        return Shot(item.source)
    box = frame(photo.width, photo.height, preprocess)
    small = ImageOps.contain(photo, (SIDE, SIDE), Image.Resampling.BICUBIC)
    return Shot(item.source, _address(small), _address(_framed(small, box)))


def frame(width: int, height: int, preprocess: Preprocess) -> tuple[float, float, float, float]:
    """Return left, top, right, bottom of the centre crop, as shares of a photo's sides."""
    resized = preprocess.resized(width, height)
    left, top, right, bottom = preprocess.crop_box(*resized)
    return left / resized[0], top / resized[1], right / resized[0], bottom / resized[1]


def _framed(photo: Image.Image, shares: tuple[float, float, float, float]) -> Image.Image:
    """Return a photo with what the crop cuts off in the dark, and a line around the rest."""
    left, top, right, bottom = shares
    box: Box = (
        round(left * photo.width),
        round(top * photo.height),
        round(right * photo.width),
        round(bottom * photo.height),
    )
    framed = Image.blend(photo, Image.new("RGB", photo.size, _VEIL), _VEILED)
    framed.paste(photo.crop(box), box[:2])
    edge = (box[0], box[1], box[2] - 1, box[3] - 1)
    ImageDraw.Draw(framed).rectangle(edge, outline=_FRAME, width=2)
    return framed


def _address(photo: Image.Image) -> str:
    """Return a photo amid a transparent square as a data address: galleries show squares."""
    square = Image.new("RGBA", (SIDE, SIDE))
    left, top = (SIDE - photo.width) // 2, (SIDE - photo.height) // 2
    square.paste(photo, (left, top))
    edge = (left, top, left + photo.width - 1, top + photo.height - 1)
    ImageDraw.Draw(square).rectangle(edge, outline=_EDGE)  # a white photo is to be seen, too
    buffer = io.BytesIO()
    square.save(buffer, "WEBP", quality=80, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def doctor_report(result: Examination, tree: Tree) -> page.Report:
    """Return an examination as a report; its page reads photos of the tree again."""
    album = Album(tree, result.preprocess)
    splits = [f"{split} {sum(n.values()):,}" for split, n in result.splits.items() if split]
    classes = counted(len(result.classes), "class", "classes")
    return page.Report(
        f"{Path(result.path).name}, examined",
        [
            page.Section("", [page.Tiles(list(_tiles(result)))]),
            *(_finding(finding, album) for finding in result.findings),
            *_crops(result, album),
            *_classes(result),
            page.Section("How this was examined", [page.Facts(_facts(result))]),
        ],
        subtitle=", ".join((f"{counted(result.photos, 'photo')} of {classes}", *splits)),
        verdict=_verdict(result),
        command="regnet doctor",
    )


def _verdict(result: Examination) -> str:
    numbers = {s: sum(f.severity == s for f in result.findings) for s in SEVERITIES}
    text = ", ".join(counted(count, severity) for severity, count in numbers.items() if count)
    return f"{text}: a training would be wasted" if result.wasteful else text or "nothing wrong"


def _tiles(result: Examination) -> Iterator[page.Tile]:
    errors, warnings, notes = (
        sum(f.severity == severity for f in result.findings) for severity in SEVERITIES
    )
    yield page.Tile(
        "Errors",
        str(errors),
        f"{counted(warnings, 'warning')}, {counted(notes, 'note')}",
        "a training would be wasted" if errors else "ready to train",
        "bad" if errors else "good",
    )
    yield page.Tile("Photos", f"{result.photos:,}", f"{result.unreadable:,} unreadable")
    sizes = [sum(n.get(name, 0) for n in result.splits.values()) for name in result.classes]
    span = "no class folders"
    if sizes:
        least, most = min(sizes), max(sizes)
        span = f"{least:,} photos each" if least == most else f"{least:,} to {most:,} photos each"
    yield page.Tile("Classes", f"{len(result.classes):,}", span)
    if result.kept is not None:
        yield page.Tile(
            "Kept by the centre crop",
            percent(result.kept.median, 0),
            f"of a photo, median; at least {percent(result.kept.least, 0)}",
        )


def _finding(finding: Finding, album: Album) -> page.Section:
    """Return a finding with the first of its photos, or their names."""
    groups = [
        list(files)
        for group, files in groupby(finding.files, lambda file: file.group)
        if group is not None
    ]
    blocks: list[page.Block] = []
    shown, total = 0, len(groups) or len(finding.files)
    if groups:
        sign = " ~ " if finding.code.startswith("near") else " = "
        shown = min(_GROUPS, total)
        galleries = [
            album.gallery([_photo(f) for f in group[:_MEMBERS]], joined=sign, total=len(group))
            for group in groups[:_GROUPS]
        ]
        blocks = [page.Beside(galleries)]
    elif finding.code in _NO_PHOTOS:
        rows = [(file.source, file.detail) for file in finding.files[:_NAMES]]
        shown = len(rows)
        blocks = [page.Table(("File", "What"), rows, first=5)] if rows else []
    elif finding.files:
        photos = [_photo(file) for file in finding.files[:_PHOTOS]]
        shown = len(photos)
        blocks = [album.gallery(photos, framed=finding.code == "cropped", first=5)]
    more = f" Here are the first {shown} of {total:,}; --json lists more." if shown < total else ""
    title = f"{finding.severity.capitalize()}: {finding.code.replace('-', ' ')}"
    return page.Section(title, blocks, f"{finding.text} {finding.remedy}{more}")


def _photo(file: File) -> page.Photo:
    return page.Photo(file.source, [line for line in (file.place, file.detail) if line])


def _crops(result: Examination, album: Album) -> Iterator[page.Section]:
    """Yield the previews: photos as they come, and those that lose most."""
    side = f"{result.preprocess.resize} and the centre crop to {result.preprocess.crop}"
    if result.typical:
        yield page.Section(
            "What the centre crop keeps",
            [_previews(result.typical, album)],
            lead=f"Photos drawn evenly from all. After the resize to {side}, a model sees what "
            "is inside the frame.",
        )
    if result.kept is not None and result.kept.least < result.kept.median:
        yield page.Section(
            "What it cuts off most",
            [_previews(result.cut_most, album)],
            lead="The photos of which it keeps least. If what matters lies outside the frame, cut "
            "the photos to it, or pad them to squares.",
        )


def _previews(previews: tuple[Preview, ...], album: Album) -> page.PageOnly:
    photos = []
    for one in previews:
        kept = f"{percent(one.kept, 0)} of {one.width} x {one.height}"
        photos.append(page.Photo(one.source, [kept, one.place] if one.place else [kept]))
    return page.PageOnly([album.gallery(photos, framed=True)])


def _classes(result: Examination) -> Iterator[page.Section]:
    splits = [split for split, numbers in result.splits.items() if set(numbers) - {""}]
    counts = [[result.splits[split].get(name, 0) for split in splits] for name in result.classes]
    most = max((max(row) for row in counts), default=0) or 1
    rows: list[tuple[page.Cell, ...]] = [
        (name, *(page.Bar(count / most, f"{count:,}") for count in row))
        for name, row in zip(result.classes, counts, strict=True)
    ]
    if rows:
        columns = ("Class", *(split or "photos" for split in splits))
        table = page.Table(columns, rows, sortable=True)
        yield page.Section("Photos of each class", [page.PageOnly([table])])


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
