"""Photos that cannot be read: what that means for a run, before it begins."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regnet.doctor.findings import quoted
from regnet.network.labels import Labels
from regnet.system.errors import TrainingError
from regnet.system.text import counted
from regnet.training.photos import CentreCrops, LabelledPhotos, Unreadable
from regnet.training.watching import Watch


@dataclass(frozen=True)
class Lost:
    """Validation photos that cannot be read, and sentences on what is missing without them."""

    photos: tuple[Unreadable, ...] = ()
    remarks: tuple[str, ...] = ()


def require_readable(photos: LabelledPhotos, labels: Labels) -> None:
    """Raise `TrainingError` if no photo, or none of a class, that is in memory can be read."""
    lost = photos.unreadable
    if not lost:
        return
    first = f"such as {lost[0].source}: {lost[0].error}"
    if len(lost) == len(photos):
        raise TrainingError(f"none of the {len(photos):,} photos can be read, {first}")
    read = [n for n in range(len(photos)) if not photos.is_lost(n)]
    if names := _without(photos.truths, photos.truths[read], labels):
        what = counted(len(names), "class has", "classes have")
        raise TrainingError(
            f"{what} no training photo that can be read: {quoted(names)} ({first}). Mend these "
            "photos, or remove the class"
        )


def readable_validation(
    crops: CentreCrops | None, labels: Labels, watch: Watch, processes: int
) -> Lost:
    """Return the validation photos that cannot be read; raises `TrainingError` if all cannot.

    Crops that stay in memory are all read, by a process that is alone; of others as many as it
    takes to find a good one: the rest is seen when they validate.
    """
    if crops is None:
        return Lost()
    lost: list[Unreadable] = []
    read: list[NDArray[np.int64]] = []
    for batch in watch(crops.batches(), "reading validation photos", crops.count):
        lost += batch.unreadable
        read.append(batch.truths)
        if len(batch.truths) and not (crops.in_memory and processes == 1):
            return Lost()
    truths = np.concatenate(read)
    if not len(truths):
        raise TrainingError(
            f"none of the {len(crops):,} validation photos can be read, such as {lost[0].source}: "
            f"{lost[0].error}. Mend them, or name others with --val"
        )
    unread = _without(crops.truths, truths, labels)
    return Lost(tuple(lost), tuple(validation_remarks(len(truths), len(crops), unread)))


def validation_remarks(read: int, count: int, unread: Sequence[str]) -> Iterator[str]:
    """Yield sentences on validation photos of which `read` of `count` can be read.

    `unread` are the names of the classes without such a photo.
    """
    if read < count:
        yield f"{read:,} of {count:,} validation photos can be read; the others do not count."
    if unread:
        what = counted(len(unread), "class has", "classes have")
        yield f"{what} no validation photo that can be read: {quoted(unread)}."


def _without(all_: NDArray[np.int64], read: NDArray[np.int64], labels: Labels) -> list[str]:
    """Return the names of the classes that have photos, but none that was read."""
    missing = sorted(set(all_.tolist()) - set(read.tolist()))
    return [labels[index].name or labels[index].wnid for index in missing]
