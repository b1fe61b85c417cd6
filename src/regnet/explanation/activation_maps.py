"""Class activation maps: what each part of a photo adds to the logit of a class.

The network ends in the mean over positions and one linear layer, so the logit of a class is the
mean of its map plus its bias: nothing is estimated, and no gradients are needed.
Source: Zhou et al. 2016, https://arxiv.org/abs/1512.04150.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from regnet.conversion.store import Library
from regnet.explanation.linear_head import read_head
from regnet.inference.result import ClassScore, top_classes
from regnet.ir.assumptions import warn_assumed
from regnet.ir.engine import read_model
from regnet.ir.engines import open_engine
from regnet.ir.metadata import InferencePrecision, ModelMetadata
from regnet.network.labels import Labels
from regnet.pixels.preprocess import ImageLike, rgb_pixels
from regnet.pixels.protocol import Preprocess, Size
from regnet.system.devices import CPU
from regnet.system.errors import ModelError
from regnet.system.json_text import plain_fields
from regnet.system.text import meant_by

Rectangle = tuple[float, float, float, float]
"""Left, top, width, height in pixels of the upright photo."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """The map (h, w) of one class of one photo: how much each cell adds to the class's logit.

    logit = mean of `map` + `bias`; what is below zero speaks against the class. `scale` is the
    largest value in this map and that of the photo's most probable class, to compare maps by.
    `size` is the upright photo's (width, height), `box` the part of it that the network saw, whose
    h x w equal parts are the cells.
    """

    label: ClassScore
    logit: float
    bias: float
    map: NDArray[np.float32]
    scale: float
    size: Size
    box: Rectangle

    def to_dict(self) -> dict[str, Any]:
        """Return the class's fields and all the others as plain JSON values."""
        values: dict[str, Any] = plain_fields(self)
        return values.pop("label") | values  # type: ignore[no-any-return]


class Explainer:
    """A converted model that says where in a photo it sees a class. Thread-safe.

    The arguments are those of `Classifier`. Raises `ModelError`, also where the graph does not end
    in mean, linear layer and softmax.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str = CPU,
        precision: InferencePrecision = "f32",
        compiled_cache: Path | None = None,
        name: str | None = None,
    ) -> None:
        model = read_model(path, logits=True)
        warn_assumed(name or path, model.metadata)
        self._head = read_head(model.graph, source=str(path))
        model.graph.add_outputs([self._head.features])
        self._engine = open_engine(
            model, device=device, precision=precision, compiled_cache=compiled_cache
        )

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        device: str = CPU,
        precision: InferencePrecision = "f32",
        library: Library | None = None,
    ) -> Self:
        """Return that of a card's name, `bundled`, an IR (.xml), ONNX or a checkpoint file.

        What has to be downloaded and converted is, as by `regnet.load`; `library` says from where.
        """
        models = library or Library()
        path = models.ir(model, precision=precision)
        return cls(
            path,
            device=device,
            precision=precision,
            compiled_cache=models.compiled,
            name=str(model),
        )

    @property
    def metadata(self) -> ModelMetadata:
        """The model's name, spec, protocol, labels and provenance."""
        return self._engine.metadata

    def explain(
        self, image: ImageLike, *, classes: Sequence[int] | None = None, top_k: int = 1
    ) -> list[Explanation]:
        """Return the maps of these classes, or of the `top_k` most probable, best first.

        An image is all that `Classifier.classify` takes. Raises `ImageError` where it cannot be
        read, `ModelError` where the model has no such class.
        """
        chosen = None if classes is None else [self._known(number) for number in classes]
        photo = rgb_pixels(image)
        pixels = self._engine.pixels(photo)[None]
        (row,), (logits,), (features,) = self._engine.ports(pixels, 1, 2)
        every = {score.index: score for score in top_classes(row, self.metadata.labels, len(row))}
        explained = list(every)[:top_k] if chosen is None else chosen
        top, *maps = self._head.maps(features, [next(iter(every)), *explained])
        size = photo.shape[1], photo.shape[0]
        box = seen_box(self.metadata.preprocess, size)
        return [
            Explanation(
                every[number], float(logits[number]), float(self._head.bias[number]), map_,
                float(max(top.max(), map_.max())), size, box,
            )
            for number, map_ in zip(explained, maps, strict=True)
        ]  # fmt: skip

    def class_index(self, name: str) -> int:
        """Return the class of that name, wnid or number; raises `ModelError` naming close ones."""
        if name.isdecimal():
            return self._known(int(name))
        return class_named(self.metadata.labels, name, source=self.metadata.name)

    def _known(self, number: int) -> int:
        if not 0 <= number < len(self.metadata.labels):
            raise ModelError(
                f"{self.metadata.name}: has no class {number}; they are 0 to "
                f"{len(self.metadata.labels) - 1}"
            )
        return number


def class_named(labels: Labels, name: str, *, source: str) -> int:
    """Return the index of the class with that wnid, or that name or one of several names.

    Upper and lower case are the same. Raises `ModelError` where none has it, or several.
    """
    query = name.strip().casefold()
    by_name: dict[str, list[int]] = {}
    for number, label in enumerate(labels):
        names = {label.wnid, label.name, *label.name.split(",")}
        for known in {known.strip().casefold() for known in names} - {""}:
            by_name.setdefault(known, []).append(number)
    matches = by_name.get(query, [])
    if len(matches) == 1:
        return matches[0]
    if matches:
        numbers = " and ".join(map(str, matches))
        raise ModelError(f"{source}: {name!r} matches classes {numbers}. Pass the class number")
    like = f"; {question}" if (question := meant_by(query, sorted(by_name))) else ""
    raise ModelError(f"{source}: none of its {len(labels)} classes is called {name!r}{like}")


def seen_box(preprocess: Preprocess, size: Size) -> Rectangle:
    """Return the part of a photo of a size (width, height) that becomes the crop."""
    x, y, right, bottom = preprocess.used(*size)
    used = right - x, bottom - y
    resized = preprocess.resized(*used)
    left, top, *_ = preprocess.crop_box(*resized)
    across, down = (whole / part for whole, part in zip(used, resized, strict=True))
    side = preprocess.crop
    return x + left * across, y + top * down, side * across, side * down
