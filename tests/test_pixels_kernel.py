"""The compiled resize: the pixels of the Python path and of Pillow, from any view of them."""

import importlib.util
import io
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_pixels_preprocess import FILTERS, noise, same_order

from regnet.pixels import kernel
from regnet.pixels.kernel import REMEDY
from regnet.pixels.pillow_resize import Axis, resize_crop
from regnet.pixels.preprocess import crop_pixels
from regnet.pixels.protocol import OMZ, PYCLS, Interpolation
from regnet.pixels.samples import sample_photos

ROOT = Path(__file__).parent.parent
needs_kernel = pytest.mark.skipif(not kernel.available(), reason="the C kernel was not built")
needs_compiler = pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler, cc")
Views = Callable[[np.ndarray], np.ndarray]

VIEWS: dict[str, Views] = {
    "as it is": lambda a: a,
    "mirrored": lambda a: a[:, ::-1],
    "upside down": lambda a: a[::-1],
    "turned": lambda a: a.swapaxes(0, 1)[:, ::-1],
    "turned back": lambda a: a.swapaxes(0, 1)[::-1],
    "transposed": lambda a: a.swapaxes(0, 1),
    "transverse": lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    "swapped": lambda a: a[..., ::-1],
    "turned and swapped": lambda a: a.swapaxes(0, 1)[:, ::-1, ::-1],
    "with alpha": lambda a: np.dstack([a, a[..., :1]])[..., :3],
    "with alpha, swapped": lambda a: np.dstack([a, a[..., :1]])[..., 2::-1],
    "with alpha, turned": lambda a: np.dstack([a, a[..., :1]])[..., :3].swapaxes(0, 1)[::-1],
    "every other": lambda a: np.repeat(np.repeat(a, 2, axis=0), 2, axis=1)[::2, ::2],
    "planes": lambda a: np.ascontiguousarray(a.transpose(2, 0, 1)).transpose(1, 2, 0),
    "part": lambda a: np.pad(a, ((1, 2), (3, 1), (0, 0)))[1:-2, 3:-1],
}


@pytest.fixture
def python_path(monkeypatch: pytest.MonkeyPatch) -> Callable[..., np.ndarray]:
    """Return `resize_crop` without the kernel."""

    def without(*args: object, **options: object) -> np.ndarray:
        with monkeypatch.context() as patch:
            patch.setenv("REGNET_KERNEL", "off")
            assert not kernel.available()
            return resize_crop(*args, **options)  # type: ignore[arg-type]

    return without


def resized(pixels: np.ndarray, **options: object) -> np.ndarray:
    """Return what the kernel alone makes of pixels."""
    across, down, interpolation = (options[k] for k in ("across", "down", "interpolation"))
    out = np.empty((down.count, across.count, 3), np.uint8)
    lines = {"across": astuple(across), "down": astuple(down)}
    assert kernel.resize(pixels, **lines, bicubic=interpolation == "bicubic", out=out)
    return out


sides = st.one_of(st.integers(1, 9), st.integers(1, 400), st.sampled_from([128, 256, 341, 512]))
targets = st.one_of(st.integers(1, 9), st.integers(1, 300), st.sampled_from([256, 341]))
SLOW = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@needs_kernel
@same_order
@SLOW
@given(
    sides,
    sides,
    targets,
    targets,
    st.data(),
    st.sampled_from(("bicubic", "bilinear")),  # "nearest" is Pillow's own
    st.sampled_from(list(VIEWS)),
)
def test_kernel_python_and_pillow_agree(
    python_path: Callable[..., np.ndarray],
    w: int,
    h: int,
    new_w: int,
    new_h: int,
    data: st.DataObject,
    interpolation: Interpolation,
    view: str,
) -> None:
    pixels = VIEWS[view](noise(w, h))
    height, width = pixels.shape[:2]
    left, top = data.draw(st.integers(0, new_w - 1)), data.draw(st.integers(0, new_h - 1))
    right, bottom = data.draw(st.integers(left + 1, new_w)), data.draw(st.integers(top + 1, new_h))
    got = resized(
        pixels,
        across=Axis(width, new_w, left, right - left),
        down=Axis(height, new_h, top, bottom - top),
        interpolation=interpolation,
    )
    size, box = (new_w, new_h), (left, top, right, bottom)
    whole = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, FILTERS[interpolation])
    expected = np.asarray(whole.crop(box))
    assert np.array_equal(got, expected)
    other = python_path(pixels, size=size, box=box, interpolation=interpolation)
    assert np.array_equal(other, expected)
    assert other.flags.c_contiguous
    assert other.flags.writeable


