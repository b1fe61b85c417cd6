"""The command `regnet space`: what it prints and writes, and ranges that are none."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from regnet.cli import build_app
from regnet.network.complexity import complexity
from regnet.network.spec import spec_from_dict
from regnet.system.errors import SpaceError


def run(*arguments: object) -> str:
    done = CliRunner().invoke(build_app(["space", "info"]), ["space", *map(str, arguments)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_lines_are_specs_within_the_ranges(tmp_path: Path) -> None:
    options = ("sample", "anynetx-e", "-n", 7, "--small-stem", "--resolution", 64, "--classes", 10)
    lines = run(*options, "--macs", "10M:20M", "--params", ":1.5m").splitlines()
    specs = [spec_from_dict(json.loads(line)) for line in lines]
    assert len(specs) == 7
    for spec in specs:
        cost = complexity(spec, image_size=64)
        assert 10_000_000 <= cost.macs <= 20_000_000
        assert cost.params <= 1_500_000
        assert (spec.classes, spec.stem_width, spec.stem_stride) == (10, 16, 1)
    path = tmp_path / "sample.jsonl"
    assert run(*options, "--macs", "10M:20M", "--params", ":1.5m", "-o", path) == ""
    assert path.read_text().splitlines() == lines


@pytest.mark.parametrize("text", ["5", "5M", "2M:1M", "a:b", "1:2:3", "-1:5", "1T:2T"])
def test_what_is_no_range_is_an_error(text: str) -> None:
    with pytest.raises(SpaceError, match="is not a range: write LOW:HIGH"):
        run("sample", "regnetx", "-n", 1, "--macs", text)


def test_an_empty_window_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    with pytest.raises(SpaceError, match="widen the window"):
        run("sample", "anynetx-a", "-n", 3, "--macs", ":1", "-o", path)
    assert not list(tmp_path.iterdir())
