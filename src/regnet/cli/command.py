"""Commands made of functions whose parameters are groups of options (`system.option`)."""

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from itertools import zip_longest
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from regnet.cli.completion import completer
from regnet.cli.console import interruptible
from regnet.cluster.address import LOCAL, is_address
from regnet.system.errors import RegNetError, UnknownModelError
from regnet.system.option import OPTION, Option

FIRST_SCREEN: Final = 40
"""Lines of `--help`; `--help-all` prints what does not fit."""

Section = tuple[str, list[Any]]
"""The title of a group of options, and its parameters."""

_HELP_ALL: Final = "--help-all"
_HYPHEN: Final = "\N{NON-BREAKING HYPHEN}"  # lines are not broken at these
_NAMED: Final = "named_models"


class Command(TyperCommand):
    """A command whose help has a section per group, and whose `--ray` may stand alone.

    `--ray` alone means "local": the next word is its value only if it looks like an address.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments with the address that was left out."""
        options = args[: args.index("--")] if "--" in args else args
        if _HELP_ALL in options:
            ctx.meta[_HELP_ALL] = True
            args = ["--help"]
        has_ray = any("--ray" in parameter.opts for parameter in self.params)
        return super().parse_args(ctx, _with_address(args) if has_ray else args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help; without `--help-all` as many sections as the first screen has room for.

        There the names of the other options follow, and the text is the first two paragraphs and
        the examples.
        """
        paragraphs = inspect.cleandoc(self.help or "").split("\n\n")
        sections = self._sections(ctx)
        self._write(ctx, formatter, paragraphs, sections)
        paragraphs = [p for n, p in enumerate(paragraphs) if n < 2 or p.startswith("  ")]
        shown = len(sections)
        while _HELP_ALL not in ctx.meta and formatter.getvalue().count("\n") > FIRST_SCREEN:
            formatter.buffer.clear()
            self._write(ctx, formatter, paragraphs, sections[:shown])
            formatter.write_paragraph()
            formatter.write_text(f"More: {ctx.command_path} {_HELP_ALL}")
            if rest := [(title, _names_of(parameters)) for title, parameters in sections[shown:]]:
                formatter.indent()
                formatter.write_dl(rest)
                formatter.dedent()
            shown -= 1
        formatter.buffer[:] = [text.replace(_HYPHEN, "-") for text in formatter.buffer]

    def _write(
        self, ctx: Any, formatter: Any, paragraphs: list[str], sections: list[Section]
    ) -> None:
        """Write the usage; paragraphs, indented ones, which are examples, as they are; sections."""
        names = [p.metavar for p in self.params if p.param_type_name == "argument"]
        formatter.write_usage(ctx.command_path, " ".join(["[OPTIONS]", *map(str, names)]))
        for paragraph in paragraphs:
            formatter.write_paragraph()
            if paragraph.startswith("  "):
                formatter.write(f"{paragraph}\n")
            else:
                formatter.write_text(_unbroken(paragraph))
        for title, parameters in sections:
            with formatter.section(typer.style(title, bold=True)):
                formatter.write_dl(list(map(_row, parameters)))

    def _sections(self, ctx: Any) -> list[Section]:
        """Return the title and the parameters of each group, arguments first."""
        sections: dict[str, list[Any]] = {}
        title = "Options"
        for parameter in sorted(self.get_params(ctx), key=lambda p: p.param_type_name):
            title = getattr(parameter, "rich_help_panel", None) or title  # --help is in the last
            sections.setdefault(title, []).append(parameter)
        return list(sections.items())


def _names_of(parameters: list[Any]) -> str:
    """Return the longest name of each option."""
    return _unbroken(", ".join(max(parameter.opts, key=len) for parameter in parameters))


def _row(parameter: Any) -> tuple[str, str]:
    """Return a parameter as the help shows it: names with the metavar, and the text."""
    if parameter.param_type_name == "argument":
        return parameter.metavar, parameter.help
    names = ", ".join(sorted(parameter.opts, key=len))
    names += "".join(f" / {name}" for name in parameter.secondary_opts)
    if not parameter.is_flag:
        names += f" {parameter.metavar}"
    return typer.style(names, fg="cyan"), _unbroken(parameter.help)


def _unbroken(text: str) -> str:
    """Return text in which no line ends inside a word with a hyphen, such as an option's name."""
    return re.sub(r"(?<=\w)-(?=\w)|--", lambda found: len(found[0]) * _HYPHEN, text)


def _with_address(args: list[str]) -> list[str]:
    """Return the arguments with an address after every `--ray`."""
    completed: list[str] = []
    for number, word in enumerate(args):
        if word == "--":
            return completed + args[number:]
        completed.append(word)
        if word == "--ray" and not (number + 1 < len(args) and is_address(args[number + 1])):
            completed.append(LOCAL)
    return completed


def add(app: typer.Typer, name: str, function: Callable[..., int | None]) -> None:
    """Add a function as a command; each parameter is a group, its name the section's title.

    The function returns the exit status; None and False are 0.
    """
    groups = {n: g for n, g in get_type_hints(function).items() if n != "return"}
    arguments = [
        field
        for group in groups.values()
        for field, _ in _options(group)
        if field.metadata[OPTION].positional
    ]

    def run(**values: Any) -> None:
        _place(arguments, values)
        built = {title: _build(group, values) for title, group in groups.items()}
        with interruptible():
            status = function(**built)
        if status:
            raise typer.Exit(int(status))

    parameters = [
        _parameter(title, field, hint)
        for title, group in groups.items()
        for field, hint in _options(group)
    ]
    if arguments and arguments[0].metadata[OPTION].names:
        place = [parameter.name for parameter in parameters].index(arguments[0].name)
        parameters.insert(place + len(arguments), _named_option(parameters[place], arguments[0]))
    run.__doc__ = function.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    vars(run)["__signature__"] = inspect.Signature(parameters)
    app.command(name, cls=Command)(run)


def _place(arguments: Sequence[Field[Any]], values: dict[str, Any]) -> None:
    """Put models given as options before the other arguments.

    Raises `RegNetError` for a model that is given twice, or an argument that is missing.
    """
    names = [field.name for field in arguments]
    metavars = [field.metadata[OPTION].metavar for field in arguments]
    if named := values.pop(_NAMED, None):
        given = [values[name] for name in names if values[name] not in (None, [])]
        several = isinstance(values[names[0]], list)
        if len(given) + (1 if several else len(named)) > len(names):
            raise UnknownModelError(
                f"--model {named[0]}: the arguments name a model already; leave out one of them"
            )
        words = [named] if several else [*named, *given]
        values |= zip_longest(names, words)
    for field, metavar in zip(arguments, metavars, strict=True):
        if field.default is MISSING and values[field.name] in (None, []):
            raise RegNetError(f"which {metavar}? The arguments are: {' '.join(metavars)}")


def _named_option(beside: inspect.Parameter, argument: Field[Any]) -> inspect.Parameter:
    """Return the parameter for models that are given as options instead of arguments."""
    described: Option = argument.metadata[OPTION]
    option = typer.Option(
        *described.names,
        help="The model, instead of an argument",
        metavar="MODEL",
        autocompletion=completer("MODEL", str),
        rich_help_panel=get_args(beside.annotation)[1].rich_help_panel,
    )
    annotation = Annotated[list[str] | None, option]
    return beside.replace(name=_NAMED, default=None, annotation=annotation)


def _options(group: type[Any]) -> list[tuple[Field[Any], Any]]:
    """Return the fields of a group that are options, its own before inherited, with their types."""
    hints = get_type_hints(group)
    bases = [vars(base).get("__annotations__", {}) for base in group.__mro__]
    described = [field for field in fields(group) if OPTION in field.metadata]
    described.sort(key=lambda field: next(n for n, b in enumerate(bases) if field.name in b))
    return [(field, hints[field.name]) for field in described]


def _build(group: type[Any], values: Mapping[str, Any]) -> Any:
    """Return a group of these values; None leaves a field's default."""
    given = {f.name: _value(f, hint, values[f.name]) for f, hint in _options(group)}
    return group(**{name: value for name, value in given.items() if value is not None})


def _value(field: Field[Any], hint: Any, given: Any) -> Any:
    """Return a user's value as the field takes it: in its unit and type."""
    described: Option = field.metadata[OPTION]
    if isinstance(given, float) and not math.isfinite(given):
        raise typer.BadParameter(f"{given} is not finite", param_hint=_names(field, hint)[0])
    if described.unit and given is not None:
        given *= described.unit
        return round(given) if int in _kinds(hint) else given
    return tuple(given) if isinstance(given, list) else given


def _parameter(title: str, field: Field[Any], hint: Any) -> inspect.Parameter:
    """Return the parameter that typer makes an option or argument of."""
    described: Option = field.metadata[OPTION]
    required = field.default is MISSING
    default: Any = None if required or field.default == () else field.default
    if described.unit and default is not None:
        default = default / described.unit
    if described.positional:  # `_place` requires it, as an option may give it
        required, hint = False, hint | None
    make = typer.Argument if described.positional else typer.Option
    described_to_typer = make(
        *([] if described.positional else _names(field, hint)),
        help=described.help + _default_text(described, default, required=required),
        metavar=described.metavar or _metavar(hint),
        min=described.min,
        max=described.max,
        show_default=False,
        autocompletion=completer(described.metavar, _kinds(hint)[0]),
        rich_help_panel=title.replace("_", " ").capitalize(),
    )
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else default,
        annotation=Annotated[_annotation(hint, described), described_to_typer],
    )


