"""Checkpoints made to harm: small files that would take all time or memory, or mislead."""

import io
import json
import os
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regnet.checkpoints.hub_settings import recorded_names
from regnet.checkpoints.layouts import LAYOUTS, from_pycls
from regnet.checkpoints.pickles import RefusedError, read_pickle
from regnet.checkpoints.plain_types import Record
from regnet.cli import main
from regnet.conversion.store import Library
from regnet.network.labels import Label
from regnet.network.spec import AnyNetSpec, Stage
from regnet.system.errors import MismatchError, RegNetError, WeightsError

torch = pytest.importorskip("torch")
from safetensors.torch import save, save_file  # noqa: E402
from torch_arrays import to_arrays  # noqa: E402

from regnet.checkpoints import arrays, entries  # noqa: E402
from regnet.checkpoints.tensorfile import read_content, read_pickles  # noqa: E402
from regnet.checkpoints.weights import read_checkpoint  # noqa: E402
from regnet.conversion.convert import describe  # noqa: E402
from regnet.conversion.values import Request  # noqa: E402
from regnet.network.modules import RegNet  # noqa: E402

State = dict[str, Any]
SPEC = AnyNetSpec(stages=(Stage(1, 8, 4),), stem_width=8, classes=3)
LONG = 200_000


def weights(layout: str = "timm", *, seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    state = RegNet(SPEC).state_dict()
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5, generator=generator)
    names = from_pycls(state, next(known for known in LAYOUTS if known.name == layout))
    return {names[key]: tensor for key, tensor in state.items()}


def find_network(content: Any, name: str | None = None) -> entries.FoundNetwork:
    return entries.find_network(to_arrays(content), name)


def under(prefix: str, state: State) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


NET = weights()


def pickled(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def calls(function: bytes, arguments: bytes, times: int) -> bytes:
    """Return a pickle of a list of what a function returns, called with the same arguments."""
    return pickled(
        b"c", function, b"\nq\x00(", arguments, b"tq\x010(", b"h\x00h\x01R" * times, b"l"
    )


@pytest.mark.parametrize(
    "data",
    [
        calls(b"_codecs\nencode", text("a" * LONG) + text("latin1"), 50_000),
        calls(b"argparse\nNamespace", b"N" * LONG, 50_000),
        calls(b"numpy.core.multiarray\nscalar", b"N" + text("a" * LONG), 50_000),
        pickled(
            b"cmodule\nClass\nq\x00(", b"N" * LONG, b"tq\x010(", b"h\x00h\x01\x81" * 50_000, b"l"
        ),
    ],
    ids=["bytes", "record", "scalar", "instance"],
)
def test_one_long_value_is_not_copied_for_ever(data: bytes) -> None:
    with pytest.raises(ValueError, match="again and again"):
        read_pickle(io.BytesIO(data))


def test_long_names_are_refused() -> None:
    data = pickled(text("a" * LONG), b"q\x00(", b"h\x00h\x00\x930" * 10, b"l")
    with pytest.raises(ValueError, match="too long"):
        read_pickle(io.BytesIO(data))


def file_in_a_pickle(inner: bytes, times: int) -> bytes:
    data = b"B" + struct.pack("<I", len(inner)) + inner
    return calls(b"torch.storage\n_load_from_bytes", data, times)


def test_a_file_in_a_pickle_is_read_once_and_holds_no_other() -> None:
    found = read_pickles(io.BytesIO(file_in_a_pickle(pickled(b"]"), 50)))
    assert len(found) == 50
    assert all(value is found[0] for value in found)
    with pytest.raises(RefusedError, match="_load_from_bytes"):
        read_pickles(io.BytesIO(file_in_a_pickle(file_in_a_pickle(pickled(b"]"), 50), 50)))


def test_the_pickles_of_a_file_share_their_instructions() -> None:
    inner = [pickled(b"K", bytes([n]), b"0" + b"N0" * 250_000, b"N") for n in range(5)]
    parts = (
        b"ctorch.storage\n_load_from_bytes\nB" + struct.pack("<I", len(one)) + one + b"\x85R"
        for one in inner
    )
    with pytest.raises(ValueError, match="more than 2,000,000 instructions"):
        read_pickles(io.BytesIO(pickled(b"(", *parts, b"l")))


def test_keys_are_only_what_hashes_well() -> None:
    prime = 2**61 - 1  # numbers that differ by it have the same hash
    large = (b"\x8a\x0d" + (5 + n * prime).to_bytes(13, "little") + b"N" for n in range(2, 5000))
    found = read_pickle(io.BytesIO(pickled(b"}(", *large, b"K\x07Nu")))
    assert [key for key in found if not isinstance(key, Record)] == [7]


@pytest.mark.parametrize(
    ("size", "stride"), [((1,) * 17, (1,) * 17), ((2**62,), (0,)), ("11", "11"), ((-1,), (1,))]
)
def test_impossible_sizes_are_errors(size: Any, stride: Any) -> None:
    storage = arrays.Storage(arrays.NUMBERS["float32"], np.zeros(4, np.float32))
    with pytest.raises((ValueError, TypeError)):
        arrays.tensor(storage, 0, size, stride)


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(4, (1,), (1,)), (0, (2, 2), (3, 1)), (1, (2,), (3,)), (0, (5,), (1,))],
)
def test_views_stay_inside_their_storage(offset: int, size: Any, stride: Any) -> None:
    storage = arrays.Storage(arrays.NUMBERS["float32"], np.zeros(4, np.float32))
    with pytest.raises(EOFError, match="longer than its storage"):
        arrays.tensor(storage, offset, size, stride)


