"""Which unlabelled photos to label next: those that a model is unsure of, unlike each other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from regnet.data.sources import iter_items
from regnet.inference.result import readable
from regnet.network.labels import first_name
from regnet.pages import report as page
from regnet.system.errors import DatasetError
from regnet.system.json_text import ToDict
from regnet.system.text import counted

if TYPE_CHECKING:
    from regnet.inference.classify import Classifier


@dataclass(frozen=True)
class NextPhoto(ToDict):
    """A photo to label: the model's top class and its lead over the second, 0 to 1."""

    source: str
    label: str
    probability: float
    lead: float


@dataclass(frozen=True)
class NextPhotos(ToDict):
    """The photos to label next, in their order, of so many `photos`."""

    unlabelled: str
    model: str
    photos: int
    unreadable: int
    next: tuple[NextPhoto, ...]


def next_photos(
    classifier: "Classifier",
    unlabelled: str,
    count: int,
    *,
    advance: Callable[[int], None] = lambda count: None,
) -> NextPhotos:
    """Return the `count` photos to label next.

    Each next one has the greatest product of doubt (1 - the lead of the top class) and cosine
    distance from the nearest chosen one. Raises `DatasetError` without a readable photo,
    `ModelError` for a model without features.
    """
    _ = classifier.width  # before photos are read
    known: list[NextPhoto] = []
    failed = 0
    for found in classifier.stream([unlabelled], top_k=2):
        advance(1)
        if found.error is not None:
            failed += 1
            continue
        first, *others = found.predictions
        lead = first.probability - (others[0].probability if others else 0.0)
        known.append(NextPhoto(found.source, first.label, first.probability, lead))
    if not known:
        raise DatasetError(f"{unlabelled}: no photo could be read")
    embedded = classifier.embed_items(iter_items([unlabelled]))
    vectors = np.array([one.vector for one in embedded if one.vector is not None], np.float32)
    doubts = np.array([1 - one.lead for one in known])
    chosen = _chosen(vectors, doubts, min(count, len(known)))
    return NextPhotos(
        readable(unlabelled),
        classifier.metadata.name,
        len(known) + failed,
        failed,
        tuple(known[row] for row in chosen),
    )


def _chosen(vectors: NDArray[np.float32], doubts: NDArray[np.float64], count: int) -> list[int]:
    """Return the rows of the greatest doubt times distance, one after the other."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)[:, None]
    distances = np.ones(len(unit))
    chosen: list[int] = []
    for _ in range(count):
        worth = (doubts + 1e-6) * (distances + 1e-6)
        worth[chosen] = -1
        chosen.append(int(worth.argmax()))
        distances = np.minimum(distances, np.maximum(1 - unit @ unit[chosen[-1]], 0))
    return chosen


def next_report(result: NextPhotos) -> page.Report:
    """Return the photos to label next as a report."""
    rows = [
        (one.source, first_name(one.label), page.Bar(one.probability), page.Number(one.lead, ".3f"))
        for one in result.next
    ]
    table = page.Table(("Photo", "Top class", "Probability", "Lead"), rows, first=len(rows))
    return page.Report(
        f"{counted(len(rows), 'photo')} to label next",
        [page.Section("", [table], "Those that the model is unsure of, unlike each other.")],
        subtitle=f"of {result.photos:,} in {result.unlabelled}, {result.unreadable:,} unreadable; "
        f"{result.model}",
        command="regnet doctor --next",
    )
