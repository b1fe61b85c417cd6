"""`regnet download`: weights into the cache, verified."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from regnet.cli.console import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED, print_json, say
from regnet.cli.options import CacheDir, Mirrors, Offline
from regnet.cli.progress import download_display, one_at_a_time
from regnet.system.errors import DownloadError, LicenceError, UnknownModelError
from regnet.zoo.batch import Fetch, fetch_all
from regnet.zoo.card import Card
from regnet.zoo.catalogue import card_names, find_cards
from regnet.zoo.download import cached_file, download, forget_hash, import_file, require_licence
from regnet.zoo.events import Event, OnEvent, ignore

HELP = """Download published weights into the cache, verified.

Tries the mirrors in turn, goes on from where an earlier run stopped, and gives a file its name \
only once its size and hash are right. What is already there is not fetched again. Prints the path \
of each file on standard output.

Exit codes: 0 all are there, 1 some failed, 2 could not run, 130 interrupted.

Examples:

  regnet download regnetx-3.2gf

  regnet download 'regnetx-*' --jobs 8

  regnet download regnetx-3.2gf --mirror https://mirror.example/weights

  regnet download --from RegNetX-3.2GF_dds_8gpu.pyth regnetx-3.2gf
"""


class Progress(StrEnum):
    """How progress is shown."""

    BAR = "bar"
    JSON = "json"
    NONE = "none"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("download", help=HELP, no_args_is_help=True)(_download)


def _download(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME|PATTERN...", help="Models: names, aliases or globs."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All models of the zoo.")] = False,
    jobs: Annotated[int, typer.Option(min=1, max=32, help="Downloads at once.")] = 4,
    cache_dir: CacheDir = None,
    offline: Offline = False,
    mirror: Mirrors = None,
    from_: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Take the one NAME's weights from a file."),
    ] = None,
    progress: Annotated[
        Progress,
        typer.Option(
            help="bar: bars on a terminal, else lines; json: one event a line on standard output."
        ),
    ] = Progress.BAR,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept non-commercial licences.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Hash files that are already there again.")
    ] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Forget the hash recorded at the first download.")
    ] = False,
) -> None:
    cards = _selected(names or [], all_=all_)
    _require_addresses(mirror or [])
    accepted = offline or _licences_accepted(cards, cache_dir, accept_licence)
    if forget:
        _forget(cards, cache_dir)
    with _display(progress) as on_event:

        def fetch(card: Card) -> Path:
            return download(
                card,
                cache_dir=cache_dir,
                mirrors=mirror or [],
                offline=offline,
                verify=verify,
                accept_licence=accepted,
                on_event=on_event,
            )

        chosen = fetch if from_ is None else _importer(cards, from_, cache_dir, on_event)
        code = _run(cards, chosen, jobs=jobs, print_paths=progress is not Progress.JSON)
    raise typer.Exit(code)


def _selected(names: Sequence[str], *, all_: bool) -> tuple[Card, ...]:
    if all_ == bool(names):
        raise UnknownModelError(
            "name one or more models, or give --all; `regnet models` lists them"
        )
    if all_:
        return tuple(card for card in find_cards(card_names()) if card.file is not None)
    return find_cards(names)


def _require_addresses(mirrors: Sequence[str]) -> None:
    for mirror in mirrors:
        if not mirror.startswith(("http://", "https://")):
            raise DownloadError(f"--mirror {mirror}: is no http or https address")


def _licences_accepted(cards: Sequence[Card], cache_dir: Path | None, accepted: bool) -> bool:
    """Show the non-commercial licences of what is to be fetched, and have them accepted."""
    asked = [card for card in cards if card.licence.non_commercial]
    missing = [card for card in asked if cached_file(card, cache_dir=cache_dir) is None]
    if not missing:
        return True
    ask = not accepted and sys.stdin.isatty() and sys.stderr.isatty()
    if not (accepted or ask):
        require_licence(missing[0], False)
    _show_licences(missing)
    if ask and not _confirmed("Do you accept this?"):
        raise LicenceError("the licence was not accepted; nothing was downloaded")
    return True


def _confirmed(question: str) -> bool:
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        say("regnet: interrupted")
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _show_licences(cards: Sequence[Card]) -> None:
    for notice in dict.fromkeys(card.licence.notice for card in cards):
        say(f"{', '.join(c.name for c in cards if c.licence.notice == notice)}:\n  {notice}")


def _forget(cards: Sequence[Card], cache_dir: Path | None) -> None:
    for card in cards:
        if card.file is not None and forget_hash(card, cache_dir=cache_dir):
            say(f"{card.name}: the recorded hash is forgotten")


def _importer(
    cards: Sequence[Card], file: Path, cache_dir: Path | None, on_event: OnEvent
) -> Fetch:
    if len(cards) != 1:
        raise UnknownModelError(f"--from takes one NAME, not {len(cards)}")
    if not os.path.isfile(file):
        raise DownloadError(f"--from {file}: no such file")

    def fetch(card: Card) -> Path:
        path = import_file(card, file, cache_dir=cache_dir, on_event=on_event)
        on_event(Event(event="done", model=card.name, path=str(path), bytes=path.stat().st_size))
        return path

    return fetch


def _run(cards: Sequence[Card], fetch: Fetch, *, jobs: int, print_paths: bool) -> int:
    failed = 0
    try:
        for outcome in fetch_all(cards, fetch, jobs=jobs):
            if outcome.error is not None:
                failed += 1
                say(f"regnet: {outcome.error}")
            elif print_paths:
                _print_line(str(outcome.path))
    except KeyboardInterrupt:
        say("regnet: interrupted; what came is kept, run it again to go on")
        return EXIT_INTERRUPTED
    return EXIT_SOME_FAILED if failed else EXIT_OK


def _print_line(text: str) -> None:
    print(text, flush=True)  # noqa: T201


@contextmanager
def _display(progress: Progress) -> Iterator[OnEvent]:
    """Give a listener for the events of all threads."""
    if progress is Progress.JSON:
        yield one_at_a_time(lambda event: print_json(event.to_dict()))
    elif progress is Progress.NONE:
        yield ignore
    else:
        with download_display() as listener:
            yield listener
