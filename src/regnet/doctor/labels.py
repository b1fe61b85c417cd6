"""What a network's features say of labels: wrong ones, odd photos, classes that are alike.

Each labelled photo is judged by a head of all other photos (linear discriminant analysis, left out
in closed form), so that a wrong label does not speak for itself.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from regnet.data.sources import Item
from regnet.doctor.findings import File, Finding, quoted, share_of
from regnet.doctor.tree import Tree
from regnet.inference.result import readable
from regnet.statistics.conformal import softmax64
from regnet.statistics.discriminant import Truths, fit
from regnet.system.errors import DatasetError
from regnet.system.files import write_whole
from regnet.system.json_text import ToDict
from regnet.system.output_file import naming
from regnet.system.text import counted, percent

if TYPE_CHECKING:
    from regnet.inference.classify import Classifier


Vectors = NDArray[np.float32]

SUSPECT: Final = 0.2
"""Below this probability of its own class a photo whose best other class is likelier is listed."""

ALIKE: Final = 0.25
"""From this share of two classes' photos on that are taken for the other one they are alike."""

ODD: Final = 5.0
"""So many robust standard deviations below the median similarity make a photo odd."""

_NEIGHBOURS: Final = 5
_ROWS: Final = 1024
_HEAD: Final = ("file", "split", "class", "suggested", "probability_class", "probability_suggested")


@dataclass(frozen=True)
class Suspect(ToDict):
    """A photo whose label may be wrong: its class, a likelier one, and their probabilities."""

    source: str
    split: str
    label: str
    suggested: str
    probability: float
    probability_suggested: float


@dataclass(frozen=True)
class Judgement:
    """What features say of labels; `suspects` are ranked, the least probable labels first."""

    suspects: tuple[Suspect, ...]
    findings: tuple[Finding, ...]


def embedded(
    classifier: "Classifier", items: Iterable[Item], advance: Callable[[int], None]
) -> tuple[Vectors, list[int]]:
    """Return the features (N, width) of the readable photos, and their numbers."""
    vectors, numbers = [], []
    for number, found in enumerate(classifier.embed_items(items)):
        advance(1)
        if found.vector is not None:
            vectors.append(found.vector)
            numbers.append(number)
    return np.array(vectors, np.float32).reshape(-1, classifier.width), numbers


def require_judgeable(tree: Tree, classifier: "Classifier") -> None:
    """Raise `DatasetError` or `ModelError` as `judge`, before photos are read."""
    _ = classifier.width
    if len(tree.classes) < 2:
        raise DatasetError(f"{tree.path}: labels can be checked with two classes or more")


def judge(
    tree: Tree, classifier: "Classifier", *, advance: Callable[[int], None] = lambda count: None
) -> Judgement:
    """Return what the features of a model say of the labels of a tree.

    Raises `DatasetError` for fewer than two classes with readable photos, `ModelError` for a model
    without features.
    """
    require_judgeable(tree, classifier)
    names = [place.label for place in tree.places]
    sources: list[str] = []

    def noted() -> Iterator[Item]:
        for item in tree.items():
            sources.append(item.source)
            yield item

    vectors, numbers = embedded(classifier, noted(), advance)
    kept = [row for row, number in enumerate(numbers) if names[number]]
    vectors, numbers = vectors[kept], [numbers[row] for row in kept]
    classes = sorted({names[number] for number in numbers})
    if len(classes) < 2:
        raise DatasetError(f"{tree.path}: only {quoted(classes)} has readable photos")
    truths = np.array([classes.index(names[number]) for number in numbers], np.int64)
    fitted = fit(vectors, truths, len(classes))
    rows, own = fitted.rows, truths[fitted.rows]
    probabilities = softmax64(fitted.logits) if len(rows) else fitted.logits

    def file(row: int, detail: str) -> File:
        place = tree.places[numbers[row]]
        return File(sources[numbers[row]], place.split, place.label, detail)

    suspects = []
    of_own = probabilities[np.arange(len(rows)), own]
    best = probabilities.argmax(axis=1)
    for index in np.argsort(of_own, kind="stable").tolist():
        if of_own[index] < SUSPECT and best[index] != own[index]:
            number = numbers[rows[index]]
            place, suggested = tree.places[number], classes[best[index]]
            shares = float(of_own[index]), float(probabilities[index, best[index]])
            suspects.append(Suspect(sources[number], place.split, place.label, suggested, *shares))
    findings = [
        *_wrong(suspects, len(rows)),
        *_alike(best, own, classes),
        *_odd(vectors, file),
    ]
    return Judgement(tuple(suspects), tuple(findings))


