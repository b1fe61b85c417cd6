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
from browser import browsing
from PIL import Image

from regnet.data.dataset import open_dataset
from regnet.evaluation.evaluate import Evaluation, evaluate
from regnet.evaluation.report import evaluation_report
from regnet.pages.figures import ACCENT, INK, plain, svg
from regnet.pages.html import block_html, report_html, require_report, write_report
from regnet.pages.report import (
    Bar,
    Beside,
    Facts,
    Gallery,
    Number,
    PageOnly,
    Photo,
    Plot,
    Report,
    Section,
    Table,
    Tile,
    Tiles,
)
from regnet.pages.terminal import report_lines
from regnet.pages.thumbnails import thumbnail
from regnet.pixels.samples import sample_photos
from regnet.system.errors import MissingExtraError, OutputError

EVIL = "<script>alert('&')</script>\"$x$"
WIDTH = len(EVIL)


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


def whole_report() -> Report:
    photos = [Photo(EVIL, (EVIL,)), Photo(str(PHOTO), ("b",))]
    rows = [(EVIL, Number(1000)), ("x", Bar(0.5)), ("z", Number(None))]
    blocks = (
        Tiles([Tile(EVIL, "12 %", EVIL, EVIL, "good")]),
        Table(("a", EVIL), rows, sortable=True, first=2),
        Beside([Plot("one", draw, EVIL, EVIL), Plot("two", draw, "")]),
        Gallery(photos, lambda names: {name: thumbnail(name) for name in names[1:]}),
        Facts([(EVIL, EVIL), ("empty", "")]),
        PageOnly(["only a page has this"]),
        EVIL,
    )
    return Report(EVIL, [Section(EVIL, blocks, EVIL)], EVIL, EVIL, EVIL)


def whole_page() -> str:
    return report_html(whole_report())


PHOTO = sample_photos()[0]


def test_every_text_is_escaped_and_every_tag_closed() -> None:
    html = whole_page()
    reader = Reader(html)
    assert "alert" not in re.sub(r"&lt;script&gt;alert", "", html)
    assert sum(EVIL in text for text in reader.texts) >= 15
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
    text = svg(Plot("one", draw, EVIL))
    ET.fromstring(text.replace("xlink:", ""))
    assert "var(--accent)" in text
    assert "#0102" not in text
    assert "<text" in text  # type stays type
    assert "<metadata" not in text
    ids = Reader(whole_page()).ids
    assert len(ids) == len(set(ids))
    assert all(one.startswith(("one-", "two-", "part-")) for one in ids)
    assert text == svg(Plot("one", draw, EVIL))
    used = re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text)
    assert set(used) <= set(Reader(text).ids)


def test_columns_of_numbers_sort_by_number() -> None:
    rows = [("a", Number(9)), ("b", Number(None))]
    html = block_html(Table(("name", "n"), rows, sortable=True))
    assert 'data-v="9"' in html
    assert 'data-v=""' in html
    assert html.count("<button") == 2
    assert "<button" not in block_html(Table(("name",), [("a",)]))


def test_cells_show_their_values() -> None:
    assert [Number(n, spec).text for n, spec in ((1234.5, ",.1f"), (0.25, ".1%"), (7, "d"))] == [
        "1,234.5",
        "25.0 %",
        "7",
    ]
    assert [Bar(0.5).text, Bar(0.5, "1 of 2").text, Bar(None).text] == ["50.0 %", "1 of 2", "-"]


def test_the_terminal_shows_the_same_report() -> None:
    assert list(report_lines(whole_report())) == [
        EVIL,
        EVIL,
        "",
        EVIL,
        EVIL,
        f"  {EVIL}  12 %  {EVIL}; {EVIL}",
        f"  {'a':{WIDTH}}  {EVIL}",
        f"  {EVIL}  {'1,000':>{WIDTH}}",
        f"  {'x':{WIDTH}}  {'50.0 %':>{WIDTH}}",
        "  ... and 1 more: --json or --html FILE",
        f"  {EVIL}: {EVIL}",
        f"  {PHOTO}: b",
        f"  {EVIL}  {EVIL}",
        f"  {EVIL}",
        "",
        EVIL,
    ]


def test_the_terminal_gets_no_control_characters_and_no_empty_section() -> None:
    copies = Gallery([Photo("a\x1b"), Photo("b\udcff"), Photo("c")], dict, first=2, joined=" = ")
    plots = Section("Plots", [Plot("one", draw, "")])
    report = Report("t\n", [plots, Section("Copies", [copies]), Section("Lead", [], "alone")])
    assert list(report_lines(report)) == [
        "t\\n",
        "",
        "Copies",
        "  a\\x1b = b\\udcff = ... (3 in all)",
        "",
        "Lead",
        "alone",
    ]


