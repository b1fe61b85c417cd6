"""The cards in the package, by name."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Final

from regnet.system.errors import UnknownModelError
from regnet.system.text import meant_by
from regnet.zoo.card import Card, parse_card

DEFAULT_MODEL: Final = "regnetx-3.2gf"
"""The model where none is named."""

_SUFFIX = ".toml"
_FOLDER = Path(__file__).with_name("cards")


@cache
def card_names() -> tuple[str, ...]:
    """Return the names of all cards: by family, then by size."""
    names = (entry.name for entry in _FOLDER.iterdir() if entry.name.endswith(_SUFFIX))
    return tuple(sorted((n.removesuffix(_SUFFIX) for n in names), key=_order))


def _order(name: str) -> tuple[str, float, str]:
    """Sort regnetx-400mf before regnetx-3.2gf before regnety-200mf."""
    family, _, rest = name.partition("-")
    size = rest.partition("-")[0]
    scale = {"mf": 1.0, "gf": 1000.0}.get(size[-2:])
    return (family, float(size[:-2]) * scale if scale else 0.0, name)


@cache
def _load(name: str) -> Card:
    file = f"{name}{_SUFFIX}"
    return parse_card((_FOLDER / file).read_text("utf-8"), where=f"the card {file}")


def card_by_name(name: str) -> Card:
    """Return the card of a name or alias, in any case; raises `UnknownModelError`.

    `NAME:288` is the card under its protocol of that image size.
    """
    wanted, _, size = name.strip().lower().partition(":")
    if size.isdecimal():
        return card_by_name(wanted).at(int(size))
    wanted = name.strip().lower()
    if wanted in card_names():
        return _load(wanted)
    for known, aliases in _aliases().items():
        if wanted in aliases:
            return _load(known)
    question = meant_by(wanted, [*card_names(), *chain(*_aliases().values())])
    hint = f"{question} " * bool(question)
    raise UnknownModelError(f"no model is called {name!r}; {hint}`regnet models` lists all")


def is_card(name: str) -> bool:
    """Tell whether a card has this name or alias."""
    try:
        return bool(card_by_name(name))
    except UnknownModelError:
        return False


@cache
def _aliases() -> dict[str, tuple[str, ...]]:
    return {name: tuple(alias.lower() for alias in _load(name).aliases) for name in card_names()}


def bundled_path(card: Card) -> Path:
    """Return the .xml of a model inside the package. Raises `UnknownModelError` for another."""
    if card.bundled is None:
        raise UnknownModelError(f"{card.name} is not inside the package: download it")
    return Path(__file__).parent.parent / card.bundled


def find_cards(patterns: Sequence[str]) -> tuple[Card, ...]:
    """Return the cards of names, aliases and globs, each once; raises `UnknownModelError`.

    A glob is matched with the names, and with the aliases only if it fits no name.
    """
    cards = {card.title: card for pattern in patterns for card in _matches(pattern)}
    return tuple(cards.values())


def _matches(pattern: str) -> list[Card]:
    if not is_glob(pattern):
        return [card_by_name(pattern)]
    wanted = pattern.strip().lower()
    names = [name for name in card_names() if fnmatchcase(name, wanted)]
    if not names:
        names = [n for n, all_ in _aliases().items() if any(fnmatchcase(a, wanted) for a in all_)]
    if not names:
        raise UnknownModelError(f"no model fits {pattern!r}; `regnet models` lists all")
    return [_load(name) for name in names]


def is_glob(pattern: str) -> bool:
    """Tell whether a text is a pattern rather than a name."""
    return any(sign in pattern for sign in "*?[")
