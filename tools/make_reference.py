"""Write docs/reference.md: every command and option, from the command line's own definitions.

    python tools/make_reference.py [--check]

With --check the file is compared instead, and the exit status is 1 if it is out of date.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import typer.main
from typer import Context
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from regnet.cli import build_app

PAGE = Path(__file__).parent.parent / "docs" / "reference.md"
HEAD = """# Every command and option

Written by `python tools/make_reference.py` from the commands themselves; `regnet COMMAND --help`
prints the first 40 lines of it, `--help-all` everything. `regnet --install-completion` lets your
shell complete commands, options and the names of models, recipes and protocols.
[When something is wrong](troubleshooting.md) explains exit statuses;
[JSON output](json.md) lists the fields of `--json`.
"""


def commands(command: TyperCommand | TyperGroup, name: str) -> Iterator[tuple[str, TyperCommand]]:
    """Yield the full name and the command of each leaf, depth first, in the order of the help."""
    if not isinstance(command, TyperGroup):
        yield name, command
        return
    for word, below in command.commands.items():
        yield from commands(below, f"{name} {word}")


def cell(text: str | None) -> str:
    """Return help as one line of Markdown in a table."""
    plain = re.sub(r"\\(?=\[)", "", " ".join((text or "").split()))
    return plain.replace("|", "\\|").replace("<", "&lt;")


def option_row(option: TyperOption, context: Context) -> str:
    """Return an option's row: its names and value, and what it does with its default."""
    names = ", ".join([*option.opts, *option.secondary_opts])
    value = "" if option.is_flag else f" {option.make_metavar(context)}"
    default = option.default
    shown = "" if callable(default) or default in (None, False, (), []) else f" [{default}]"
    if shown and re.search(r"\[[^]]*\]\s*$", option.help or ""):
        shown = ""  # the help says it
    return f"| `{(names + value).replace('|', '/')}` | {cell((option.help or '') + shown)} |"


def section(name: str, command: TyperCommand) -> Iterator[str]:
    """Yield the lines of a command's section, a table for each group of options."""
    context = Context(command, info_name=name)
    shown = [p for p in command.params if not getattr(p, "hidden", False)]
    arguments = [p.make_metavar(context) for p in shown if isinstance(p, TyperArgument)]
    options = [p for p in shown if isinstance(p, TyperOption)]
    yield f"\n## {name}\n"
    yield f"{' '.join((command.help or '').split(chr(10) * 2)[0].split())}\n"
    yield f"    {' '.join([name, *arguments, '[OPTIONS]'])}"
    for panel, group in groupby(options, key=lambda option: option.rich_help_panel or ""):
        yield f"\n| {panel or 'option'} | |"
        yield "|---|---|"
        yield from (option_row(option, context) for option in group)


def reference() -> str:
    """Return the page."""
    leaves = list(commands(typer.main.get_command(build_app()), "regnet"))
    lines = [HEAD, *(f"- [{name}](#{name.replace(' ', '-')})" for name, _ in leaves)]
    for name, command in leaves:
        lines += section(name, command)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, do not write")
    if parser.parse_args().check:
        sys.exit(PAGE.read_text() != reference())
    PAGE.write_text(reference())


if __name__ == "__main__":
    main()
