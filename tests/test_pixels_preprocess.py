"""Protocols, geometry, and crops that equal Pillow's bit for bit."""

import hashlib
import io
import json
import math
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from regnet.pixels import pillow_resize
from regnet.pixels.decode_limits import DecodeLimits
from regnet.pixels.pillow_resize import Axis, resize_crop
from regnet.pixels.preprocess import crop_pixels, stages
from regnet.pixels.protocol import (
    OMZ,
    PROTOCOLS,
    PYCLS,
    Preprocess,
    by_protocol,
    protocol_named,
)
from regnet.pixels.samples import sample_photos
from regnet.system.errors import ImageError, ProtocolError, RegNetError

GOLDEN = Path(__file__).parent / "golden" / "crops.json"
PIXELS = Path(__file__).parent / "golden" / "pixels.json"
BILINEAR = Preprocess(
    name="torchvision",
    resize=232,
    interpolation="bilinear",
    channels="RGB",
    mean=(123.675, 116.28, 103.53),
    scale=(58.395, 57.12, 57.375),
)
SWAG = Preprocess(name="swag", resize=384, crop=384, channels="RGB")
same_order = pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13,
    reason="Pillow before 13 resizes tall images in another order than the protocol here",
)
FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}
STRETCHED = Preprocess(name="keras", resize=224, interpolation="nearest", fit="stretch")


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def offsets(size: tuple[int, ...], protocol: Preprocess) -> list[int]:
    if protocol.offset == "floor":
        return [int((side - protocol.crop) / 2) for side in size]
    if protocol.offset == "ceil":
        return [int(math.ceil((side - protocol.crop) / 2)) for side in size]  # noqa: RUF046
    return [int(round((side - protocol.crop) / 2)) for side in size]  # noqa: RUF046


def reference_crop(image: Image.Image, protocol: Preprocess) -> np.ndarray:
    """Return the protocol's crop by Pillow alone, written as the protocol is described."""
    image = ImageOps.exif_transpose(image).convert("RGB")
    width, height = image.size
    if protocol.fit == "square":
        side, left, top = min(image.size), (width - min(image.size)) // 2, (height - width) // 2
        image = image.crop((left, max(top, 0), left + side, max(top, 0) + side))
    if protocol.fit != "crop":
        size = protocol.resize, protocol.resize
    elif width < height:
        size = protocol.resize, int(protocol.resize * height / width)
    else:
        size = int(protocol.resize * width / height), protocol.resize
    image = image.resize(size, FILTERS[protocol.interpolation])
    left, top = offsets(size, protocol)
    crop = np.asarray(image.crop((left, top, left + protocol.crop, top + protocol.crop)))
    return crop[..., ::-1] if protocol.channels == "BGR" else crop


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", None),
        ("resize", 0),
        ("resize", 4097),
        ("resize", 256.0),
        ("resize", True),
        ("crop", 0),
        ("crop", 257),
        ("crop", "224"),
        ("interpolation", "lanczos"),
        ("interpolation", None),
        ("offset", "down"),
        ("channels", "GBR"),
        ("channels", ["BGR"]),
        ("mean", (1.0, 2.0)),
        ("mean", [1.0, 2.0]),
        ("mean", (1.0, 2.0, float("nan"))),
        ("mean", (1.0, 2.0, "3")),
        ("mean", None),
        ("mean", (1.0, 2.0, 10**400)),
        ("scale", (10**400, 1.0, 1.0)),
        ("scale", (1.0, 0.0, 1.0)),
        ("scale", (1.0, -1.0, 1.0)),
        ("scale", (1.0, float("inf"), 1.0)),
    ],
)
def test_impossible_protocols_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ProtocolError, match=f"^{field} must be .*, not ") as caught:
        Preprocess(**({"name": "p"} | {field: value}))  # type: ignore[arg-type]
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, RegNetError)


@pytest.mark.parametrize("protocol", [OMZ, PYCLS, BILINEAR, SWAG, STRETCHED])
def test_a_protocol_survives_json(protocol: Preprocess) -> None:
    values = json.loads(json.dumps(protocol.to_dict()))
    assert Preprocess.from_dict(values) == protocol


def test_a_protocol_from_before_offsets_is_still_read() -> None:
    values = OMZ.to_dict()
    del values["offset"]
    assert Preprocess.from_dict(values) == OMZ


