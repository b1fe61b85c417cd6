"""Commands made of groups of options: their values, their help, and `--ray [ADDRESS]`."""

import re
import sys
from pathlib import Path

import pytest
import typer
from click.utils import strip_ansi
from typer.testing import CliRunner

from regnet.cli import build_app
from regnet.cli.command import add
from regnet.system.option import Options, argument, option

sys.path.append(str(Path(__file__).parent.parent / "tools"))

from make_reference import commands

COMMANDS = dict(commands(typer.main.get_command(build_app()), "regnet"))


class Photos(Options):
    """What is shown."""

    sources: tuple[str, ...] = argument("Photos", "[SOURCE]...", ())
    number: int = option(1, "A number", "-n", min=1)
    memory: int = option(2 << 20, "Memory in MiB", unit=2**20, min=1)
    seconds: float = option(1.5, "Time", "--limit", "SECONDS")
    near: bool = option(True, "Look near")
    ray: str | None = option(None, "Where", "[ADDRESS]")


def show(photos: Photos) -> int:
    """Show the values."""
    typer.echo(f"{photos.ray} {' '.join(photos.sources)}")
    typer.echo(f"{photos.number} {photos.memory} {photos.seconds} {photos.near}")
    return photos.number - 1


def run(*arguments: str, code: int = 0) -> str:
    app = typer.Typer(rich_markup_mode=None)
    add(app, "show", show)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code, done.output
    return done.output


def test_values_are_those_of_the_user_in_the_unit_of_the_field() -> None:
    assert run().splitlines()[1] == "1 2097152 1.5 True"
    options = ("-n", "3", "--memory", "1.5", "--limit", "0", "--no-near")
    assert run(*options, code=2).splitlines()[1] == "3 1572864 0.0 False"


@pytest.mark.parametrize("words", ["-n 0", "--memory 0", "--memory nan", "--limit inf", "--far"])
def test_values_out_of_range_are_refused(words: str) -> None:
    assert "Error" in run(*words.split(), code=2)


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        ("photos", "None photos"),
        ("photos --ray", "local photos"),
        ("--ray photos", "local photos"),
        ("--ray local", "local "),
        ("--ray auto photos", "auto photos"),
        ("--ray head:6379 photos", "head:6379 photos"),
        ("--ray 10.0.0.1:6379 photos", "10.0.0.1:6379 photos"),
        ("--ray [::1]:6379", "[::1]:6379 "),
        ("--ray ray://head.example.org:10001 a b", "ray://head.example.org:10001 a b"),
        ("--ray=ray://head:10001 a", "ray://head:10001 a"),
        ("--ray s3://bucket/photos", "local s3://bucket/photos"),
        ("--ray camera:0", "local camera:0"),
        ("--ray ./auto", "local ./auto"),
        ("--ray -n 1 a", "local a"),
        ("-- --ray", "None --ray"),
    ],
)
def test_the_word_after_ray_is_its_value_if_it_looks_like_an_address(
    arguments: str, printed: str
) -> None:
    assert run(*arguments.split()).splitlines()[0] == printed


@pytest.mark.parametrize("words", [(), ("space",)])
def test_the_list_of_commands_says_what_each_does(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(build_app(), [*words, "--help"])
    assert "..." not in done.output.partition("Commands:")[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_80_columns_and_shows_names_and_defaults(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = name.split()[1:]
    done = CliRunner().invoke(build_app([words[0]]), [*words, "--help"])
    assert done.exit_code == 0
    text = strip_ansi(done.output)
    assert max(map(len, text.splitlines())) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert f"  {name}" in text  # an example
    flowing = " ".join(text.split())
    for row in COMMANDS[name].params:
        for word in [row.metavar] if row.param_type_name == "argument" else row.opts:
            assert re.search(rf"(^|[ /]){re.escape(word)}([ ,/]|$)", text, re.MULTILINE), word
        assert " ".join(row.help.split()) in flowing
        assert row.help.endswith("]") or row.default in (None, False), row.name