def _wrong(suspects: list[Suspect], photos: int) -> Iterator[Finding]:
    if suspects:
        yield Finding(
            "wrong-labels",
            "warning",
            f"{counted(len(suspects), 'photo')} ({share_of(len(suspects), photos)}) may have a "
            "wrong label, the least probable first.",
            "Look at them from the first on, and correct those that are wrong (--fix-list FILE, "
            "then --apply FILE).",
            len(suspects),
            tuple(
                File(
                    one.source,
                    one.split,
                    one.label,
                    f"{one.suggested} {percent(one.probability_suggested, 0)}, "
                    f"{one.label} {percent(one.probability, 1)}",
                )
                for one in suspects
            ),
        )


def _alike(best: NDArray[np.intp], own: Truths, classes: list[str]) -> Iterator[Finding]:
    """Yield the pairs of classes whose photos are taken for each other."""
    confused = np.zeros((len(classes), len(classes)))
    np.add.at(confused, (own, best), 1)
    counts = confused.sum(axis=1)
    pairs = []
    for a, b in zip(*np.triu_indices(len(classes), 1), strict=True):
        share = (confused[a, b] + confused[b, a]) / max(counts[a] + counts[b], 1)
        if share >= ALIKE:
            pairs.append((share, f"{classes[a]} and {classes[b]} ({percent(share, 0)})"))
    if pairs:
        texts = [text for _, text in sorted(pairs, reverse=True)]
        yield Finding(
            "classes-alike",
            "warning",
            f"{counted(len(pairs), 'pair')} of classes can hardly be told apart; the share of "
            f"their photos taken for the other: {quoted(texts)}.",
            "Join them, or add photos that show the difference.",
            len(pairs),
        )


def _odd(vectors: Vectors, file: Callable[[int, str], File]) -> Iterator[Finding]:
    """Yield the photos that resemble no other: their mean cosine with their nearest is low."""
    if len(vectors) <= 2 * _NEIGHBOURS:
        return
    centred = vectors - vectors.mean(axis=0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1), 1e-12)[:, None]
    parts = []
    for start in range(0, len(unit), _ROWS):
        cosines = unit[start : start + _ROWS] @ unit.T
        nearest = np.partition(cosines, -_NEIGHBOURS - 1, axis=1)[:, -_NEIGHBOURS - 1 :]
        parts.append((nearest.sum(axis=1) - nearest.max(axis=1)) / _NEIGHBOURS)  # not itself
    similarity = np.concatenate(parts)
    middle = np.median(similarity)
    spread = 1.4826 * np.median(np.abs(similarity - middle))
    order = np.argsort(similarity, kind="stable")
    odd = order[similarity[order] < middle - ODD * spread].tolist()
    if odd:
        yield Finding(
            "odd-ones-out",
            "note",
            f"{counted(len(odd), 'photo')} ({share_of(len(odd), len(vectors))}) "
            f"{'resembles' if len(odd) == 1 else 'resemble'} no other photo.",
            "Look whether they belong to the data set.",
            len(odd),
            tuple(file(row, f"similarity {similarity[row]:.2f}") for row in odd),
        )


def write_fix_list(path: Path, suspects: Iterable[Suspect]) -> None:
    """Write suspects as CSV, to be reviewed and applied. Raises `OutputError`."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_HEAD)
    for one in suspects:
        shares = (f"{share:.6f}" for share in (one.probability, one.probability_suggested))
        rows.writerow([*map(readable, (one.source, one.split, one.label, one.suggested)), *shares])
    with naming(path):
        write_whole(path, text.getvalue().encode("utf-8", "backslashreplace"))
