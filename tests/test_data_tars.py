"""Tars with links and with tars inside, plain and packed."""

import gzip
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tars import Content, Link, Mode, tar

from regnet.data.listing import Listing
from regnet.data.sources import iter_items
from regnet.network.labels import Label
from regnet.system.errors import DatasetError, ImageError

MODES: list[Mode] = ["w", "w:gz", "w:bz2", "w:xz"]
JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0"
SMALL, LARGE = JPEG + os.urandom(900), JPEG + os.urandom(200_000)  # packed ones are put aside


def read(path: Path, members: dict[str, Content], mode: Mode) -> dict[str, bytes | str]:
    """Return what each image of a tar gives, in order, names relative to it."""
    path.write_bytes(tar(members, mode))
    found: dict[str, bytes | str] = {}
    for item in iter_items([path]):
        try:
            found[item.source.removeprefix(f"{path}/")] = item.read()
        except ImageError as exc:
            found[item.source.removeprefix(f"{path}/")] = str(exc)
    return found


@pytest.mark.parametrize("mode", MODES)
def test_links_are_photos_like_others(tmp_path: Path, mode: Mode) -> None:
    members: dict[str, Content] = {
        "./d": None,
        "./d/before.jpg": Link("after.jpg"),  # symbolic, so from its own folder
        "./d/a.jpg": SMALL,
        "./e/hard.jpg": Link("./d/a.jpg", hard=True),
        "./d/after.jpg": LARGE,
        "./e/up": Link("../d/after.jpg"),  # a photo by what it leads to
        "./e/chain.png": Link("hard.jpg"),
        "./all": Link("d"),
        "./e/through.jpg": Link("../all/a.jpg"),
        "./e/notes": Link("../d/notes.txt"),
        "./d/notes.txt": b"text",
    }
    found = read(tmp_path / "a.tar", members, mode)
    assert found == {
        "./d/a.jpg": SMALL,
        "./d/after.jpg": LARGE,
        "./d/before.jpg": LARGE,
        "./e/hard.jpg": SMALL,
        "./e/up": LARGE,
        "./e/chain.png": SMALL,
        "./e/through.jpg": SMALL,
    }


@pytest.mark.parametrize("mode", MODES)
def test_links_that_lead_nowhere_are_errors_of_their_own(tmp_path: Path, mode: Mode) -> None:
    members: dict[str, Content] = {
        "a.jpg": SMALL,
        "out.jpg": Link("../../etc/passwd"),
        "absolute.jpg": Link("/etc/passwd"),
        "gone.jpg": Link("b.jpg"),
        "self.jpg": Link("self.jpg"),
        "ping.jpg": Link("pong.jpg"),
        "pong.jpg": Link("ping.jpg", hard=True),
        "folder.jpg": Link("d"),
        "d/b.png": SMALL,
        "nowhere": Link("b.jpg"),  # may be a photo: many have no suffix
        "notes": Link("c.txt"),
        "c.txt": b"text",
        "nowhere.txt": Link("d.txt"),
        "empty.jpg": Link(""),
    }
    found = read(tmp_path / "a.tar", members, mode)
    assert [name for name, content in found.items() if content == SMALL] == ["a.jpg", "d/b.png"]
    failed = {name: str(content) for name, content in found.items() if content != SMALL}
    assert list(failed) == [
        *("out.jpg", "absolute.jpg", "gone.jpg", "self.jpg", "ping.jpg", "pong.jpg"),
        *("folder.jpg", "nowhere", "empty.jpg"),
    ]
    assert all("which is not a file in the archive" in reason for reason in failed.values())


def test_long_chains_of_links_end(tmp_path: Path) -> None:
    links: dict[str, Content] = {f"{n}.jpg": Link(f"{n + 1}.jpg") for n in range(60)}
    found = read(tmp_path / "a.tar", {**links, "60.jpg": SMALL}, "w")
    assert sum(content == SMALL for content in found.values()) == 41


