"""`regnet download`: published weights into the cache, verified."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import typer

from regnet.cli.console import EXIT_INTERRUPTED, print_json, say
from regnet.cli.options import Download
from regnet.cli.progress import download_display, one_at_a_time
from regnet.system.errors import DownloadError, LicenceError, UnknownModelError
from regnet.system.option import Options, argument, option
from regnet.zoo.card import Card
from regnet.zoo.catalogue import card_names, find_cards
from regnet.zoo.download import (
    cached_file,
    forget_hash,
    import_file,
    require_licence,
)
from regnet.zoo.download import download as download_card
from regnet.zoo.download_batch import Fetch, fetch_all
from regnet.zoo.events import Event, OnEvent, ignore

Progress = Literal["bar", "json", "none"]


class _Models(Options):
    names: tuple[str, ...] = argument("Names, aliases or globs", "[NAME]...", ())
    all: bool = option(False, "All models of the zoo")
    accept_licence: bool = option(False, "Accept non-commercial licences")


class _Transfer(Download):
    jobs: int = option(4, "Parallel downloads", min=1, max=32)
    source: Path | None = option(None, "Import NAME's weights from FILE", "--from", "FILE")
    verify: bool = option(False, "Also hash files that exist")
    forget: bool = option(False, "Forget the hash recorded at the first download")
    progress: Progress = option("bar", "bar (lines without a terminal), json (events) or none")


def download(models: _Models, transfer: _Transfer) -> int:
    """Download published weights into the cache, verified.

    Tries the mirrors in turn, resumes, and names a file only once size and hash are right. A file
    in the cache is not downloaded again. Prints the path of each file on standard output.

    Exit status: 0 done, 1 some failed, 2 could not run, 130 interrupted.

      regnet download regnetx-3.2gf
      regnet download 'regnetx-*' --jobs 8
      regnet download regnetx-3.2gf --mirror https://mirror.example/weights
      regnet download --from RegNetX-3.2GF_dds_8gpu.pyth regnetx-3.2gf
    """
    cards, folder = _selected(models), transfer.cache_dir
    for mirror in transfer.mirror:
        if not mirror.startswith(("http://", "https://")):
            raise DownloadError(f"--mirror {mirror}: is not an http or https address")
    if not transfer.offline:
        _require_licences(cards, folder, models.accept_licence)
    for card in cards if transfer.forget else ():
        if card.file is not None and forget_hash(card, cache_dir=folder):
            say(f"{card.name}: the recorded hash is forgotten")
    with _display(transfer.progress) as on_event:
        fetch: Fetch = partial(
            download_card,
            cache_dir=folder,
            mirrors=transfer.mirror,
            offline=transfer.offline,
            verify=transfer.verify,
            accept_licence=True,
            on_event=on_event,
        )
        if transfer.source is not None:
            fetch = _importer(cards, transfer.source, folder, on_event)
        return _run(cards, fetch, jobs=transfer.jobs, print_paths=transfer.progress != "json")


def _selected(models: _Models) -> tuple[Card, ...]:
    if models.all == bool(models.names):
        raise UnknownModelError(
            "name one or more models, or give --all; `regnet models` lists them"
        )
    if models.all:
        return tuple(card for card in find_cards(card_names()) if card.file is not None)
    return find_cards(models.names)


def _require_licences(cards: Sequence[Card], cache_dir: Path | None, accepted: bool) -> None:
    """Show the non-commercial licences of missing files; raises `LicenceError` unless accepted."""
    missing = [
        card
        for card in cards
        if card.licence.non_commercial and cached_file(card, cache_dir=cache_dir) is None
    ]
    ask = not accepted and sys.stdin.isatty() and sys.stderr.isatty()
    if missing and not (accepted or ask):
        require_licence(missing[0], False)
    for notice in dict.fromkeys(card.licence.notice for card in missing):
        say(f"{', '.join(c.name for c in missing if c.licence.notice == notice)}:\n  {notice}")
    if missing and ask and not _confirmed("Do you accept this?"):
        raise LicenceError("the licence was not accepted; nothing was downloaded")


def _confirmed(question: str) -> bool:
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        say("regnet: interrupted")
        raise typer.Exit(EXIT_INTERRUPTED) from None


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
    """Fetch the weights, print their paths, and return the exit status."""
    failed = False
    try:
        for outcome in fetch_all(cards, fetch, jobs=jobs):
            if outcome.error is not None:
                failed = True
                say(f"regnet: {outcome.error}")
            elif print_paths:
                print(outcome.path, flush=True)  # noqa: T201
    except KeyboardInterrupt:
        say("regnet: interrupted; what came is kept, run it again to go on")
        return EXIT_INTERRUPTED
    return int(failed)


@contextmanager
def _display(progress: Progress) -> Iterator[OnEvent]:
    """Give a listener for the events of all threads."""
    if progress == "json":
        yield one_at_a_time(lambda event: print_json(event.to_dict()))
    elif progress == "none":
        yield ignore
    else:
        with download_display() as listener:
            yield listener
