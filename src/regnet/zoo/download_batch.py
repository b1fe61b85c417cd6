"""Downloads of several cards side by side."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from regnet.system.errors import RegNetError
from regnet.zoo.card import Card

Fetch = Callable[[Card], Path]


@dataclass(frozen=True)
class Outcome:
    """What became of one card: the `path` of its file, or the `error`."""

    card: Card
    path: Path | None = None
    error: RegNetError | None = None


def fetch_all(cards: Sequence[Card], fetch: Fetch, *, jobs: int = 4) -> Iterator[Outcome]:
    """Yield the outcome of `fetch` for each card as it comes, `jobs` of them at a time.

    The threads are daemons: an interrupted command ends at once, as if killed, which downloads
    survive. What goes wrong with one card, foreseen or not, is that card's outcome alone.
    """
    waiting: queue.SimpleQueue[Card] = queue.SimpleQueue()
    outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()

    def work() -> None:
        with suppress(queue.Empty):
            while True:
                outcomes.put(_outcome(waiting.get_nowait(), fetch))

    for card in cards:
        waiting.put(card)
    for _ in range(min(max(1, jobs), len(cards))):
        threading.Thread(target=work, daemon=True).start()
    for _ in cards:
        yield outcomes.get()


def _outcome(card: Card, fetch: Fetch) -> Outcome:
    try:
        return Outcome(card, path=fetch(card))
    except RegNetError as exc:
        return Outcome(card, error=exc)
    except BaseException as exc:  # without an outcome the others would be waited for in vain
        error = RegNetError(f"{card.name} failed unexpectedly: {type(exc).__name__}: {exc}")
        error.__cause__ = exc
        return Outcome(card, error=error)
