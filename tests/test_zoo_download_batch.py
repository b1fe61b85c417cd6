"""Several downloads at once: each card has its own outcome."""

from pathlib import Path

import pytest

from regnet.system.errors import DownloadError, RegNetError
from regnet.zoo.card import Card
from regnet.zoo.catalogue import find_cards
from regnet.zoo.download_batch import fetch_all

CARDS = find_cards(["regnetx-*mf"])


@pytest.mark.parametrize("jobs", [1, 4])
@pytest.mark.parametrize("surprise", [ZeroDivisionError("odd"), SystemExit(3), KeyError("size")])
def test_a_surprise_is_the_failure_of_its_card_alone(jobs: int, surprise: BaseException) -> None:
    def fetch(card: Card) -> Path:
        if card == CARDS[0]:
            raise surprise
        return Path(card.name)

    outcomes = {outcome.card.name: outcome for outcome in fetch_all(CARDS, fetch, jobs=jobs)}
    assert set(outcomes) == {card.name for card in CARDS}
    error = outcomes.pop(CARDS[0].name).error
    assert isinstance(error, RegNetError)
    assert error.__cause__ is surprise
    for text in (CARDS[0].name, type(surprise).__name__, str(surprise)):
        assert text in str(error)
    assert all(outcome.path == Path(name) for name, outcome in outcomes.items())


def test_a_foreseen_failure_is_kept_as_it_is() -> None:
    foreseen = DownloadError("no such file")

    def fetch(card: Card) -> Path:
        raise foreseen

    assert [outcome.error for outcome in fetch_all(CARDS, fetch)] == [foreseen] * len(CARDS)