def test_a_long_cell_moves_its_own_row_only() -> None:
    table = Table(("name", "n"), [("x" * 60, Number(1)), ("y", Number(22))])
    assert list(report_lines(Report("t", [Section("", [table])])))[2:] == [
        f"{'name':48}   n",
        f"{'x' * 60}   1",
        f"{'y':48}  22",
    ]


@pytest.mark.parametrize("width", [80, 50, 40])
def test_a_narrow_terminal_shortens_texts_and_never_a_figure(width: int) -> None:
    names = ["n02124075 " + "x" * 60, "short"]
    table = Table(
        ("class", "images", "taken for", "share"),
        [(name, Number(123_456), "tabby, tabby cat", Number(0.5, ".1%")) for name in names],
    )
    report = Report("t", [Section("Title", [table])])
    _, _, _, head, first, second = report_lines(report, width)
    assert max(map(len, (head, first, second))) <= width
    for line in (first, second):
        assert re.search(r" 123,456 .* 50\.0 %$", line)
    assert "\N{HORIZONTAL ELLIPSIS}" in first
    assert "tabby, tabby cat" not in second
    assert ("n02124075 x" in first) == (width > 40)


def test_a_wide_terminal_shows_texts_whole() -> None:
    table = Table(("name", "n"), [("x" * 60, Number(1)), ("y", Number(22))])
    lines = list(report_lines(Report("t", [Section("", [table])]), 200))
    assert lines[-2:] == [f"{'x' * 60}   1", f"{'y':60}  22"]


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
    write_report(tmp_path / "r.html", Report("a\udcff", []))
    assert "<h1>a\\udcff</h1>" in (tmp_path / "r.html").read_text()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        write_report(tmp_path / "folder", Report("a", []))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "r.html"]


def test_figures_leave_the_room_to_texts_on_a_phone(tmp_path: Path) -> None:
    table = Table(("Cosine", "Photo"), [(Number(0.5, ".1f"), "a-long-name-of-a-photo/" * 4)])
    write_report(tmp_path / "r.html", Report("a", [Section("", (table, Facts([("b", "c" * 96)])))]))
    with browsing(tmp_path) as browser:
        browser.open((tmp_path / "r.html").as_uri(), width=390)
        cells = [cell.size["width"] for cell in browser.every("td")]
        assert cells[0] < 100
        assert browser.run("return document.querySelector('.scroll').scrollWidth") < 390
        assert browser.one("dd").size["width"] > 250


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


def report_of(folder: Path, found: Evaluation) -> Report:
    return evaluation_report(found, open_dataset(folder, found.labels, subset=True))


def test_the_report_of_an_evaluation(folder: Path, tmp_path: Path) -> None:
    found = evaluate("bundled", folder, subset=True, cache_dir=tmp_path, offline=True)
    html = report_html(report := report_of(folder, found))
    reader = Reader(html)
    assert re.findall(r"<h2>(.*?)</h2>", html) == [
        "Calibration, and how classes differ",
        "Confused classes",
        "Worst mistakes",
        "Every class, weakest first",
        "Unreadable photos",
        "How the model was measured",
    ]
    images = [v for tag, name, v in reader.attributes if (tag, name) == ("img", "src")]
    assert len(images) == 2
    assert "<b>&.png" in reader.texts
    assert "<b>" not in html
    assert any("torn.png" in text for text in reader.texts)
    assert any("none is masked" in text for text in reader.texts)
    assert len(html) < 200_000
    text = "\n".join(report_lines(report))
    assert re.search(r"^Top-1 +50.00 %  15.00 to 85.00 % \(95 %\)$", text, re.MULTILINE)
    assert re.search(r"<b>&.png: espresso .* %, truth: Egyptian cat .* %$", text, re.MULTILINE)
    assert re.search(r"torn.png +\S", text)


@pytest.mark.parametrize("strict", [False, True])
def test_the_report_of_nothing_readable(tmp_path: Path, strict: bool) -> None:
    (tmp_path / "n02124075").mkdir()
    (tmp_path / "n02124075" / "torn.png").write_bytes(b"no photo")
    found = evaluate(
        "bundled", tmp_path, subset=True, strict=strict, cache_dir=tmp_path / "c", offline=True
    )
    html = report_html(report_of(tmp_path, found))
    assert "Unreadable photos" in html
    assert "Every class" not in html
