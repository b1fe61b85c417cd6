"""What counts as a photo in folders, archives and patterns, and what is said of the others."""

import io
import os
import sys
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tars import tar

from regnet.data.dataset import open_dataset
from regnet.data.listing import Listing
from regnet.data.photo_files import SkipTally, counts_as_photo, first_clutter, is_clutter
from regnet.data.sources import count_items, iter_items
from regnet.network.labels import Label
from regnet.system.notices import SkippedFilesWarning

Pack = Callable[[dict[str, bytes]], Path]


def encoded(form: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 7), "red").save(file, form)
    return file.getvalue()


JPEG, PNG, WEBP = encoded("JPEG"), encoded("PNG"), encoded("WEBP")

FILES = {
    "a/p.jfif": JPEG,
    "a/p.jpg_large": JPEG,
    "a/p": JPEG,
    "a/q.jpg.1": JPEG,
    "a/r.txt": PNG,
    "b/broken.jpg": b"none",
    "b/raw.nef": b"II*\0",
    "b/s.WEBP": WEBP,
    "b/t.heic": b"none",
    "a/notes.txt": b"text",
    "a/n.json": b"{}",
    "b/LICENSE": b"text",
    "b/clip.mp4": bytes(99),
    "a/@eaDir/p.jfif/thumb.jpg": JPEG,
    "lost+found/x.jpg": JPEG,
    "b/.hidden/y.jpg": JPEG,
    "a/.DS_Store": b"x",
    "a/._p.jpg": JPEG,
    "b/Thumbs.db": JPEG,
    "__MACOSX/a/._p.jpg": b"x",
}
PHOTOS = ["a/p", "a/p.jfif", "a/p.jpg_large", "a/q.jpg.1", "a/r.txt", "b/broken.jpg"]
PHOTOS += ["b/raw.nef", "b/s.WEBP", "b/t.heic"]
SUFFIXES = {".json": 1, ".mp4": 1, ".txt": 1, "without suffix": 1}
FOLDERS = {".hidden/": 1, "@eaDir/": 1, "__MACOSX/": 1, "lost+found/": 1}


@pytest.fixture(params=["folder", "zip", "tar", "tar.gz"])
def pack(request: pytest.FixtureRequest, tmp_path: Path) -> Pack:
    """Return what puts files into a folder or an archive."""

    def make(files: dict[str, bytes]) -> Path:
        path = tmp_path / f"data.{request.param}"
        if request.param == "folder":
            for name, content in files.items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(content)
        elif request.param == "zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
        else:
            path.write_bytes(tar(dict(files), "w" if request.param == "tar" else "w:gz"))
        return path

    return make


