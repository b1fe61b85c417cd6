"""Sources of images: what each kind yields, in what order, and what fails alone."""

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from regnet.archives import IMAGE_SUFFIXES, archive_kind
from regnet.errors import ImageError
from regnet.remote import Fetcher
from regnet.sources import Item, count_items, iter_items

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
    for times in (1, 1, 4):  # the first brings what is imported or cached once
        tracemalloc.start()
        try:
            assert sum(1 for _ in iter_items([tmp_path] * times)) == 5000 * times
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[2] < peaks[1] + (1 << 20)


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


def test_links_and_devices_in_a_tar_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"{kind.decode()}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert "no images" in reason(only(iter_items([path])))


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


def test_archives_are_told_by_content_or_name() -> None:
    assert archive_kind(b"PK\x03\x04") == "zip"
    assert archive_kind(b"", "A.ZIP") == "zip"
    assert archive_kind(tar_bytes({})[:512], "x.tgz") == "tar"
    assert archive_kind(tar_bytes({"a": b""})[:512]) == "tar"
    assert archive_kind(gzip.compress(b"")) == "tar"
    assert archive_kind(b"\x89PNG") is None
    assert ".zip" not in IMAGE_SUFFIXES


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


def test_standard_input_is_read_once_and_to_the_limit() -> None:
    first, second = iter_items(["-", "-"], stdin=io.BytesIO(b"x" * 5000), max_bytes=1000)
    assert "over the limit of 1,000" in reason(first)
    assert "name it once" in reason(second)
    assert only(iter_items(["-"], stdin=io.BytesIO(b""))).read() == b""


# Addresses


class Server(ThreadingHTTPServer):
    """A server of one test: `answers` holds what each request to a path gets in turn."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, list[Callable[[Handler], None]]] = {}
        self.requests: list[str] = []
        self.stop = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
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


def fetch(url: str, **options: float) -> bytes:
    return Fetcher(**({"max_bytes": 100_000, "timeout": 5.0, "backoff": 0.01} | options)).fetch(url)  # type: ignore[arg-type]


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
    assert "no answer within 0.2 seconds" in refusal(server.url("/a"), timeout=0.2)


def test_bodies_over_the_limit_are_not_read(server: Server) -> None:
    server.answers["/a"] = [body(b"", length=200_000)]
    server.answers["/b"] = [endless]
    assert "200,000 bytes is over the limit of 100,000" in refusal(server.url("/a"))
    assert "more than the limit of 100,000" in refusal(server.url("/b"))
    assert len(server.requests) == 2


def test_a_server_that_never_ends_is_left_at_the_deadline(server: Server) -> None:
    server.answers["/a"] = [endless]
    assert "not finished within" in refusal(server.url("/a"), max_bytes=1 << 40, deadline=0.3)


def test_redirects_are_followed_to_http_only(server: Server) -> None:
    server.answers["/a"] = [status(302, Location="/b")]
    server.answers["/b"] = [body(b"there")]
    server.answers["/c"] = [status(302, Location="file:///etc/passwd")]
    server.answers["/d"] = [status(302, Location="/d")]
    assert fetch(server.url("/a")) == b"there"
    assert "cannot fetch" in refusal(server.url("/c"))
    assert "redirects" in refusal(server.url("/d"))


def test_wrong_content_is_an_error_of_the_decoder(server: Server) -> None:
    from regnet.preprocess import OMZ, crop_pixels

    server.answers["/a.jpg"] = [body(b"<html>sign in</html>", Content_Type="image/jpeg")]
    with pytest.raises(ImageError, match="not an image"):
        crop_pixels(only(iter_items([server.url("/a.jpg")])).read(), OMZ)


@pytest.mark.parametrize("url", ["http://", "http://[", "http://a b/", "http://127.0.0.1:99999/"])
def test_impossible_addresses_are_errors(url: str) -> None:
    assert "cannot fetch" in refusal(url, attempts=1)


def test_a_server_that_is_not_there_is_an_error() -> None:
    assert "attempts" in refusal("http://127.0.0.1:1/a.jpg")


@pytest.mark.parametrize("url", ["ftp://host/a.jpg", "file:///etc/passwd", "s3://bucket/a.jpg"])
def test_other_schemes_are_errors(url: str) -> None:
    assert "http and https are" in reason(only(iter_items([url])))


def test_naming_files_imports_no_http(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, regnet.sources as s; list(s.iter_items(['x'])); print('httpx' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