def test_two_members_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled(b"]"))
        archive.writestr("a/data/0", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/data/0", b"2")
    with pytest.raises(WeightsError, match="two are called a/data/0"):
        read_content(path)


def test_tensors_of_more_elements_than_data(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    shaped = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in NET.items()}
    torch.save({"a": shaped, "b": {key: tensor + 1 for key, tensor in NET.items()}}, path)
    assert read_checkpoint(path).entry_name == "b"
    with pytest.raises(WeightsError, match="more elements than data"):
        read_checkpoint(path, entry="a")


def test_tensors_that_share_their_data(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    spec = AnyNetSpec(stages=(Stage(8, 256, 64),), stem_width=256, classes=3)
    data = torch.rand(256 * 256 * 9)
    with torch.device("meta"):
        shapes = {key: tensor.shape for key, tensor in RegNet(spec).state_dict().items()}
    shared = {key: data[: shape.numel()].view(shape) for key, shape in shapes.items()}
    torch.save(shared, path)
    with pytest.raises(WeightsError, match="more elements than there is data"):
        read_checkpoint(path)


def test_members_that_share_their_data(tmp_path: Path) -> None:
    """A directory of a zip file that names one member a thousand times."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a/data.pkl", pickled(b"N"))
        archive.writestr("a/data/0", os.urandom(100_000))
    data = content.getvalue()
    first = data.index(b"PK\1\2")
    entry = data[data.index(b"PK\1\2", first + 4) : data.index(b"PK\5\6")]
    directory = data[first : data.index(b"PK\5\6")] + entry * 999
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1001, 1001, len(directory), first, 0)
    path = tmp_path / "a.pth"
    path.write_bytes(data[:first] + directory + end)
    with pytest.raises(WeightsError, match="overlap, or two are called"):
        read_content(path)


def test_an_archive_of_two_contents(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled(b"]"))
        archive.writestr("b/data.pkl", pickled(b"}"))
    with pytest.raises(WeightsError, match="holds 2 of"):
        read_content(path)


def saved(zipped: bool) -> bytes:
    content = io.BytesIO()
    torch.save({"model": NUMBERED}, content, _use_new_zipfile_serialization=zipped)
    return content.getvalue()


NUMBERED = {k: t if t.ndim else t + 10**6 + n for n, (k, t) in enumerate(weights("pycls").items())}
WHOLE = {"archive": saved(True), "older": saved(False), "safetensors": save(NUMBERED)}
EXPECTED = {key: np.asarray(tensor) for key, tensor in NUMBERED.items()}


@pytest.mark.parametrize("kind", WHOLE)
@settings(deadline=None, max_examples=100)
@given(place=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
def test_a_flipped_byte_is_an_error_or_changes_a_number_without_a_checksum(
    kind: str, place: float, mask: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole, number = WHOLE[kind], int(place * len(WHOLE[kind]))
    path = tmp_path_factory.getbasetemp() / "flipped.pth"
    path.write_bytes(whole[:number] + bytes([whole[number] ^ mask]) + whole[number + 1 :])
    tracemalloc.start()
    try:
        state = read_checkpoint(path).state
    except RegNetError:
        return
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 100 * len(whole)  # 300 kB of it to hash the file
    changed = [key for key in state if not np.array_equal(state[key], EXPECTED[key])]
    data = [EXPECTED[key].tobytes() for key in changed]
    starts = [whole.index(numbers) for numbers in data]
    assert kind != "archive" or not changed
    assert all(a <= number < a + len(d) for a, d in zip(starts, data, strict=True))


def seconds(content: Any, names: bool = False) -> float:
    start = time.process_time()
    if names:
        recorded_names(content, 3)
    else:
        assert find_network(content).entry.spec == SPEC
    return time.process_time() - start


def test_what_is_referred_to_often_is_looked_at_once() -> None:
    below: dict[str, Any] = {f"c{n}": 1 for n in range(500)}
    for letter in "ba":
        below = {f"{letter}{n}": below for n in range(500)}
    assert seconds(below, names=True) < 1  # 500 ** 3 looks otherwise
    many = {f"x{n}": 1 for n in range(10_000)}
    assert seconds({"net": NET} | {f"a{n}": many for n in range(2_000)}) < 5


def test_many_prefixes_take_no_longer_each() -> None:
    blocks = {f"p{n}.s1.b1.f.a.weight": torch.zeros(1) for n in range(10_000)}
    assert seconds(NET | blocks) < 10  # 10,000 ** 2 comparisons otherwise


def test_more_networks_than_are_compared() -> None:
    nets = {f"n{n}": weights(seed=n) for n in range(20)}
    with pytest.raises(MismatchError, match=r"20 networks: n0, .*, n15 and 4 more\. Choose one"):
        find_network(nets)
    assert find_network(nets, "n17").entry.name == "n17"


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64, torch.int8, torch.uint16])
def test_two_networks_of_numbers_that_are_no_weights(dtype: Any, tmp_path: Path) -> None:
    nets = ({k: (9 * t).to(dtype) for k, t in weights(seed=seed).items()} for seed in (0, 1))
    torch.save(dict(zip("ab", nets, strict=True)), tmp_path / "a.pth")
    with pytest.raises(MismatchError, match="2 networks: a, b"):
        read_checkpoint(tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=f"has type {dtype}: floating point expected"):
        read_checkpoint(tmp_path / "a.pth", entry="a")


def test_two_tensors_of_one_name() -> None:
    wrapped = {key.replace("conv1.", "conv1._orig_mod."): tensor + 1 for key, tensor in NET.items()}
    with pytest.raises(MismatchError, match=r"two of its tensors are s1\.b1\.conv1\.conv\.weight"):
        find_network(NET | wrapped)
    hub = weights("transformers")
    bare = {key.removeprefix("regnet."): t for key, t in hub.items() if key.startswith("regnet.")}
    with pytest.raises(MismatchError, match="two of its tensors"):
        find_network(hub | bare)


def test_an_average_is_preferred_to_its_own_network_only() -> None:
    other = weights(seed=1)
    found = find_network({"model": under("module.", NET), "model_ema": other})
    assert found.entry.name == "model_ema"
    for content in (
        {"model": under("student.", NET), "model_ema": under("teacher.", other)},
        {
            "state_dict": under("student.", NET) | under("teacher.", weights(seed=2)),
            "state_dict_ema": under("student.", other),
        },
    ):
        with pytest.raises(MismatchError, match="2 networks"):
            find_network(content)


def test_a_number_and_its_text_are_two_entries() -> None:
    nets = {"nets": {0: NET, "0": weights(seed=1)}}
    with pytest.raises(MismatchError, match="2 networks: nets/0, nets/int 0"):
        find_network(nets)
    assert np.array_equal(find_network(nets, "int 0").tensors["head.fc.bias"], NET["head.fc.bias"])


@pytest.mark.parametrize("error", [10**2000, "9" * 400, [1], {}])
def test_errors_of_pycls_that_are_no_numbers(error: Any) -> None:
    content = {"model_state": NET, "ema_state": weights(seed=1), "ema_err": error}
    if error == "9" * 400:  # infinity
        assert find_network(content).entry.name == "model_state"
    else:
        with pytest.raises(WeightsError, match="ema_err is not a number"):
            find_network(content)


@pytest.mark.parametrize("extra", ["head.fc2.weight", "neck.weight", "s1.b1.gate.weight"])
def test_a_network_with_more_in_it_is_not_passed_over(extra: str) -> None:
    student = NET | {extra: torch.ones(3)}
    teacher = weights(seed=1)
    for content, names in (
        ({"student": student, "teacher": teacher}, "teacher, student"),
        (student | under("teacher.", teacher), r"teacher, \."),
    ):
        with pytest.raises(MismatchError, match=f"2 networks: {names}. Choose"):
            find_network(content)
        assert find_network(content, "teacher").entry.name == "teacher"
    momentum = {key: tensor for key, tensor in student.items() if "running" not in key}
    assert find_network({"momentum": momentum, "net": NET}).entry.name == "net"


def test_names_are_those_of_the_network_that_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "two.pth"
    teacher = {"state_dict": weights(seed=1), "meta": {"class_names": ["x", "y", "z"]}}
    torch.save({"student": NET, "teacher": teacher}, path)
    assert read_checkpoint(path, entry="student").labels is None
    assert read_checkpoint(path, entry="teacher").labels == tuple(Label("", n) for n in "xyz")
    torch.save({"student": NET, "teacher": teacher, "classes": ["a", "b", "c"]}, path)
    assert read_checkpoint(path, entry="student").labels == tuple(Label("", n) for n in "abc")


@pytest.mark.parametrize("name", ["a\ud800", "a" * 2000])
def test_names_that_cannot_be_kept(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"model": NET, "class_names": [name, "b", "c"]}, path)
    assert read_checkpoint(path).labels is None


def test_names_in_a_file_do_not_steer_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.pth"
    torch.save({"\x1b[2Jnice": torch.zeros(1)}, path)
    monkeypatch.setattr("sys.argv", ["regnet", "info", str(path)])
    with pytest.raises(SystemExit, match="2"):
        main()
    error = capsys.readouterr().err
    assert "\x1b" not in error
    assert r"\x1b[2Jnice" in error


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of transformers without a description."""
    save_file(weights("transformers"), tmp_path / "model.safetensors")
    return tmp_path


def described(folder: Path, config: Any, preprocessor: Any = None) -> Any:
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor), "utf-8")
    return read_checkpoint(folder)


