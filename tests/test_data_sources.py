"""Sources of images: what each kind yields, in what order, and what fails alone."""

import bz2
import gc
import gzip
import importlib.util
import io
import lzma
import os
import random
import re
import struct
import tarfile
import threading
import time
import tracemalloc
import weakref
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from local_server import QuietServer

from regnet.data import archives
from regnet.data.archives import archive_kind
from regnet.data.fetcher import Fetcher
from regnet.data.listing import Listing
from regnet.data.sources import Item, count_items, iter_items
from regnet.pixels.formats import IMAGE_SUFFIXES
from regnet.system.errors import ImageError
from regnet.system.notices import SkippedFilesWarning
from regnet.system.retry import Retry

COMPRESS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "photos"
    for name in ("b.jpg", "a.PNG", "sub/c.webp", "sub/deep/d.tiff", "a1/z.gif"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(name.encode())
    for name in ("notes.txt", ".hidden.jpg", ".git/x.jpg", "sub/more.zip"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(b"no image")
    return top


def names(items: list[Item], top: Path) -> list[str]:
    return [Path(item.source).relative_to(top).as_posix() for item in items]


def reason(item: Item) -> str:
    with pytest.raises(ImageError) as caught:
        item.read()
    return str(caught.value)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def only(items: Iterator[Item]) -> Item:
    (item,) = items
    return item


def test_a_file_is_one_item_read_when_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"old")
    item = only(iter_items([path]))
    path.write_bytes(b"new")
    assert item.source == str(path)
    assert item.read() == b"new"


def test_a_file_of_any_name_may_be_named(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(b"\xff\xd8\xff")
    assert only(iter_items([str(path)])).read() == b"\xff\xd8\xff"


def test_what_is_missing_is_an_item_that_says_so(tmp_path: Path) -> None:
    good = tmp_path / "good.jpg"
    good.write_bytes(b"x")
    bad, fine = iter_items([tmp_path / "bad.jpg", good])
    assert "no such file or folder" in reason(bad)
    assert fine.read() == b"x"
    assert "no such file" in reason(only(iter_items(["a\0b"])))


AWKWARD = [
    *("~nosuchuser/x.jpg", "~a\0b/x.jpg", "~\ud800/x.jpg", "a\0b.jpg", "a\0*.jpg", "a\0/*.jpg"),
    *("x" * 5000, "x" * 5000 + "*", "x/" * 3000, "*/" * 2500, "**/" * 1000 + "x"),
    *("\ud800.jpg", "\ud800*.jpg", "", "[", "[z-a].jpg", "(?P<*", "ok.jpg/x.jpg", "loop.jpg"),
    *("loop/x.jpg", "loop/*.jpg", "\udc80", "http:\0//x", "ok.jpg/*"),
]


@pytest.mark.parametrize("name", AWKWARD, ids=range(len(AWKWARD)))
def test_names_that_no_system_takes_fail_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ok.jpg").write_bytes(b"x")
    Path("loop.jpg").symlink_to("loop.jpg")
    Path("loop").symlink_to("loop")
    bad, fine = iter_items([name, "ok.jpg"])
    assert reason(bad)
    assert fine.read() == b"x"
    assert count_items([name, "ok.jpg"]) == 2


def test_a_tilde_that_names_no_user_is_part_of_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "~no such user.jpg").write_bytes(b"x")
    assert only(iter_items(["~no such user.jpg"])).read() == b"x"
    assert only(iter_items(["~/~no such user.jpg"])).read() == b"x"


def test_a_link_in_a_circle_is_an_error_of_its_own(folder: Path) -> None:
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "loop").symlink_to("loop")
    items = list(iter_items([folder]))
    assert len(items) == 7
    for name in ("loop.jpg", "loop"):  # without a suffix either may be a photo
        assert "symbolic links" in reason(next(i for i in items if i.source.endswith(name)))


def test_links_to_nothing_are_skipped_where_their_suffix_is_no_photo_s(folder: Path) -> None:
    (folder / "list.txt").symlink_to("gone.txt")
    (folder / "cat").symlink_to("/gone/cat")  # a class that is not mounted, say
    items = [item for item in iter_items([folder]) if not Path(item.source).exists()]
    assert [Path(item.source).name for item in items] == ["cat"]
    assert "No such file" in reason(items[0])


def test_a_file_that_vanishes_is_an_error_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    item = only(iter_items([path]))
    path.unlink()
    assert "No such file" in reason(item)


def test_files_over_the_limit_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert "over the limit of 268,435,456" in reason(only(iter_items([path])))
    assert "over the limit of 5" in reason(only(iter_items([path], max_bytes=5)))


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_endless_devices_end_at_the_limit() -> None:
    assert "over the limit" in reason(only(iter_items(["/dev/zero"], max_bytes=1 << 20)))


def test_a_folder_gives_its_images_sorted(folder: Path) -> None:
    items = list(iter_items([folder]))
    expected = ["a.PNG", "a1/z.gif", "b.jpg", "sub/c.webp", "sub/deep/d.tiff"]
    assert names(items, folder) == expected
    assert [item.read().decode() for item in items] == expected
    assert count_items([folder]) == 5