def test_links_of_endless_paths_end_soon(tmp_path: Path) -> None:
    members: dict[str, Content] = {
        "grows.jpg": Link("grows.jpg/" + "x/" * 2000),
        "long.jpg": Link("x/" * 200_000),
        "y/" * 100_000 + "z.jpg": SMALL,
        "far.jpg": Link("y/" * 100_000 + "z.jpg"),
    }
    found = read(tmp_path / "a.tar", members, "w")
    assert [len(content) < 300 for content in found.values() if content != SMALL] == [True] * 3


@pytest.mark.parametrize("mode", MODES)
def test_links_count_in_data_sets(tmp_path: Path, mode: Mode) -> None:
    members: dict[str, Content] = {
        "cat/1.jpg": SMALL,
        "dog/1.jpg": LARGE,
        "dog/2.jpg": Link("../cat/1.jpg"),
        "dogs": Link("dog"),
    }
    (tmp_path / "a.tar").write_bytes(tar(members, mode))
    listing = Listing([tmp_path / "a.tar"])
    expected = {"cat/1.jpg": SMALL, "dog/1.jpg": LARGE, "dog/2.jpg": SMALL}
    assert list(listing.paths()) == list(expected)
    assert list(listing.sizes) == [len(content) for content in expected.values()]
    assert [item.read() for item in listing.images("a.tar")] == list(expected.values())
    assert listing.tally.to_dict() == {"as a link to a folder": 1}


def test_a_photo_behind_a_link_has_the_limit_of_others(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar({"a.jpg": LARGE, "b.jpg": Link("a.jpg")}))
    for item in iter_items([path], max_bytes=1000):
        with pytest.raises(ImageError, match="over the limit of 1,000"):
            item.read()


# Tars inside of tars


@pytest.mark.parametrize("inside", MODES)
@pytest.mark.parametrize("mode", MODES)
def test_a_tar_in_a_tar_is_a_folder(tmp_path: Path, mode: Mode, inside: Mode) -> None:
    suffix = {"w": ".tar", "w:gz": ".tar.gz", "w:bz2": ".tbz2", "w:xz": ".TAR.XZ"}[inside]
    first = tar({"./n1_1.JPEG": SMALL, "n1_2.JPEG": LARGE, "l.jpg": Link("n1_2.JPEG")}, inside)
    members: dict[str, Content] = {
        f"n1{suffix}": first,
        f"deep/n2{suffix}": tar({"n2_1.JPEG": LARGE, "deeper.tar": tar({"x.jpg": SMALL})}, inside),
        "n3.zip": b"PK\3\4",
        "._n1.tar": b"a fork of a Mac",
        "last.jpg": SMALL,
    }
    found = read(tmp_path / "a.tar", members, mode)
    assert found == {
        "n1/n1_1.JPEG": SMALL,
        "n1/n1_2.JPEG": LARGE,
        "n1/l.jpg": LARGE,
        "deep/n2/n2_1.JPEG": LARGE,
        "last.jpg": SMALL,
    }


def test_the_photos_of_imagenet_are_a_data_set(tmp_path: Path) -> None:
    from regnet.data.dataset import open_dataset

    names = ("n01440764", "n01443537")
    inner: dict[str, Content] = {
        f"{name}.tar": tar({f"{name}_{n}.JPEG": SMALL for n in range(3)}) for name in names
    }
    path = tmp_path / "ILSVRC2012_img_train.tar"
    path.write_bytes(tar(inner))
    dataset = open_dataset(path, tuple(Label(name, name) for name in names))
    assert dataset.count == 6
    assert [item.truth for item in dataset.items()] == [0, 0, 0, 1, 1, 1]
    assert {item.read() for item in dataset.items()} == {SMALL}