HUB = {"model_type": "regnet"}
CONVNEXT = {"size": {"shortest_edge": 224}, "crop_pct": 0.875}


@pytest.mark.parametrize(
    ("config", "preprocessor", "message"),
    [
        (HUB | {"hidden_act": "gelu"}, None, "hidden_act 'gelu'.* have 'relu'"),
        (HUB | {"downsample_in_first_stage": False}, None, "downsample_in_first_stage False"),
        ({"architecture": "regnety_040", "model_args": {"act_layer": "silu"}}, None, "act_layer"),
        ({"architecture": "regnety_040", "global_pool": "max"}, None, "global_pool 'max'"),
        (HUB | {"id2label": ["a", "b", "c"]}, None, "id2label is .* not an object"),
        (HUB, CONVNEXT | {"crop_pct": 1e-320}, "preprocessor_config.json cannot be used"),
        (HUB, {"size": {"shortest_edge": float("inf")}}, "cannot be used"),
        (HUB, {"rescale_factor": 0}, "cannot be used"),
        (HUB, {"size": float("nan")}, "cannot be used"),
    ],
)
def test_settings_that_cannot_be_kept_to(
    config: Any, preprocessor: Any, message: str, folder: Path
) -> None:
    with pytest.raises(WeightsError, match=message):
        described(folder, config, preprocessor)