def test_a_folder_without_images_is_an_error_that_names_it(tmp_path: Path) -> None:
    item = only(iter_items([tmp_path]))
    assert item.source == str(tmp_path)
    assert "no images in this folder" in reason(item)


def test_links_that_loop_end(folder: Path) -> None:
    (folder / "sub" / "again").symlink_to(folder, target_is_directory=True)
    (folder / "sub" / "twin").symlink_to(folder / "sub", target_is_directory=True)
    assert len(list(iter_items([folder]))) == 5


def test_a_broken_link_is_an_error_of_its_own(folder: Path) -> None:
    (folder / "c.jpg").symlink_to(folder / "gone.jpg")
    items = list(iter_items([folder]))
    assert [Path(i.source).name for i in items if "gone" not in i.source].count("c.jpg") == 1
    assert "No such file" in reason(next(i for i in items if i.source.endswith("c.jpg")))


def test_pipes_in_folders_are_left_alone(folder: Path) -> None:
    os.mkfifo(folder / "pipe.jpg")
    assert len(list(iter_items([folder]))) == 5


def test_a_pipe_may_be_named(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(b"x" * 200_000))
    writer.start()
    assert only(iter_items([pipe])).read() == b"x" * 200_000
    writer.join()


def test_deep_folders_are_walked(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(300):
        deep = deep / "d"
        deep.mkdir()
    (deep / "a.jpg").write_bytes(b"deep")
    assert only(iter_items([tmp_path])).read() == b"deep"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_is_an_error_of_its_own(folder: Path) -> None:
    (folder / "sub").chmod(0)
    try:
        items = list(iter_items([folder]))
    finally:
        (folder / "sub").chmod(0o755)
    assert [Path(i.source).name for i in items] == ["a.PNG", "z.gif", "b.jpg", "sub"]
    assert "Permission denied" in reason(items[-1])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look anywhere")
def test_patterns_in_a_folder_that_may_only_be_listed(folder: Path) -> None:
    (folder / "sub").chmod(0o444)
    try:
        items = list(iter_items([f"{folder}/sub/*"]))
        assert "Permission denied" in reason(items[0])
    finally:
        (folder / "sub").chmod(0o755)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["b.jpg"]),
        ("*", ["a.PNG", "a1/z.gif", "b.jpg", "sub/c.webp", "sub/deep/d.tiff"]),
        ("**", ["a.PNG", "a1/z.gif", "b.jpg", "sub/c.webp", "sub/deep/d.tiff"]),
        ("**/*.[wt]*", ["sub/c.webp", "sub/deep/d.tiff"]),
        ("sub/*", ["sub/c.webp", "sub/deep/d.tiff"]),
        ("*.txt", ["notes.txt"]),
        ("?.*", ["a.PNG", "b.jpg"]),
    ],
)
def test_patterns(folder: Path, pattern: str, expected: list[str]) -> None:
    assert names(list(iter_items([f"{folder}/{pattern}"])), folder) == expected


def test_a_pattern_that_matches_nothing_is_an_error(folder: Path) -> None:
    assert "no image matches" in reason(only(iter_items([f"{folder}/*.avif"])))


def test_a_name_with_brackets_is_first_a_file(tmp_path: Path) -> None:
    path = tmp_path / "photo[1].jpg"
    path.write_bytes(b"x")
    assert only(iter_items([path])).read() == b"x"


def test_sources_keep_their_order_and_may_repeat(folder: Path) -> None:
    sources = [folder / "b.jpg", folder / "a.PNG", folder / "b.jpg"]
    assert names(list(iter_items(sources)), folder) == ["b.jpg", "a.PNG", "b.jpg"]
    assert count_items([*sources, folder]) == 8


def test_items_are_lazy(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / f"{n}.jpg").write_bytes(b"x")
    items = iter_items([tmp_path / "0.jpg", tmp_path / "1.jpg"])
    next(items)
    (tmp_path / "1.jpg").unlink()
    assert "no such file" in reason(next(items))


def test_many_files_take_little_memory(tmp_path: Path) -> None:
    for n in range(50):
        (tmp_path / f"{n:03d}").mkdir()
        for m in range(100):
            (tmp_path / f"{n:03d}" / f"{m:03d}.jpg").touch()
    peaks = []
    for times in (1, 1, 4, 4):  # the first brings what is imported once; caches may grow in any
        tracemalloc.start()
        try:
            assert sum(1 for _ in iter_items([tmp_path] * times)) == 5000 * times
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert min(peaks[2:]) < peaks[1] + (1 << 20)


# Archives


def make_zip(path: Path | io.BytesIO, members: dict[str, bytes], **options: object) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            archive.writestr(name, data)