def skipped_of(path: Path | str) -> tuple[list[str], str]:
    """Return the sources of the items, and what is said of files that are skipped."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        sources = [item.source for item in iter_items([path])]
    said = [str(one.message) for one in given]
    return sources, said[0] if said else ""


def test_what_the_decoder_reads_is_a_photo_whatever_its_suffix(pack: Pack) -> None:
    path = pack(FILES)
    sources, said = skipped_of(path)
    assert sorted(sources) == [f"{path}/{name}" for name in PHOTOS]
    assert said.startswith(f"{path}: skipped 4 files: 1 .")
    for part in ("1 .json", "1 .mp4", "1 .txt", "1 without suffix", "; and folders that hold no "):
        assert part in said
    for folder in FOLDERS:
        assert f"{folder[:-1]} (1 file)" in said


def test_data_sets_hold_the_same_photos_and_counts(pack: Pack) -> None:
    path = pack(FILES)
    listing = Listing([path], side_names=frozenset(("n.json",)))
    for _ in range(2):  # what is skipped is counted once
        assert sorted(listing.paths()) == PHOTOS
    assert sorted(item.source for item in listing.images("")) == [f"{path}/{n}" for n in PHOTOS]
    expected = {name: n for name, n in (SUFFIXES | FOLDERS).items() if name != ".json"}
    assert listing.tally.to_dict() == expected


def test_photos_that_are_hidden_or_not_downloaded_are_counted(pack: Pack) -> None:
    names = (".IMG_1.HEIC.icloud", ".IMG_2.JPG.icloud", "c.png.nextcloud", ".trashed-1-d.jpg")
    others = ("._a.jpg", ".notes.pages.icloud", ".DS_Store", "@eaDir/.b.jpg.icloud")
    path = pack({"a.jpg": JPEG} | dict.fromkeys((*names, *others), b"x"))
    sources, said = skipped_of(path)
    assert sources == [f"{path}/a.jpg"]
    assert said == (
        f"{path}: skipped 4 files: 2 .icloud (not downloaded), 1 .nextcloud (not downloaded), "
        "1 hidden .jpg; and folders that hold no photos: @eaDir (1 file)"
    )


def test_nothing_is_said_where_nothing_is_skipped(pack: Pack) -> None:
    assert skipped_of(pack({"a.jpg": JPEG, ".DS_Store": b"x", "b": PNG}))[1] == ""


def test_counting_knows_them_too(tmp_path: Path, pack: Pack) -> None:
    path = pack(FILES)
    assert count_items([path]) == (None if "tar" in path.name else len(PHOTOS))


def test_a_data_set_says_what_it_skips(pack: Pack) -> None:
    labels = (Label("", "cat"), Label("", "dog"))
    files = {"cat/1": JPEG, "cat/1.xml": b"<a/>", "dog/2.jfif": JPEG, "lost+found/3.jpg": JPEG}
    with pytest.warns(SkippedFilesWarning, match=r"1 \.xml; and .* lost\+found \(1 file\)"):
        dataset = open_dataset(pack(files), labels)
    assert dataset.count == 2


@pytest.mark.parametrize(
    ("pattern", "expected", "said"),
    [
        ("*", ["n", "p.jfif", "q.jpg.1", "sub/r"], "1 .txt; and folders"),
        ("**", ["n", "p.jfif", "q.jpg.1", "sub/r"], "1 .txt"),
        ("*.txt", ["notes.txt"], ""),
        ("*/r", ["sub/r"], ""),
        (".*", [], "1 hidden .jpg"),
        ("@eaDir/*", ["@eaDir/thumb.jpg"], ""),  # whoever names it, means it
        ("*/thumb.jpg", [], "@eaDir (1 file)"),
        ("**/*.jpg", [], "@eaDir (1 file)"),
    ],
)
def test_patterns_match_pictures_of_any_suffix(
    tmp_path: Path, pattern: str, expected: list[str], said: str
) -> None:
    for name in ("sub", "@eaDir"):
        (tmp_path / name).mkdir()
    for name in ("n", "p.jfif", "q.jpg.1", "sub/r", "@eaDir/thumb.jpg"):
        (tmp_path / name).write_bytes(JPEG)
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / ".h.jpg").write_bytes(JPEG)
    sources, line = skipped_of(f"{tmp_path}/{pattern}")
    expected = [f"{tmp_path}/{name}" for name in expected] or [f"{tmp_path}/{pattern}"]
    assert sources == expected
    assert all(part in line for part in said.split("; and ")) if said else not line


def test_one_line_counts_all_sources(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "p.jpg").write_bytes(JPEG)
        (tmp_path / name / "x.csv").write_text("1")
    with pytest.warns(SkippedFilesWarning) as given:
        list(iter_items([tmp_path / "a", tmp_path / "b"]))
    assert [str(one.message) for one in given] == ["2 sources: skipped 2 files: 2 .csv"]


def test_files_of_known_suffixes_are_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(b"x")
    (tmp_path / "odd").write_bytes(JPEG)
    opened = []
    real = Path.open

    def watched(path: Path, *mode: Any, **options: Any) -> Any:
        opened.append(path)
        return real(path, *mode, **options)

    monkeypatch.setattr(Path, "open", watched)
    assert len(list(iter_items([tmp_path]))) == 6
    assert [path.name for path in opened] == ["odd"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs named pipes")
def test_pipes_are_no_photos_and_dead_links_only_without_another_suffix(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dead").symlink_to("nowhere")
    (tmp_path / "dead.txt").symlink_to("nowhere")
    (tmp_path / "p").write_bytes(JPEG)
    assert skipped_of(tmp_path) == (
        [f"{tmp_path}/dead", f"{tmp_path}/p"],
        f"{tmp_path}: skipped 1 file: 1 .txt",
    )


def test_the_line_stays_short(tmp_path: Path) -> None:
    tally = SkipTally()
    for number in range(3000):
        tally.add("top", f"a.{number}")
        tally.add("top", "b.txt")
    line = tally.line()
    assert line.startswith("top: skipped 6,000 files: 3,000 .txt, 2,001 others")
    assert line.endswith(", 993 more")
    assert len(line) < 200


def test_long_walks_take_little_memory() -> None:
    tally = SkipTally()
    tracemalloc.start()
    try:
        for number in range(20_000):
            tally.add("top", f"folder/{number}/{number}.json")
            counts_as_photo(f"folder/{number}/{number}.jpg", bytes)
        assert tracemalloc.get_traced_memory()[1] < 1 << 18
    finally:
        tracemalloc.stop()


def test_counts_are_added() -> None:
    tally, other = SkipTally(), SkipTally()
    for place, path in (("a", "1.txt"), ("a", "@eaDir/2.txt"), ("a", "3.txt")):
        tally.add(place, path)
    for path in ("4.txt", *(f"{n}.md" for n in range(9)), "5.csv"):
        other.add("b", path)
    other.drop((".csv", ".tsv"))
    tally.add_all(other)
    assert tally.line() == (
        "2 sources: skipped 12 files: 9 .md, 3 .txt; and folders that hold no photos: "
        "@eaDir (1 file)"
    )


# Clutter


CLUTTER = [
    *("@eaDir", "@EADIR", "#recycle", "#snapshot", "lost+found", "$RECYCLE.BIN", "$Recycle.Bin"),
    *("System Volume Information", ".Trash-1000", ".Trashes", ".thumbnails", "__MACOSX", ".git"),
    *("@__thumb", "FOUND.000", "Thumbs.db", "desktop.ini", "._photo.jpg", "...", "Icon\r"),
]
NO_CLUTTER = ["Trash", "trash", "recycle", "recycled", "snapshot", "cats", "..", ".", "found.jpg"]
NO_CLUTTER += ["#1", "@home", ""]


@pytest.mark.parametrize("name", CLUTTER)
def test_what_a_system_makes_is_clutter(name: str) -> None:
    assert is_clutter(name)


@pytest.mark.parametrize("name", NO_CLUTTER)
def test_what_people_make_is_not(name: str) -> None:
    assert not is_clutter(name)


def test_the_first_component_that_is_clutter_is_named() -> None:
    assert first_clutter("cats/@eaDir/.x/p1.jpg") == "@eaDir"
    assert first_clutter("../cats/./p1.jpg") is None
