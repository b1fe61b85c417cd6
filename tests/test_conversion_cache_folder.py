"""The cache: sizes by kind, and removing what is not in use."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import run_main
from filelock import FileLock

from regnet.conversion.cache_folder import KINDS, CacheFolder, Removed
from regnet.system.installation import installation_key, installed_version

BESIDE = {
    *("mine.txt", "other/mine.txt", "weights/known-hashes.json"),
    *("weights/mine.pth", "weights/project/mine.pth", "weights/a/mine.pth"),
    *("converted/project/main.py", "compiled/mine.o", "evaluations/mine.csv", "notices/mine.txt"),
}
NET, E = "net-0123456789abcdef", "0123456789abcdef01234567"
BLOB = '<?xml version="1.0"?><compiled_blob ie_version="{}-22982-e213" file_info="1"/>'


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[CacheFolder]:
    """Return a cache with something of each kind, and files beside that are not its own."""
    folder = tmp_path / "cache"
    for name, text in {
        "weights/a/a.pyth": "12345",
        "weights/a/a.pyth.json": "{}",
        "weights/a/a.pyth.part": "12",
        "weights/b/b.pyth.part": "1",
        "weights/a/a.pyth.lock": "",
        "weights/b/b.pyth.lock": "",
        f"converted/{NET}/net.xml": "<net/>",
        f"converted/{NET}.lock": "",
        "compiled/1.blob": BLOB.format(installed_version("openvino")),
        "compiled/2.blob": BLOB.format("2020.1.0"),
        f"evaluations/{E}.journal": "123",
        f"notices/no-kernel-{installation_key()}": "",
        "notices/no-kernel-0.1.0-12345678": "",
        **dict.fromkeys(BESIDE, "{}"),
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return CacheFolder(folder)


def files(cache: CacheFolder) -> set[str]:
    found = (p for p in cache.folder.rglob("*") if p.is_file() and p.suffix != ".lock")
    return {p.relative_to(cache.folder).as_posix() for p in found}


def test_sizes_by_kind(cache: CacheFolder) -> None:
    sizes = {kind.name: (kind.files, kind.bytes) for kind in cache.kinds()}
    assert list(sizes) == list(KINDS)
    assert sizes["weights"] == (4, 10)
    assert sizes["converted"] == (1, 6)
    assert sizes["evaluations"] == (1, 3)
    assert cache.to_dict()["bytes"] == sum(size for _, size in sizes.values())


def test_all_is_cleared_but_what_is_not_regnets(cache: CacheFolder) -> None:
    before = cache.to_dict()["bytes"]
    removed = cache.clear()
    assert files(cache) == BESIDE
    assert removed == Removed(files=10, bytes=before)
    assert cache.clear() == Removed()


def test_what_another_process_has_is_left(cache: CacheFolder) -> None:
    locks = [cache.folder / name for name in ("weights/a/a.pyth.lock", f"converted/{NET}.lock")]
    locks.append(cache.folder / "evaluations" / f"{E}.lock")
    with FileLock(locks[0]), FileLock(locks[1]), FileLock(locks[2]):
        assert cache.clear().in_use == 5
    assert files(cache) - BESIDE == {
        *("weights/a/a.pyth", "weights/a/a.pyth.json", "weights/a/a.pyth.part"),
        *(f"converted/{NET}/net.xml", f"evaluations/{E}.journal"),
    }
    assert cache.clear().in_use == 0


def test_links_lead_nowhere(cache: CacheFolder, tmp_path: Path) -> None:
    for name in ("outside", "elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.bin").write_text("precious")
    (cache.folder / "converted" / "linked-0123456789abcdef").symlink_to(tmp_path / "outside")
    (cache.folder / "weights/a/a.pyth.part.json").symlink_to(tmp_path / "outside" / "x.bin")
    (cache.folder / "compiled").rename(tmp_path / "moved")
    (cache.folder / "compiled").symlink_to(tmp_path / "elsewhere")
    cache.clear()
    assert files(cache) == BESIDE - {"compiled/mine.o"}
    for name in ("outside", "elsewhere"):
        assert (tmp_path / name / "x.bin").read_text() == "precious"


def test_prune_removes_what_no_version_here_can_use(cache: CacheFolder) -> None:
    before = files(cache)
    assert cache.prune().in_use == 0
    assert before - files(cache) == {
        *("weights/a/a.pyth.part", "compiled/2.blob"),
        *(f"converted/{NET}/net.xml", "notices/no-kernel-0.1.0-12345678"),
    }


def test_what_is_half_written_is_left(cache: CacheFolder) -> None:
    from regnet.system.files import new_folder_beside

    with new_folder_beside(cache.folder / "converted" / "net-2123456789abcdef") as scratch:
        (scratch / "net.xml").touch()
        cache.prune()
        cache.clear()
        assert (scratch / "net.xml").exists()


def test_the_command_shows_and_removes(cache: CacheFolder) -> None:
    words = ("--cache-dir", cache.folder)
    shown = run_main("cache", *words).stdout.decode()
    assert [line.split()[0] for line in shown.splitlines()] == ["kind", *KINDS, "all"]
    found = json.loads(run_main("cache", "prune", "--json", *words).stdout)
    assert found["removed"]["files"] == 4
    assert found["folder"] == str(cache.folder)
    done = run_main("cache", "clear", *words)
    assert done.stderr.decode().startswith("6 files, 0.0 MB, removed\n")
    assert files(cache) == BESIDE


def test_no_cache_is_an_empty_one(tmp_path: Path) -> None:
    cache = CacheFolder(tmp_path / "none")
    assert cache.clear() == cache.prune() == Removed()
    assert cache.to_dict()["bytes"] == 0
    assert not os.path.exists(tmp_path / "none")
