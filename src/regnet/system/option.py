"""Options said once: dataclass fields with default, help and range, for Python and commands."""

from dataclasses import MISSING, dataclass, field
from typing import Any, Final, dataclass_transform

OPTION: Final = "option"
"""The key of an `Option` in a field's metadata."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """How a command shows and checks a field.

    `names` are those beside, or instead of, `--field-name`; a positional has these alone. A `help`
    that ends with "[...]" says itself what the default is. A user's number is multiplied by `unit`,
    such as 2**20 for MiB.
    """

    help: str
    names: tuple[str, ...]
    metavar: str | None = None
    min: float | None = None
    max: float | None = None
    unit: float | None = None
    positional: bool = False


def option(default: Any, help: str, *words: str, **more: Any) -> Any:
    """Return a dataclass field that commands have as an option; `...` is no default.

    `words` are names such as "-o" and the metavar, such as "FILE"; `more` are fields of `Option`.
    """
    names = tuple(word for word in words if word.startswith("-"))
    metavar = next((word for word in words if not word.startswith("-")), None)
    described = Option(help=help, names=names, metavar=metavar, **more)
    return field(default=MISSING if default is ... else default, metadata={OPTION: described})


def argument(help: str, metavar: str, default: Any = ..., *names: str) -> Any:
    """Return a dataclass field that commands have as an argument; `...` is no default.

    With `names`, such as "--model", its value may also be given as an option.
    """
    return option(default, help, metavar, *names, positional=True)


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Options:
    """Base of groups of options: makes each a frozen dataclass, whose values go by keyword."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True, kw_only=True)(cls)
