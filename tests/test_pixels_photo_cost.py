"""What a JPEG would cost is known before it is decoded."""

import io
import threading
import time
import warnings

import numpy as np
import pytest
from PIL import Image

from regnet.doctor.photos import _scaled_jpeg
from regnet.pixels import decode as decode_module
from regnet.pixels.decode import decode_pixels
from regnet.pixels.decode_limits import MAX_SIDE
from regnet.pixels.photo_cost import MAX_SCANS, Outline, jpeg_outline, require_few_scans
from regnet.system.errors import ImageError

SEGMENT = b"\xff\xe2\0\x02"


def outline(data: bytes) -> Outline:
    found = jpeg_outline(data)
    assert found is not None
    return found


def jpeg(*, progressive: bool = False, thumbnail: bytes = b"", size: int = 64) -> bytes:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
    file = io.BytesIO()
    image.save(file, "JPEG", progressive=progressive, exif=b"Exif\0\0" + thumbnail)
    return file.getvalue()


def with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated until there are so many."""
    data = jpeg(progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    have = data.count(b"\xff\xda")
    return data[:-2] + last * (count - have) + data[-2:]


def test_scans_up_to_the_limit_are_decoded_and_one_more_is_not():
    assert decode_pixels(with_scans(MAX_SCANS), "RGB").shape == (64, 64, 3)
    with pytest.raises(ImageError, match=f"over the limit of {MAX_SCANS} scans"):
        decode_pixels(with_scans(MAX_SCANS + 1), "RGB")
    with pytest.raises(ImageError, match="scans"):
        _scaled_jpeg(with_scans(MAX_SCANS + 1))


def test_large_progressive_jpegs_may_have_fewer_scans():
    data = with_scans(40)
    require_few_scans(data, outline(data), 60_000_000)
    with pytest.raises(ImageError, match="limit of 25 scans"):
        require_few_scans(data, outline(data), 100_000_000)


def test_scans_of_a_thumbnail_do_not_count():
    data = jpeg(progressive=True, thumbnail=b"\xff\xda" * 400)
    assert data.count(b"\xff\xda") > MAX_SCANS
    require_few_scans(data, outline(data), 64 * 64)


def test_a_baseline_jpeg_in_one_scan_is_not_searched():
    found = outline(jpeg())
    assert found.one_scan
    assert not outline(jpeg(progressive=True)).one_scan
    require_few_scans(b"\xff\xda" * 1000, found, 1)  # decoders stop after the first


@pytest.mark.parametrize(
    ("filling", "reason"),
    [(b"\xff" * 3_000_000, "bytes between"), (b"\0" * 3_000_000, "bytes between"),
     (SEGMENT * 1_000_000, "segments")],
)  # fmt: skip
def test_what_fills_the_space_before_the_scans_is_bounded(filling: bytes, reason: str):
    data = jpeg()
    at = 4 + int.from_bytes(data[4:6])  # after the first segment
    start = time.perf_counter()
    with pytest.raises(ImageError, match=reason):
        decode_pixels(data[:at] + filling + data[at:], "RGB")
    assert time.perf_counter() - start < 2  # Pillow would take seconds


def test_a_little_filling_is_allowed():
    data = jpeg()
    padded = data[:2] + b"\xff" * 100 + data[2:]
    assert np.array_equal(decode_pixels(padded, "RGB"), decode_pixels(data, "RGB"))


def test_a_side_over_the_limit_is_refused_before_decoding():
    file = io.BytesIO()
    Image.new("1", (1, MAX_SIDE + 1)).save(file, "PNG")
    with pytest.raises(ImageError, match=f"side over the limit of {MAX_SIDE:,}"):
        decode_pixels(file.getvalue(), "RGB")


def test_threads_decode_at_the_same_time(monkeypatch: pytest.MonkeyPatch):
    together = threading.Barrier(2, timeout=30)
    load = decode_module._load

    def loaded_together(image: Image.Image, name: str) -> None:
        together.wait()
        load(image, name)

    monkeypatch.setattr(decode_module, "_load", loaded_together)
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "TIFF")
    threads = [
        threading.Thread(target=decode_pixels, args=(file.getvalue(), "RGB")) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert not together.broken


def test_warnings_of_other_code_are_untouched():
    decode_pixels(jpeg(), "RGB")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        file = io.BytesIO()
        Image.new("P", (8, 8)).save(file, "PNG", transparency=b"\0" * 3)
        decode_pixels(file.getvalue(), "RGB")
        with pytest.raises(UserWarning, match="mine"):
            warnings.warn("mine", UserWarning, stacklevel=1)