def test_protocols_are_found_by_name() -> None:
    assert [protocol_named(name) for name in PROTOCOLS] == [OMZ, PYCLS]
    with pytest.raises(ProtocolError, match="unknown protocol 'timm'; known are omz and pycls"):
        protocol_named("timm")


def test_a_protocol_changes_the_rules_and_nothing_else() -> None:
    own = Preprocess(name="tiny", resize=128, crop=128, channels="RGB", mean=(1.0, 2.0, 3.0))
    pycls = by_protocol(own, "pycls")
    assert (pycls.name, pycls.interpolation, pycls.offset) == ("pycls", "opencv-linear", "ceil")
    assert (pycls.resize, pycls.crop, pycls.channels, pycls.mean) == (128, 128, "RGB", own.mean)
    assert by_protocol(pycls, "omz") == replace(own, name="omz")
    assert by_protocol(OMZ, "omz") == OMZ


@pytest.mark.parametrize("own", [BILINEAR, Preprocess(name="mixed", offset="ceil")])
def test_a_protocol_of_other_rules_takes_those_that_are_asked_for(own: Preprocess) -> None:
    for name, protocol in PROTOCOLS.items():
        assert by_protocol(own, name) == replace(
            own, name=name, interpolation=protocol.interpolation, offset=protocol.offset
        )
    with pytest.raises(ProtocolError, match="unknown protocol"):
        by_protocol(own, "")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "p", "size": 3}, "unknown field"),
        ({"resize": 256}, "the field 'name' is missing"),
        ({"name": "p", "mean": 3}, "mean must be .* not 3"),
        ({"name": "p", "scale": [1, 2]}, "scale must be"),
        ({"name": "p", "mean": [10**400, 1, 1]}, "mean must be"),
        ({"name": "p", "mean": {"a": 1}}, "mean must be"),
        ({"name": ["p"]}, "name must be a text that is not blank"),
        ({3: 4}, "unknown field 3; known: name, resize, "),
        (None, "expected a table of name, resize, "),
        (["name"], "expected a table of name, resize, "),
        ("omz", "expected a table of name, resize, "),
        (3, "expected a table of name, resize, "),
    ],
)
def test_a_protocol_from_wrong_values_is_refused(values: object, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        Preprocess.from_dict(values)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*OMZ.to_dict(), "other"]), anything) | anything)
def test_any_values_are_a_protocol_or_a_protocol_error(values: object) -> None:
    try:
        assert Preprocess.from_dict(values).name
    except RegNetError as exc:
        assert type(exc) is ProtocolError  # noqa: PT017


def test_values_that_cannot_be_shown_are_a_protocol_error() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for values in (
        {"mean": deep},
        {"resize": deep},
        {"resize": 10**5000},
        {"mean": [10**5000] * 3},
    ):
        with pytest.raises(ProtocolError, match=" must be "):
            Preprocess.from_dict({"name": "p"} | values)


@pytest.mark.parametrize(
    "module",
    [
        "pixels.protocol",
        "checkpoints.layouts",
        "checkpoints.fields",
        "ir.metadata",
        "network.spec",
    ],
)
def test_protocols_need_no_pixels(module: str) -> None:
    code = (
        f"import sys, regnet.{module}; print(sys.modules.keys() & {{'numpy', 'PIL', 'simplejpeg'}})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("size", "resized", "box"),
    [
        ((500, 375), (341, 256), (58, 16, 282, 240)),  # 58.5 goes to even 58
        ((375, 500), (256, 341), (16, 58, 240, 282)),
        ((343, 256), (343, 256), (60, 16, 284, 240)),  # 59.5 goes to even 60
        ((64, 64), (256, 256), (16, 16, 240, 240)),
        ((1, 60000), (256, 15360000), (16, 7679888, 240, 7680112)),
        ((769, 512), (384, 256), (80, 16, 304, 240)),  # 384.5 is cut, not rounded
    ],
)
def test_geometry(size: tuple[int, int], resized: tuple[int, int], box: tuple[int, ...]) -> None:
    assert OMZ.resized(*size) == resized
    assert OMZ.crop_box(*resized) == box


@pytest.mark.parametrize(
    ("side", "rounded", "up"), [(341, 58, 59), (343, 60, 60), (340, 58, 58), (256, 16, 16)]
)
def test_a_crop_that_cannot_be_centred_begins_as_the_protocol_says(
    side: int, rounded: int, up: int
) -> None:
    assert OMZ.crop_box(side, 256)[0] == OMZ.crop_box(256, side)[1] == rounded
    assert PYCLS.crop_box(side, 256)[0] == PYCLS.crop_box(256, side)[1] == up


