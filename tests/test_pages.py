"""Reports: one file that loads nothing, every text escaped, plots in the colours of the page."""

import base64
import hashlib
import io
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regnet.evaluation.evaluate import evaluate
from regnet.evaluation.page import evaluation_page
from regnet.pages import (
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
from regnet.pages.figures import ACCENT, INK, plain, svg
from regnet.pages.thumbnails import thumbnail
from regnet.pixels.samples import sample_photos
from regnet.system.errors import MissingExtraError, OutputError

EVIL = "<script>alert('&')</script>\"$x$"


class Reader(HTMLParser):
    """Collects tags, attributes and text; void elements aside, every tag must be closed."""

    VOID = ("meta", "img", "use", "path", "rect", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def ids(self) -> list[str]:
        return [value for _, name, value in self.attributes if name == "id"]


def draw(drawing) -> None:
    axes = drawing.subplots()
    axes.plot([0, 1], [0, 1], color=ACCENT)
    axes.fill_between([0, 1], [0, 1], color=INK, alpha=0.5)
    axes.set_xlabel(EVIL)
    plain(axes)


def whole_page() -> str:
    parts = (
        tiles([Tile(EVIL, "12 %", EVIL, EVIL, "good")]),
        table(("a", EVIL), [(EVIL, Number("1,000", 1000)), ("x", Bar("50 %", 0.5))], sortable=True),
        side_by_side(figure(svg("one", draw, label=EVIL), EVIL), figure(svg("two", draw))),
        gallery([Photo(None, (EVIL,), EVIL), Photo(thumbnail(str(PHOTO)), ("b",), "c")]),
        facts([(EVIL, EVIL)]),
        note(EVIL),
    )
    return page(EVIL, [Section(EVIL, parts, EVIL)], subtitle=EVIL, foot=EVIL)


PHOTO = sample_photos()[0]


def test_every_text_is_escaped_and_every_tag_closed() -> None:
    html = whole_page()
    reader = Reader(html)
    assert "alert" not in re.sub(r"&lt;script&gt;alert", "", html)
    assert sum(EVIL in text for text in reader.texts) >= 14
    assert [tag for tag, *_ in reader.attributes].count("script") == 0


def test_a_page_loads_nothing_and_runs_only_its_own_script() -> None:
    reader = Reader(html := whole_page())
    for tag, name, value in reader.attributes:
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("data:", "#")), (tag, name, value)
    assert "@import" not in html
    assert re.findall(r"url\((?!#)", html) == []
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    assert "default-src 'none'" in html


def test_plots_take_their_colours_from_the_page_and_keep_their_ids_apart() -> None:
    text = svg("one", draw, label=EVIL)
    ET.fromstring(text.replace("xlink:", ""))
    assert "var(--accent)" in text
    assert "#0102" not in text
    assert "<text" in text  # type stays type
    assert "<metadata" not in text
    ids = Reader(whole_page()).ids
    assert len(ids) == len(set(ids))
    assert all(one.startswith(("one-", "two-")) for one in ids)
    assert text == svg("one", draw, label=EVIL)
    used = re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text)
    assert set(used) <= set(Reader(text).ids)


def test_columns_of_numbers_sort_by_number() -> None:
    html = table(("name", "n"), [("a", Number("9", 9)), ("b", Number("-", None))], sortable=True)
    assert 'data-v="9"' in html
    assert 'data-v=""' in html
    assert html.count("<button") == 2
    assert "<button" not in table(("name",), [("a",)])


def test_thumbnails_are_small_squares(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 500, 3)).astype(np.uint8)
    address = thumbnail(pixels, side=64)
    assert address is not None
    assert address.startswith("data:image/jpeg;base64,")
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as image:
        assert image.size == (64, 64)
    with Image.open(
        io.BytesIO(base64.b64decode(str(thumbnail(pixels)).partition(",")[2]))
    ) as image:
        assert image.size == (192, 192)
    assert thumbnail(b"no photo") is None


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_page(tmp_path / "r.html", "a\udcff")
    assert (tmp_path / "r.html").read_text() == "a\\udcff"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        write_page(tmp_path / "folder", "a")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "r.html"]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regnet.pages.html.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="extra 'report'"):
        require_report()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return photos under a class of their own and under a wrong one, with names to escape."""
    top = tmp_path_factory.mktemp("photos")
    cat, espresso, hopper = (photo.read_bytes() for photo in sample_photos())
    for wnid, name, data in (
        ("n02124075", "cat.png", cat),
        ("n02124075", "<b>&.png", espresso),
        ("n07920052", "cup.png", espresso),
        ("n07920052", "torn.png", cat[:100]),
        ("n07920052", "man.jpg", hopper),
    ):
        (top / wnid).mkdir(exist_ok=True)
        (top / wnid / name).write_bytes(data)
    return top


def test_the_report_of_an_evaluation(folder: Path, tmp_path: Path) -> None:
    found = evaluate("bundled", folder, subset=True, cache_dir=tmp_path, offline=True)
    from regnet.data.dataset import open_dataset

    html = evaluation_page(found, open_dataset(folder, found.labels, subset=True))
    reader = Reader(html)
    titles = re.findall(r"<h2>(.*?)</h2>", html)
    assert titles == [
        "Calibration, and how classes differ",
        "Confused classes",
        "Worst mistakes",
        "Every class",
        "Unreadable images",
        "How this was measured",
    ]
    images = [v for tag, name, v in reader.attributes if (tag, name) == ("img", "src")]
    assert len(images) == 2
    assert "<b>&.png" in reader.texts
    assert "<b>" not in html
    assert any("torn.png" in text for text in reader.texts)
    assert any("none is masked" in text for text in reader.texts)
    assert len(html) < 200_000


def test_the_report_of_nothing_readable(tmp_path: Path) -> None:
    (tmp_path / "n02124075").mkdir()
    (tmp_path / "n02124075" / "torn.png").write_bytes(b"no photo")
    for strict in (False, True):
        found = evaluate(
            "bundled", tmp_path, subset=True, strict=strict, cache_dir=tmp_path / "c", offline=True
        )
        from regnet.data.dataset import open_dataset

        html = evaluation_page(found, open_dataset(tmp_path, found.labels, subset=True))
        assert "Unreadable images" in html
        assert "Every class" not in html
