"""Records of runs: they come back as written, and a killed writer loses none of them."""

import json
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import pytest

from regnet.network.spec import AnyNetSpec, Stage, spec_by_name
from regnet.space.records import RecordFile, RunRecord, Setting, read_records
from regnet.system.errors import OutputError, SpaceError

SETTING = Setting(
    data="photos@0", train_photos=90, val_photos=10, classes=4, image_size=32, epochs=2, recipe="r"
)


def record(seed: int = 0, **values: object) -> RunRecord:
    made = RunRecord(
        space="anynetx-a",
        spec=AnyNetSpec(stages=(Stage(1, 16, 8), Stage(2, 32, 8, 2)), classes=4),
        params=1,
        macs=2,
        acts=3,
        setting=SETTING,
        seed=seed,
        errors=(0.75, 0.1 + 0.2),
        losses=(1.4, 1.2),
        seconds=1.5,
        machine="a CPU",
        started="2026-01-02T03:04:05+00:00",
        tool="1",
    )
    return replace(made, **values)  # type: ignore[arg-type]


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    written = [record(0), record(1, spec=spec_by_name("regnety-400mf"), failure="why")]
    with RecordFile(path) as file:
        for one in written:
            file.append(one)
        assert file.records == tuple(written)
    assert read_records([path]) == written
    assert path.read_text().count("\n") == 2
    assert [one.error for one in written] == [0.1 + 0.2, None]


def test_the_key_is_of_what_is_run_alone() -> None:
    same = record(errors=(), failure="x", seconds=9.0, machine="another", started="", tool="2")
    assert same.key == record().key
    others = [
        record(1),
        record(space="regnetx"),
        record(spec=spec_by_name("regnetx-200mf")),
        record(setting=replace(SETTING, epochs=3)),
    ]
    assert len({one.key for one in [record(), *others]}) == 5


def test_of_two_records_of_a_run_the_last_counts(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with RecordFile(path) as file:
        file.append(record(failure="lost"))
        file.append(record(1))
        file.append(record())
    with RecordFile(path) as file:
        assert file.keys() == {record().key, record(1).key}
        assert file.records == (record(), record(1))
        file.append(record(2, failure="lost"))
        assert file.keys() - file.keys(failed=False) == {record(2).key}


@pytest.mark.parametrize("cut", [1, 30, -2])
def test_a_torn_last_line_is_left_out_and_then_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "r.jsonl"
    line = json.dumps(record(1).to_dict()).encode() + b"\n"
    with RecordFile(path) as file:
        file.append(record())
    whole = path.read_bytes()
    path.write_bytes(whole + line[:cut])
    assert read_records([path]) == [record()]
    with RecordFile(path) as file:
        file.append(record(1))
    assert path.read_bytes() == whole + line


def test_a_last_line_without_its_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(record().to_dict()))
    with RecordFile(path) as file:
        file.append(record(1))
    assert read_records([path]) == [record(), record(1)]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"errors": [2.0]}, r"errors must be a list of a finite number from 0 to 1, not \[2.0\]"),
        ({"errors": [float("nan")]}, r"errors must be .*, not \[nan\]"),
        ({"errors": "no"}, "errors must be a list of .*, not 'no'"),
        ({"macs": 1.5}, "macs must be a whole number of at least 0, not 1.5"),
        ({"seed": True}, "seed must be .*, not True"),
        ({"more": 1}, "unknown field 'more'; known: space, spec"),
        ({"spec": {"d": 1}}, "spec: the field 'w0' is missing"),
        ({"setting": {}}, "setting: the field 'data' is missing"),
        ({"failure": 3}, "failure must be a text or None, not 3"),
    ],
)
def test_what_is_no_record_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(SpaceError, match=says):
        RunRecord.from_dict(record().to_dict() | change)


def test_errors_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    good = json.dumps(record().to_dict())
    path.write_text(f"{good}\n\n{good[:40]}\n{good}\n")
    with pytest.raises(SpaceError, match=r"r\.jsonl, line 3: not a record"):
        read_records([path])
    with pytest.raises(SpaceError, match="line 3"):
        RecordFile(path)
    with pytest.raises(SpaceError, match="cannot read the records"):
        read_records([tmp_path / "none"])


def _append(path: Path, first: int) -> None:
    with RecordFile(path) as file:
        for seed in range(first, first + 40):
            file.append(record(seed, machine="m" * 5000))


def test_two_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append, args=(path, first)) for first in (0, 100)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert {one.seed for one in read_records([path])} == {*range(40), *range(100, 140)}


def test_a_full_disk_leaves_no_part_of_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.jsonl"
    write, calls = os.write, []

    def full(file: int, data: bytes) -> int:
        calls.append(data)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return write(file, data[:50])

    with RecordFile(path) as file:
        file.append(record())
        before = path.read_bytes()
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OutputError, match="No space left on device; make room"):
            file.append(record(1))
        monkeypatch.undo()
        assert path.read_bytes() == before
        file.append(record(1))
    assert read_records([path]) == [record(), record(1)]


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        RecordFile(tmp_path / "none" / "r.jsonl")


@pytest.mark.parametrize("name", ["/dev/stdout", "pipe"])
def test_records_are_not_for_a_stream(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="name a file"):
        RecordFile(tmp_path / name)
