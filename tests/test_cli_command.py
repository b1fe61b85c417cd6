"""Commands made of groups of options: their values, their help, and `--ray [ADDRESS]`."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from click.utils import strip_ansi
from typer.testing import CliRunner

from regnet.cli import COMMANDS as COMMAND_NAMES
from regnet.cli import build_app
from regnet.cli.command import add
from regnet.system.option import Options, argument, option

sys.path.append(str(Path(__file__).parent.parent / "tools"))

from make_reference import commands

COMMANDS = dict(commands(typer.main.get_command(build_app()), "regnet"))

TV = ("regnetx-400mf-tv1", "regnetx-400mf-tv2")


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


def help_of(name: str, option: str) -> str:
    """Return a command's help at 80 columns."""
    words = name.split()[1:]
    done = CliRunner().invoke(build_app(words[:1] or COMMAND_NAMES), [*words, option])
    assert done.exit_code == 0
    text = strip_ansi(done.output)
    assert max(map(len, text.splitlines())) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert "\N{NON-BREAKING HYPHEN}" not in text
    return text


def shows(text: str, word: str) -> bool:
    """Return whether a name is there as a word of its own."""
    return bool(re.search(rf"(^|[ /]){re.escape(word)}([ ,/]|$)", text, re.MULTILINE))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_80_columns_and_shows_names_and_defaults(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = help_of(name, "--help-all")
    assert "  regnet " in text  # an example
    flowing = " ".join(text.split())
    for row in COMMANDS[name].params:
        for word in [row.metavar] if row.param_type_name == "argument" else row.opts:
            assert shows(text, word), word
        assert " ".join(row.help.split()) in flowing
        assert row.help.endswith("]") or row.default in (None, False), row.name


@pytest.mark.parametrize("name", ["regnet", "regnet space", *COMMANDS])
def test_the_first_screen_has_40_lines_and_every_option_by_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = help_of(name, "--help")
    assert len(text.splitlines()) <= 40
    if name not in COMMANDS:
        return
    for row in COMMANDS[name].params:
        assert shows(text, row.metavar if row.param_type_name == "argument" else row.opts[0])
    assert (text == help_of(name, "--help-all")) == ("--help-all" not in text)


def examples() -> list[str]:
    """Return the examples in the help of all commands."""
    texts = (command.help or "" for command in COMMANDS.values())
    lines = (line for text in texts for line in text.splitlines() if line.startswith("  "))
    return [line.strip() for line in lines if "regnet " in line]


@pytest.mark.parametrize("line", examples())
def test_examples_in_the_help_are_commands_as_they_stand(line: str) -> None:
    words = shlex.split(line.partition(" > ")[0].partition("regnet ")[2])
    length = 2 if words[0] == "space" else 1
    command = COMMANDS[" ".join(["regnet", *words[:length]])]
    command.make_context("example", words[length:])  # raises for what the command does not take


def complete(line: str) -> tuple[list[str], str]:
    """Return what bash is offered for the last word of a line, and the modules loaded for it."""
    words = line.split(" ")
    variables = {
        "_REGNET_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "regnet"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split(), done.stderr


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("regnet c", [name for name in COMMAND_NAMES if name.startswith("c")]),
        ("regnet classify --model regnetx-40", ["regnetx-400mf", *TV]),
        ("regnet quantize bun", ["bundled"]),
        ("regnet train --recipe f", ["finetune"]),
        ("regnet evaluate bundled photos --protocol ", ["omz", "pycls"]),
        ("regnet classify --precision b", ["bf16"]),
        ("regnet space sweep --rec", ["--recipe"]),
        ("regnet classify pho", []),  # files are the shell's
    ],
)
def test_a_shell_completes_names(line: str, offered: list[str]) -> None:
    words, imports = complete(line)
    assert words == offered
    assert not re.search(r"\| +(torch|openvino|httpx|PIL|rich)$", imports, re.MULTILINE)


def test_completion_is_installed_for_a_shell(tmp_path: Path) -> None:
    env = os.environ | {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "regnet", "--install-completion", "bash"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert "bash completion installed" in done.stdout
    script = (tmp_path / ".bash_completions" / "regnet.sh").read_text()
    assert "_REGNET_COMPLETE=complete_bash" in script