def tar_bytes(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


MEMBERS = {
    "z/b.jpg": b"one",
    "a.png": b"two" * 9000,
    "notes.txt": b"no image",
    "inner.zip": b"PK\x03\x04",
    ".hidden/c.jpg": b"hidden",
    "__MACOSX/._a.png": b"fork",
    "../up.jpg": b"three",
    "/root.gif": b"four",
}


def test_a_zip_gives_its_images_sorted(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    make_zip(path, MEMBERS)
    items = list(iter_items([path]))
    assert [item.source for item in items] == [
        f"{path}/{name}" for name in ("../up.jpg", "/root.gif", "a.png", "z/b.jpg")
    ]
    assert [item.read() for item in items] == [b"three", b"four", b"two" * 9000, b"one"]
    assert count_items([path]) == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip"]


def test_zip_members_are_read_by_many_threads(tmp_path: Path) -> None:
    path = tmp_path / "archive"  # known by its content
    members = {f"{n:03d}.jpg": os.urandom(10_000) for n in range(200)}
    make_zip(path, members)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda item: item.read(), iter_items([path])))
    assert got == list(members.values())


def test_a_zip_member_that_is_encrypted_fails_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    make_zip(path, {"a.jpg": b"one", "b.jpg": b"two"})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    path.write_bytes(data)
    first, second = iter_items([path])
    assert "encrypted" in reason(first)
    assert second.read() == b"two"


def test_a_zip_member_that_is_corrupt_fails_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    make_zip(path, {"a.jpg": b"one" * 100, "b.jpg": b"two"})
    data = bytearray(path.read_bytes())
    data[40] ^= 0xFF
    path.write_bytes(data)
    first, second = iter_items([path])
    assert "corrupt" in reason(first)
    assert second.read() == b"two"


def test_a_zip_member_over_the_limit_fails_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    make_zip(path, {"a.jpg": os.urandom(2000), "b.jpg": b"two"})
    first, second = iter_items([path], max_bytes=1000)
    assert "2,000 bytes is over the limit of 1,000" in reason(first)
    assert second.read() == b"two"


def test_zip_bombs_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    make_zip(path, {"a.bmp": b"\0" * (20 << 20)})
    assert "zip bomb" in reason(only(iter_items([path])))


