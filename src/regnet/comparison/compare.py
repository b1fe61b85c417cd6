"""Two pipelines compared: both sides, all figures, the verdict, and gates on them."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from regnet.comparison.differences import Gates as Gates
from regnet.comparison.sides import Pair, open_pair
from regnet.comparison.tally import (
    DELTA_EDGES,
    ComparedPhotos,
    Comparison,
    ComparisonTally,
    open_photos,
)
from regnet.comparison.verdict import Verdict, verdict
from regnet.conversion.store import Library
from regnet.pages.notebook import framed
from regnet.system.cache import cache_dir as default_cache_dir
from regnet.system.text import counted


@dataclass(frozen=True, kw_only=True, repr=False)
class ComparisonRecord:
    """A comparison with what it was of, and what it comes to.

    `complete` is False where it was interrupted: the figures are then of the photos before.
    """

    pair: Pair
    photos: ComparedPhotos
    comparison: Comparison
    gates: Gates
    complete: bool = True

    @property
    def verdict(self) -> Verdict:
        """The first stage that differs, and by how much."""
        return verdict(self.comparison, self.pair)

    @property
    def exceeded(self) -> tuple[str, ...]:
        """A phrase for each gate that does not hold."""
        return self.gates.exceeded(self.comparison.agreement)

    @property
    def notes(self) -> tuple[str, ...]:
        """What has to be known to read the figures: what was assumed, and channel orders."""
        notes = list(self.pair.notes)
        a, b = (side.about.get("protocol", {}).get("channels") for side in self.pair.sides)
        if a and b and a != b:
            notes.append(f"A takes {a}, B takes {b}: pixels are compared as RGB")
        if self.photos.unlabelled is not None:
            notes.append(f"accuracy cannot be compared: {self.photos.unlabelled}")
        return tuple(notes)

    def __repr__(self) -> str:
        photos = counted(self.comparison.agreement.images, "photo")
        models = f"{self.pair.a.title} and {self.pair.b.title}"
        return f"<Comparison of {models} on {photos}: {self.verdict.text}>"

    def _repr_html_(self) -> str | None:
        """Return the report for a notebook; None without the extra `report`."""
        from regnet.comparison.report import comparison_report

        return framed(lambda: comparison_report(self))

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain JSON values."""
        comparison, agreement = self.comparison, self.comparison.agreement
        accuracy = comparison.accuracy
        return {
            "a": {"title": self.pair.a.title, **self.pair.a.about},
            "b": {"title": self.pair.b.title, **self.pair.b.about},
            "dataset": self.photos.path,
            "complete": self.complete,
            "photos": agreement.images,
            "unreadable": comparison.unreadable,
            "errors": [{"source": name, "error": error} for name, error in comparison.errors],
            "stages": [stage.to_dict() for stage in comparison.stages],
            "top1_equal": asdict(agreement.top1),
            "top1_equal_at_least": agreement.top1_at_least,
            "flipped": agreement.flipped,
            "flips": [flip.to_dict() for flip in comparison.flips],
            "max_delta": agreement.max_delta,
            "deltas": [
                {"up_to": edge, "photos": count}
                for edge, count in zip(DELTA_EDGES, comparison.deltas, strict=True)
            ],
            "kl": {"mean": agreement.mean_kl, "max": agreement.max_kl},
            "accuracy": accuracy
            and {"a": asdict(accuracy.a), "b": asdict(accuracy.b), **asdict(accuracy.test)},
            "notes": list(self.notes),
            "gates": {**asdict(self.gates), "exceeded": list(self.exceeded)},
            "verdict": self.verdict.to_dict(),
        }


def compare(
    a: str,
    b: str,
    dataset: str | Path,
    *,
    device: str | None = None,
    truth: str | Path | None = None,
    gates: Gates | None = None,
    entry: str | None = None,
    cache_dir: str | Path | None = None,
    offline: bool = False,
) -> ComparisonRecord:
    """Return how B differs from A on photos, as `regnet compare` does.

    `a` and `b` are `MODEL[:engine][:device][:precision][:protocol]`, one of them may be a server's
    address; `device` is that of a side which names none; `dataset` is photos with their classes
    (`truth` a file of them) or without. Raises `DatasetError`, `UnknownModelError`, `ModelError`,
    `ProtocolError`, `DownloadError`, `ServerError`, `WeightsError`, `ConversionError`,
    `MissingExtraError`.
    """
    library = Library(folder=default_cache_dir(cache_dir), offline=offline, entry=entry)
    pair = open_pair(a, b, library=library, device=device)
    given = str(truth) if truth else None
    photos = open_photos(str(dataset), pair.labels, truth=given, offline=offline)
    tally = ComparisonTally(pair)
    tally.run(photos.items())
    return ComparisonRecord(
        pair=pair, photos=photos, comparison=tally.result(), gates=gates or Gates()
    )
