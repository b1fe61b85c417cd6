"""The photos of a sweep: decoded once, kept in memory, and shared by all runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final, NoReturn

from regnet.data.labelled import LabelledItem
from regnet.network.labels import Labels
from regnet.pixels.protocol import Preprocess
from regnet.system.errors import TrainingError
from regnet.training.history import Unreadable, Watch, unwatched
from regnet.training.photo_sets import PhotoSets, open_photo_sets
from regnet.training.photos import MEMORY, Batch, CentreCrops, LabelledPhotos, Pixels
from regnet.training.recipe import Input, Recipe

_BATCH: Final = 256  # validation photos per batch
_DIGITS: Final = 12
_SEED: Final = 0  # of the held-out photos: the same ones validate all runs


class HeldPhotos(LabelledPhotos):
    """Photos whose pixels are in memory, so that they can be sent to other processes."""

    def __init__(self, photos: LabelledPhotos) -> None:
        super().__init__(_closed(photos.items), short_side=1, memory=0)
        self._held: list[Pixels | Unreadable] = [photos.pixels(n) for n in range(len(photos))]


class HeldCrops(CentreCrops):
    """Batches of centre crops in memory, likewise."""

    def __init__(self, crops: CentreCrops, items: Sequence[LabelledItem], rule: Preprocess) -> None:
        super().__init__(_closed(items), rule, batch=_BATCH)
        self._kept: list[Batch] | None = list(crops.batches())

    def shared(self, process: int, processes: int) -> CentreCrops:
        """Return all of them: a run of a sweep is one process."""
        return self


@dataclass(frozen=True, kw_only=True)
class SweepPhotos:
    """The training and validation photos of a sweep; `data` is their name and fingerprint."""

    data: str
    labels: Labels
    train: HeldPhotos
    validation: HeldCrops

    @property
    def unreadable(self) -> tuple[Unreadable, ...]:
        """The photos that cannot be read and are left out."""
        lost = [photo for batch in self.validation.batches() for photo in batch.unreadable]
        return (*self.train.unreadable, *lost)


def open_sweep_photos(
    dataset: str | Path,
    val: str | Path | None,
    recipe: Recipe,
    *,
    memory: int = MEMORY,
    watch: Watch = unwatched,
) -> SweepPhotos:
    """Read a data set's photos at the size that the recipe needs.

    As in `regnet.train`, its splits or `val` validate, else a tenth of each class. Raises
    `DatasetError`, and `TrainingError` if photos are missing or do not fit into `memory` bytes.
    """
    sets = open_photo_sets(dataset, val, None, seed=_SEED)
    largest = max([recipe.input.crop, *(size for _, size in recipe.input.progressive)])
    photos = LabelledPhotos(sets.train, short_side=2 * largest, memory=memory, watch=watch)
    if not photos.in_memory:
        raise TrainingError(
            f"the {len(photos):,} photos of {sets.path} do not fit into {memory / 2**30:.1f} GiB "
            "at this size, and each run would read them again: take smaller crops, fewer photos, "
            "or allow more (--memory)"
        )
    if len(photos.unreadable) == len(photos):
        first = photos.unreadable[0]
        raise TrainingError(f"no photo can be read, such as {first.source}: {first.error}")
    fingerprint = sha256(sets.fingerprint.encode()).hexdigest()[:_DIGITS]
    return SweepPhotos(
        data=f"{Path(dataset).resolve().name}@{fingerprint}",
        labels=sets.labels,
        train=HeldPhotos(photos),
        validation=_validation(sets, recipe.input),
    )


def _validation(sets: PhotoSets, size: Input) -> HeldCrops:
    if sets.validation is None or not sets.validation.count:
        raise TrainingError(
            f"{sets.path}: there are no photos to validate with: put some into a folder of their "
            "own (--val), or ten or more into each class"
        )
    items, rule = tuple(sets.validation.items()), size.protocol("sweep")
    held = HeldCrops(CentreCrops(items, rule, batch=_BATCH), items, rule)
    if not any(len(batch.truths) for batch in held.batches()):
        raise TrainingError(f"none of the {len(items):,} validation photos can be read")
    return held


def _closed(items: Sequence[LabelledItem]) -> tuple[LabelledItem, ...]:
    """Return items with their class alone, which can be pickled."""
    return tuple(replace(item, read=_not_here) for item in items)


def _not_here() -> NoReturn:
    raise TrainingError("this photo is held in memory alone")
