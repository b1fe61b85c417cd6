"""Predictions as text and files: readable at any time, whole or not there."""

import csv
import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regnet.inference.result import ClassScore, Prediction, Wanted
from regnet.inference.writers import OutputFormat, format_of, open_writer
from regnet.system.errors import OutputError

GOOD = Prediction(
    'odd "name",\n.jpg', (ClassScore(0, "n1", "tench, Tinca tinca", 0.5),), None, "bundled"
)
BAD = Prediction("é.jpg", (), "the file is empty", "bundled")
FORMATS: list[OutputFormat] = ["table", "json", "jsonl", "csv", "parquet"]


TWO = (ClassScore(4, "", "shark", 0.5), ClassScore(2, "", "eel", 0.25))
SET = Prediction("a.jpg", TWO[:1], None, "m", set=TWO, coverage=0.95, unknown=True)
NO_SET = Prediction("b.jpg", (), "the file is empty", "m", set=(), coverage=0.95, unknown=True)


def read(path: Path, format: str) -> list[dict]:
    if format == "parquet":
        import pyarrow.parquet as pq

        return pq.read_table(path).to_pylist()
    text = path.read_text("utf-8")
    if format == "json":
        return json.loads(text)
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("format", ["json", "jsonl", "parquet"])
def test_what_is_written_can_be_read(format: OutputFormat, tmp_path: Path) -> None:
    for predictions in ([], [GOOD], [GOOD, BAD] * 700):
        with open_writer(tmp_path / "out", format) as write:
            for prediction in predictions:
                write(prediction)
        assert read(tmp_path / "out", format) == [p.to_dict() for p in predictions]


def test_csv_quotes_what_needs_it(tmp_path: Path) -> None:
    with open_writer(tmp_path / "out.csv", "csv") as write:
        write(GOOD)
        write(BAD)
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["source"] == GOOD.source
    assert (rows[0]["label"], float(rows[0]["probability"])) == ("tench, Tinca tinca", 0.5)
    assert (rows[1]["source"], rows[1]["error"]) == ("é.jpg", "the file is empty")


@pytest.mark.parametrize("format", ["json", "jsonl", "parquet"])
def test_sets_are_written_where_they_are_wanted(format: OutputFormat, tmp_path: Path) -> None:
    with open_writer(tmp_path / "out", format, Wanted(sets=True, unknown=True)) as write:
        write(SET)
        write(NO_SET)
    found = read(tmp_path / "out", format)
    assert found == [SET.to_dict(), NO_SET.to_dict()]
    assert list(found[0])[4:] == ["set", "coverage", "unknown"]
    assert [score["index"] for score in found[0]["set"]] == [4, 2]


def written(predictions: list[Prediction], format: OutputFormat, wanted: Wanted) -> str:
    text = io.StringIO()
    with open_writer(text, format, wanted) as write:
        for prediction in predictions:
            write(prediction)
    return text.getvalue()


def test_csv_has_a_row_for_each_class_of_a_set() -> None:
    assert written([SET, NO_SET], "csv", Wanted(sets=True, unknown=True)) == (
        "source,rank,index,wnid,label,probability,error,model,set,coverage,unknown\n"
        "a.jpg,1,4,,shark,0.5,,m,true,0.95,true\n"
        "a.jpg,2,2,,eel,0.25,,m,true,0.95,true\n"
        "b.jpg,,,,,,the file is empty,m,,0.95,true\n"
    )


def test_rows_of_other_classes_are_not_in_the_set() -> None:
    smaller = Prediction("a.jpg", TWO, None, "m", set=TWO[:1], coverage=0.9)
    rows = written([smaller], "csv", Wanted(sets=True)).splitlines()
    assert [row.split(",")[-2] for row in rows] == ["set", "true", "false"]