def test_a_zip_that_lies_about_a_size_is_not_unpacked_beyond_it(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    make_zip(path, {"a.bmp": b"\0" * (20 << 20)})
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 1000)
    path.write_bytes(data)
    item = only(iter_items([path]))
    tracemalloc.start()
    try:
        assert "corrupt" in reason(item)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def zip_of(entries: list[tuple[str, int, int, int]], body: bytes, crc: int) -> bytes:
    """A zip whose directory claims these (name, size, packed, offset), in zip64 where need be."""
    directory = b""
    for name, *values in entries:
        large = [value for value in values if value >= 0xFFFFFFFF]
        extra = struct.pack(f"<HH{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        size, packed, offset = (min(value, 0xFFFFFFFF) for value in values)
        head = (b"PK\1\2", 20, 20, 0, 8, 0, 0, crc, packed, size, len(name), len(extra))
        directory += struct.pack("<4s6H3L5H2L", *head, 0, 0, 0, 0, offset) + name.encode() + extra
    count = len(entries)
    end = (b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)
    return body + directory + struct.pack("<4s4H2LH", *end)


def deflated(data: bytes) -> tuple[bytes, int]:
    """Return a local header and the packed bytes, and how many these are."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    packed = packer.compress(data) + packer.flush()
    fields = (b"PK\3\4", 20, 0, 8, 0, 0, zlib.crc32(data), len(packed), len(data), 1, 0)
    return struct.pack("<4s5H3L2H", *fields) + b"x" + packed, len(packed)


def test_zip_members_over_the_same_bytes_are_refused(tmp_path: Path) -> None:
    data = os.urandom(5_000)
    body, packed = deflated(data)
    entries = [(f"{n:04}.jpg", len(data), packed, 0) for n in range(1000)]
    (tmp_path / "a.zip").write_bytes(zip_of(entries, body, zlib.crc32(data)))
    first, *others = iter_items([tmp_path / "a.zip"])
    assert first.read() == data
    assert len(others) == 999
    assert {reason(item) for item in others} == {
        "a zip bomb? The members of this zip up to this one are over its size"
    }


def test_a_zip_may_hold_little_beyond_the_ratio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regnet.data.zip_stream.BEYOND", 8 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"{number}.bmp", bytes(3 << 20))
            archive.writestr(f"{number}.jpg", os.urandom(100))
    errors = [reason(item) for item in iter_items([tmp_path / "a.zip"]) if item.source[-5] == "3"]
    assert len(errors) == 2
    assert "members of this zip up to this one are over 200 times its size and 8 MiB" in errors[0]


@pytest.mark.parametrize("huge", [2**64 - 1, 2**63, 2**40, 2**32])
@pytest.mark.parametrize("field", [1, 2, 3])
def test_a_zip_member_of_huge_claims_fails_alone(tmp_path: Path, huge: int, field: int) -> None:
    body, packed = deflated(b"photo" * 1000)
    lying: list[Any] = ["a.jpg", 5000, packed, 0]
    lying[field] = huge
    entries = [tuple(lying), ("b.jpg", 5000, packed, len(body))]
    data = zip_of(entries, body + body, zlib.crc32(b"photo" * 1000))
    (tmp_path / "a.zip").write_bytes(data)
    first, second = iter_items([tmp_path / "a.zip"])
    assert re.search("over the limit|corrupt|truncated", reason(first))
    assert second.read() == b"photo" * 1000
    assert len(Listing([tmp_path / "a.zip"]).sizes) == 2


def test_rare_zip_methods_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.jpg", b"one")
    assert "repack" in reason(only(iter_items([path])))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"PK\x05\x06", b"not a zip" * 99])
def test_a_broken_zip_is_an_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(data)
    item = only(iter_items([path]))
    assert item.source == str(path)
    assert "this zip archive is corrupt or truncated" in reason(item)


def test_an_archive_without_images_is_an_error(tmp_path: Path) -> None:
    make_zip(tmp_path / "a.zip", {"notes.txt": b"x"})
    (tmp_path / "a.tar").write_bytes(tar_bytes({"notes.txt": b"x"}))
    for name in ("a.zip", "a.tar"):
        assert "no images in this archive" in reason(only(iter_items([tmp_path / name])))


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_tar_gives_its_images_in_its_order(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.tar{suffix}"
    path.write_bytes(COMPRESS[suffix](tar_bytes(MEMBERS)))
    items = list(iter_items([path]))
    expected = ["z/b.jpg", "a.png", "../up.jpg", "/root.gif"]
    assert [item.source for item in items] == [f"{path}/{name}" for name in expected]
    assert [item.read() for item in items] == [MEMBERS[name] for name in expected]
    assert count_items([path]) is None


def test_links_out_of_a_tar_are_errors_and_devices_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"{kind.decode()}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    items = list(iter_items([path]))
    assert len(items) == 2
    assert all("a link to /etc/passwd, which is not a file in" in reason(item) for item in items)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_truncated_tar_gives_what_it_has_and_an_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.tar{suffix}"
    members = {f"{n}.jpg": os.urandom(300_000) for n in range(8)}
    packed = COMPRESS[suffix](tar_bytes(members))
    path.write_bytes(packed[: len(packed) // 2 + 5000])
    *good, bad = iter_items([path])
    assert [item.read() for item in good] == list(members.values())[: len(good)]
    assert bad.source == str(path)
    assert "corrupt or truncated" in reason(bad)


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b broken", b"BZh9 broken", b"\0" * 511])
def test_a_broken_tar_is_an_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    assert "archive" in reason(only(iter_items([path])))


def test_a_tar_member_over_the_limit_fails_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(tar_bytes({"a.jpg": b"x" * 2000, "b.jpg": b"two"})))
    first, second = iter_items([path], max_bytes=1000)
    assert "over the limit of 1,000" in reason(first)
    assert second.read() == b"two"


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.REGTYPE])
def test_tar_headers_that_claim_much_are_refused(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.type, info.size = kind, 1 << 40
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 10_000))
    *_, last = iter_items([path])
    assert reason(last)


def test_a_long_tar_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes({f"{n:05d}.jpg": b"x" * 500 for n in range(5000)}))
    tracemalloc.start()
    try:
        assert sum(len(item.read()) for item in iter_items([path])) == 2_500_000
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", COMPRESS)
def test_members_of_a_tar_that_wait_take_little_memory(tmp_path: Path, suffix: str) -> None:
    """Whoever reads in parallel holds many members that are not read yet."""
    path = tmp_path / f"a.tar{suffix}"
    members = {f"{n}.bmp": os.urandom(64) * (20_000 + n) for n in range(6)}  # 1.2 MiB each
    path.write_bytes(COMPRESS[suffix](tar_bytes(members)))
    tracemalloc.start()
    try:
        items = list(iter_items([path]))
        assert tracemalloc.get_traced_memory()[0] < 2 << 20
    finally:
        tracemalloc.stop()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda item: item.read(), items)) == list(members.values())


@pytest.mark.parametrize("suffix", COMPRESS)
def test_members_of_a_tar_on_standard_input_may_wait(suffix: str) -> None:
    data = COMPRESS[suffix](tar_bytes(MEMBERS))
    items = list(iter_items(["-"], stdin=Trickle(data)))  # type: ignore[arg-type]
    assert items.pop(1).read() == MEMBERS["a.png"]
    assert [item.read() for item in items] == [b"one", b"three", b"four"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize("suffix", COMPRESS)
def test_nothing_stays_open_behind_an_archive(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.tar{suffix}"
    path.write_bytes(COMPRESS[suffix](tar_bytes({"a.jpg": b"x" * 100_000, "b.jpg": b"y"})))
    gc.collect()
    before = open_files()
    for sources in ([path], ["-"]):
        items = list(iter_items(sources, stdin=io.BytesIO(path.read_bytes())))
        first = next(iter_items([path]))  # an iterator left halfway
        assert [len(item.read()) for item in (*items, first)] == [100_000, 1, 100_000]
        assert count_items(sources) is None
    del items, first
    gc.collect()
    assert open_files() == before


def test_room_that_was_put_to_use_is_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long archive must not fill the disk: files are begun anew, old ones go with their users."""
    monkeypatch.setattr(archives, "_FULL", 1000)
    made: list[weakref.ref[archives.SharedFile]] = []
    make = archives._temporary

    def watched() -> archives.SharedFile:
        made.append(weakref.ref(file := make()))
        return file

    monkeypatch.setattr(archives, "_temporary", watched)
    room = archives.Spool()
    spans = deque(room.put([b"%d" % n * 300, b"!"]) for n in range(10))
    assert len(made) == 3  # a file takes four
    while len(spans) > 1:
        assert spans.popleft()().endswith(b"!")
    gc.collect()
    assert [ref() is not None for ref in made] == [False, False, True]
    assert spans[0]() == b"9" * 300 + b"!"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_member_for_which_there_is_no_room_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Path("/dev/full").open("r+b", 0)  # noqa: SIM115  (the spool closes it)
    monkeypatch.setattr(archives.tempfile, "TemporaryFile", lambda **_: full)
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(tar_bytes({"a.jpg": b"x" * 100_000, "b.jpg": b"two"})))
    first, second = iter_items([path])
    assert "No space left on device (set TMPDIR" in reason(first)
    assert second.read() == b"two"


