"""The command `regnet space sweep`: what it prints and returns, and how a sweep is watched."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from photo_folders import write_photos
from test_space_records import record
from typer.testing import CliRunner, Result

from regnet.cli import build_app
from regnet.cli.runs import SweepDisplay
from regnet.network.spec import AnyNetSpec, Stage, spec_to_dict
from regnet.space.records import read_records
from regnet.system.errors import OutputError, SpaceError

SMALL = AnyNetSpec(stem_width=8, stem_stride=1, stages=(Stage(1, 8, 8), Stage(1, 16, 8)))
OPTIONS = ("--data", "photos", "--epochs", 1, "--resolution", 16, "--batch", 16)


def run(*arguments: object, code: int = 0) -> Result:
    words = ["space", "sweep", *map(str, arguments)]
    done = CliRunner().invoke(build_app(["space", "info"]), words)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done


@pytest.fixture
def specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos", 20)
    path = tmp_path / "two.jsonl"
    deep = replace(SMALL, stages=tuple(Stage(1, 8, 8) for _ in range(8)))
    path.write_text("".join(json.dumps(spec_to_dict(spec)) + "\n" for spec in (SMALL, deep)))
    return path


def test_it_says_what_came_out_and_counts_what_failed(specs: Path) -> None:
    done = run(specs, *OPTIONS, "-o", "r.jsonl", code=1)
    lines = done.stdout.splitlines()
    assert lines[:3] == [
        "r.jsonl",
        "  two: 1 networks trained, 1 of them now; 1 failed",
        "    failed: crops of 16 pixels are one pixel before the last stage: take 129 or more "
        "(--crop, [input] progressive), or the stem for small images (--small-stem)",
    ]
    assert lines[3].startswith("  error       least ")
    told = done.stderr.splitlines()
    assert told[0] == "two: 0 runs there, 2 left"
    assert told[1].startswith("two 1/2  error ")
    assert told[2].startswith("two 2/2  failed: crops of 16 pixels")


def test_json_holds_the_best_record(specs: Path) -> None:
    done = run(specs, *OPTIONS, "-n", 1, "--space", "mine", "-o", "r.jsonl", "--json")
    values = json.loads(done.stdout)
    (kept,) = read_records([Path("r.jsonl")])
    assert (values["space"], values["runs"], values["new"], values["failed"]) == ("mine", 1, 1, [])
    assert values["best"] == kept.to_dict()
    assert kept.space == "mine"


def test_what_cannot_run_is_an_error(specs: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        run(specs, *OPTIONS, "-o", "none/r.jsonl")
    with pytest.raises(SpaceError, match="ranges choose what is drawn"):
        run(specs, *OPTIONS, "--macs", "1M:2M", "-o", "r.jsonl")


def test_lines_tell_the_best_so_far_and_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 100.0, 1000.0, 1000.0])
    monkeypatch.setattr("regnet.cli.runs.time.monotonic", lambda: next(clock))
    with SweepDisplay() as display:
        display.planned("anynetx-a", [record(errors=(0.5,))], 5)
        display.finished(record(1, errors=(0.75,), macs=2_500_000, seconds=900.4))
        display.finished(record(2, failure="diverged"))
    assert capsys.readouterr().err.splitlines() == [
        "anynetx-a: 1 runs there, 5 left",
        "anynetx-a 2/6  error 75.00 %  2.5 MMACs  900 s  best 50.00 %  left 1:00:00",
        "anynetx-a 3/6  failed: diverged  left 22:30",
    ]


def test_a_terminal_gets_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    display = SweepDisplay()
    display.planned("regnetx", [record(errors=(0.5,))], 1)
    display.finished(record(1, failure="lost"))
    console = Console(width=100, file=io.StringIO())
    console.print(display._table())
    row = console.file.getvalue()  # type: ignore[attr-defined]
    for value in ("regnetx", "50.00 %", " 0:00\n"):
        assert value in row