def test_the_table_shows_the_set_and_what_is_unknown() -> None:
    classes = "   50.0 %  ██████████            shark\n   25.0 %  █████                 eel\n"
    unknown = "  unknown: no single class is the true one with probability 95 %\n"
    holds = "  set of 2 classes contains the true class with probability 95 %\n"
    assert written([SET], "table", Wanted(sets=True)) == f"a.jpg\n{unknown}{classes}{holds}"
    only = Prediction("a.jpg", TWO, None, "m", coverage=0.95, unknown=True)
    assert written([only], "table", Wanted(unknown=True)) == f"a.jpg\n{unknown}"
    known = Prediction("a.jpg", TWO, None, "m", coverage=0.95, unknown=False)
    assert written([known], "table", Wanted(unknown=True)) == f"a.jpg\n{classes}"
    none = Prediction("a.jpg", TWO, None, "m", set=(), coverage=0.95)
    assert "set of 0 classes contains" in written([none], "table", Wanted(sets=True))


def test_what_was_not_asked_for_leaves_no_trace() -> None:
    """The formats are contracts: every byte as it was before there were sets."""
    plain = Prediction("a.jpg", TWO[:1], None, "m")
    expected: dict[OutputFormat, str] = {
        "table": "a.jpg\n   50.0 %  ██████████            shark\n",
        "jsonl": '{"source": "a.jpg", "predictions": [{"index": 4, "wnid": "", "label": "shark", '
        '"probability": 0.5}], "error": null, "model": "m"}\n',
        "csv": "source,rank,index,wnid,label,probability,error,model\na.jpg,1,4,,shark,0.5,,m\n",
    }
    for name, text in expected.items():
        assert written([plain], name, Wanted()) == text