def _default_text(described: Option, default: Any, *, required: bool) -> str:
    if required:
        return " [required]"
    if described.help.endswith("]") or default is None or default is False:
        return ""
    return f" [{default:g}]" if isinstance(default, float) else f" [{default}]"


def _names(field: Field[Any], hint: Any) -> list[str]:
    """Return the names of an option; a flag that is off by default cannot be switched off."""
    names = field.metadata[OPTION].names
    if any(name.startswith("--") for name in names):
        return list(names)
    long = f"--{field.name.replace('_', '-')}"
    switch = bool in _kinds(hint) and field.default is not False
    return [f"{long}/--no-{long[2:]}" if switch else long, *names]


def _kinds(hint: Any) -> tuple[Any, ...]:
    """Return the types of a union, None last; of another type itself."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return tuple(sorted(kinds, key=lambda kind: kind is NoneType))


def _annotation(hint: Any, described: Option) -> Any:
    """Return a field's type as typer takes it: one type, or None."""
    kinds = _kinds(hint)
    kind = float if described.unit else str if str in kinds else kinds[0]
    if get_origin(kind) is tuple:
        kind = list[get_args(kind)[0]]  # type: ignore[misc]
    return kind | None if NoneType in kinds or get_origin(kind) is list else kind


def _metavar(hint: Any) -> str:
    kind = _kinds(hint)[0]
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    return {int: "N", float: "X", Path: "FILE"}.get(kind, "TEXT")
