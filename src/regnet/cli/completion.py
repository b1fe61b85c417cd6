"""What a shell may complete: names of models and recipes, and the words of a choice."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args, get_origin

Completer = Callable[[str], list[str]]


def words_typed() -> list[str]:
    """Return the words after `regnet`: of this call, or those a shell is completing."""
    line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS")
    return line.split()[1:] if line else sys.argv[1:]


def completer(metavar: str | None, kind: Any) -> Completer | None:
    """Return what completes an option of this metavar and type; None leaves it to the shell.

    Of files, too, the shell knows more, and is asked if no name begins as the word does.
    """
    if get_origin(kind) is Literal:
        return _beginning(lambda: get_args(kind))
    names = _NAMES.get(metavar or "")
    return _beginning(names) if names else None


def _beginning(names: Callable[[], Sequence[str]]) -> Completer:
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


def _models() -> Sequence[str]:
    from regnet.zoo.catalogue import card_names

    return card_names()


def _recipes() -> Sequence[str]:
    from regnet.training.recipe import RECIPES

    return RECIPES


_NAMES: dict[str, Callable[[], Sequence[str]]] = {
    "MODEL": _models,
    "[[NAME=]MODEL]...": _models,
    "CARD": _models,
    "CARD|FILE": _models,
    "CARD...": _models,
    "RECIPE": _recipes,
}