def test_a_tar_that_is_cut_after_it_was_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes({"a.jpg": b"x" * 5000, "b.jpg": b"y" * 5000}))
    first, second = list(iter_items([path]))
    os.truncate(path, 8000)
    assert first.read() == b"x" * 5000
    assert "cut short" in reason(second)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_sparse_members_of_a_tar_are_filled_up(tmp_path: Path, suffix: str) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a.jpg")
        info.size = 8
        info.pax_headers = {"GNU.sparse.map": "0,4,100,4", "GNU.sparse.size": "104"}
        archive.addfile(info, io.BytesIO(b"headtail"))
    path = tmp_path / f"a.tar{suffix}"
    path.write_bytes(COMPRESS[suffix](file.getvalue()))
    assert only(iter_items([path])).read() == b"head" + b"\0" * 96 + b"tail"


def spoilt_tars() -> Iterator[bytes]:
    """Yield tars with one field of one header overwritten, and the checksum made right again."""
    rng = random.Random(7)
    sizes = [
        b"\x80" + b"\xff" * 11,
        b"\xff" * 12,
        b"\xff" * 10 + b"\xfc\0",
        b"-0000000512\0",
        b"9" * 12,
    ]
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=form) as archive:
            for name in ("a.jpg", "x" * 150 + ".png"):
                info = tarfile.TarInfo(name)
                info.size = 700
                archive.addfile(info, io.BytesIO(b"p" * 700))
        whole = file.getvalue()
        for at in range(0, 6 * 512, 512):
            kinds = [(156, bytes([kind])) for kind in b"0157DKLMNSVxgX\0"]
            fields = [(124, size) for size in sizes] + kinds
            for offset, value in fields + [
                (rng.randrange(512), rng.randbytes(9)) for _ in range(20)
            ]:
                data = bytearray(whole)
                data[at + offset : at + offset + len(value)] = value
                data[at + 148 : at + 156] = b" " * 8
                data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
                yield bytes(data)
    long = tarfile.TarInfo("././@LongLink")
    long.type = tarfile.GNUTYPE_LONGNAME
    yield long.tobuf(tarfile.GNU_FORMAT) * 3000