@pytest.mark.parametrize("format", FORMATS)
def test_an_interrupt_completes_the_file(format: OutputFormat, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_writer(tmp_path / "out", format) as write:
        write(GOOD)
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    if format in ("json", "jsonl", "parquet"):
        assert read(tmp_path / "out", format) == [GOOD.to_dict()]


@pytest.mark.parametrize("format", FORMATS)
def test_a_failure_leaves_an_older_file_alone(format: OutputFormat, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("older")
    with pytest.raises(ZeroDivisionError), open_writer(tmp_path / "out", format) as write:
        write(GOOD)
        raise ZeroDivisionError
    assert (tmp_path / "out").read_text() == "older"


def test_lines_are_written_at_once(tmp_path: Path) -> None:
    with open_writer(tmp_path / "out.jsonl", "jsonl") as write:
        write(GOOD)
        assert json.loads((tmp_path / "out.jsonl.part").read_text()) == GOOD.to_dict()


def test_an_interrupt_leaves_an_older_file_alone(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("older")
    with pytest.raises(KeyboardInterrupt), open_writer(tmp_path / "out.jsonl", "jsonl") as write:
        write(GOOD)
        raise KeyboardInterrupt
    assert (tmp_path / "out.jsonl").read_text() == "older"
    assert json.loads((tmp_path / "out.jsonl.part").read_text()) == GOOD.to_dict()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.jsonl").write_text("older")
    (tmp_path / "link.jsonl").symlink_to("real.jsonl")
    with open_writer(tmp_path / "link.jsonl", "jsonl") as write:
        write(GOOD)
    assert (tmp_path / "link.jsonl").is_symlink()
    assert json.loads((tmp_path / "real.jsonl").read_text()) == GOOD.to_dict()


def test_an_error_of_the_source_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with pytest.raises(OSError, match="of the source") as caught, open_writer(out, "jsonl"):
        raise OSError("of the source")
    assert not isinstance(caught.value, OutputError)


def test_control_characters_do_not_reach_a_terminal() -> None:
    text = io.StringIO()
    with open_writer(text, "table") as write:
        write(Prediction("\x1b[31m\n.png", (), "bad \x07", "bundled"))
    assert text.getvalue() == "\\x1b[31m\\n.png\n    error: bad \\x07\n"


def test_places_that_cannot_be_written_to(tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "out.csv", tmp_path):
        with pytest.raises(OutputError, match="cannot write"), open_writer(path, "csv") as write:
            write(GOOD)


def test_parquet_is_not_for_a_terminal() -> None:
    with pytest.raises(OutputError, match="name a file"), open_writer(io.StringIO(), "parquet"):
        pass


def test_the_ending_says_the_format() -> None:
    names = ("a.json", "a.JSONL", "a.ndjson", "a.csv", "a.parquet", "a.txt", "a")
    expected = ["json", "jsonl", "jsonl", "csv", "parquet", "table", "table"]
    assert [format_of(Path(name)) for name in names] == expected
    with pytest.raises(OutputError, match=r"a\.xlsx.*--format"):
        format_of(Path("a.xlsx"))


def test_a_device_is_written_to_and_stays_one() -> None:
    null, full = Path(os.devnull), Path("/dev/full")
    with open_writer(null, "jsonl") as write:
        write(GOOD)
    assert null.is_char_device()
    if not full.is_char_device():
        pytest.skip("needs /dev/full")
    with pytest.raises(OutputError, match="No space"), open_writer(full, "jsonl") as write:
        write(GOOD)
    assert full.is_char_device()


@pytest.mark.parametrize("format", FORMATS)
def test_a_pipe_gets_what_a_file_would(format: OutputFormat, tmp_path: Path) -> None:
    pipe, file = tmp_path / "pipe", tmp_path / "file"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        data = pool.submit(pipe.read_bytes)
        for path in (pipe, file):
            with open_writer(path, format) as write:
                write(GOOD)
        assert data.result(10) == file.read_bytes() != b""
    assert pipe.is_fifo()


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_by_its_name(name: str, tmp_path: Path) -> None:
    """What was there before stays, as with `>>`; what is printed comes in its order."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc")
    file = tmp_path / "out"
    file.write_text("before\n")
    program = (
        "from pathlib import Path; from regnet.system.files import write_whole; "
        f"print('one'); write_whole(Path({name!r}), b'two\\n'); print('three')"
    )
    with file.open("ab") as stdout:
        subprocess.run([sys.executable, "-c", program], stdout=stdout, check=True)
    assert file.read_text() == "before\none\ntwo\nthree\n"


def test_a_descriptor_that_is_closed() -> None:
    closed = Path("/dev/fd/987654")
    with pytest.raises(OutputError, match="Bad file descriptor"), open_writer(closed, "csv"):
        pass


FRAME = Prediction("a.mp4", TWO[:1], None, "m", timestamp=1.5)
NO_FRAME = Prediction("a.mp4", (), "damaged", "m", timestamp=2.0)
WITH_VIDEO = Wanted(timestamps=True)


@pytest.mark.parametrize("format", ["json", "jsonl", "parquet"])
def test_timestamps_are_written_where_there_are_videos(
    format: OutputFormat, tmp_path: Path
) -> None:
    with open_writer(tmp_path / "out", format, WITH_VIDEO) as write:
        for prediction in (GOOD, FRAME, NO_FRAME):
            write(prediction)
    found = read(tmp_path / "out", format)
    assert [row.get("timestamp") for row in found] == [None, 1.5, 2.0]
    assert list(found[1]) == ["source", "predictions", "error", "model", "timestamp"]
    if format != "parquet":
        assert "timestamp" not in found[0]


def test_tables_and_csv_have_timestamps() -> None:
    assert written([GOOD, FRAME], "table", WITH_VIDEO).splitlines()[2] == "a.mp4 at 1.500 s"
    assert written(
        [FRAME, NO_FRAME, SET], "csv", Wanted(sets=True, unknown=True, timestamps=True)
    ) == (
        "source,rank,index,wnid,label,probability,error,model,timestamp,set,coverage,unknown\n"
        "a.mp4,1,4,,shark,0.5,,m,1.5,,,\n"
        "a.mp4,,,,,,damaged,m,2.0,,,\n"
        "a.jpg,1,4,,shark,0.5,,m,,true,0.95,true\n"
        "a.jpg,2,2,,eel,0.25,,m,,true,0.95,true\n"
    )
