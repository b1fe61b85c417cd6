"""The folder of a run: whole files, taken up again, never mixed with another run's."""

import json
from pathlib import Path
from typing import Any

import pytest

from regnet.cluster.output import (
    MANIFEST,
    PartitionFile,
    _LocalFolder,
    _StoreFolder,
    open_output,
    part_of,
)
from regnet.data.remote import ObjectStore
from regnet.system.errors import ClusterError, OutputError

RUN = {"version": "1", "model": {"name": "m"}, "options": {"top_k": 5}, "sources": ["a"]}


def part(number: int, data: bytes = b"rows") -> tuple[PartitionFile, bytes]:
    return part_of(number, data, rows=3, failed=1, images=f"hash {number}"), data


@pytest.fixture(params=["path", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "path":
        return str(tmp_path / "deep" / "out")
    fsspec = pytest.importorskip("fsspec")
    fs = fsspec.filesystem("memory")
    if fs.exists("/results"):
        fs.rm("/results", recursive=True)
    return "memory://results/out"


def test_what_was_added_is_there_when_it_is_opened_again(place: str) -> None:
    with open_output(place, RUN) as output:
        assert output.finished() == {}
        output.add(*part(1))
    with open_output(place, RUN) as output:
        assert output.finished() == {"part-00001.parquet": part(1)[0]}
        output.add(*part(0))
        output.complete([part(0)[0], part(1)[0]])
    with open_output(place, RUN) as output:
        assert list(output.finished()) == ["part-00000.parquet", "part-00001.parquet"]
        output.complete([part(0)[0], part(1)[0]])


def test_the_manifest_says_what_there_is(tmp_path: Path) -> None:
    with open_output(str(tmp_path), RUN) as output:
        assert json.loads((tmp_path / MANIFEST).read_text())["complete"] is False
        output.add(*part(0))
        output.complete([part(0)[0]])
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert manifest == {
        "format": 1,
        **RUN,
        "complete": True,
        "images": 3,
        "failed": 1,
        "partitions": [vars(part(0)[0])],
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".lock",
        MANIFEST,
        "part-00000.parquet",
    ]


def test_a_file_that_was_cut_or_removed_counts_as_not_done(tmp_path: Path) -> None:
    with open_output(str(tmp_path), RUN) as output:
        for number in range(3):
            output.add(*part(number))
    (tmp_path / "part-00000.parquet").write_bytes(b"row")
    (tmp_path / "part-00001.parquet").unlink()
    with open_output(str(tmp_path), RUN) as output:
        assert list(output.finished()) == ["part-00002.parquet"]


def folder_of(place: str) -> Any:
    """Return the files of a place, to be read and written as they are."""
    if "://" not in place:
        return _LocalFolder(Path(place))
    return _StoreFolder(ObjectStore(place))


@pytest.mark.parametrize("name", ["version", "model", "options", "sources"])
def test_another_run_is_refused_and_named(place: str, name: str) -> None:
    with open_output(place, RUN):
        pass
    with (
        pytest.raises(OutputError, match=f'another {name}: .*, now "other"'),
        open_output(place, {**RUN, name: "other"}),
    ):
        pass


def test_what_a_killed_run_was_writing_is_not_taken_for_its_results(tmp_path: Path) -> None:
    with open_output(str(tmp_path), RUN) as output:
        output.add(*part(1))
    (record,) = (tmp_path / "_finished").iterdir()
    (tmp_path / "_finished" / f".{record.name}.x1y2z3").mkdir()  # as version 1.0 left them
    (tmp_path / "_finished" / ".regnet-12345678.tmp").touch()
    (tmp_path / ".regnet-12345678.tmp").touch()
    with open_output(str(tmp_path), RUN) as output:
        assert list(output.finished()) == ["part-00001.parquet"]


@pytest.mark.parametrize(
    "record", [b"", b"{", b"[]", b"5", b"{}", b"[" * 9999, b'{"file": []}', "cut", "typed"]
)
def test_a_damaged_record_counts_as_none(place: str, record: bytes | str) -> None:
    with open_output(place, RUN) as output:
        output.add(*part(0))
        output.add(*part(1))
    whole = json.dumps(vars(part(1)[0])).encode()
    damaged = {"cut": whole[:-9], "typed": whole.replace(b'"rows": 3', b'"rows": "3"')}
    folder = folder_of(place)
    folder.write("_finished/part-00001.json", damaged.get(record, record))
    with open_output(place, RUN) as output:
        assert output.finished() == {"part-00000.parquet": part(0)[0]}
        output.add(*part(1))
        assert len(output.finished()) == 2


def test_a_run_killed_while_it_put_its_records_away_has_them_all(place: str) -> None:
    with open_output(place, RUN) as output:
        for number in range(3):
            output.add(*part(number))
        record = folder_of(place).read("_finished/part-00001.json")
        output.complete([part(number)[0] for number in range(3)])
    folder_of(place).write("_finished/part-00001.json", record)
    for _ in range(2):
        with open_output(place, RUN) as output:
            assert len(output.finished()) == 3
            output.complete([part(number)[0] for number in range(3)])
        assert folder_of(place).names("_finished") == []


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(OutputError, match="holds other files"), open_output(str(tmp_path), RUN):
        pass


def test_a_file_or_a_damaged_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"), open_output(str(tmp_path / "file"), RUN):
        pass
    for manifest in ("", "[", "[]", "[" * 9999, '{"partitions": 1}', '{"partitions": [{}]}'):
        (tmp_path / MANIFEST).write_text(manifest)
        with pytest.raises(OutputError, match=r"_manifest.json: is damaged .*: remove the folder"):
            open_output(str(tmp_path), RUN).__enter__()


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    with (
        open_output(str(tmp_path), RUN),
        pytest.raises(ClusterError, match="another run"),
        open_output(str(tmp_path), RUN),
    ):
        pass


def test_where_nothing_can_be_written_is_an_error() -> None:
    with pytest.raises(OutputError, match="cannot write"), open_output("/proc/none/out", RUN):
        pass
