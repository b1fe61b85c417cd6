"""Broken and hostile images, the same on every run: an error or pixels, never a crash.

A sample: `bench/fuzz_photos.py` has them all, and measures time and memory of the command.
"""

import itertools
import resource
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hostile_photos import FORMS, VARIANTS, broken_files, good_files, hostile_files

from regnet.pixels.decode_limits import DecodeLimits
from regnet.pixels.preprocess import crop_pixels
from regnet.pixels.protocol import OMZ
from regnet.system.errors import ImageError

SECONDS = 60  # for one file, on a busy machine
MAX_GROWTH = 512 << 10  # KiB of resident memory over all files of a test
SMALL = DecodeLimits(pixels=1_000_000)


@contextmanager
def bounded() -> Iterator[None]:
    """Fail where the block takes much memory, or a file in it much time."""

    def too_slow(*_: object) -> None:
        raise TimeoutError(f"a file took over {SECONDS} seconds")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    old = signal.signal(signal.SIGALRM, too_slow)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH


def survives(data: bytes, limits: DecodeLimits = SMALL) -> bool:
    """Decode and crop; return whether pixels came out. Only `ImageError` may be raised."""
    signal.alarm(SECONDS)
    try:
        crop = crop_pixels(data, OMZ, limits=limits)
    except ImageError as exc:
        crop, reason = None, str(exc)
    finally:
        signal.alarm(0)
    if crop is None:
        assert reason
        assert "took over" not in reason
        assert "ended the decoder" not in reason
        return False
    assert crop.dtype == np.uint8
    assert crop.shape == (224, 224, 3)
    return True


@pytest.mark.parametrize("seed", range(4))
def test_broken_files(seed: int) -> None:
    with bounded():
        good = sum(survives(data) for _, data in itertools.islice(broken_files(seed), 300))
    assert 20 < good < 200


def test_good_files_are_read() -> None:
    assert len(good_files()) == len(FORMS) + len(VARIANTS)
    assert all(map(survives, good_files().values()))


MAGIC = {
    "jpeg": b"\xff\xd8\xff\xe0",
    "jpeg dqt": b"\xff\xd8\xff\xdb",
    "jpeg exif": b"\xff\xd8\xff\xe1\x40\0Exif\0\0II*\0",
    "png": b"\x89PNG\r\n\x1a\n",
    "gif": b"GIF89a",
    "bmp": b"BM",
    "tiff": b"II*\0\x08\0\0\0",
    "tiff big": b"MM\0*\0\0\0\x08",
    "bigtiff": b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0",
    "webp": b"RIFF\xff\xff\0\0WEBPVP8 ",
    "webp lossless": b"RIFF\xff\xff\0\0WEBPVP8L",
    "webp extended": b"RIFF\xff\xff\0\0WEBPVP8X",
    "ico": b"\0\0\1\0\1\0",
    "jp2": b"\0\0\0\x0cjP  \r\n\x87\n",
    "j2k": b"\xff\x4f\xff\x51",
    "avif": b"\0\0\0\x20ftypavif",
    **{f"ppm {n}": b"P%d\n9 9\n255\n" % n for n in range(1, 7)},
    "nothing": b"",
}


@pytest.mark.parametrize("magic", MAGIC.values(), ids=MAGIC)
def test_random_bytes_after_a_magic_number(magic: bytes) -> None:
    rng = np.random.default_rng(5)
    with bounded():
        for length in [0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 64, 256, 1024, 4096, 65536]:
            for _ in range(4):
                survives(magic + rng.bytes(length))
        survives(magic + b"\0" * 4096)
        survives(magic + b"\xff" * 4096)


@pytest.mark.parametrize(
    "kind", ["EXIF", "PNG claims", "TIFF claims", "BMP", "ICO", "AVIF", "JPEG 2000", "animations"]
)
def test_hostile_files(kind: str) -> None:
    with bounded():
        for _, _, data in hostile_files(kind):
            survives(data)


def test_huge_sizes_name_a_limit() -> None:
    for kind, name, data in hostile_files("PNG claims", "BMP", "TIFF claims", "PPM", "GIF"):
        if name == "huge":
            with pytest.raises(ImageError, match="limit of") as error:
                crop_pixels(data, OMZ)
            assert "--max-memory" in str(error.value) or "side" in str(error.value), kind


def test_nothing_of_all_this_warns_or_prints(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _, _, data in hostile_files("GIF", "TIFF claims"):
            survives(data)
    assert [str(w.message) for w in caught] == []
    assert capfd.readouterr() == ("", "")
