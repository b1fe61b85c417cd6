import os
import pickle
import shutil
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from regnet.system.errors import OutputError, TrainingError
from regnet.training.run_folder import FORMAT, LAST, read_run, require_room, write_checkpoint

VALUES = {
    "network": {"stem.conv.weight": torch.arange(24.0).view(2, 3, 2, 2)},
    "bf16": torch.ones(3, dtype=torch.bfloat16),
    "average": None,
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]},
    "position": {"epoch": 3, "step": 17},
    "recipe": 'name = "größe"\n',
    "records": [{"epoch": 1, "loss": 0.5, "val_top1": None}],
    "done": True,
}


def same(one, two):
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(same, one, two))
    return type(one) is type(two) and one == two


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def written(folder, step=0):
    path = folder / LAST
    write_checkpoint(path, {**VALUES, "step": step})
    return path


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    path = written(tmp_path / "new" / "folder")
    assert same(read_run(path), {**VALUES, "step": 0, "format": FORMAT})
    assert names(path.parent) == [LAST]


def test_tensors_come_back_with_their_layout(tmp_path):
    weight = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    write_checkpoint(tmp_path / LAST, {"weight": weight})
    found = read_run(tmp_path / LAST)["weight"]
    assert torch.equal(found, weight)
    assert found.stride() == weight.stride()


def test_a_checkpoint_takes_the_place_of_the_one_before(tmp_path):
    for step in range(3):
        assert read_run(written(tmp_path, step))["step"] == step
    assert names(tmp_path) == [LAST]


def test_a_checkpoint_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor):
        calls.append("fsync")
        fsync(descriptor)

    def noted_replace(self, target):
        calls.append(f"replace {Path(target).name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    written(tmp_path)
    assert calls == ["fsync", f"replace {LAST}"]


@contextmanager
def small_disk(limit):
    """Let the system refuse to make any file larger than so many bytes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("limit", [0, 1000, 10_000, 300_000])
def test_a_full_disk_leaves_the_checkpoint_before_and_says_why(tmp_path, limit):
    path = written(tmp_path, step=1)
    larger = {**VALUES, "step": 2, "more": torch.zeros(100_000)}
    with small_disk(limit), pytest.raises(OutputError) as caught:
        write_checkpoint(path, larger)
    message = str(caught.value)
    assert str(path) in message
    assert os.strerror(27) in message  # as "No space left on device" would be
    assert "--resume" in message
    assert "inline_container" not in message
    assert names(tmp_path) == [LAST]
    assert read_run(path)["step"] == 1
    write_checkpoint(path, larger)
    assert read_run(path)["step"] == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_stops_a_write_half_way_leaves_the_checkpoint_before(tmp_path, monkeypatch, error):
    path = written(tmp_path, step=1)

    def half(values, file):
        file.write(b"PK\x03\x04 and no more")
        file.flush()
        raise error

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(error):
        written(tmp_path, step=2)
    assert names(tmp_path) == [LAST]
    assert read_run(path)["step"] == 1


def killed_in_the_middle(folder):
    """Leave what a run does that is killed while it writes."""
    (folder / ".regnet-abcd1234.tmp").write_bytes(b"PK\x03\x04 and no more")


@pytest.mark.parametrize("then", [written, lambda folder: require_room(folder, 1)])
def test_what_a_killed_run_left_is_ignored_and_then_removed(tmp_path, then):
    path = written(tmp_path, step=1)
    killed_in_the_middle(tmp_path)
    (tmp_path / f".{LAST}").mkdir()
    (tmp_path / f"{LAST}.old").mkdir()
    assert read_run(path)["step"] == 1
    then(tmp_path)
    assert names(tmp_path) == [f".{LAST}", LAST, f"{LAST}.old"]


def test_room_is_looked_for_once_leftovers_are_gone(tmp_path, monkeypatch):
    killed_in_the_middle(tmp_path)
    usage = namedtuple("usage", "free")

    def disk_usage(folder):
        leftovers = [name for name in names(folder) if "abcd1234" in name]
        return usage(0 if leftovers else 100)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    require_room(tmp_path, 100)


def test_a_checkpoint_that_cannot_have_its_name_says_why(tmp_path):
    (tmp_path / LAST).mkdir()
    with pytest.raises(OutputError, match=r"cannot write the checkpoint .*: Is a directory; "):
        written(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write the checkpoint"):
        written(tmp_path / "file")
    assert names(tmp_path) == ["file", LAST]


def test_without_a_checkpoint_there_is_nothing_to_resume(tmp_path):
    with pytest.raises(TrainingError, match=r"last.ckpt: there is no run to resume; leave out"):
        read_run(tmp_path / LAST)


class _Evil:
    def __reduce__(self):
        return os.mkdir, ("hacked",)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"PK\x03\x04" + bytes(500),
        b"PK\x05\x06" + bytes(18),
        bytes(1 << 16),
        pickle.dumps({"format": FORMAT}),
        pickle.dumps(_Evil()),
    ],
    ids=["empty", "text", "half a zip", "empty zip", "zeros", "pickle", "code"],
)
def test_other_files_are_refused_and_run_no_code(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / LAST).write_bytes(data)
    with pytest.raises(TrainingError) as caught:
        read_run(tmp_path / LAST)
    message = str(caught.value)
    assert "is damaged, or no checkpoint of a run; start again in another folder" in message
    assert "weights_only" not in message  # torch would advise to run what is inside
    assert names(tmp_path) == [LAST]


@pytest.mark.parametrize(
    "values",
    [
        *({}, {"format": FORMAT + 1}, {"format": "1"}, {"format": torch.ones(3)}, {"format": None}),
        *([1], torch.ones(3), {"model_state": {}}),
    ],
    ids=repr,
)
def test_checkpoints_of_other_kinds_are_refused(tmp_path, values):
    torch.save(values, tmp_path / LAST)
    with pytest.raises(TrainingError, match="is not a checkpoint of a run of this version; start"):
        read_run(tmp_path / LAST)


def test_checkpoints_that_hold_code_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": FORMAT, "records": _Evil()}, tmp_path / LAST)
    with pytest.raises(TrainingError, match="is damaged, or no checkpoint"):
        read_run(tmp_path / LAST)
    assert names(tmp_path) == [LAST]


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(tmp_path, share):
    path = written(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(TrainingError, match="is damaged"):
        read_run(path)


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(TrainingError, match=r"cannot read .*: Is a directory"):
        read_run(tmp_path)


def test_room_is_looked_for_in_the_folder_of_the_run(tmp_path):
    folder = tmp_path / "runs" / "one"
    require_room(folder, 1)
    assert folder.is_dir()
    assert names(folder) == []
    needed = "checkpoints need 1,099,511,627,776 MiB: make room, or name a folder on another disk"
    with pytest.raises(OutputError, match=rf"one: [\d,]+ MiB are free, {needed}"):
        require_room(folder, 1 << 60)


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write to .*file/run: Not a directory"):
        require_room(tmp_path / "file" / "run", 1)
