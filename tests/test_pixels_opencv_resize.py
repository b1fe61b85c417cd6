"""The pycls protocol's resize equals OpenCV's float INTER_LINEAR, bit for bit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pixels_preprocess import noise, offsets

from regnet.pixels.opencv_resize import linear_crop
from regnet.pixels.preprocess import crop_pixels, stages
from regnet.pixels.protocol import PYCLS, Preprocess

cv2: Any = pytest.importorskip("cv2")

IPP_BOUND = 0.01
"""Of 255: how far OpenCV's own code is from Intel's IPP on photos at most (measured 0.0047)."""


@pytest.fixture(autouse=True)
def own_code() -> Iterator[None]:
    """Let OpenCV run its own code: Intel's rounds coordinates in another way."""
    cv2.ipp.setUseIPP(False)
    yield
    cv2.ipp.setUseIPP(True)


def cv2_resized(unit: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return float32 pixels resized by OpenCV; those of the right size are left as they are."""
    if unit.shape[1::-1] == size:
        return unit
    return np.asarray(cv2.resize(unit, size, interpolation=cv2.INTER_LINEAR))


def cv2_crop(bgr: np.ndarray, protocol: Preprocess) -> np.ndarray:
    """Return pycls's crop on 0..1, written as the protocol is described."""
    height, width = bgr.shape[:2]
    short = min(height, width)
    size = tuple(int(protocol.resize * side / short) for side in (width, height))
    resized = cv2_resized(bgr.astype(np.float32) / 255, size)
    left, top = offsets(size, protocol)
    return resized[top : top + protocol.crop, left : left + protocol.crop]


def test_every_photo_equals_opencv(photos: list[Path]) -> None:
    for path in photos:
        crop = crop_pixels(path, PYCLS)
        bgr = stages(path, PYCLS).decoded
        assert np.array_equal(crop, cv2_crop(bgr, PYCLS) * np.float32(255)), path.name


def test_opencvs_decoder_gives_the_same_pixels(photos: list[Path]) -> None:
    """It is libjpeg-turbo too; grey and turned photos are among these."""
    for path in photos[::4]:
        assert np.array_equal(cv2.imread(str(path)), stages(path, PYCLS).decoded), path.name


def test_intels_code_stays_near(photos: list[Path]) -> None:
    cv2.ipp.setUseIPP(True)
    for path in photos[::4]:
        seen = stages(path, PYCLS)
        expected = cv2_crop(seen.decoded, PYCLS) * np.float32(255)
        assert np.abs(seen.cropped - expected).max() < IPP_BOUND, path.name


sides = st.one_of(
    st.integers(1, 12), st.integers(1, 900), st.sampled_from([128, 256, 257, 512, 1024])
)


@settings(max_examples=150, deadline=None)
@given(sides, sides, st.sampled_from([31, 128, 256, 257]), st.integers(0, 99))
def test_crops_equal_opencv_for_any_size(w: int, h: int, side: int, seed: int) -> None:
    w, h = max(w, h // 12 + 1), max(h, w // 12 + 1)
    protocol = Preprocess(
        name="any", resize=side, crop=side - 30, interpolation="opencv-linear", offset="ceil"
    )
    pixels = noise(w, h, seed)
    crop = crop_pixels(pixels, protocol, array_channels="BGR")
    assert np.array_equal(crop, cv2_crop(pixels, protocol) * np.float32(255))


@settings(max_examples=150, deadline=None)
@given(*(st.integers(1, 300) for _ in range(4)), st.booleans())
def test_resizes_equal_opencv_for_any_two_sizes(
    w: int, h: int, new_w: int, new_h: int, halved: bool
) -> None:
    """Bit for bit on 0..1, each axis stretched or shrunk by itself."""
    if halved:  # OpenCV takes another way where both sides are halved
        w, h = 2 * new_w, 2 * new_h
    pixels = noise(w, h)
    left, top = new_w // 4, new_h // 3
    crop = linear_crop(pixels, size=(new_w, new_h), box=(left, top, new_w, new_h))
    expected = cv2_resized(pixels.astype(np.float32) / 255, (new_w, new_h))[top:, left:]
    assert crop.dtype == np.float32
    assert np.array_equal(crop, expected)


@pytest.mark.parametrize("shape", [(3000, 3), (3, 3000), (7000, 40), (1, 900), (4001, 3003)])
def test_long_and_large_images_equal_opencv(shape: tuple[int, int]) -> None:
    pixels = noise(*shape)
    crop = crop_pixels(pixels, PYCLS, array_channels="BGR")
    assert np.array_equal(crop, cv2_crop(pixels, PYCLS) * np.float32(255))