@needs_kernel
@pytest.mark.parametrize("protocol", [OMZ, PYCLS], ids=lambda p: p.name)
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(300, 401), (401, 300), (700, 260), (40, 31)])
def test_a_turned_jpeg_gives_the_crop_of_the_upright_one(
    size: tuple[int, int], orientation: int, protocol: object
) -> None:
    """The crop is turned instead of the photo: no pixel may know."""
    from PIL import ImageOps

    tags = Image.Exif()
    tags[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(noise(*size)).save(file, "JPEG", exif=tags, quality=95)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(file)))
    crop = crop_pixels(file.getvalue(), protocol)
    assert crop.flags.c_contiguous
    assert np.array_equal(crop, crop_pixels(np.ascontiguousarray(upright), protocol))


@needs_kernel
def test_photos_agree_with_the_python_path(
    photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = [crop_pixels(path, OMZ) for path in photos[::4]]
    monkeypatch.setenv("REGNET_KERNEL", "off")
    for path, crop in zip(photos[::4], compiled, strict=True):
        assert np.array_equal(crop_pixels(path, OMZ), crop), path.name


@needs_kernel
def test_threads_share_the_kernel() -> None:
    images = [noise(300 + n, 280, n) for n in range(16)]
    alone = [crop_pixels(image, OMZ) for image in images]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda image: crop_pixels(image, OMZ), images * 4))
    for one, other in zip(alone * 4, together, strict=True):
        assert np.array_equal(one, other)


lengths = st.integers(-3, 20) | st.integers(-(2**70), 2**70) | st.sampled_from([2**31, 2**63])


@needs_kernel
@settings(max_examples=300, deadline=None)
@given(st.tuples(*[lengths] * 4), st.tuples(*[lengths] * 4), st.integers(1, 20), st.integers(1, 20))
@example((9, 2**50 + 1, 0, 4), (9, 9, 0, 4), 9, 9)
@example((9, 2**50, 2**50 - 4, 4), (9, 2**50, 2**49, 4), 9, 9)
@example((9, 9, 6, 4), (9, 9, 0, 4), 9, 9)
@example((9, 2**63, 2**63 - 4, 4), (9, 9, 0, 4), 9, 9)
def test_impossible_lengths_are_declined(
    across: tuple[int, ...], down: tuple[int, ...], width: int, height: int
) -> None:
    out = np.zeros((4, 4, 3), np.uint8)
    done = kernel.resize(noise(width, height), across=across, down=down, bicubic=True, out=out)
    possible = all(
        (source, count) == (side, 4) and 0 <= start <= target - 4 and target <= kernel.MAX_TARGET
        for (source, target, start, count), side in ((across, width), (down, height))
    )
    assert done == possible
    assert done or not out.any()


@needs_kernel
@pytest.mark.parametrize(
    ("pixels", "out"),
    [
        (np.zeros((9, 9, 3), np.float32), np.zeros((4, 4, 3), np.uint8)),
        (np.zeros((9, 9, 4), np.uint8), np.zeros((4, 4, 3), np.uint8)),
        (np.zeros((9, 9), np.uint8), np.zeros((4, 4, 3), np.uint8)),
        (np.zeros((9, 8, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)),
        (np.zeros((9, 9, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)),
        (np.zeros((9, 9, 3), np.uint8), np.zeros((4, 4, 3), np.int8)),
        (np.zeros((9, 9, 3), np.uint8), np.zeros((4, 8, 3), np.uint8)[:, ::2]),
        (np.zeros((9, 9, 3), np.uint8), np.frombuffer(bytes(48), np.uint8).reshape(4, 4, 3)),
    ],
)
def test_other_arrays_are_declined(pixels: np.ndarray, out: np.ndarray) -> None:
    line = (9, 8, 2, 4)
    assert not kernel.resize(pixels, across=line, down=line, bicubic=True, out=out)


@needs_kernel
@pytest.mark.parametrize("shape", [(1, 1 << 24), (1 << 24, 1), (3, 3_000_000), (3_000_000, 3)])
def test_the_longest_sides_are_as_the_python_path(
    shape: tuple[int, int], python_path: Callable[..., np.ndarray]
) -> None:
    pixels = noise(*shape)
    size = OMZ.resized(*shape)
    options = {"size": size, "box": OMZ.crop_box(*size), "interpolation": "bicubic"}
    assert np.array_equal(resize_crop(pixels, **options), python_path(pixels, **options))


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the path of a library that stands in for the one that is installed."""
    path = tmp_path / "resize.so"
    monkeypatch.delenv("REGNET_KERNEL", raising=False)
    monkeypatch.setattr(kernel, "LIBRARY", path)
    kernel._function.cache_clear()
    yield path
    kernel._function.cache_clear()


def test_without_a_library_the_pixels_are_the_same(library: Path) -> None:
    pixels = noise(400, 300)
    assert not kernel.available()
    size = OMZ.resized(400, 300)
    crop = crop_pixels(pixels, OMZ, array_channels="BGR")
    expected = Image.fromarray(pixels).resize(size, FILTERS["bicubic"]).crop(OMZ.crop_box(*size))
    assert np.array_equal(crop, np.asarray(expected))


def test_that_it_is_slower_is_said_once_per_installation(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGNET_CACHE", str(tmp_path / "cache"))

    def in_a_new_process() -> list[str]:
        kernel.note_slower.cache_clear()
        with warnings.catch_warnings(record=True) as given:
            warnings.simplefilter("always")
            for _ in range(3):
                crop_pixels(noise(40, 30), OMZ)
        return [str(warning.message) for warning in given]

    assert in_a_new_process() == [f"photos are resized without compiled code, so slower: {REMEDY}"]
    assert in_a_new_process() == []
    monkeypatch.setattr("regnet.system.installation.TOOL_VERSION", "99.0")
    with monkeypatch.context() as patch:
        patch.setenv("REGNET_KERNEL", "off")
        assert in_a_new_process() == []
    assert len(in_a_new_process()) == 1


def test_the_command_line_says_once_that_it_is_slower(tmp_path: Path) -> None:
    code = """
from pathlib import Path
from regnet.pixels import kernel
kernel.LIBRARY = Path("none")
from regnet.cli import main
main()
"""
    command = [
        sys.executable,
        "-c",
        code,
        "classify",
        "--model",
        "bundled",
        str(sample_photos()[0]),
    ]
    environment = {**os.environ, "REGNET_CACHE": str(tmp_path)}
    environment.pop("REGNET_KERNEL", None)
    said = [
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr
        for _ in range(2)
    ]
    assert said == [f"regnet: photos are resized without compiled code, so slower: {REMEDY}\n", ""]


def test_a_broken_library_is_not_used(library: Path) -> None:
    library.write_bytes(b"\x7fELF no library")
    assert not kernel.available()
    assert crop_pixels(noise(40, 30), OMZ).shape == (224, 224, 3)


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the build hook, whose base class is only there while a wheel is built."""
    base = ModuleType("hatchling.builders.hooks.plugin.interface")
    base.BuildHookInterface = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, base.__name__, base)
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path, build: ModuleType) -> Path:
    """Return a source tree that holds what the hook compiles."""
    (tmp_path / build.FOLDER).mkdir(parents=True)
    shutil.copy(ROOT / build.SOURCE, tmp_path / build.SOURCE)
    return tmp_path