def test_any_header_of_a_tar_gives_images_or_reasons(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    refused = 0
    for data in spoilt_tars():
        path.write_bytes(data)
        for item in iter_items([path], max_bytes=1 << 20):
            try:
                item.read()
            except ImageError:
                refused += 1
    assert refused > 50


def test_counting_reads_nothing_of_the_images(tmp_path: Path) -> None:
    (tmp_path / "tars").mkdir()
    whole = gzip.compress(tar_bytes({"a.jpg": b"x" * 1_000_000}))
    (tmp_path / "tars" / "a.tar.gz").write_bytes(whole[:600])  # reading on would be an error
    (tmp_path / "tars" / "b.tar").write_bytes(tar_bytes({"a.jpg": b"x"}))
    make_zip(tmp_path / "a.zip", MEMBERS)
    assert count_items([f"{tmp_path}/tars/*.tar.gz"]) is None
    assert count_items([f"{tmp_path}/tars/*.tar"]) is None
    assert count_items([tmp_path / "a.zip", tmp_path / "tars" / "b.tar"]) is None
    assert count_items([f"{tmp_path}/*.zip", tmp_path / "none.jpg"]) == 5
    assert count_items([tmp_path / "a.zip", "-"]) is None
    assert count_items([f"{tmp_path}/tars"]) == 1  # a folder's archives are not looked into


def test_archives_are_told_by_content_or_name() -> None:
    assert archive_kind(b"PK\x03\x04") == "zip"
    assert archive_kind(b"", "A.ZIP") == "zip"
    assert archive_kind(tar_bytes({})[:512], "x.tgz") == "tar"
    assert archive_kind(tar_bytes({"a": b""})[:512]) == "tar"
    assert archive_kind(gzip.compress(b"")) == "tar"
    assert archive_kind(b"\x89PNG") is None
    assert ".zip" not in IMAGE_SUFFIXES


def test_backslashes_part_the_folders_of_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    make_zip(path, {"photos\\cats\\1.jpg": b"one", "photos\\@eaDir\\1.jpg": b"thumb"})
    item = only(iter_items([path]))
    assert (item.source, item.read()) == (f"{path}/photos/cats/1.jpg", b"one")


def test_a_zip_made_on_windows_may_mix_its_separators(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    made = {0: "a/b\\1.jpg", 3: "a/b\\2.jpg", 10: "a/b\\3.jpg"}  # by FAT, Unix and NTFS
    with zipfile.ZipFile(path, "w") as archive:
        for system, name in made.items():
            info = zipfile.ZipInfo(name)
            info.create_system = system
            archive.writestr(info, b"x")
    found = sorted(item.source.removeprefix(f"{path}/") for item in iter_items([path]))
    assert found == ["a/b/1.jpg", "a/b/3.jpg", "a/b\\2.jpg"]


def test_a_parquet_file_gives_its_rows(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    photos = [b"\xff\xd8\xffone", None, b"\xff\xd8\xfftwo"]
    (tmp_path / "rows").mkdir()
    for name in ("b", "a"):
        pq.write_table(pa.table({"image": photos}), tmp_path / "rows" / f"{name}.parquet")
    (tmp_path / "rows" / "README.md").write_text("text")
    for source, files in ((tmp_path / "rows", "ab"), (f"{tmp_path}/rows/*.parquet", "ab")):
        items = list(iter_items([source]))
        expected = [f"{tmp_path}/rows/{file}.parquet#{row}" for file in files for row in range(3)]
        assert [item.source for item in items] == expected
        assert [items[0].read(), items[5].read()] == [photos[0], photos[2]]
        assert "no bytes of an image" in reason(items[1])
        assert count_items([source]) == 6
    odd = (tmp_path / "rows" / "a.parquet").rename(tmp_path / "odd")
    assert [item.source for item in iter_items([odd])] == [f"{odd}#{row}" for row in range(3)]
    with pytest.warns(SkippedFilesWarning, match=r"skipped 1 file: 1 \.md$"):
        list(iter_items([tmp_path / "rows"]))


def test_a_parquet_file_without_images_is_an_error(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"n": [1, 2]}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"none")
    assert "which column is the image" in reason(only(iter_items([tmp_path / "a.parquet"])))
    assert "cannot" in reason(only(iter_items([tmp_path / "b.parquet"])))


# Standard input


class Trickle(io.RawIOBase):
    """A pipe that gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, 1000) if size >= 0 else 1000)


def test_standard_input_is_one_image() -> None:
    item = only(iter_items(["-"], stdin=Trickle(b"\xff\xd8\xff" * 5000)))  # type: ignore[arg-type]
    assert item.source == "-"
    assert item.read() == b"\xff\xd8\xff" * 5000
    assert count_items(["-"]) is None


def test_standard_input_may_be_an_archive() -> None:
    packed = io.BytesIO()
    make_zip(packed, MEMBERS)
    for data in (packed.getvalue(), tar_bytes(MEMBERS), gzip.compress(tar_bytes(MEMBERS))):
        items = list(iter_items(["-"], stdin=Trickle(data)))  # type: ignore[arg-type]
        read = {item.source: item.read() for item in items}
        assert read["-/a.png"] == MEMBERS["a.png"]
        assert len(read) == 4


def test_broken_archives_on_standard_input_are_errors() -> None:
    for data in (b"PK\x03\x04 broken", b"\x1f\x8b broken"):
        item = only(iter_items(["-"], stdin=Trickle(data)))  # type: ignore[arg-type]
        assert item.source == "-"
        assert "corrupt" in reason(item)


def test_standard_input_that_cannot_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = (tmp_path / "x").open("wb+")
    closed.close()
    assert "cannot be read" in reason(only(iter_items(["-"], stdin=closed)))
    monkeypatch.setattr("sys.stdin", None)  # as where a program is started without any
    assert "cannot be read" in reason(only(iter_items(["-"])))


def test_standard_input_is_read_once_and_to_the_limit() -> None:
    first, second = iter_items(["-", "-"], stdin=io.BytesIO(b"x" * 5000), max_bytes=1000)
    assert "over the limit of 1,000" in reason(first)
    assert "name it once" in reason(second)
    assert only(iter_items(["-"], stdin=io.BytesIO(b""))).read() == b""


# Addresses


class Server(QuietServer):
    """A server of one test: `answers` holds what each request to a path gets in turn."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, list[Callable[[Handler], None]]] = {}
        self.requests: list[str] = []
        self.encodings: list[str | None] = []
        self.stop = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        self.server.encodings.append(self.headers.get("Accept-Encoding"))
        answers = self.server.answers.get(self.path, [status(404)])
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def log_message(self, *_: object) -> None:
        pass


def status(code: int, **headers: str) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.send_response(code)
        for name, value in ({"Content_Length": "0"} | headers).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    return answer


def body(data: bytes, length: int | None = None, **headers: str) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        status(200, Content_Length=str(len(data) if length is None else length), **headers)(handler)
        handler.wfile.write(data)
        if length is not None:
            handler.close_connection = True

    return answer


def stall(handler: Handler) -> None:
    status(200, Content_Length="100")(handler)
    handler.wfile.flush()
    handler.server.stop.wait(20)


def hang_up(handler: Handler) -> None:
    handler.close_connection = True


def endless(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    try:
        while not handler.server.stop.is_set():
            handler.wfile.write(b"x" * 10_000)
    except OSError:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield running
    running.stop.set()
    running.shutdown()
    thread.join()
    running.server_close()


def fetch(url: str, attempts: float = 3, **options: float) -> bytes:
    retry = Retry(attempts=int(attempts), base=0.01, longest_asked=10.0)
    given: Any = {"max_bytes": 100_000, "timeout": 5.0} | options
    return Fetcher(**given, retry=retry).fetch(url)


def refusal(url: str, **options: float) -> str:
    with pytest.raises(ImageError) as caught:
        fetch(url, **options)
    return str(caught.value)


def test_an_address_is_one_item_fetched_when_wanted(server: Server) -> None:
    server.answers["/a.jpg?x=1"] = [body(b"picture")]
    item = only(iter_items([server.url("/a.jpg?x=1")]))
    assert server.requests == []
    assert item.source == server.url("/a.jpg?x=1")
    assert item.read() == b"picture"
    assert count_items([item.source]) == 1


def test_many_threads_share_connections(server: Server) -> None:
    for n in range(40):
        server.answers[f"/{n}"] = [body(b"%d" % n)]
    items = iter_items([server.url(f"/{n}") for n in range(40)])
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda item: item.read(), items))
    assert got == [b"%d" % n for n in range(40)]


def test_an_answer_of_404_is_final(server: Server) -> None:
    assert "404 Not Found" in refusal(server.url("/gone"))
    assert len(server.requests) == 1


def test_errors_that_pass_are_tried_again(server: Server) -> None:
    server.answers["/a"] = [status(503), hang_up, body(b"whole")]
    assert fetch(server.url("/a")) == b"whole"
    assert len(server.requests) == 3


def test_errors_that_stay_are_named(server: Server) -> None:
    server.answers["/a"] = [status(429, Retry_After="0")]
    assert "429" in refusal(server.url("/a"))
    assert len(server.requests) == 3


def test_a_server_that_asks_to_wait_is_waited_for(server: Server) -> None:
    server.answers["/a"] = [status(429, Retry_After="1"), body(b"x")]
    start = time.monotonic()
    assert fetch(server.url("/a")) == b"x"
    assert time.monotonic() - start >= 1


def test_a_body_cut_short_is_never_accepted(server: Server) -> None:
    server.answers["/a"] = [body(b"half", length=8)]
    assert "attempts" in refusal(server.url("/a"))
    server.answers["/b"] = [body(b"half", length=8), body(b"complete")]
    assert fetch(server.url("/b")) == b"complete"


def test_a_server_that_stalls_is_given_up(server: Server) -> None:
    server.answers["/a"] = [stall]
    assert "nothing came for 0.2 s" in refusal(server.url("/a"), timeout=0.2)


def test_bodies_over_the_limit_are_not_read(server: Server) -> None:
    server.answers["/a"] = [body(b"", length=200_000)]
    server.answers["/b"] = [endless]
    assert "200,000 bytes are over the limit of 100,000" in refusal(server.url("/a"))
    assert "more than the limit of 100,000" in refusal(server.url("/b"))
    assert len(server.requests) == 2


def test_a_server_that_never_ends_is_left_at_the_deadline(server: Server) -> None:
    server.answers["/a"] = [endless]
    assert "not finished within" in refusal(server.url("/a"), max_bytes=1 << 40, deadline=0.3)


def drips(begin: bytes, drop: bytes) -> Callable[[Handler], None]:
    """Send the beginning of an answer, and then a few bytes at a time that never end it."""

    def answer(handler: Handler) -> None:
        handler.close_connection = True
        try:
            handler.wfile.write(begin)
            while not handler.server.stop.wait(0.02):
                handler.wfile.write(drop)
        except OSError:
            pass

    return answer


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("begin", "drop"),
    [
        (b"", b"H"),
        (HEAD, b"X-More: y\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (HEAD + b"Content-Length: 90000\r\n\r\n", b"x"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-More: y\r\n"),
        (HEAD + b"Connection: close\r\n\r\n", b"x"),
    ],
    ids=["status", "head", "continue", "body", "chunk", "trailer", "undelimited"],
)
@pytest.mark.parametrize("reused", [False, True])
def test_a_server_that_drips_is_left_at_the_deadline(
    server: Server, begin: bytes, drop: bytes, reused: bool
) -> None:
    server.answers["/a"] = [drips(begin, drop)]
    server.answers["/b"] = [body(b"first")]
    fetcher = Fetcher(max_bytes=100_000, timeout=5.0, deadline=0.3)
    if reused:
        assert fetcher.fetch(server.url("/b")) == b"first"
    start = time.monotonic()
    with pytest.raises(ImageError, match=r"not finished within 0\.3 seconds"):
        fetcher.fetch(server.url("/a"))
    assert time.monotonic() - start < 3
    assert fetcher.fetch(server.url("/b")) == b"first"


