"""A measured accuracy beside the figures on the model's card, where the two may be compared."""

import re
from dataclasses import dataclass, replace
from typing import Any, Final

from regnet.data.labelled import Dataset
from regnet.ir.metadata import ModelMetadata
from regnet.pixels.protocol import PROTOCOLS, Preprocess
from regnet.statistics.metrics import Metrics, Share
from regnet.system.errors import UnknownModelError
from regnet.zoo.card import Accuracy, Card
from regnet.zoo.catalogue import card_by_name

_IMAGES: Final = {"ImageNet-1k val": 50_000}
_STATED: Final = re.compile(r"(\d[\d,]*) [\w -]*photos")


@dataclass(frozen=True)
class CardComparison:
    """The card's figures for this data set and protocol, or the `reason` why none compares.

    `top1_within` and `top5_within` tell whether the card's figure is in the measured 95 % interval;
    None where the card has none.
    """

    accuracy: Accuracy | None
    reason: str | None
    top1_within: bool | None = None
    top5_within: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain JSON values; accuracies are shares from 0 to 1."""
        card = self.accuracy
        return {
            "compared": card is not None,
            "reason": self.reason,
            "dataset": card and card.dataset,
            "protocol": card and card.protocol,
            "source": card and card.source,
            "top1": card and _share(card.top1),
            "top5": card and _share(card.top5),
            "top1_within": self.top1_within,
            "top5_within": self.top5_within,
        }


def compare_with_card(
    metadata: ModelMetadata, dataset: Dataset, metrics: Metrics
) -> CardComparison:
    """Return how measured figures stand to the card's of the same protocol and data set.

    A data set is taken for the card's if it has as many images and all of the model's classes.
    """
    try:
        card = card_by_name(metadata.card) if metadata.card else None
    except UnknownModelError:
        card = None
    if card is None:
        return CardComparison(None, "the model has no card with published figures")
    figures = [
        figure
        for figure in card.accuracies
        if not dataset.missing and dataset.count == _images(figure)
    ]
    if not figures:
        return CardComparison(None, _other_images(card, dataset))
    used = metadata.preprocess
    named = [figure for figure in figures if figure.protocol == used.name]
    own = card.preprocess
    if replace(used, name=own.name) == own:  # the card's own protocol by another name
        named += [figure for figure in figures if figure.protocol == own.name]
    if not named:
        return CardComparison(None, _other_protocol(figures, used))
    figure = named[0]
    return CardComparison(
        figure, None, _within(metrics.top1, figure.top1), _within(metrics.top5, figure.top5)
    )


def _images(figure: Accuracy) -> int | None:
    """Return how many images the card's data set has, where that is known."""
    stated = _STATED.search(figure.dataset)
    return int(stated[1].replace(",", "")) if stated else _IMAGES.get(figure.dataset)


def _within(measured: Share, percent: float | None) -> bool | None:
    return None if percent is None else measured.holds(percent / 100)


def _share(percent: float | None) -> float | None:
    return None if percent is None else round(percent / 100, 8)


def _other_images(card: Card, dataset: Dataset) -> str:
    known = [
        f"{figure.dataset} ({images:,} images)" if not _STATED.search(figure.dataset) else
        figure.dataset
        for figure in card.accuracies
        if (images := _images(figure))
    ]  # fmt: skip
    classes = len(dataset.classes)
    return (
        f"the card's figures are on other images: {', '.join(dict.fromkeys(known))}; these are "
        f"{dataset.count:,} images of {classes:,} of the {classes + len(dataset.missing):,} classes"
    )


def _other_protocol(figures: list[Accuracy], used: Preprocess) -> str:
    names = list(dict.fromkeys(figure.protocol for figure in figures))
    known = [name for name in names if name in PROTOCOLS]
    hint = f"; --protocol {known[0]} gives one that compares" if known else ""
    return f"the card's figures are by the protocol {' and '.join(names)}, not {used.name}{hint}"
