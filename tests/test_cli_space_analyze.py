"""`regnet space analyze` as a command."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import run_main
from space_records import SETTING, a_record, records_of

from regnet.network.spec import spec_by_name


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return two files of records, the names of spaces."""
    folder = tmp_path_factory.mktemp("records")
    failed = replace(a_record(spec_by_name("regnetx-200mf"), error=None), seed=7)
    runs = {
        "anynetx-a": records_of("anynetx-a", 10),
        "regnetx": [*records_of("regnetx", 10), failed],
    }
    for space, of_space in runs.items():
        lines = [json.dumps(record.to_dict()) + "\n" for record in of_space]
        (folder / f"{space}.jsonl").write_text("".join(lines))
    return sorted(map(str, folder.iterdir()))


def regnet(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = run_main("space", "analyze", *arguments)
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def test_tables_sentences_and_files(records: list[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    parquet = pytest.importorskip("pyarrow.parquet")
    report, table = tmp_path / "report.html", tmp_path / "networks.parquet"
    done = regnet(*records, "-o", str(report), "--parquet", str(table))
    assert done.returncode == 0, done.stderr
    assert "report.html: written" in done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines[0] == "Design spaces, from trained networks"
    at = next(n for n, line in enumerate(lines) if line.split()[:2] == ["Space", "Networks"])
    assert lines[at + 1].split()[:3] == ["anynetx-a", "10", "0"]
    assert lines[at + 2].split()[:3] == ["regnetx", "10", "1"]
    assert any(line.startswith("regnetx is better than anynetx-a") for line in lines)
    (failed,) = [line for line in lines if line.startswith("d 13, w0 24,")]
    assert failed.split()[-5:] == ["regnetx", "7", "out", "of", "memory"]
    assert "How errors are distributed" in report.read_text()
    rows = parquet.read_table(table).to_pylist()
    assert len(rows) == 21
    assert {row["space"] for row in rows} == {"anynetx-a", "regnetx"}
    assert rows[0]["w1"] is not None
    assert rows[0]["wm"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["networks.parquet", "report.html"]


def test_json_is_the_same_for_the_same_seed(records: list[str]) -> None:
    first, again = (regnet(*records, "--json", "--seed", "3") for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert first.stdout == again.stdout
    values = json.loads(first.stdout)
    assert values["networks"] == 20
    assert values["bootstrap"]["seed"] == 3
    assert [Path(one["path"]).name for one in values["records"]] == [
        "anynetx-a.jsonl",
        "regnetx.jsonl",
    ]


def test_what_cannot_be_analyzed_is_said(records: list[str], tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    record = replace(
        a_record(spec_by_name("regnetx-200mf")), setting=replace(SETTING, image_size=64)
    )
    other.write_text(json.dumps(record.to_dict()) + "\n")
    done = regnet(records[0], str(other))
    assert done.returncode == 2
    assert "image_size 32 and 64" in done.stderr
    assert done.stdout == ""
    assert regnet(records[0], str(other), "--mixed").returncode == 0


def test_a_report_that_cannot_be_written_is_said_before_the_work(records: list[str]) -> None:
    done = regnet(*records, "-o", "not/here/report.html")
    assert done.returncode == 2
    assert "cannot write" in done.stderr