@st.composite
def protocols(draw: st.DrawFn) -> Preprocess:
    side = draw(st.integers(1, 600))
    return Preprocess(
        name="any",
        resize=side,
        crop=draw(st.integers(max(1, side - 80), side)),
        interpolation=draw(st.sampled_from(["bicubic", "bilinear", "nearest"])),
        offset=draw(st.sampled_from(["round", "ceil"])),
        channels=draw(st.sampled_from(["BGR", "RGB"])),
        fit=draw(st.sampled_from(["crop", "stretch", "square"])),
    )


@given(protocols(), st.integers(1, 100_000), st.integers(1, 100_000))
def test_the_crop_lies_centred_inside_the_resized_image(p: Preprocess, w: int, h: int) -> None:
    size = p.resized(w, h)
    left, top, right, bottom = p.crop_box(*size)
    assert min(size) == p.resize
    assert (size[0] <= size[1]) == (w <= h) or min(size) == max(size)
    assert right - left == bottom - top == p.crop
    for low, high, side in ((left, right, size[0]), (top, bottom, size[1])):
        assert 0 <= low < high <= side
        assert abs(low - (side - high)) <= 1


sides = st.one_of(st.integers(1, 40), st.integers(1, 700), st.sampled_from([64, 128, 256, 512]))


