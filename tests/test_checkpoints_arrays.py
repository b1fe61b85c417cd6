"""The reader against torch's own, on drawn contents; and what becomes of arrays."""

import math
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regnet.checkpoints.arrays import NotPlain, plain_array
from regnet.checkpoints.tensorfile import read_content
from regnet.system.errors import WeightsError

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402
from torch_arrays import to_arrays  # noqa: E402

# The older format, and files of big-endian machines, have only types with storages of their own.
WITH_STORAGES = (
    *("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8"),
    *("bool", "complex64", "complex128"),
)
NAMES = (*WITH_STORAGES, "uint16", "uint32", "uint64")
DTYPES = st.sampled_from([getattr(torch, name) for name in NAMES])
DTYPES_WITH_STORAGES = st.sampled_from([getattr(torch, name) for name in WITH_STORAGES])


@st.composite
def bases(draw: st.DrawFn, dtype: torch.dtype) -> torch.Tensor:
    """A whole tensor of up to four dimensions, of any bits."""
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    size = math.prod(shape) * dtype.itemsize
    data = bytearray(draw(st.binary(min_size=size, max_size=size)))
    if dtype == torch.bool:
        data = bytearray(byte % 2 for byte in data)
    flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    return flat.view(shape)


@st.composite
def views(draw: st.DrawFn, base: torch.Tensor) -> torch.Tensor:
    """A part of a tensor: cut, turned, strided, widened or repeated without a copy."""
    view = base
    for _ in range(draw(st.integers(0, 3))):
        how = draw(st.sampled_from(["cut", "turn", "take", "widen", "repeat", "parameter"]))
        if how == "turn":
            view = view.permute(draw(st.permutations(range(view.ndim))))
        elif how == "widen":
            view = view.unsqueeze(draw(st.integers(0, view.ndim)))
        elif how == "repeat":
            view = view.unsqueeze(0).expand(draw(st.integers(1, 3)), *view.shape)
        elif how == "parameter" and (view.is_floating_point() or view.is_complex()):
            view = torch.nn.Parameter(view.detach(), requires_grad=draw(st.booleans()))
        elif view.ndim and min(view.shape):
            axis = draw(st.integers(0, view.ndim - 1))
            start = draw(st.integers(0, view.shape[axis] - 1))
            if how == "take":
                view = view.select(axis, start)
            elif how == "cut":
                cut = slice(start, None, draw(st.integers(1, 2)))
                view = view[(slice(None),) * axis + (cut,)]
    return view if draw(st.booleans()) else view.detach()


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9)
KEYS = st.text(max_size=9) | st.integers(-9, 2**40)


@st.composite
def contents(draw: st.DrawFn, dtypes: st.SearchStrategy[torch.dtype]) -> Any:
    """Nested containers of tensors, some of which share their storages, and of plain values."""
    shared = [draw(bases(draw(dtypes))) for _ in range(draw(st.integers(1, 3)))]
    tensors = st.sampled_from(shared).flatmap(views)
    named = st.dictionaries(KEYS, tensors, min_size=1, max_size=4)
    return draw(
        st.recursive(
            named | named.map(OrderedDict),
            lambda inner: (
                st.dictionaries(KEYS, inner | PLAIN, max_size=3)
                | st.lists(inner | PLAIN, max_size=3)
                | st.tuples(inner, PLAIN)
            ),
            max_leaves=4,
        )
    )


