"""`regnet models`: the zoo as a table, and single cards."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from regnet.cli.console import (
    print_facts,
    print_json,
    print_table,
    require_writable,
    terminal_width,
)
from regnet.cli.options import Cache, Json
from regnet.network.spec import network_title
from regnet.system.errors import UnknownModelError
from regnet.system.option import Options, argument, option
from regnet.system.text import parse_count
from regnet.zoo.card import Card
from regnet.zoo.catalogue import card_names, find_cards, is_glob
from regnet.zoo.download import cached_file
from regnet.zoo.ranking import Candidate, Limits, pareto_front, plot, ranked, within

COLUMNS: Final = (
    "model", "top-1", "top-5", "protocol", "params M", "MACs G", "size MB", "licence", "cached"
)  # fmt: skip
NARROW: Final = 6
"""Columns of a terminal that is not `WIDE`."""
WIDE: Final = 105
NARROWEST: Final = 3
"""Columns of a terminal that is less wide than `NAMES`: names cut short would be alike."""
NAMES: Final = 72


class _Listing(Cache, Json):
    names: tuple[str, ...] = argument(
        "Names, aliases or globs; one name: its card", "[NAME]...", ()
    )


class _Choice(Options):
    best: bool = option(False, "Sort by accuracy, each image size apart; mark the Pareto front")
    params: str | None = option(None, "At most so many parameters, such as 20M", "COUNT")
    macs: str | None = option(None, "At most so many MACs, such as 4G", "COUNT")
    licence: str | None = option(None, "Only this licence, such as Apache-2.0", "ID")
    at_least: float | None = option(None, "At least this top-1 accuracy", "PERCENT", min=0, max=100)
    latency: bool = option(
        False, "Measure an image's time on this machine, as the cost (implies --best)"
    )
    plot: Path | None = option(None, "Plot accuracy against cost (implies --best)", "FILE")

    def limits(self) -> Limits:
        """Return the options as numbers; raises `UnknownModelError`."""
        params, macs = (_most(name, getattr(self, name)) for name in ("params", "macs"))
        return Limits(params=params, macs=macs, licence=self.licence, at_least=self.at_least)


def _most(name: str, text: str | None) -> int | None:
    if (count := parse_count(text or "0")) is None:
        raise UnknownModelError(f"--{name} {text}: is not a number such as 20M or 1.5G")
    return count if text else None


def models(options: _Listing, choice: _Choice) -> None:
    """List the models of the zoo, or show one model's card.

    Accuracies are as published, with the protocol of each; those of different protocols cannot be
    compared. Parameters and MACs are computed for the protocol's image size.

      regnet models
      regnet models 'regnety-*' --json
      regnet models --best --params 20M
      regnet models regnetx-3.2gf
    """
    require_writable(choice.plot)
    names, folder = options.names, options.cache_dir
    best = choice.best or choice.latency or choice.plot is not None
    one = len(names) == 1 and not is_glob(names[0]) and not best
    cards = find_cards(names or card_names())
    if best:
        cards = tuple({one.title: one for card in cards for one in card.at_each_size}.values())
    listed = within(choice.limits(), cards)
    front: list[Candidate] = []
    if best:
        listed = ranked(_timed(listed) if choice.latency else listed)
        front = pareto_front(listed)
    if choice.plot:
        plot(listed, choice.plot)
    if options.json:
        marks = ({"front": candidate in front} if best else {} for candidate in listed)
        rows = [_as_dict(c, folder) | mark for c, mark in zip(listed, marks, strict=True)]
        print_json(rows[0] if one else rows, indent=1)
    elif one:
        _show_card(cards[0], folder)
    else:
        _print(listed, folder, [candidate in front for candidate in listed] if best else None)


def _timed(candidates: list[Candidate]) -> list[Candidate]:
    """Return the candidates with their latencies, those without a published accuracy left out."""
    from regnet.cli.progress import counter
    from regnet.space.measure import latencies_at

    keys = {c: (c.card.build_spec(), c.card.preprocess.crop) for c in ranked(candidates)}
    with counter("measuring", len(set(keys.values())), "networks") as advance:
        latencies = latencies_at(keys.values(), on_measured=advance)
    return [replace(c, latency=latencies[key]) for c, key in keys.items()]


def _print(listed: list[Candidate], folder: Path | None, marks: list[bool] | None) -> None:
    """Print the table, the models of the front marked with a star in a first column."""
    width = terminal_width()
    shown = len(COLUMNS) if width is None or width >= WIDE else NARROW
    if width is not None and width < NAMES:
        shown = NARROWEST - (marks is not None)
    rows = [list(COLUMNS), *(list(_row(candidate, folder)) for candidate in listed)]
    rows = [row[:shown] for row in rows]
    if timed := marks is not None and listed[0].latency is not None:
        for row, time in zip(rows, ["ms", *(f"{c.latency:.1f}" for c in listed)], strict=True):
            row.insert(NARROW, time)
    if marks is None:
        print_table(rows, left=(0, 3, 7, 8))
        return
    signs = ("front", *("*" if mark else "" for mark in marks))
    starred = [(sign, *row) for sign, row in zip(signs, rows, strict=True)]
    print_table(starred, left=(0, 1, 4, 8 + timed, 9 + timed))


def _as_dict(candidate: Candidate, cache_dir: Path | None) -> dict[str, Any]:
    card, cached = candidate.card, cached_file(candidate.card, cache_dir=cache_dir)
    timed = {} if candidate.latency is None else {"latency_ms": candidate.latency}
    values = card.to_dict() | asdict(candidate.cost) | timed
    return values | {"cached": str(cached) if cached else None}


def _row(candidate: Candidate, cache_dir: Path | None) -> tuple[str, ...]:
    """Return the texts of `COLUMNS`."""
    cost, card = candidate.cost, candidate.card
    best, file = card.headline, card.file
    measured = best or card.preprocess
    size = (file.size or file.size_about) if file else None
    return (
        card.title,
        _percent(best.top1 if best else None),
        _percent(best.top5 if best else None),
        f"{best.protocol if best else card.preprocess.name} {measured.resize}/{measured.crop}",
        f"{cost.params / 1e6:.2f}",
        f"{cost.macs / 1e9:.2f}",
        f"{size / 1e6:.1f}" if size else "",
        card.licence.id,
        "yes" if cached_file(card, cache_dir=cache_dir) else "",
    )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _show_card(card: Card, cache_dir: Path | None) -> None:
    """Print the facts of a card and its published accuracies."""
    print_facts(_facts(card, cache_dir))
    titles = ("test set", "top-1", "top-5", "protocol", "resize by", "published by")
    rows = [
        (
            row.dataset,
            _percent(row.top1),
            _percent(row.top5),
            f"{row.protocol}: {row.resize}/{row.crop} {row.interpolation}",
            row.backend,
            row.source,
        )
        for row in card.accuracies
    ]
    print()  # noqa: T201
    print_table([titles, *rows], left=(0, 3, 4, 5))


def _facts(card: Card, cache_dir: Path | None) -> Iterator[tuple[str, str]]:
    """Yield what a card says, as title and text; the text may be empty."""
    cost, p = Candidate(card).cost, card.preprocess
    yield "model", card.title
    yield "aliases", ", ".join(card.aliases)
    yield "network", network_title(card.build_spec())
    yield "classes", f"{card.classes} ({card.labels})"
    yield "params", f"{cost.params:,}"
    yield "MACs", f"{cost.macs:,} at {p.crop} pixels"
    yield "activations", f"{cost.acts:,}"
    yield "source", f"{card.source} (layout {card.layout}, {card.channels})"
    if card.bundled:
        yield "file", f"{card.bundled}, in the package"
    for file in filter(None, (card.file, *card.other_files)):
        about = f"about {file.size_about:,} bytes" if file.size_about else "not published"
        yield "file", file.name
        yield from (("mirror", url) for url in file.urls)
        yield "size", f"{file.size:,} bytes" if file.size else about
        yield "sha384", file.sha384 or ""
        yield "sha256", f"{file.sha256_prefix}..." if file.sha256_prefix else ""
    yield "licence", f"{card.licence.id}, {card.licence.url}"
    yield "", card.licence.notice or ""
    yield (
        "protocol",
        f"{p.name}: short side to {p.resize} ({p.interpolation}), centre crop {p.crop}, "
        f"{p.channels}, mean {list(p.mean)}, scale {list(p.scale)}",
    )
    yield "sizes", ", ".join(f"{card.name}:{size.crop}" for size in card.sizes)
    recipe = asdict(card.recipe).items()
    yield "recipe", ", ".join(f"{name} {value}" for name, value in recipe if value is not None)
    yield from (("note", note) for note in card.notes)
    yield "cached", str(cached_file(card, cache_dir=cache_dir) or "no")
