"""A data set -> what is wrong with it, in one pass over the photos."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.doctor.findings import Finding, errors_of, worst_first
from regnet.doctor.labels import Suspect, judge, require_judgeable
from regnet.doctor.photo_findings import (
    copy_findings,
    exact_groups,
    exposure_findings,
    kept_shares,
    near_groups,
    photo_findings,
)
from regnet.doctor.photos import Glances, glances
from regnet.doctor.quick import layout_findings
from regnet.doctor.tree import Tree
from regnet.inference.result import readable
from regnet.pixels.protocol import Preprocess
from regnet.system.json_text import plain
from regnet.system.parallel import cores, in_order
from regnet.system.version import TOOL_VERSION

if TYPE_CHECKING:
    from regnet.inference.classify import Classifier


Listener = Callable[[float, str], None]

MOST_FILES: Final = 100  # files that a finding lists where nothing else is asked for
_PREVIEWS: Final = 12  # photos that lose most, and as many of all


@dataclass(frozen=True)
class Spread:
    """The least, the median and the most of a figure over all photos."""

    least: float
    median: float
    most: float


@dataclass(frozen=True)
class Preview:
    """A photo whose crop is to be shown: its name and place, width and height, share kept."""

    source: str
    place: str
    width: int
    height: int
    kept: float


@dataclass(frozen=True)
class Examination:
    """What was found in a data set.

    `splits` has the photos by split and class; `short`, `long` (pixels) and `kept` (shares of the
    area that the centre crop keeps) are None where no photo could be read. `cut_most` and `typical`
    are photos to show. `suspects` are photos whose labels a model doubts, None without a model.
    """

    path: str
    splits: dict[str, dict[str, int]]
    classes: tuple[str, ...]
    photos: int
    unreadable: int
    preprocess: Preprocess
    short: Spread | None
    long: Spread | None
    kept: Spread | None
    findings: tuple[Finding, ...]
    cut_most: tuple[Preview, ...]
    typical: tuple[Preview, ...]
    seconds: float
    suspects: tuple[Suspect, ...] | None = None

    @property
    def wasteful(self) -> bool:
        """Whether a training would be wasted."""
        return bool(errors_of(self.findings))

    def to_dict(self, *, files: int = MOST_FILES) -> dict[str, Any]:
        """Return all as plain JSON values, with at most so many files of each finding."""
        return {
            "dataset": readable(self.path),
            "photos": self.photos,
            "unreadable": self.unreadable,
            "classes": [readable(name) for name in self.classes],
            "splits": {
                split or "all": {readable(name): count for name, count in counts.items() if name}
                for split, counts in self.splits.items()
                if set(counts) - {""}
            },
            "resize": self.preprocess.resize,
            "crop": self.preprocess.crop,
            "short_side": plain(self.short),
            "long_side": plain(self.long),
            "kept": plain(self.kept),
            **({} if self.suspects is None else {"suspects": plain(self.suspects[:files])}),
            "findings": [finding.first(files).to_dict() for finding in self.findings],
            "seconds": round(self.seconds, 3),
            "version": TOOL_VERSION,
        }


def examine(
    tree: Tree,
    *,
    resize: int = 256,
    crop: int = 224,
    workers: int | None = None,
    near: bool = True,
    classifier: "Classifier | None" = None,
    advance: Listener = lambda count, stage: None,
) -> Examination:
    """Return what is wrong with the photos of `open_tree`.

    `resize` and `crop` are those of the training. Without `near` only copies byte by byte are
    looked for. The features of a `classifier` judge the labels, and exposure is checked. `advance`
    is called for each photo ("looking"), with the share of the comparison that was done
    ("comparing"), and for each embedded photo ("embedding"). Raises `DatasetError` if the files
    change meanwhile, `ProtocolError` for an impossible crop, and as `judge`.
    """
    start = time.perf_counter()
    if classifier is not None:
        require_judgeable(tree, classifier)
    preprocess = Preprocess(name="doctor", resize=resize, crop=crop)
    photos = Glances(tree)
    for glance in in_order(tree.items(), glances, workers=workers or cores()):
        photos.add(glance)
        advance(1, "looking")
    exact = exact_groups(photos)
    alike = near_groups(photos, exact, advance=lambda s: advance(s, "comparing")) if near else []
    findings = [
        *layout_findings(tree),
        *photo_findings(photos, preprocess),
        *copy_findings(photos, exact, alike),
    ]
    judgement = None
    if classifier is not None:
        judgement = judge(tree, classifier, advance=lambda count: advance(count, "embedding"))
        findings += [*judgement.findings, *exposure_findings(photos)]
    readable = photos.readable
    sizes = photos.sizes[readable]
    kept = kept_shares(sizes, preprocess)

    def previews(chosen: NDArray[np.int64]) -> tuple[Preview, ...]:
        files = [photos.file(index) for index in readable[chosen].tolist()]
        values = zip(files, sizes[chosen].tolist(), kept[chosen].tolist(), strict=True)
        return tuple(Preview(file.source, file.place, w, h, k) for file, (w, h), k in values)

    evenly = np.linspace(0, len(readable) - 1, min(_PREVIEWS, len(readable))).astype(int)
    return Examination(
        path=tree.path,
        splits={split: tree.counts[split] for split in tree.splits},
        classes=tree.classes,
        photos=len(photos),
        unreadable=len(photos.errors),
        preprocess=preprocess,
        short=_spread(sizes.min(axis=1)),
        long=_spread(sizes.max(axis=1)),
        kept=_spread(kept),
        findings=worst_first(findings),
        cut_most=previews(np.argsort(kept, kind="stable")[:_PREVIEWS]),
        typical=previews(evenly),
        seconds=time.perf_counter() - start,
        suspects=judgement.suspects if judgement else None,
    )


def _spread(values: NDArray[Any]) -> Spread | None:
    if not len(values):
        return None
    return Spread(float(values.min()), float(np.median(values)), float(values.max()))