@same_order
@settings(max_examples=120, deadline=None)
@given(protocols(), sides, sides, st.integers(0, 9))
def test_crops_equal_pillow_for_any_size(p: Preprocess, w: int, h: int, seed: int) -> None:
    w, h = max(w, h // 12 + 1), max(h, w // 12 + 1)
    pixels = noise(w, h, seed)
    expected = reference_crop(Image.fromarray(pixels), p)
    assert np.array_equal(crop_pixels(pixels, p), expected)


@same_order
@settings(max_examples=120, deadline=None)
@given(protocols().filter(lambda p: p.interpolation != "nearest"), sides, sides)
def test_the_taps_alone_equal_pillow_for_any_size(p: Preprocess, w: int, h: int) -> None:
    w, h = max(w, h // 12 + 1), max(h, w // 12 + 1)
    image = Image.fromarray(noise(w, h))
    size = p.resized(w, h)
    box = p.crop_box(*size)
    across, down = (
        Axis(side, size[axis], box[axis], p.crop) for axis, side in enumerate(image.size)
    )
    crop = pillow_resize._resize_taps(image, across, down, p.interpolation)
    expected = image.resize(size, FILTERS[p.interpolation]).crop(box)
    assert np.array_equal(np.asarray(crop), np.asarray(expected))


@same_order
@settings(max_examples=80, deadline=None)
@given(*(st.integers(1, 300) for _ in range(4)), st.sampled_from(["bicubic", "bilinear"]))
def test_the_order_of_passes_is_pillows(
    w: int, h: int, new_w: int, new_h: int, interpolation: pillow_resize.Interpolation
) -> None:
    pixels = noise(w, h)
    box = (new_w // 4, new_h // 3, new_w, new_h)
    crop = resize_crop(pixels, size=(new_w, new_h), box=box, interpolation=interpolation)
    expected = Image.fromarray(pixels).resize((new_w, new_h), FILTERS[interpolation]).crop(box)
    assert np.array_equal(crop, np.asarray(expected))


@same_order
@pytest.mark.parametrize(("width", "height"), [(401, 802), (401, 803), (400, 801), (400, 800)])
def test_the_order_of_passes_turns_where_pillows_does(width: int, height: int) -> None:
    pixels = noise(width, height)
    assert np.array_equal(crop_pixels(pixels, OMZ), reference_crop(Image.fromarray(pixels), OMZ))


@same_order
@pytest.mark.parametrize("shape", [(100_000, 300), (300, 100_000)])
def test_long_images_equal_pillow(shape: tuple[int, int]) -> None:
    pixels = noise(*shape)
    width, height = OMZ.resized(*shape)
    assert width * height > pillow_resize.MAX_RESIZED_PIXELS
    assert np.array_equal(crop_pixels(pixels, OMZ), reference_crop(Image.fromarray(pixels), OMZ))


@pytest.mark.parametrize("protocol", [OMZ, PYCLS], ids=lambda p: p.name)
@pytest.mark.parametrize("shape", [(60_000, 1), (1, 60_000), (1_000_000, 2), (1, 17_000_000)])
def test_extreme_shapes_stay_small(shape: tuple[int, int], protocol: Preprocess) -> None:
    pixels = np.full((shape[1], shape[0], 3), (10, 20, 30), np.uint8)
    crop = crop_pixels(pixels, protocol)
    assert crop.shape == (224, 224, 3)
    assert np.allclose(crop, (30, 20, 10), rtol=1e-6, atol=0)
    with pytest.raises(ImageError, match="too many pixels: resized to"):
        stages(pixels, protocol, limits=DecodeLimits(memory=1 << 22))


@pytest.mark.parametrize("protocol", [OMZ, PYCLS, BILINEAR], ids=lambda p: p.name)
@pytest.mark.parametrize("shape", [(500, 375), (375, 500), (512, 768), (60, 40), (256, 301)])
def test_the_last_stage_is_the_crop(shape: tuple[int, int], protocol: Preprocess) -> None:
    pixels = noise(*shape)
    seen = stages(pixels, protocol)
    crop = crop_pixels(pixels, protocol)
    left, top, right, bottom = protocol.crop_box(*protocol.resized(*shape))
    flipped = pixels[..., ::-1] if protocol.channels == "BGR" else pixels
    assert np.array_equal(seen.decoded, flipped)
    assert seen.resized.shape[1::-1] == protocol.resized(*shape)
    assert seen.resized.dtype == seen.cropped.dtype == crop.dtype
    assert np.array_equal(seen.resized[top:bottom, left:right], crop)
    assert np.array_equal(seen.cropped, crop)


def test_an_image_of_the_short_side_asked_for_is_not_resized() -> None:
    pixels = noise(301, 256)
    crop = crop_pixels(pixels, PYCLS)
    expected = pixels[16:240, 39:263, ::-1].astype(np.float32) / 255 * 255
    assert crop.dtype == np.float32
    assert np.array_equal(crop, expected)


def test_every_photo_equals_pillow(photos: list[Path]) -> None:
    for path in photos:
        with Image.open(path) as image:
            expected = reference_crop(image, OMZ)
        crop = crop_pixels(path.read_bytes(), OMZ)
        assert np.array_equal(crop, expected), path.name


@pytest.mark.parametrize("protocol", [BILINEAR, SWAG, STRETCHED], ids=lambda p: p.name)
def test_other_protocols_equal_pillow(photos: list[Path], protocol: Preprocess) -> None:
    for path in photos[::8]:
        with Image.open(path) as image:
            expected = reference_crop(image, protocol)
        assert np.array_equal(crop_pixels(path, protocol), expected), path.name


def pixel_hashes(paths: list[Path]) -> dict[str, dict[str, str]]:
    return {
        path.name: {
            p.name: hashlib.sha256(crop_pixels(path, p).tobytes()).hexdigest() for p in (OMZ, PYCLS)
        }
        for path in paths
    }


def test_both_protocols_pixels_of_sample_photos_are_those_of_the_past() -> None:
    golden = json.loads(PIXELS.read_text("utf-8"))["samples"]
    assert pixel_hashes(sample_photos()) == golden


def test_both_protocols_pixels_of_photos_are_those_of_the_past(photos: list[Path]) -> None:
    golden = json.loads(PIXELS.read_text("utf-8"))["photos"]
    assert pixel_hashes(photos) == golden


def test_small_photos_equal_pillow(shared: Path) -> None:
    imagenette = sorted((shared / "data" / "imagenette" / "val").rglob("*.JPEG"))[::25]
    data = [path.read_bytes() for path in imagenette]
    for archive in sorted((shared / "data").glob("tiny-imagenet-200.*.zip")):
        with zipfile.ZipFile(archive) as opened:
            names = sorted(n for n in opened.namelist() if n.endswith(".JPEG"))
            data += [opened.read(name) for name in names[:: len(names) // 40]]
    assert len(data) > 100
    for encoded in data:
        expected = reference_crop(Image.open(io.BytesIO(encoded)), OMZ)
        assert np.array_equal(crop_pixels(encoded, OMZ), expected)


def test_threads_get_the_same_pixels(photos: list[Path]) -> None:
    data = [path.read_bytes() for path in photos[:24]]
    alone = [crop_pixels(encoded, OMZ) for encoded in data]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda encoded: crop_pixels(encoded, OMZ), data * 2))
    for one, other in zip(alone * 2, together, strict=True):
        assert np.array_equal(one, other)


def pattern(width: int, height: int) -> np.ndarray:
    """Return a picture of edges and gradients that any machine makes alike."""
    y, x = np.mgrid[:height, :width].astype(np.int64)
    red = (x * 7 + y * 3) % 256
    green = (x * x + y * y) // 64 % 256
    blue = ((x // 9 + y // 7) % 2) * 255
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def test_crops_are_those_of_the_past() -> None:
    """A change of pixels is a change of every published accuracy: it must not pass unseen."""
    golden = json.loads(GOLDEN.read_text("utf-8"))
    got = {}
    for name in golden:
        protocol_name, size = name.split("/")
        width, height = map(int, size.split("x"))
        protocol = {"omz": OMZ, "torchvision": BILINEAR, "swag": SWAG}[protocol_name]
        crop = crop_pixels(pattern(width, height), protocol)
        got[name] = hashlib.sha256(crop.tobytes()).hexdigest()
    assert got == golden


def test_arrays_are_rgb_unless_said_otherwise() -> None:
    rgb = noise(40, 30)
    expected = crop_pixels(Image.fromarray(rgb), OMZ)
    bgr = rgb[..., ::-1]
    alpha = np.dstack([rgb, np.zeros((30, 40), np.uint8)])
    assert np.array_equal(crop_pixels(rgb, OMZ), expected)
    assert np.array_equal(crop_pixels(bgr, OMZ, array_channels="BGR"), expected)
    assert np.array_equal(crop_pixels(alpha, OMZ), expected)
    assert np.array_equal(
        crop_pixels(alpha[..., [2, 1, 0, 3]], OMZ, array_channels="BGR"), expected
    )
    assert np.array_equal(crop_pixels(np.asfortranarray(rgb), OMZ), expected)


def test_grey_arrays_are_grey_in_all_channels() -> None:
    grey = noise(40, 30)[..., 0]
    crop = crop_pixels(grey, OMZ)
    assert (crop == crop[..., :1]).all()
    assert np.array_equal(crop, crop_pixels(grey[..., None], OMZ))


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32.*uint8"),
        (np.zeros((4, 4), bool), "bool.*uint8"),
        (np.zeros((3, 4, 4), np.uint8)[None], r"shape \(1, 3, 4, 4\)"),
        (np.zeros((4, 4, 2), np.uint8), "shape"),
        (np.zeros(16, np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.zeros((4, 0, 1), np.uint8), "shape"),
        (np.zeros((0, 4), np.uint8), "shape"),
        (np.zeros((4, 0, 4), np.uint8), "shape"),
    ],
)
def test_wrong_arrays_are_image_errors(array: np.ndarray, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        crop_pixels(array, OMZ)


def test_other_things_are_image_errors(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="list"):
        crop_pixels([1, 2], OMZ)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"nothing\.png: No such file"):
        crop_pixels(tmp_path / "nothing.png", OMZ)
    with pytest.raises(ImageError, match="cannot read"):
        crop_pixels("a\0b", OMZ)
    with pytest.raises(ImageError, match="0 x 5 has no pixels"):
        crop_pixels(Image.new("RGB", (0, 5)), OMZ)


def test_all_kinds_of_input_agree(tmp_path: Path) -> None:
    image = Image.fromarray(noise(50, 40))
    path = tmp_path / "a.png"
    image.save(path)
    data = path.read_bytes()
    expected = reference_crop(image, OMZ)
    kinds = (data, bytearray(data), memoryview(data), path, str(path), image, Image.open(path))
    for given_as in kinds:
        crop = crop_pixels(given_as, OMZ)
        assert np.array_equal(crop, expected)
        assert crop.dtype == np.uint8
        assert crop.flags.c_contiguous
        assert crop.flags.writeable


def test_a_pillow_image_is_turned_upright_and_left_alone() -> None:
    image = Image.fromarray(noise(50, 40)).convert("P")
    image.info["transparency"] = bytes(range(256))
    image.getexif()[0x0112] = 6
    expected = reference_crop(ImageOps.exif_transpose(image).convert("RGBA"), OMZ)
    assert np.array_equal(crop_pixels(image, OMZ), expected)
    assert image.info["transparency"] == bytes(range(256))
    assert image.getexif()[0x0112] == 6


def test_an_image_array_is_left_alone() -> None:
    array = noise(300, 260)
    before = array.copy()
    crop_pixels(array, OMZ)[:] = 0
    assert np.array_equal(array, before)
