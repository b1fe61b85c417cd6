"""Sources of photos -> explanations and overlays on disk, one photo after the other."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regnet.data.sources import Item, iter_items
from regnet.explanation.activation_maps import Explainer, Explanation
from regnet.explanation.overlay import OPACITY, overlay_png
from regnet.inference.result import readable
from regnet.network.labels import first_name
from regnet.pixels.preprocess import rgb_pixels
from regnet.system.errors import ImageError
from regnet.system.files import write_whole
from regnet.system.json_text import plain_fields
from regnet.system.notices import about
from regnet.system.output_file import naming


@dataclass(frozen=True, eq=False)
class ExplainedPhoto:
    """The explanations of one photo, one a class, and their overlays where they were written.

    Exactly one of `explanations` and `error` is there; `assumed` is the model's.
    """

    source: str
    model: str
    explanations: tuple[Explanation, ...]
    overlays: tuple[Path, ...]
    error: str | None
    assumed: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return `{"source", "model", "explanations", "error", "assumed"}` as plain JSON values.

        Each explanation has the name of its `overlay`, null where none was written.
        """
        values = plain_fields(self)
        overlays = values.pop("overlays") or [None] * len(self.explanations)
        for explanation, overlay in zip(values["explanations"], overlays, strict=True):
            explanation["overlay"] = overlay
        return values


def explain_sources(
    explainer: Explainer,
    sources: Iterable[str],
    *,
    classes: Sequence[int] | None = None,
    top_k: int = 1,
    folder: Path | None = None,
    opacity: float = OPACITY,
    offline: bool = False,
) -> Iterator[ExplainedPhoto]:
    """Yield the explanations of all photos in the sources, in their order.

    Sources are those of `regnet classify`; `classes` and `top_k` those of `Explainer.explain`.
    Overlays go to `folder`, none where it is None. A photo that cannot be read has its error; with
    `offline` so have those at addresses.
    Raises `OutputError` where an overlay cannot be written.
    """
    taken: set[str] = set()
    for item in iter_items(sources, offline=offline):
        source, model = readable(item.source), explainer.metadata.name
        assumed = explainer.metadata.assumed
        try:
            with about(item.source):
                photo = rgb_pixels(item.read())
        except ImageError as exc:
            yield ExplainedPhoto(source, model, (), (), str(exc), assumed)
            continue
        found = explainer.explain(photo, classes=classes, top_k=top_k)
        overlays = []
        for explanation in found if folder else ():
            path = (folder or Path()) / _free_name(item, explanation, taken)
            with naming(path):
                write_whole(path, overlay_png(photo, explanation, opacity=opacity))
            overlays.append(path)
        yield ExplainedPhoto(source, model, tuple(found), tuple(overlays), None, assumed)


def _free_name(item: Item, explanation: Explanation, taken: set[str]) -> str:
    """Return a file name of photo and class that this run has not used yet."""
    stem = _plain(Path(item.source.rstrip("/")).stem) or "photo"
    label = _plain(first_name(explanation.label.label).lower()) or str(explanation.label.index)
    name, number = f"{stem}-{label}.png", 1
    while name in taken:
        number += 1
        name = f"{stem}-{label}-{number}.png"
    taken.add(name)
    return name


def _plain(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text).strip("-.")[:80]
