"""Every command with its options as plain values, read from the commands themselves.

    python tools/command_reference.py

prints them as JSON, for the reference in the docs.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import typer

from regnet.cli import build_app


@dataclass(frozen=True, kw_only=True)
class OptionRow:
    """An option or argument: its section in the help, names, metavar, default and text.

    The text ends with the default, or what it depends on, in brackets; `default` is the value.
    """

    section: str
    names: tuple[str, ...]
    metavar: str
    default: Any
    required: bool
    argument: bool
    help: str


@dataclass(frozen=True, kw_only=True)
class CommandRow:
    """A command: its name, such as "regnet space sample", its help, and its options."""

    name: str
    help: str
    options: tuple[OptionRow, ...] = field(default=())


def command_rows() -> Iterator[CommandRow]:
    """Yield every command in the order of the help, groups' commands among them."""
    yield from _rows("regnet", typer.main.get_command(build_app()))


def _rows(name: str, command: Any) -> Iterator[CommandRow]:
    if hasattr(command, "commands"):
        for part, nested in command.commands.items():
            yield from _rows(f"{name} {part}", nested)
        return
    options = tuple(_row(parameter) for parameter in command.params)
    yield CommandRow(name=name, help=command.help or "", options=options)


def _row(parameter: Any) -> OptionRow:
    argument = parameter.param_type_name == "argument"
    flag = not argument and parameter.is_flag
    names = [*parameter.opts, *parameter.secondary_opts]
    return OptionRow(
        section=parameter.rich_help_panel or "",
        names=(parameter.metavar,) if argument else tuple(names),
        metavar="" if flag else parameter.metavar,
        default=parameter.default,
        required=parameter.required,
        argument=argument,
        help=parameter.help,
    )


if __name__ == "__main__":
    print(json.dumps([asdict(row) for row in command_rows()], indent=1, default=str))
