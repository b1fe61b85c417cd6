"""`regnet models`: the zoo as a table, and single cards."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regnet.cli.console import print_json, stdout
from regnet.cli.options import CacheDir
from regnet.network.complexity import Complexity, complexity
from regnet.network.spec import network_title
from regnet.zoo.card import Accuracy, Card
from regnet.zoo.catalogue import card_names, find_cards, is_glob
from regnet.zoo.download import cached_file

if TYPE_CHECKING:
    from rich.table import Table

WIDTH_WHEN_PIPED = 160

HELP = """List the models of the zoo, or show one model's card.

Accuracies are as published, each with the protocol behind it; figures of different protocols \
cannot be compared. Params and MACs are computed, for the protocol's image size.

Examples:

  regnet models

  regnet models 'regnety-*'

  regnet models regnetx-3.2gf

  regnet models --json
"""


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("models", help=HELP)(_models)


def _models(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME|PATTERN]...", help="Names, aliases or globs; else all."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: an object for one NAME, else a list.")
    ] = False,
    cache_dir: CacheDir = None,
) -> None:
    one = names is not None and len(names) == 1 and not is_glob(names[0])
    cards = find_cards(names or card_names())
    if as_json:
        rows = [_as_dict(card, cache_dir) for card in cards]
        print_json(rows[0] if one else rows, indent=1)
    elif one:
        _show_card(cards[0], cache_dir)
    else:
        _print(_list(cards, cache_dir))


def _cost(card: Card) -> Complexity:
    return complexity(card.build_spec(), image_size=card.preprocess.crop)


def _as_dict(card: Card, cache_dir: Path | None) -> dict[str, Any]:
    cached = cached_file(card, cache_dir=cache_dir)
    return card.to_dict() | asdict(_cost(card)) | {"cached": str(cached) if cached else None}


def _print(*items: Any) -> None:
    console = stdout()
    if not console.is_terminal:
        console.width = WIDTH_WHEN_PIPED
    for item in items:
        console.print(item, markup=False, highlight=False)


COLUMNS = (
    "model", "top-1", "top-5", "protocol", "params M", "MACs G", "size MB", "licence", "cached"
)  # fmt: skip
WIDE = 105  # characters that all columns take; a narrower terminal gets the first six


def _list(cards: Sequence[Card], cache_dir: Path | None) -> "Table":
    from rich.table import Table

    console = stdout()
    wide = not console.is_terminal or console.width >= WIDE
    titles = COLUMNS if wide else COLUMNS[:6]
    table = Table(box=None, pad_edge=False)
    for title in titles:
        left = title in ("model", "protocol", "licence", "cached")
        table.add_column(title, justify="left" if left else "right", no_wrap=True)
    for card in cards:
        table.add_row(*_row(card, cache_dir)[: len(titles)])
    return table


def _row(card: Card, cache_dir: Path | None) -> tuple[str, ...]:
    """Return the texts of `COLUMNS`."""
    cost, best = _cost(card), card.headline
    return (
        card.name,
        _percent(best.top1),
        _percent(best.top5),
        f"{best.protocol} {best.resize}/{best.crop}",
        f"{cost.params / 1e6:.2f}",
        f"{cost.macs / 1e9:.2f}",
        _megabytes(card),
        card.licence.id,
        "yes" if cached_file(card, cache_dir=cache_dir) else "",
    )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _megabytes(card: Card) -> str:
    size = (card.file.size or card.file.size_about) if card.file else None
    return f"{size / 1e6:.1f}" if size else ""


def _show_card(card: Card, cache_dir: Path | None) -> None:
    from rich.table import Table

    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for title, text in _facts(card, cache_dir):
        facts.add_row(title, text)
    _print(facts, "", _accuracies(card.accuracies))


def _facts(card: Card, cache_dir: Path | None) -> list[tuple[str, str]]:
    cost = _cost(card)
    rows = [
        ("model", card.name),
        ("aliases", ", ".join(card.aliases)),
        ("network", network_title(card.build_spec())),
        ("classes", f"{card.classes} ({card.labels})"),
        ("params", f"{cost.params:,}"),
        ("MACs", f"{cost.macs:,} at {card.preprocess.crop} pixels"),
        ("activations", f"{cost.acts:,}"),
        ("source", f"{card.source} (layout {card.layout}, {card.channels})"),
        *_file_facts(card),
        ("licence", f"{card.licence.id}, {card.licence.url}"),
        ("", card.licence.notice or ""),
        ("protocol", _protocol(card)),
        ("recipe", ", ".join(f"{k} {v}" for k, v in asdict(card.recipe).items() if v is not None)),
        *(("note", note) for note in card.notes),
        ("cached", str(cached_file(card, cache_dir=cache_dir) or "no")),
    ]
    return [(title, text) for title, text in rows if text]


def _file_facts(card: Card) -> list[tuple[str, str]]:
    file = card.file
    if file is None:
        return [("file", f"{card.bundled}, in the package")]
    return [
        ("file", file.name),
        *(("mirror", url) for url in file.urls),
        ("size", f"{file.size:,} bytes" if file.size else _unpublished_size(file.size_about)),
        ("sha384", file.sha384 or ""),
        ("sha256", f"{file.sha256_prefix}..." if file.sha256_prefix else ""),
    ]


def _unpublished_size(about: int | None) -> str:
    return f"about {about:,} bytes" if about else "not published"


def _protocol(card: Card) -> str:
    p = card.preprocess
    return (
        f"{p.name}: short side to {p.resize} ({p.interpolation}), centre crop {p.crop}, "
        f"{p.channels}, mean {list(p.mean)}, scale {list(p.scale)}"
    )


def _accuracies(rows: Sequence[Accuracy]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("test set", "top-1", "top-5", "protocol", "resize by", "published by"):
        table.add_column(title, justify="right" if title.startswith("top") else "left")
    for row in rows:
        geometry = f"{row.protocol}: {row.resize}/{row.crop} {row.interpolation}"
        accuracy = (_percent(row.top1), _percent(row.top5))
        table.add_row(row.dataset, *accuracy, geometry, row.backend, row.source)
    return table