@pytest.mark.parametrize("mode", MODES)
def test_a_broken_tar_in_a_tar_fails_alone(tmp_path: Path, mode: Mode) -> None:
    broken = tar({"1.jpg": SMALL, "2.jpg": LARGE})[:100_000]
    members: dict[str, Content] = {"a.tar": broken, "b.tar": b"none", "c.jpg": SMALL}
    found = read(tmp_path / "a.tar", members, mode)
    assert list(found) == ["a/1.jpg", "a/2.jpg", "a.tar", "b.tar", "c.jpg"]
    assert (found["a/1.jpg"], found["c.jpg"]) == (SMALL, SMALL)
    assert all("corrupt or truncated" in str(found[name]) for name in ("a/2.jpg", "a.tar", "b.tar"))
    with pytest.raises(DatasetError, match=r"a\.tar/a\.tar: this tar archive is corrupt"):
        Listing([tmp_path / "a.tar"])


@pytest.mark.parametrize("mode", MODES[1:])
@pytest.mark.parametrize("inside", ["skipped", "photos", "tars"])
def test_a_tar_that_unpacks_to_far_more_than_its_size_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode, inside: str
) -> None:
    monkeypatch.setattr("regnet.data.tars.BEYOND", 20 << 20)
    zeros: dict[str, Content] = {f"{n}.jpg": JPEG + bytes(5 << 20) for n in range(9)}
    members: dict[str, Content] = {
        "skipped": {"a.bin": bytes(45 << 20)},
        "photos": zeros,
        "tars": {f"{n}.tar": tar(zeros, mode) for n in range(3)},
    }[inside]
    found = read(tmp_path / "a.tar", {"good.jpg": LARGE[:900], **members}, mode)
    assert found["good.jpg"] == LARGE[:900]
    limit = "a tar bomb? It unpacks to over 200 times its size and 20 MiB more"
    refused = [text for text in found.values() if isinstance(text, str)]
    assert refused
    assert set(refused) == {limit}
    assert len(found) < 15


@pytest.mark.parametrize("mode", MODES)
def test_photos_that_pack_well_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    monkeypatch.setattr("regnet.data.tars.BEYOND", 1 << 20)
    text = b"".join(b"%d" % n for n in range(1_000_000))  # packs to a third or less
    members: dict[str, Content] = {f"{n}.jpg": JPEG + text for n in range(4)}
    assert read(tmp_path / "a.tar", members, mode) == members


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_headers_of_tars_are_bounded(
    tmp_path: Path, kind: bytes, pack: Callable[[bytes], bytes]
) -> None:
    info = tarfile.TarInfo("header")
    info.type = kind
    content = b"".join(b"15 k%07d=12\n" % n for n in range(70_000))
    info.size = len(content)
    header = info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)
    good = tar({"good.jpg": SMALL}, "w")
    (tmp_path / "a.tar").write_bytes(pack(good[:1536] + header * 9 + good))
    first, second = iter_items([tmp_path / "a.tar"])
    assert first.read() == SMALL
    with pytest.raises(ImageError, match=r"claim more than 4,194,304 bytes|10,000 values"):
        second.read()


def test_links_to_one_file_are_bounded(tmp_path: Path) -> None:
    members: dict[str, Content] = {"a.jpg": SMALL}
    members |= {f"{n}.jpg": Link("a.jpg", hard=n % 2 == 0) for n in range(150)}
    found = list(read(tmp_path / "a.tar", members, "w").values())
    assert found == [SMALL] * 101 + ["one of over 100 links to the same file"] * 50


def test_holes_in_sparse_members_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regnet.data.tars.BEYOND", 3 << 20)
    (tmp_path / "a.tar").write_bytes(
        b"".join(sparse(f"{n}.jpg", size << 20) for n, size in enumerate((1, 200, 1, 1, 1)))
    )
    found = []
    for item in iter_items([tmp_path / "a.tar"]):
        try:
            found.append(str(len(item.read())))
        except ImageError as exc:
            found.append(str(exc))
    limit = "a tar bomb? It unpacks to over 200 times its size and 3 MiB more"
    assert found == [
        "1048576",
        "a tar bomb? 0 bytes unpack to 209,715,200",
        *["1048576"] * 2,
        limit,
    ]


def sparse(name: str, size: int) -> bytes:
    """A file of GNU's old sparse format that is one hole."""
    header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[345:512] = bytes(167)
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)
