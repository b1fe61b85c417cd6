"""Validation photos that are training photos, too: found by content, whatever they are called."""

from collections import defaultdict
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import PurePath
from typing import Final

from regnet.data.dataset import sample
from regnet.data.labelled import LabelledItem
from regnet.doctor.findings import File, Finding, share_of
from regnet.doctor.quick import SAME_FILES
from regnet.system.errors import ImageError
from regnet.system.notices import about

MOST_PHOTOS: Final = 1000
"""Validation photos that are compared; of more, as many drawn at random."""

MOST_BYTES: Final = 512 << 20
"""Bytes of training photos that are read for it: only those as large as a validation photo."""

_MOST_NAMESAKES: Final = 20


def leak_findings(
    train: Sequence[LabelledItem],
    val: Sequence[LabelledItem],
    *,
    most_photos: int = MOST_PHOTOS,
    most_bytes: int = MOST_BYTES,
) -> tuple[Finding, ...]:
    """Return the finding that validation photos are training photos, if there are any.

    It is an error from half of those compared on. Only photos of equal size are read.
    """
    compared = sample(val, most_photos)
    shared = _shared(train, compared, most_bytes)
    if not shared:
        return ()
    severe = len(shared) >= SAME_FILES * len(compared)
    of = f"{len(compared):,} validation photos" + (" compared" if len(compared) < len(val) else "")
    return (
        Finding(
            "same-files",
            "error" if severe else "warning",
            f"{len(shared):,} of {of} ({share_of(len(shared), len(compared))}) "
            f"{'is a training photo' if len(shared) == 1 else 'are training photos'}, too, byte by "
            f"byte, such as {shared[0]}"
            + (": the splits seem to be copies of each other." if severe else "."),
            "Validate on other photos: what was learnt by heart would count as understood.",
            count=len(shared),
            files=tuple(File(source) for source in shared),
        ),
    )


def _shared(train: Sequence[LabelledItem], val: Sequence[LabelledItem], budget: int) -> list[str]:
    """Return the names of the photos that are in both; small groups of equal size come first."""
    by_size: dict[int, list[LabelledItem]] = defaultdict(list)
    for item in train:
        by_size[_size(item)].append(item)
    candidates = [(_size(item), item) for item in val]
    candidates = [(size, item) for size, item in candidates if size > 0 and size in by_size]
    candidates.sort(key=lambda one: one[0] * len(by_size[one[0]]))
    known: dict[int, set[bytes]] = {}
    shared = []
    for size, item in candidates:
        if size not in known and size * len(by_size[size]) <= budget:
            budget -= size * len(by_size[size])
            known[size] = {_digest(other) for other in by_size[size]}
        others = known[size] if size in known else _namesakes(item, by_size[size])
        if _digest(item) in others - {b""}:
            shared.append(item.source)
    return shared


def _namesakes(item: LabelledItem, others: Sequence[LabelledItem]) -> set[bytes]:
    """Return the digests of photos of one name: all that is read of too many of one size."""
    name = PurePath(item.source).name
    alike = [other for other in others if PurePath(other.source).name == name]
    return {_digest(other) for other in alike[:_MOST_NAMESAKES]}


def _size(item: LabelledItem) -> int:
    """Return the bytes of a photo, 0 where it cannot be read."""
    if item.size:
        return item.size
    try:
        with about(item.source):
            return len(item.read())
    except ImageError:
        return 0


def _digest(item: LabelledItem) -> bytes:
    """Return a hash of a photo's file, b"" where it cannot be read."""
    try:
        with about(item.source):
            return blake2b(item.read(), digest_size=16).digest()
    except ImageError:
        return b""
