"""The command `regnet download`."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import local_server as behave
import pytest
from local_server import LocalServer
from typer.testing import CliRunner, Result
from zoo_weights import weights_of

from regnet.cli import build_app
from regnet.system.errors import LicenceError, UnknownModelError
from regnet.zoo.card import Card, WeightsFile
from regnet.zoo.catalogue import card_by_name
from regnet.zoo.download import download

# Nobody published the hashes of these two.
NAMES = ("regnetx-200mf", "regnety-200mf")
CONTENTS = {name: weights_of(card_by_name(name).build_spec(), 5, size=3_000_000) for name in NAMES}
CONTENT = CONTENTS[NAMES[0]]


def file_of(name: str) -> WeightsFile:
    file = card_by_name(name).file
    assert file is not None
    return file


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    with LocalServer() as server:
        for name in NAMES:
            server.files[file_of(name).name] = CONTENTS[name]
        monkeypatch.setenv("REGNET_MIRROR", server.base)
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REGNET_CACHE", str(tmp_path))
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(build_app(["download"]), ["download", *arguments])


def path_of(cache: Path, name: str) -> str:
    return str(cache / "weights" / name / file_of(name).name)


def test_paths_are_printed_and_nothing_is_fetched_twice(server: LocalServer, cache: Path) -> None:
    for _ in range(2):
        result = run(*NAMES, "regnetx_002", "--jobs", "2")
        assert result.exit_code == 0, result.output
        assert sorted(result.stdout.split()) == [path_of(cache, name) for name in NAMES]
    assert server.sent == sum(map(len, CONTENTS.values()))
    assert run("regnet?-200mf", "--offline", "--verify").exit_code == 0
    assert server.sent == sum(map(len, CONTENTS.values()))


def test_without_a_terminal_lines_say_what_is_fetched(server: LocalServer) -> None:
    result = run(NAMES[0])
    host = server.base.removeprefix("http://")
    assert result.stderr.splitlines() == [
        f"{NAMES[0]}: downloading {len(CONTENT) / 1e6:.1f} MB from {host}",
        f"{NAMES[0]}: nobody published a hash of this file: its tensors are those of {NAMES[0]}; "
        "its hash holds for later downloads",
        f"{NAMES[0]}: downloaded {len(CONTENT) / 1e6:.1f} MB",
    ]
    assert run(NAMES[0]).stderr == ""


def test_a_surprise_in_one_file_leaves_the_others(
    server: LocalServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def surprising(card: Card, **options: Any) -> Path:
        return download(card, **options) if card.name == NAMES[1] else Path(str(1 // 0))

    monkeypatch.setattr("regnet.cli.download.download_card", surprising)
    result = run(*NAMES)
    assert (result.exit_code, result.stdout.split()) == (1, [path_of(cache, NAMES[1])])
    assert f"{NAMES[0]} failed unexpectedly: ZeroDivisionError" in result.stderr


def test_events_are_json_lines(server: LocalServer, cache: Path) -> None:
    server.script = [behave.dies_after(10_000_000)]
    result = run(NAMES[0], "--progress", "json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    happenings = [event["event"] for event in events if event["event"] != "progress"]
    assert happenings == ["start", "retry", "start", "looked", "done"]
    assert all(event["model"] == NAMES[0] for event in events)
    assert events[-1]["path"] == path_of(cache, NAMES[0])
    assert events[-1]["bytes"] == events[-1]["total"] == len(CONTENT)
    assert [e["bytes"] for e in events if e["event"] == "start"] == [0, 10_000_000]


def test_some_failed_is_exit_code_one(server: LocalServer, cache: Path) -> None:
    del server.files[file_of(NAMES[1]).name]
    result = run(*NAMES, "--offline")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("is not in the cache") == 2
    assert run(NAMES[0]).exit_code == 0
    result = run(*NAMES, "--offline")
    assert (result.exit_code, result.stdout.split()) == (1, [path_of(cache, NAMES[0])])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["regnetx-200mg"], "did you mean regnetx-200mf"),
        (["regnetw-*"], "no model fits"),
        ([NAMES[0], "--all"], "name one or more models, or give --all"),
        (["--offline"], "name one or more models, or give --all"),
        ([*NAMES, "--from", "x"], "--from takes one NAME, not 2"),
    ],
)
def test_what_cannot_run_says_why(arguments: list[str], problem: str) -> None:
    error = run(*arguments).exception
    assert isinstance(error, UnknownModelError)
    assert problem in str(error)


def test_a_non_commercial_licence_has_to_be_accepted(server: LocalServer) -> None:
    for arguments in (["regnety-16gf-swag"], ["*swag*"], ["--all"]):
        error = run(*arguments).exception
        assert isinstance(error, LicenceError)
        assert "CC-BY-NC-4.0" in str(error)
        assert "--accept-licence" in str(error)
    assert server.log == []


def test_an_accepted_licence_is_shown(server: LocalServer) -> None:
    server.script = [behave.status(404)]
    result = run("regnety-16gf-swag", "--accept-licence", "--from", "/nowhere")
    assert "CC-BY-NC-4.0" in result.stderr
    assert result.exit_code == 1


def test_from_takes_a_file_and_holds_later_downloads_to_it(
    server: LocalServer, cache: Path, tmp_path: Path
) -> None:
    source = tmp_path / "fetched elsewhere"
    source.write_bytes(weights_of(card_by_name(NAMES[0]).build_spec(), 6))
    result = run("--from", str(source), NAMES[0])
    assert (result.exit_code, result.stdout.strip()) == (0, path_of(cache, NAMES[0]))
    assert "nobody published a hash of this file" in result.stderr
    Path(path_of(cache, NAMES[0])).unlink()
    mirror_only = ["--progress", "none", NAMES[0]]
    server.script = []
    card_of_mirror = run(*mirror_only, "--offline")
    assert card_of_mirror.exit_code == 1
    source.write_bytes(CONTENT)
    result = run("--from", str(source), NAMES[0])
    assert result.exit_code == 1
    assert "as in the first download" in result.stderr
    result = run("--forget", "--from", str(source), NAMES[0])
    assert result.exit_code == 0
    assert hashlib.sha384(Path(result.stdout.strip()).read_bytes()).digest() == (
        hashlib.sha384(CONTENT).digest()
    )


def test_ctrl_c_keeps_what_came(server: LocalServer, cache: Path) -> None:
    server.script = [behave.stalls_after(12_345_678)]
    command = [sys.executable, "-m", "regnet", "download", NAMES[0]]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    part = Path(f"{path_of(cache, NAMES[0])}.part")
    until = time.monotonic() + 60
    while not part.exists() or part.stat().st_size < 12_345_678:
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; what came is kept" in err
    assert run(NAMES[0]).exit_code == 0
    assert server.log[-1].range == "bytes=12345678-"