def test_names_in_settings_that_cannot_be_kept(folder: Path) -> None:
    found = described(folder, HUB | {"id2label": {"0": "a\ud800", "1": "b", "2": "c"}})
    with pytest.raises(RegNetError, match="the name of class 0 is not text"):
        describe(Request(weights=folder), found)


@pytest.mark.parametrize("name", ["", ".", "..", "/etc/passwd", "x" * 300, "\ud800", "a\0b"])
def test_names_of_parts_that_are_none(name: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}), "utf-8")
    with pytest.raises(WeightsError, match=r"is not a file of its folder|is missing"):
        described(folder, HUB)


def test_parts_with_the_same_tensor(folder: Path) -> None:
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    for name in names:
        save_file(weights("transformers"), folder / name)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": dict(zip("ab", names, strict=True))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    with pytest.raises(WeightsError, match="as another part of the model has"):
        described(folder, HUB)


def test_weights_of_another_order_in_a_described_folder(tmp_path: Path) -> None:
    torch.save(weights("pycls"), tmp_path / "pytorch_model.bin")
    assert "channels: BGR, the order of pycls" in described(tmp_path, HUB).assumed


def test_a_protocol_that_is_only_approximated_is_said_until_all_of_it_is_given(
    folder: Path,
) -> None:
    found = described(folder, HUB, {"size": {"height": 224, "width": 224}, "resample": 1})
    request = Library(folder=folder).request(folder)

    def said(**given: Any) -> list[str]:
        assumed = describe(Request(weights=request.weights, protocol=given), found).assumed
        return [sentence for sentence in assumed if sentence.startswith("protocol")]

    (whole,) = said()
    assert said(crop=200) == [whole.partition(";")[0]]
    assert "resample 1 cannot be reproduced" in whole
    assert said(name="omz") == said(resize=224, crop=200, interpolation="bilinear") == []