@pytest.mark.parametrize("coding", ["gzip", "br", "GZIP", "zstd", "deflate", "gzip, identity"])
def test_encoded_bodies_are_refused_by_name(server: Server, coding: str) -> None:
    server.answers["/a"] = [body(gzip.compress(bytes(50_000)), Content_Encoding=coding)]
    server.answers["/b"] = [body(b"plain", Content_Encoding="identity")]
    assert f"sends {coding!r}-encoded bytes" in refusal(server.url("/a"))
    assert server.encodings == ["identity"]
    assert fetch(server.url("/b")) == b"plain"


def test_redirects_are_followed_to_http_only(server: Server) -> None:
    server.answers["/a"] = [status(302, Location="/b")]
    server.answers["/b"] = [body(b"there")]
    server.answers["/c"] = [status(302, Location="file:///etc/passwd")]
    server.answers["/d"] = [status(302, Location="/d")]
    assert fetch(server.url("/a")) == b"there"
    assert "cannot fetch" in refusal(server.url("/c"))
    assert "redirects" in refusal(server.url("/d"))


def test_wrong_content_is_an_error_of_the_decoder(server: Server) -> None:
    from regnet.pixels.preprocess import crop_pixels
    from regnet.pixels.protocol import OMZ

    server.answers["/a.jpg"] = [body(b"<html>sign in</html>", Content_Type="image/jpeg")]
    with pytest.raises(ImageError, match="not an image"):
        crop_pixels(only(iter_items([server.url("/a.jpg")])).read(), OMZ)


