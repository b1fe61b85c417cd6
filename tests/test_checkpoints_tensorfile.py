import contextlib
import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regnet.system.errors import UnsafeError, WeightsError

torch = pytest.importorskip("torch")
from safetensors.torch import save  # noqa: E402

from regnet.checkpoints.entries import find_network  # noqa: E402
from regnet.checkpoints.tensorfile import read_content  # noqa: E402

Save = Callable[[Any, Path], None]


def save_zip(content: Any, path: Path) -> None:
    torch.save(content, path)


def save_legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


both = pytest.mark.parametrize("save_as", [save_zip, save_legacy])


class Runs:
    """Unpickles by calling a function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def tensors(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"a.weight": torch.full((2, 3), value), "a.bias": torch.arange(3.0)}


@both
def test_plain_state_dict(save_as: Save, tmp_path: Path) -> None:
    path = tmp_path / "plain.pth"
    save_as(OrderedDict(tensors()), path)
    content = read_content(path)
    assert content.metadata == {}
    assert all(np.array_equal(content.value[k], v) for k, v in tensors().items())


def test_safetensors_with_foreign_metadata(tmp_path: Path) -> None:
    path = tmp_path / "named.bin"
    path.write_bytes(save(tensors(), {"format": "pt"}))
    content = read_content(path)
    assert content.metadata == {"format": "pt"}
    assert np.array_equal(content.value["a.bias"], torch.arange(3.0))


def test_a_bare_pickle_of_tensors(tmp_path: Path) -> None:
    path = tmp_path / "pickled.pkl"
    path.write_bytes(pickle.dumps({"epoch": 3, "model": tensors()}, 4))
    value = read_content(path).value
    assert value["epoch"] == 3
    assert np.array_equal(value["model"]["a.bias"], torch.arange(3.0))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"\n<!DOCTYPE html><html>404</html>", "a web page"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
        (b"hello, world", "neither a PyTorch nor a safetensors file"),
        (b"PK\x03\x04 and no more", "truncated or corrupt"),
        (b"\x80\x02", "truncated or corrupt"),
        (save(tensors())[:60], "a truncated safetensors file"),
        (save(tensors())[:-1], "truncated or corrupt safetensors"),
        (b"\x02\0\0\0\0\0\0\0{}", "no named tensors"),
    ],
)
def test_files_that_are_no_checkpoint(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        read_content(path)
    assert str(path) in str(caught.value)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No such file"):
        read_content(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match=r"cannot read .*[Dd]irectory"):
        read_content(tmp_path)


def test_other_archives(tmp_path: Path) -> None:
    other, squeezed = tmp_path / "photos.zip", tmp_path / "squeezed.pth"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("photo.jpg", b"x")
    with pytest.raises(WeightsError, match="a zip archive of something else"):
        read_content(other)
    with zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 1000)
    with pytest.raises(WeightsError, match="compressed zip archive"):
        read_content(squeezed)


def test_torchscript_is_code(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"archive/{name}", b"x")
    with pytest.raises(UnsafeError, match="TorchScript"):
        read_content(path)


def attacks(marker: Path) -> dict[str, Runs]:
    return {
        f"{os.name if os.name == 'nt' else 'posix'}.system": Runs(os.system, f"echo > {marker}"),
        "eval": Runs(eval, f"open({str(marker)!r}, 'w')"),
        "pathlib.Path.touch": Runs(Path.touch, marker),
    }


@pytest.mark.parametrize("attack", range(3))
@pytest.mark.parametrize("place", ["top", "state", "beside"])
@both
def test_code_in_a_pickle_is_refused_and_not_run(
    save_as: Save, place: str, attack: int, tmp_path: Path
) -> None:
    marker = tmp_path / "executed"
    name, evil = list(attacks(marker).items())[attack]
    content: dict[str, Any] = {
        "top": evil,
        "state": {"model_state": {**tensors(), "b": evil}},
        "beside": {"model_state": tensors(), "cfg": evil},
    }
    path = tmp_path / "evil.pth"
    save_as(content[place], path)
    with pytest.raises(UnsafeError, match="would run code") as caught:
        read_content(path)
    assert not marker.exists()
    asked = name if attack < 2 else ("getattr", "pathlib")
    assert any(word in str(caught.value) for word in ([asked] if isinstance(asked, str) else asked))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_code_in_a_bare_pickle_of_any_protocol(protocol: int, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"a": Runs(os.system, f"echo > {marker}")}, protocol))
    with pytest.raises(WeightsError) as caught:
        read_content(path)
    assert not marker.exists()
    if protocol >= 2:  # older ones begin like any text
        assert isinstance(caught.value, UnsafeError)
        assert "system" in str(caught.value)


def test_the_attacks_would_work_on_an_ordinary_reader(tmp_path: Path) -> None:
    for number, evil in enumerate(attacks(tmp_path / "executed").values()):
        (tmp_path / "executed").unlink(missing_ok=True)
        path = tmp_path / f"{number}.pth"
        torch.save(evil, path)
        value = torch.load(path, weights_only=False)
        if hasattr(value, "close"):
            value.close()
        assert (tmp_path / "executed").exists()


def test_whole_models_are_named(tmp_path: Path) -> None:
    path = tmp_path / "whole.pth"
    torch.save(torch.nn.ReLU(), path)
    with pytest.raises(UnsafeError, match=r"asks for torch\.nn\.modules\.activation\.ReLU"):
        read_content(path)


def test_damaged_bits_of_an_archive_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "damaged.pth"
    save_zip({"a": torch.full((1000,), 7.0)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((4,), 7.0).numpy().tobytes()) + 2000] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="fails its checksum"):
        read_content(path)


def test_files_written_without_checksums(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    try:
        torch.serialization.set_crc32_options(False)
        torch.save(tensors(), path)
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(path) as archive:
        assert {member.CRC for member in archive.infolist()} == {0}
    read = read_content(path).value
    assert all(np.array_equal(read[key], tensor) for key, tensor in tensors().items())
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(WeightsError, match="truncated or corrupt"):
        read_content(path)


def contents() -> list[bytes]:
    buffers = [io.BytesIO(), io.BytesIO()]
    torch.save({"model_state": tensors(), "test_err": np.float64(3)}, buffers[0])
    torch.save(tensors(), buffers[1], _use_new_zipfile_serialization=False)
    return [*(buffer.getvalue() for buffer in buffers), save(tensors(), {"regnet": "{}"})]


WHOLE = contents()


def test_a_member_said_to_be_longer_than_the_archive(tmp_path: Path) -> None:
    content = bytearray(WHOLE[0])
    directory = content.index(b"PK\x01\x02")
    content[directory + 20 : directory + 28] = struct.pack("<II", 1 << 30, 1 << 30)
    path = tmp_path / "longer.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"truncated or corrupt: ."):
        read_content(path)


@settings(deadline=None, max_examples=300)
@given(which=st.integers(0, 2), data=st.data())
def test_any_damage_is_an_error_of_ours_or_harmless(
    which: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(WHOLE[which])
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    for _ in range(data.draw(st.integers(0, 3)) if content else 0):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    path.write_bytes(content)
    # Any other exception, or a crash, fails.
    with contextlib.suppress(WeightsError):
        find_network(read_content(path).value)