def initialized(build: ModuleType, tree: Path, version: str) -> tuple[dict[str, object], list[str]]:
    warnings: list[str] = []
    hook = build.KernelHook()
    hook.root, hook.app = str(tree), SimpleNamespace(display_warning=warnings.append)
    data: dict[str, object] = {"pure_python": True, "artifacts": [], "force_include": {}}
    hook.initialize(version, data)
    constraints = {str(tree / "constraints.txt"): "regnet/constraints.txt"}
    assert data.pop("force_include") == (constraints if version == "standard" else {})
    return data, warnings


@needs_compiler
@pytest.mark.parametrize("options", ["", " -DREGNET_PLAIN"], ids=["as built", "without AVX2"])
def test_the_hook_compiles_a_library_of_the_same_pixels(
    build: ModuleType,
    tree: Path,
    library: Path,
    options: str,
    monkeypatch: pytest.MonkeyPatch,
    python_path: Callable[..., np.ndarray],
) -> None:
    monkeypatch.setenv("CC", f"cc -Wall -Wextra -Werror{options}")
    data, warnings = initialized(build, tree, "standard")
    assert warnings == []
    assert data["artifacts"] == ["src/regnet/pixels/kernel/resize.so"]
    assert data["pure_python"] is False
    assert str(data["tag"]).startswith("py3-none-")
    assert "manylinux" not in str(data["tag"])
    shutil.copy(tree / build.LIBRARY, library)
    assert kernel.available()
    for n, (view, turn) in enumerate(VIEWS.items()):
        pixels = turn(noise(97 + 31 * n, 300 - 17 * n))
        size = OMZ.resized(*pixels.shape[1::-1])
        asked = {"size": size, "box": OMZ.crop_box(*size), "interpolation": "bicubic"}
        assert np.array_equal(resize_crop(pixels, **asked), python_path(pixels, **asked)), view


@needs_compiler
def test_a_library_of_another_version_is_not_used(
    build: ModuleType, tree: Path, library: Path
) -> None:
    source = (tree / build.SOURCE).read_text("utf-8")
    (tree / build.SOURCE).write_text(source.replace("return 1;", "return 2;"), "utf-8")
    initialized(build, tree, "standard")
    shutil.copy(tree / build.LIBRARY, library)
    assert not kernel.available()


@pytest.mark.parametrize("version", ["standard", "editable"])
@pytest.mark.parametrize("compiler", ["false", "/nowhere/cc"])
def test_without_a_compiler_the_wheel_is_pure(
    build: ModuleType, tree: Path, version: str, compiler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", compiler)
    (tree / build.LIBRARY).write_bytes(b"old")
    data, (warning,) = initialized(build, tree, version)
    assert data == {"pure_python": True, "artifacts": []}
    assert "without its C kernel" in warning
    assert compiler in warning
    assert (tree / build.LIBRARY).exists() == (version == "standard")
    assert not list(tree.rglob("*.part"))