def assert_same(ours: Any, theirs: Any) -> None:
    """Assert that we read what torch reads, bit by bit; only repeated elements are left out."""
    if isinstance(theirs, torch.Tensor):
        places = torch.arange(max(theirs.untyped_storage().nbytes(), 1))
        places = places.as_strided(theirs.shape, theirs.stride()) if theirs.numel() else places[:0]
        if isinstance(ours, NotPlain):
            assert len(places.unique()) < theirs.numel()
            return
        expected = to_arrays(theirs)
        native = ours.astype(ours.dtype.newbyteorder("="))
        assert (native.dtype, native.shape) == (expected.dtype, expected.shape)
        assert native.tobytes() == expected.tobytes()
        assert len(places.unique()) == theirs.numel()
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            assert_same(ours[key], value)
    elif isinstance(theirs, list | tuple):
        assert type(ours) is type(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    else:
        assert (type(ours), ours) == (type(theirs), theirs)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(deadline=None, max_examples=80)
@given(data=st.data(), protocol=st.integers(2, 5))
def test_we_read_what_torch_reads(data: st.DataObject, protocol: int, zipped: bool) -> None:
    content = data.draw(contents(DTYPES if zipped else DTYPES_WITH_STORAGES))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.pth"
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
        # torch's restricted reader knows no protocol from 4 on
        assert_same(read_content(path).value, torch.load(path, weights_only=protocol < 4))


def as_of_a_big_endian_machine(path: Path, size: int) -> None:
    """Rewrite an archive as if a big-endian machine had saved it: numbers of `size` bytes."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            if "/data/" in name:
                data = np.frombuffer(data, np.uint8).reshape(-1, size)[:, ::-1].tobytes()
            archive.writestr(name, b"big" if name.endswith("byteorder") else data)


@pytest.mark.parametrize("name", WITH_STORAGES)
@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_we_read_what_torch_reads_of_a_big_endian_machine(name: str, data: st.DataObject) -> None:
    dtype = getattr(torch, name)
    content = data.draw(contents(st.just(dtype)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.pth"
        torch.save(content, path)
        as_of_a_big_endian_machine(path, dtype.itemsize // (2 if dtype.is_complex else 1))
        assert_same(read_content(path).value, torch.load(path, weights_only=True))


def test_the_older_format_is_little_endian_on_every_machine(tmp_path: Path) -> None:
    path = tmp_path / "big.pth"
    torch.save({"a": torch.tensor([1.5, -2.0])}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    flag = data.index(b"\x88", data.index(b"little_endian"))
    path.write_bytes(data[:flag] + b"\x89" + data[flag + 1 :])
    assert_same(read_content(path).value, torch.load(path, weights_only=True))


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_safetensors_as_their_library_reads_them(data: st.DataObject) -> None:
    dtypes = DTYPES.filter(lambda dtype: dtype != torch.complex128)
    drawn = st.dictionaries(st.text(min_size=1, max_size=9), dtypes.flatmap(bases), min_size=1)
    content = data.draw(drawn)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.safetensors"
        save_file(content, path)
        theirs = load_file(path)
        ours = read_content(path).value
    assert_same({key: ours[key] for key in theirs}, theirs)
    assert ours.keys() == theirs.keys()


@pytest.mark.parametrize("save", [torch.save, lambda value, path: save_file(value, path)])
def test_numbers_that_numpy_lacks_are_named(save: Any, tmp_path: Path) -> None:
    save({"a": torch.ones(2, 3).to(torch.float8_e4m3fn)}, tmp_path / "a.pth")
    tensor = read_content(tmp_path / "a.pth").value["a"]
    assert isinstance(tensor, NotPlain)
    assert tensor.shape == (2, 3)
    assert "8_E4M3" in tensor.reason.upper()


@pytest.mark.parametrize("tensor", [torch.eye(2).to_sparse(), torch.empty(2, device="meta")])
def test_tensors_without_plain_data(tensor: torch.Tensor, tmp_path: Path) -> None:
    torch.save({"a": tensor}, tmp_path / "a.pth")
    assert isinstance(read_content(tmp_path / "a.pth").value["a"], NotPlain)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_floating_point_becomes_float32(dtype: str) -> None:
    source = np.array([[1.5, -2.25], [0.0, 3.0]], dtype).T
    plain = plain_array("a", source)
    assert plain.dtype == np.float32
    assert plain.flags.c_contiguous
    assert plain.tolist() == [[1.5, 0.0], [-2.25, 3.0]]
    assert not np.shares_memory(plain, source)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(2, np.int64), "layer.weight has type torch.int64"),
        (np.zeros(2, np.complex64), "layer.weight has type torch.complex64"),
        (np.array([1.0, math.nan]), "layer.weight holds values that are not finite"),
        (np.array([1.0, -math.inf]), "layer.weight holds values that are not finite"),
        (np.array([1e300]), "layer.weight holds values that are not finite"),
    ],
)
def test_arrays_that_are_no_weights(array: np.ndarray, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        plain_array("layer.weight", array)


def test_step_counters_are_whole_numbers() -> None:
    plain = plain_array("a.num_batches_tracked", np.array(7.0))
    assert plain.dtype == np.int64
    assert plain.item() == 7
