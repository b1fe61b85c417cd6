"""Sources to partitions and back to images: the same images, in the same order, anywhere."""

import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from local_server import LocalServer
from tars import Content, Link, Mode, tar

from regnet.cluster.plan import Partition, jobs, local_places, partitions, unpack
from regnet.data.sources import iter_items
from regnet.pixels.samples import sample_photos
from regnet.system.errors import ClusterError, ImageError
from regnet.system.notices import SkippedFilesWarning

CAT, ESPRESSO, HOPPER = sample_photos()
MODES: dict[str, Mode] = {"": "w", ".gz": "w:gz"}
Found = list[tuple[str, bytes | str]]


def read(source: str, reader: Callable[[], bytes]) -> tuple[str, bytes | str]:
    try:
        return source, reader()
    except ImageError as exc:
        return source, str(exc)


def planned(*sources: object, images: int = 3) -> list[Partition]:
    return list(partitions([str(source) for source in sources], images))


def images(parts: Iterable[Partition]) -> Iterator[tuple[str, bytes | str]]:
    for part in parts:
        entries = unpack(part.packed)
        assert len(entries) == part.images
        yield from (read(*job) for job in jobs(entries))


def on_one_machine(*sources: object) -> Found:
    return [read(item.source, item.read) for item in iter_items([str(s) for s in sources])]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return photos in folders, of which some are broken, hidden or none."""
    top = tmp_path / "photos"
    (top / "b" / "deep").mkdir(parents=True)
    (top / ".hidden").mkdir()
    for name in ("b/deep/z.jpg", "b/a.JPG", "a.png", "c.jpeg", ".hidden/x.jpg", "b/.y.jpg"):
        (top / name).write_bytes(HOPPER.read_bytes() + name.encode())
    (top / "notes.txt").write_text("none")
    (top / "gone.jpg").symlink_to("nowhere")
    (top / "caf\udce9.png").write_bytes(CAT.read_bytes())
    return top


def archives(folder: Path) -> list[Path]:
    """Pack the folder, with a member that is broken where that can be."""
    zipped = folder.parent / "z.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        for number, path in enumerate(sorted(folder.rglob("*.jp*g"), reverse=True)):
            if path.exists():
                how = zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED
                archive.write(path, path.relative_to(folder), how)
        archive.writestr("squeezed.jpg", b"x" * 99, zipfile.ZIP_LZMA)
    tars = []
    for mode in ("", "gz", "xz"):
        tars.append(folder.parent / f"t{mode}.tar")
        with tarfile.open(tars[-1], f"w:{mode}") as archive:  # type: ignore[call-overload]
            archive.add(folder / "b", "b")
            archive.add(folder / "a.png", "a.png")
            big = tarfile.TarInfo("big.jpg")
            big.size = 80_000
            archive.addfile(big, io.BytesIO(os.urandom(80_000)))
    return [zipped, *tars]


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_partitions_hold_what_one_machine_classifies(folder: Path, size: int) -> None:
    sources = [folder, folder / "b" / "*.JPG", folder / "**" / "*", *archives(folder)]
    sources += [folder / "none", folder / "*.webp", folder / "notes.txt", folder / "a.png"]
    expected = on_one_machine(*sources)
    parts = planned(*sources, images=size)
    assert list(images(parts)) == expected
    assert [part.images for part in parts[:-1]] == [size] * (len(parts) - 1)
    assert [part.number for part in parts] == list(range(len(parts)))


def test_partitions_hold_links_tars_in_tars_and_odd_names(tmp_path: Path) -> None:
    cat, hopper = CAT.read_bytes(), HOPPER.read_bytes()
    for name, content in (("p", cat), ("q.jpg.1", hopper), ("n.txt", b"text"), ("r.nef", b"II*\0")):
        (tmp_path / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for name in ("p", "q.jpg.1", "n.txt", "r.nef"):
            archive.write(tmp_path / name, f"photos\\{name}")
    members: dict[str, Content] = {
        "d/p": cat,
        "l.jpg": Link("d/p"),
        "gone.jpg": Link("d/q"),
        "plain.tar": tar({"h": hopper, "l.jpg": Link("h", hard=True), "n.txt": b"text"}),
        "packed.tgz": tar({"h": hopper, "i.jpg": cat}, "w:gz"),
        "d/last.jpg": hopper,
    }
    for suffix, mode in MODES.items():
        (tmp_path / f"t.tar{suffix}").write_bytes(tar(members, mode))
    sources = [tmp_path, *(tmp_path / f"t.tar{suffix}" for suffix in MODES), tmp_path / "z.zip"]
    expected = on_one_machine(*sources)
    with pytest.warns(SkippedFilesWarning, match=r"4 sources: skipped 7 files.*: 4 \.txt, 1 \.gz"):
        parts = planned(*sources)
    assert list(images(parts)) == expected
    assert len(expected) == 3 + 2 * 8 + 3


def test_addresses_are_not_opened_offline() -> None:
    sources = ["http://127.0.0.1:9/a.jpg", "s3://bucket/photos"]
    rows = list(images(partitions(sources, 10, offline=True)))
    assert rows == [(source, "not opened, because of --offline") for source in sources]


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_archives_that_are_cut_short_have_their_reason(folder: Path, keep: float) -> None:
    for archive in archives(folder):
        archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * keep)])
        found = list(images(planned(archive)))
        expected = on_one_machine(archive)
        assert [source for source, _ in found] == [source for source, _ in expected], archive
        assert [isinstance(what, str) for _, what in found] == [
            isinstance(what, str) for _, what in expected
        ]


def test_addresses_of_servers() -> None:
    with LocalServer() as server:
        server.files["/cat.png"] = CAT.read_bytes()
        sources = [f"{server.base}/cat.png", f"{server.base}/none.png"]
        assert list(images(planned(*sources))) == on_one_machine(*sources)


def write_parquet(path: Path, photos: list[bytes | None], *, struct: bool, group: int = 2) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    values = [{"bytes": p, "path": None} for p in photos] if struct else photos
    table = pa.table({"image": values, "label": list(range(len(photos)))})
    pq.write_table(table, path, row_group_size=group)


@pytest.mark.parametrize("struct", [True, False])
@pytest.mark.parametrize("size", [1, 3, 50])
def test_rows_of_parquet(tmp_path: Path, struct: bool, size: int) -> None:
    photos = [CAT.read_bytes(), HOPPER.read_bytes(), None, b"none", ESPRESSO.read_bytes()]
    (tmp_path / "data").mkdir()
    for name in ("b.parquet", "a.parquet"):
        write_parquet(tmp_path / "data" / name, photos, struct=struct)
    expected = [
        (f"{tmp_path / 'data' / name}#{row}", photo or "this row holds no bytes of an image")
        for name in ("a.parquet", "b.parquet")
        for row, photo in enumerate(photos)
    ]
    assert list(images(planned(tmp_path / "data", images=size))) == expected
    assert list(images(planned(tmp_path / "data" / "*.parquet", images=size))) == expected
    assert list(images(planned(tmp_path / "data" / "b.parquet", images=size))) == expected[5:]


def test_parquet_without_images_has_the_reason(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "t.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 none")
    (first, why), (second, _) = images(planned(*sorted(tmp_path.iterdir())[::-1]))
    assert first.endswith("t.parquet")
    assert "which column is the image?" in why
    assert second.endswith("broken.parquet")


@pytest.fixture
def store(folder: Path) -> str:
    """Return the address of an object store with the photos, archives and a Parquet file."""
    fsspec = pytest.importorskip("fsspec")
    fs = fsspec.filesystem("memory")
    if fs.exists("/bucket"):
        fs.rm("/bucket", recursive=True)
    write_parquet(folder.parent / "rows.parquet", [CAT.read_bytes(), b"none"], struct=True)
    for path in [*folder.rglob("*"), *archives(folder), folder.parent / "rows.parquet"]:
        if path.is_file():
            name = os.fsencode(path.relative_to(folder.parent)).decode(errors="replace")
            fs.pipe_file(f"/bucket/{name}", path.read_bytes())
    return "memory://bucket"


def test_object_stores(store: str, folder: Path) -> None:
    (folder / "gone.jpg").unlink()
    (folder / "caf\udce9.png").rename(folder / "caf�.png")
    names = ["photos", "photos/a.png", "photos/b/*.JPG", "z.zip", "t.tar", "tgz.tar"]
    names += ["photos/notes.txt", "photos/*.webp"]
    found = list(images(planned(*(f"{store}/{name}" for name in names))))
    expected = on_one_machine(*(folder.parent / name for name in names))

    def relative(name: str) -> str:
        return name.removeprefix("memory:///bucket/").removeprefix(f"{folder.parent}/")

    assert [(relative(n), w) for n, w in found[:-1]] == [(relative(n), w) for n, w in expected[:-1]]
    assert found[-1] == (f"{store}/photos/*.webp", "no image matches this pattern")
    rows = list(images(planned(f"{store}/rows.parquet")))
    assert rows == [
        ("memory:///bucket/rows.parquet#0", CAT.read_bytes()),
        ("memory:///bucket/rows.parquet#1", b"none"),
    ]


def test_objects_of_odd_names_are_told_by_their_content() -> None:
    fs = pytest.importorskip("fsspec").filesystem("memory")
    objects = {"0a1b": HOPPER, "c.jfif": CAT, "d/e.jpg_large": ESPRESSO, "d/f.psd": CAT}
    for name, path in objects.items():
        fs.pipe_file(f"/odd/{name}", path.read_bytes())
    for name in ("0a1b.json", "notes", "d/g.bin", "@eaDir/x.jpg", ".h/y.jpg"):
        fs.pipe_file(f"/odd/{name}", b"no picture")
    with pytest.warns(SkippedFilesWarning, match=r"odd: skipped 3 files: 1 \.bin, 1 \.json, 1 wi"):
        found = dict(images(planned("memory://odd")))
    expected = {f"memory:///odd/{name}": path.read_bytes() for name, path in objects.items()}
    assert found == expected
    matches = [name for name, _ in images(planned("memory://odd/*"))]
    assert sorted(matches) == sorted(expected)


def test_what_is_not_in_the_store_has_the_reason(store: str) -> None:
    sources = [f"{store}/none.jpg", "nosuch://bucket/a.jpg", f"{store}/none/"]
    found = list(images(planned(*sources)))
    assert [source for source, _ in found] == sources
    assert all(isinstance(what, str) and "cannot be opened" in what for _, what in found)


def test_an_object_that_goes_away_fails_alone(store: str) -> None:
    fsspec = pytest.importorskip("fsspec")
    parts = planned(f"{store}/photos/a.png", f"{store}/photos/c.jpeg")
    fsspec.filesystem("memory").rm("/bucket/photos/a.png")
    (_, why), (_, data) = images(parts)
    assert "cannot be read" in str(why)
    assert isinstance(data, bytes)


def test_a_file_that_changed_is_an_error_not_other_images(folder: Path) -> None:
    zipped = archives(folder)[0]
    parts = planned(zipped)
    zipped.unlink()
    with pytest.raises(ClusterError, match="cannot be read as it was listed"):
        list(images(parts))


def test_the_hash_of_a_partition_tells_its_images_apart(folder: Path) -> None:
    first, second = planned(folder), planned(folder)
    assert first == second
    zipped = archives(folder)[0]
    before = planned(zipped)
    with zipfile.ZipFile(zipped, "a") as archive:
        archive.comment = b"longer"
    assert [p.sha256 for p in planned(zipped)] != [p.sha256 for p in before]
    (folder / "aa.png").write_bytes(b"")
    assert planned(folder)[0].sha256 != first[0].sha256


@pytest.mark.parametrize("source", ["-", "camera:0", "rtsp://host/x", "clip.mp4"])
def test_what_only_one_machine_can_read_is_refused(source: str) -> None:
    with pytest.raises(ClusterError, match="only one machine"):
        planned(source)


def test_places_are_those_that_are_here(folder: Path) -> None:
    sources = [str(folder), str(folder / "*.png"), "s3://bucket/x", str(folder / "none")]
    assert local_places(sources) == (str(folder),)


def test_many_names_take_few_bytes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for number in range(2000):
            archive.writestr(f"photos/some folder/IMG_{number:06}.jpg", b"")
    (part,) = planned(tmp_path / "z.zip", images=10_000)
    assert len(part.packed) < 30 * part.images


def test_pyarrow_opens_what_fsspec_lacks_a_package_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = pytest.importorskip("fsspec.core")
    pytest.importorskip("pyarrow")

    def missing(address: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(core, "url_to_fs", missing)
    archives(folder)
    names = ["photos/b", "photos/a.png", "photos/b/*.JPG", "z.zip", "t.tar"]
    found = list(images(planned(*(f"file://{folder.parent}/{name}" for name in names))))
    expected = on_one_machine(*(folder.parent / name for name in names))
    assert found == [(f"file://{name}", data) for name, data in expected]
    ((_, why),) = images(planned("nosuch://bucket/x"))
    assert "Install s3fs to access S3; and pyarrow: " in str(why)
