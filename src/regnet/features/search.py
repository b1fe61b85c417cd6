"""The photos nearest to a photo: exact, by the cosine of embeddings."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from regnet.data.sources import iter_items
from regnet.features.embed import TINY, Form, Show, embed_to, features_id, normalised
from regnet.features.embeddings_file import Block, Embeddings, Photo, open_embeddings
from regnet.inference.classify import Classifier
from regnet.inference.result import readable
from regnet.pages import report as page
from regnet.pages.thumbnails import thumbnail
from regnet.system.errors import DatasetError, ModelError
from regnet.system.files import temporary_folder
from regnet.system.json_text import ToDict
from regnet.system.text import counted

_TOGETHER: Final = 256  # photos that are searched for in one pass


@dataclass(frozen=True)
class Neighbour(ToDict):
    """A photo found, or the frame of a video at `timestamp`; `similarity` is the cosine."""

    source: str
    similarity: float
    timestamp: float | None = None


@dataclass(frozen=True)
class Match(ToDict):
    """The photos nearest to the photo `source`, nearest first, or the error."""

    source: str
    neighbours: tuple[Neighbour, ...]
    error: str | None = None


@dataclass(frozen=True)
class Search(ToDict):
    """The matches of several photos `within` a file or folder of so many `photos`."""

    model: str
    within: str
    photos: int
    unreadable: int
    matches: tuple[Match, ...]


def nearest(
    queries: NDArray[np.float32], blocks: Iterable[Block], k: int, *, within: str
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return rows and cosines (Q, <= k) of the `k` nearest to each query (Q, width), best first.

    Among equals the first row is first. Raises `DatasetError` for a vector `within` the file that
    is not finite.
    """
    queries = normalised(queries)
    rows = [np.empty(0, np.int64) for _ in queries]
    cosines = [np.empty(0, np.float32) for _ in queries]
    for numbers, block in blocks:
        if block.dtype == np.float16:
            block = np.take(_halves(), block.view(np.uint16), mode="wrap")
        vectors = np.asarray(block, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.sqrt(np.vecdot(vectors, vectors))
        if not np.isfinite(lengths).all():
            row = numbers[~np.isfinite(lengths)][0]
            raise DatasetError(
                f"{within}: the embedding of row {row} is not finite; embed the photos again"
            )
        products = vectors @ queries.T / np.maximum(lengths, TINY)[:, None]
        for query, values in enumerate(products.T):
            best = _best(values, k)
            both = np.concatenate([cosines[query], values[best]])
            order = np.argsort(-both, kind="stable")[:k]
            rows[query] = np.concatenate([rows[query], numbers[best]])[order]
            cosines[query] = both[order]
    return np.array(rows, np.int64), np.array(cosines, np.float32)


def _best(values: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Return the indices of the `k` largest values, in their order, and of their equals."""
    if len(values) <= k:
        return np.arange(len(values))
    least = np.partition(values, len(values) - k)[len(values) - k]
    return np.flatnonzero(values >= least)


@cache
def _halves() -> NDArray[np.float32]:
    """Return the float32 of every float16, by its bits: numpy converts five times as slowly."""
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


def search(
    classifier: Classifier,
    photos: Sequence[str],
    embeddings: Embeddings,
    *,
    within: str,
    k: int,
    offline: bool = False,
) -> Search:
    """Return the `k` photos nearest to each of `photos`, but for that file itself.

    Raises `ModelError` if the embeddings are of another model, or it has none.
    """
    made = embeddings.description
    own = features_id(classifier.metadata), classifier.width
    if (made.features, made.width) != own:
        raise ModelError(
            f"{within}: its embeddings are of another model, {made.model} in {made.precision}: "
            "search with that, or embed the photos again"
        )
    queries = list(classifier.embed_items(iter_items(photos, offline=offline)))
    readable_ones = [q for q in queries if q.vector is not None]
    found: list[tuple[Neighbour, ...]] = []
    for start in range(0, len(readable_ones), _TOGETHER):
        some = readable_ones[start : start + _TOGETHER]
        vectors = np.array([q.vector for q in some], np.float32)
        rows, cosines = nearest(vectors, embeddings.blocks(), k + 1, within=within)
        known = embeddings.photos(set(rows.ravel().tolist()))
        for query, numbers, values in zip(some, rows.tolist(), cosines.tolist(), strict=True):
            others = _others(query.source, [known[n] for n in numbers], values)
            found.append(tuple(others[:k]))
    neighbours = iter(found)
    matches = tuple(
        Match(readable(q.source), next(neighbours) if q.error is None else (), q.error)
        for q in queries
    )
    return Search(made.model, within, made.rows, made.failed, matches)


def _others(source: str, photos: list[Photo], cosines: list[float]) -> list[Neighbour]:
    """Return neighbours without the photo itself."""
    itself = os.path.realpath(source)
    return [
        Neighbour(readable(photo.source), cosine, photo.timestamp)
        for photo, cosine in zip(photos, cosines, strict=True)
        if photo.timestamp is not None or os.path.realpath(photo.source) != itself
    ]


@contextmanager
def embedded_folder(
    source: str,
    classifier: Classifier,
    form: Form,
    *,
    cache: Path,
    offline: bool = False,
    show: Show,
) -> Iterator[Embeddings]:
    """Give the embeddings of a folder's photos, kept in the cache by folder, model and device.

    What has not changed since the last search is not embedded again. Raises as `embed_to`.
    """
    from filelock import FileLock

    made = (features_id(classifier.metadata), classifier.device, form.precision)
    parts = "\0".join((os.path.realpath(source), *made))
    name = hashlib.sha256(parts.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    with _writable(cache / "embeddings") as folder, FileLock(folder / f"{name}.lock"):
        items = iter_items([source], offline=offline)
        path = folder / f"{name}.npy"
        embed_to(path, classifier, items, form, show=show)
        yield open_embeddings(path)


@contextmanager
def _writable(folder: Path) -> Iterator[Path]:
    """Give a folder, or a temporary one if it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK)
    except OSError:
        usable = False
    if usable:
        yield folder
    else:
        with temporary_folder() as other:
            yield other


def search_report(result: Search) -> page.Report:
    """Return a search as a report; its page is a contact sheet."""
    failures = f", {counted(result.unreadable, 'photo')} unreadable" * bool(result.unreadable)
    return page.Report(
        "Nearest photos",
        [_section(match) for match in result.matches],
        subtitle=f"{result.within}: {counted(result.photos, 'photo')}{failures}, {result.model}",
        command="regnet search",
    )


def _section(match: Match) -> page.Section:
    if match.error is not None:
        return page.Section(match.source, [f"error: {match.error}"])
    rows = [(page.Number(n.similarity, ".4f"), _name(n)) for n in match.neighbours]
    table = page.Table(("Cosine", "Photo"), rows, first=len(rows))
    photos = [page.Photo(n.source, [f"{n.similarity:.4f}"]) for n in match.neighbours]
    photos.insert(0, page.Photo(match.source, ["searched for"]))
    sheet = page.PageOnly([page.Gallery(photos, _pictures)])
    return page.Section(match.source, [sheet, table])


def _name(found: Neighbour) -> str:
    time = "" if found.timestamp is None else f" at {found.timestamp:.3f} s"
    return found.source + time


def _pictures(names: Sequence[str]) -> dict[str, str | None]:
    """Return the thumbnails of photos that are files."""
    return {name: thumbnail(Path(name)) for name in names if Path(name).is_file()}
