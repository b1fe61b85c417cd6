"""One loaded model behind asyncio: encoded photos or pixels in, predictions or numbers out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from regnet.conversion import InferencePrecision
from regnet.metadata import ModelMetadata
from regnet.result import Prediction, Wanted
from regnet.serving.limits import Limits

if TYPE_CHECKING:
    from regnet.explanation import Explanation


@dataclass(frozen=True)
class Timing:
    """Where the time of a request went, in ms; `batch` is the largest it went in, in images.

    `decode_ms` and `infer_ms` are the longest of its images', of `infer_ms` of a whole batch.
    """

    decode_ms: float
    queue_ms: float
    infer_ms: float
    batch: int


class Observer(Protocol):
    """Hears what models do. Called on the loop's thread; must be quick and not raise."""

    def queued(self, model: str, images: int) -> None:
        """Hear how many images wait or run now."""

    def decoded(self, model: str, seconds: float) -> None:
        """Hear how long decoding and cropping one image took."""

    def batch_done(self, model: str, size: int, queue_s: float, infer_s: float) -> None:
        """Hear of a batch: images in it, the longest wait of one, seconds of inference."""

    def refused(self, model: str, reason: str) -> None:
        """Hear why a request was not served: the limit's name, "cancelled" or "closed"."""


class ServedModel:
    """A loaded model. Everything async runs on one asyncio loop.

    `path` is an IR. Making one compiles the model, so do it in a thread; raises `ModelError`.
    """

    name: str
    metadata: ModelMetadata
    precision: InferencePrecision
    path: Path

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        precision: InferencePrecision = "f32",
        limits: Limits | None = None,
        compiled_cache: Path | None = None,
        observer: Observer | None = None,
    ) -> None:
        raise NotImplementedError

    def require_room(self, images: int = 1) -> None:
        """Refuse at once, before a body is read, what the queue has no room for.

        Raises `TooMany` (429) with the seconds until there is room, `NotReady` (503).
        """
        raise NotImplementedError

    async def classify(
        self, photos: Sequence[bytes], *, sources: Sequence[str], wanted: Wanted, deadline: float
    ) -> tuple[list[Prediction], Timing]:
        """Return the predictions of encoded photos in their order, as `Classifier.classify`.

        One that cannot be read has its `error`, which `limit_of` tells the limit of.
        """
        raise NotImplementedError

    async def probabilities(
        self, inputs: Sequence[bytes] | Sequence[NDArray[Any]] | NDArray[Any], *, deadline: float
    ) -> tuple[NDArray[np.float32], Timing]:
        """Return probabilities (N, classes) of encoded photos, or of pixels as `Engine.infer`'s."""
        raise NotImplementedError

    async def explain(
        self, photo: bytes, prediction: Prediction, *, deadline: float
    ) -> "list[Explanation]":
        """Return the explanation of the best class of a photo's prediction."""
        raise NotImplementedError

    async def close(self) -> None:
        """Finish what was accepted, refuse what is new (503), let go of the memory."""
        raise NotImplementedError


def limit_of(prediction: Prediction) -> str | None:
    """Return the limit that an image was over, "pixels", or None where it was over none."""
    raise NotImplementedError