@pytest.mark.parametrize(
    "url",
    [
        *("http://", "http://[", "http://a b/", "http://127.0.0.1:99999/", "http://a..b/x.jpg"),
        *(f"http://{'a' * 64}.org/x.jpg", "http://127.0.0.1:1/\ud800.jpg", "http://\ud800.org/"),
        *("http://a\0b/", "http://127.0.0.1:1/\0", "http://xn--a/"),
    ],
)
def test_impossible_addresses_are_errors(url: str) -> None:
    assert "cannot fetch" in refusal(url, attempts=1)


def test_redirects_to_impossible_addresses_are_errors(server: Server) -> None:
    for n, location in enumerate(
        ["http://a..b/", f"http://{'a' * 64}.org/", "http://[", "http://:x"]
    ):
        server.answers[f"/{n}"] = [status(302, Location=location)]
        assert "cannot fetch" in refusal(server.url(f"/{n}"), attempts=1)


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1", r"pip install 'httpx\[socks\]', or unset ALL_PROXY"),
        ("ALL_PROXY", "gopher://127.0.0.1:1", "unset ALL_PROXY"),
        ("NO_PROXY", "[::", "NO_PROXY"),
        ("SSL_CERT_FILE", "/none/there.pem", "SSL_CERT_FILE"),
    ],
)
def test_an_environment_that_forbids_connections_is_named(
    name: str, value: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "socks" in value and importlib.util.find_spec("socksio"):
        pytest.skip("SOCKS proxies work here")
    monkeypatch.setenv(name, value)
    assert re.search(advice, refusal("http://127.0.0.1:1/a.jpg", attempts=1))


def test_a_server_that_is_not_there_is_an_error() -> None:
    assert "attempts" in refusal("http://127.0.0.1:1/a.jpg")


@pytest.mark.parametrize("url", ["ftp://host/a.jpg", "s3://bucket/a.jpg"])
def test_other_schemes_are_errors(url: str) -> None:
    assert "is read by `regnet classify --ray` alone" in reason(only(iter_items([url])))
    assert "without file://" in reason(only(iter_items(["file:///etc/passwd"])))


ADDRESSES = ["http://127.0.0.1:9/a.jpg", "HTTPS://host/a.jpg", "rtsp://host/x", "s3://bucket/a"]


@pytest.mark.parametrize("url", ADDRESSES)
def test_no_address_is_opened_offline(url: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    away, here = iter_items([url, tmp_path / "a.jpg"], offline=True)
    assert "not opened, because of --offline" in reason(away)
    assert here.read() == b"x"


def test_naming_files_imports_no_http(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, regnet.data.sources as s; list(s.iter_items(['x'])); "
        "print('httpx' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_passwords_in_addresses_are_not_shown() -> None:
    item = only(iter_items(["http://bob:secret@127.0.0.1:9/x.png"]))
    assert item.source == "http://127.0.0.1:9/x.png"
    with pytest.raises(ImageError) as caught:
        item.read()
    assert "secret" not in str(caught.value)
