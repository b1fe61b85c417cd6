"""A converted model knows the checksum of its weights."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from regnet.conversion.store import Library
from regnet.inference.classify import Classifier
from regnet.ir.constants import set_values
from regnet.ir.engine import Engine, read_model
from regnet.ir.graph import graph_metadata, read_graph, write_ir
from regnet.pixels.samples import sample_photos
from regnet.system.errors import ConversionError, ModelError
from regnet.system.runtime import core, ov
from regnet.zoo.catalogue import bundled_path, card_by_name

BUNDLED = bundled_path(card_by_name("bundled"))
INT8 = BUNDLED.with_name("bundled-int8.xml")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    for suffix in (".xml", ".bin"):
        shutil.copyfile(BUNDLED.with_suffix(suffix), tmp_path / f"m{suffix}")
    return tmp_path / "m.xml"


def flip_bit(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 0x40
    path.write_bytes(data)


@pytest.mark.parametrize("path", [BUNDLED, INT8], ids=["fp16", "int8"])
def test_the_bundled_models_are_what_their_checksums_say(path: Path) -> None:
    assert b'<bin_sha256 value="' in path.read_bytes()
    read_graph(path)


@pytest.mark.parametrize("at", [0.0, 0.3, 0.999, 1.0])
def test_a_flipped_bit_is_refused_and_the_cache_is_not_blamed(model: Path, at: float) -> None:
    compiled = model.parent / "compiled"
    Classifier(model, compiled_cache=compiled).classify(sample_photos()[0])
    flip_bit(model.with_suffix(".bin"), at)
    with pytest.raises(ModelError, match=r"m\.bin is damaged.*m\.xml\); convert it again") as error:
        Classifier(model, compiled_cache=compiled)
    assert "cache" not in str(error.value)
    assert "compiled" not in str(error.value)


@pytest.mark.parametrize("change", [b"", b"half", b"more"])
def test_weights_of_another_size_are_refused_the_same_way(model: Path, change: bytes) -> None:
    weights = model.with_suffix(".bin")
    data = weights.read_bytes()
    weights.write_bytes({b"": b"", b"half": data[: len(data) // 2]}.get(change, data + b"more"))
    with pytest.raises(ModelError, match=r"m\.bin is damaged"):
        read_graph(model)


def test_the_command_line_says_it_in_one_line(model: Path) -> None:
    flip_bit(model.with_suffix(".bin"), 0.5)
    command = [sys.executable, "-m", "regnet", "classify", "-m", str(model), sample_photos()[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "m.bin is damaged" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_damaged_conversion_in_the_cache_says_what_to_remove(
    tmp_path: Path, shared: Path
) -> None:
    library = Library(folder=tmp_path)
    weights = shared / "weights" / "regnetx-400mf_tiny200.pyth"
    path = library.ir(weights)
    before = path.with_suffix(".bin").stat()
    flip_bit(path.with_suffix(".bin"), 0.5)
    os.utime(path.with_suffix(".bin"), ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ModelError, match=f"remove {path.parent} and convert it again"):
        read_model(library.ir(weights))
    shutil.rmtree(path.parent)
    read_model(library.ir(weights))


def test_models_without_a_checksum_are_read(tmp_path: Path) -> None:
    """Those of earlier versions, and those that other tools wrote."""
    graph = read_graph(BUNDLED)
    metadata = graph_metadata(graph, source="m")
    graph.set_rt_info(metadata.to_strings(), ["regnet"])
    ov.save_model(graph, tmp_path / "old.xml", compress_to_fp16=False)
    assert b"bin_sha256" not in (tmp_path / "old.xml").read_bytes()
    assert Engine(read_model(tmp_path / "old.xml")).metadata == metadata


def test_a_model_that_was_changed_and_written_again_gets_its_own_checksum(tmp_path: Path) -> None:
    graph = read_graph(BUNDLED)
    metadata = graph_metadata(graph, source="m")
    add = next(op for op in graph.get_ordered_ops() if op.get_friendly_name() == "logits")
    set_values(add, 1, add.input_value(1).get_node().data + 1)
    names = write_ir(graph, metadata, tmp_path / "m.xml")
    assert names == ["m.bin", "m.xml"]
    recorded = [p.read_bytes().split(b'bin_sha256 value="')[1][:64] for p in (
        BUNDLED, tmp_path / "m.xml")]  # fmt: skip
    assert recorded[0] != recorded[1]
    assert graph_metadata(read_graph(tmp_path / "m.xml"), source="m") == metadata


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.bin").symlink_to("/dev/full")
    graph = read_graph(BUNDLED)
    with pytest.raises(ConversionError, match=r"cannot write m\.xml: the disk is full, or .*room"):
        write_ir(graph, graph_metadata(graph, source="m"), tmp_path / "m.xml")


def test_the_checksum_is_that_of_sha256sum(model: Path) -> None:
    recorded = core.read_model(model).get_rt_info(["regnet", "bin_sha256"]).astype(str)
    assert recorded == hashlib.sha256(model.with_suffix(".bin").read_bytes()).hexdigest()
