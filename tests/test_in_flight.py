import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regnet.data.sources import file_item
from regnet.pixels.decode_limits import DECODE_LIMITS
from regnet.pixels.decoder import decode_elsewhere
from regnet.system import in_flight
from regnet.system.errors import ImageError
from regnet.system.notices import about


def test_photos_in_memory_at_one_time_are_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_flight, "MOST", 100_000)
    in_flight._room.cache_clear()
    changing, now, most = threading.Lock(), 0, 0
    sizes = [30_000, 60_000, 10_000, 100_000, 150_000] * 8
    for size in set(sizes):
        (tmp_path / str(size)).write_bytes(bytes(size))

    def hold(change: int) -> None:
        nonlocal now, most
        with changing:
            now += change
            most = max(most, now)

    def use(size: int) -> None:
        with about(str(size)):
            data = file_item(str(tmp_path / str(size))).read()
            hold(len(data))
            threading.Event().wait(0.002)
            hold(-len(data))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, sizes))
    in_flight._room.cache_clear()
    assert 100_000 <= most <= 150_000


def test_who_reads_two_photos_in_one_block_waits_for_nobody_who_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_flight, "MOST", 10)
    in_flight._room.cache_clear()
    file, both = tmp_path / "photo", threading.Barrier(2)
    file.write_bytes(bytes(5))

    def use(_: int) -> None:
        with about("photo"):
            file_item(str(file)).read()
            both.wait(10)
            file.write_bytes(bytes(6))
            file_item(str(file)).read()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(use, range(2), timeout=20))
    in_flight._room.cache_clear()


def test_a_photo_that_fails_is_not_held_by_its_error() -> None:
    photo = b"\x89PNG\r\n\x1a\n" + bytes(100)
    held = sys.getrefcount(photo)
    with pytest.raises(ImageError):
        decode_elsewhere(photo, None, DECODE_LIMITS)
    assert sys.getrefcount(photo) == held
