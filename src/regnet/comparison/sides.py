"""The two sides of a comparison: what each makes of a photo, stage by stage; one class list."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from regnet.comparison.differences import PIXEL_STAGES, Array, Stage
from regnet.conversion.store import Library
from regnet.data.class_names import ClassNames
from regnet.inference.predictors import Choice, Predictor, open_predictor, parse_choice
from regnet.inference.server_predictor import ServerPredictor, is_address
from regnet.ir.assumptions import AssumptionWarning, warn
from regnet.ir.metadata import ModelMetadata
from regnet.network.labels import Labels
from regnet.pixels.preprocess import stages
from regnet.system.addresses import is_loopback, without_secrets
from regnet.system.errors import DatasetError, ModelError, ServerError, UnknownModelError

if TYPE_CHECKING:
    from regnet.comparison.graph_crop import GraphCrop

Rows = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Trace:
    """What a side makes of one photo: the `pixels` (H, W, 3) in RGB after each stage that is seen.

    `given` is what its model takes of the photo.
    """

    pixels: Mapping[Stage, Array]
    given: Any


@dataclass(frozen=True, eq=False)
class Answers:
    """What a side's model says of N photos, (N, classes); `logits` are None where it hides them."""

    logits: Rows | None
    probabilities: Rows


class Side(Protocol):
    """One of two pipelines, from encoded photos to probabilities. Threads may use it at once."""

    @property
    def title(self) -> str:
        """What names it."""

    @property
    def about(self) -> Mapping[str, Any]:
        """What describes it, as JSON values, by the same fields on both sides."""

    @property
    def labels(self) -> Labels | None:
        """Its classes, None where only the other side knows them."""

    @property
    def hidden(self) -> Mapping[Stage, str]:
        """Why a stage is not seen, for each that is not."""

    def trace(self, photo: bytes) -> Trace:
        """Return the pixels of a photo's stages; raises `ImageError`."""

    def answers(self, given: Sequence[Any]) -> Answers:
        """Return what the model says of photos; raises `ImageError`, `ModelError`."""


class PredictorSide:
    """A model run here, with the preprocessing that its metadata says."""

    def __init__(self, predictor: Predictor, *, title: str, about: Mapping[str, Any]) -> None:
        self._predictor = predictor
        self.metadata = predictor.metadata
        self.title, self.about = title, about
        self.labels: Labels | None = self.metadata.labels
        self.hidden: Mapping[Stage, str] = {}

    def trace(self, photo: bytes) -> Trace:
        """Return the pixels of a photo's stages; raises `ImageError`.

        The crop is what the model is given; decode and resize are computed again for the whole
        photo, of which the model's own path computes no more than the crop needs.
        """
        seen = stages(photo, self.metadata.preprocess)
        crop = self._predictor.pixels(photo)
        pixels = (self._rgb(stage) for stage in (seen.decoded, seen.resized, crop))
        return Trace(dict(zip(PIXEL_STAGES, pixels, strict=True)), crop)

    def _rgb(self, pixels: Array) -> Array:
        return pixels if self.metadata.preprocess.channels == "RGB" else pixels[..., ::-1]

    def answers(self, given: Sequence[Array]) -> Answers:
        """Return what the model says of photos."""
        outputs = self._predictor.outputs(given)
        return Answers(outputs.logits, outputs.probabilities)


class GraphSide(PredictorSide):
    """A model that resizes and crops in its graph, which shows its crop where it names it."""

    def __init__(
        self, predictor: Predictor, graph_crop: "GraphCrop | None", *, title: str, about: Any
    ) -> None:
        super().__init__(predictor, title=title, about=about)
        self._graph_crop = graph_crop
        unseen: tuple[Stage, ...] = ("resize",) if graph_crop else ("resize", "crop")
        self.hidden = dict.fromkeys(unseen, "inside the graph")

    def trace(self, photo: bytes) -> Trace:
        """Return the pixels of a photo's stages; raises `ImageError`."""
        whole = self._predictor.pixels(photo)
        pixels: dict[Stage, Array] = {"decode": whole}
        if self._graph_crop is not None:
            pixels["crop"] = self._rgb(self._graph_crop.crop(whole))
        return Trace(pixels, whole)


class ServerSide:
    """A model behind an address, given photos or the crops of another model's protocol."""

    labels: Labels | None = None

    def __init__(self, server: ServerPredictor) -> None:
        self._server = server
        self.title = server.title
        self.about: dict[str, Any] = {"engine": "server", "takes": server.takes, "assumed": []}
        self.hidden: dict[Stage, str] = dict.fromkeys(PIXEL_STAGES, _HIDDEN[server.takes])

    def trace(self, photo: bytes) -> Trace:
        """Return what is sent of a photo; raises `ImageError`."""
        return Trace({}, self._server.given(photo))

    def answers(self, given: Sequence[Any]) -> Answers:
        """Return what the server says of photos; raises `ImageError`, `ServerError`."""
        return Answers(*self._server.answers(given))


_HIDDEN: Final = {
    "photo": "inside the server",
    "image": "inside the server",
    "crop": "the server is given the other side's crop",
}


@dataclass(frozen=True, eq=False)
class Pair:
    """Two sides over one class list: `labels`, in the order of the side that knows them.

    `places_b` are the columns of B's answers in that order, None where it is B's own. `notes` say
    what had to be assumed.
    """

    a: Side
    b: Side
    labels: Labels
    places_b: NDArray[np.intp] | None = None
    notes: tuple[str, ...] = field(default=())

    def answers_b(self, given: Sequence[Any]) -> Answers:
        """Return what B says of photos, its classes in the order of `labels`."""
        found = self.b.answers(given)
        if self.places_b is None:
            return found
        logits = None if found.logits is None else found.logits[:, self.places_b]
        return Answers(logits, found.probabilities[:, self.places_b])


def pair_up(a: Side, b: Side) -> Pair:
    """Return two sides with their classes matched; raises `ModelError` where they are not the same.

    Classes in another order are matched by wnid or name. Where one side only numbers its classes,
    or does not say, as a server, they are taken to be the other's, and a note says so.
    """
    if a.labels is None or b.labels is None:
        if (labels := a.labels or b.labels) is None:
            raise ModelError(f"neither {a.title} nor {b.title} says what its classes are")
        return Pair(a, b, labels)
    if len(a.labels) != len(b.labels):
        raise ModelError(
            f"{a.title} has {len(a.labels)} classes, {b.title} {len(b.labels)}: compare models "
            "of the same classes"
        )
    if a.labels == b.labels:
        return Pair(a, b, a.labels)
    for name, labels, other, known in (
        ("A", a.labels, "B", b.labels),
        ("B", b.labels, "A", a.labels),
    ):
        if numbered(labels):
            note = f"{name} only numbers its classes: they are taken to be {other}'s"
            return Pair(a, b, known, notes=(note,))
    return _reordered(a, b, a.labels, b.labels)


def numbered(labels: Labels) -> bool:
    """Tell whether classes have no names, only numbers."""
    return all(
        not label.wnid and label.name == f"class {index}" for index, label in enumerate(labels)
    )


def _reordered(a: Side, b: Side, labels_a: Labels, labels_b: Labels) -> Pair:
    by_wnid = all(label.wnid for label in (*labels_a, *labels_b))
    names = [label.wnid if by_wnid else label.name for label in labels_b]
    try:
        every = range(len(names))
        found = ClassNames(labels_a).match_list(names, every, what=f"classes of {b.title}")
    except DatasetError as exc:
        raise ModelError(f"{a.title} and {b.title} have other classes: {exc}") from exc
    if len(set(found)) < len(found):
        raise ModelError(
            f"{a.title} and {b.title} have other classes: several of {b.title} mean the same one"
        )
    places = np.argsort(np.array(found, np.intp))
    if np.array_equal(places, np.arange(len(places))):
        return Pair(a, b, labels_a)
    note = f"B has the classes in another order: matched by {'wnid' if by_wnid else 'name'}"
    return Pair(a, b, labels_a, places, (note,))


def open_pair(a: str, b: str, *, library: Library) -> Pair:
    """Return the two sides named: `MODEL[:engine][:precision][:protocol]`, or a server's address.

    Raises what `open_predictor` does, `ServerError`, and `ModelError` where the classes differ. An
    offline library refuses servers on other machines.
    """
    if is_address(a) and is_address(b):
        raise UnknownModelError(
            "both sides are servers, and neither tells its classes: name a model for one of them"
        )
    if library.offline:
        _require_here(a, b)
    first = None if is_address(a) else _open(a, library)
    second = None if is_address(b) else _open(b, library)
    _warn_assumed((a, first), (b, second))
    known = first or second
    assert known is not None
    return pair_up(first or _server(a, known.metadata), second or _server(b, known.metadata))


def _warn_assumed(*sides: tuple[str, PredictorSide | None]) -> None:
    """Warn once per model, which may be on both sides, of what is assumed about it."""
    found: dict[str, AssumptionWarning] = {}
    for text, side in sides:
        if side is None or not side.metadata.assumed:
            continue
        weights = side.metadata.weights_sha384
        before = found[weights].assumed if weights in found else ()
        assumed = tuple(dict.fromkeys((*before, *side.metadata.assumed)))
        found[weights] = AssumptionWarning(parse_choice(text).model, assumed, weights)
    for warning in found.values():
        warn(warning)


def _require_here(*sides: str) -> None:
    """Raise `ServerError` for a server that is not on this machine."""
    for side in filter(is_address, sides):
        if not is_loopback(side):
            raise ServerError(f"{without_secrets(side)}: not asked, because of --offline")


def _open(text: str, library: Library) -> PredictorSide:
    choice = parse_choice(text)
    predictor = open_predictor(choice, library=library)
    about = _about(predictor.metadata, choice)
    if predictor.metadata.preprocessing == "caller":
        return PredictorSide(predictor, title=str(choice), about=about)
    return GraphSide(predictor, _graph_crop(choice, library), title=str(choice), about=about)


def _graph_crop(choice: Choice, library: Library) -> "GraphCrop | None":
    from regnet.comparison.graph_crop import GraphCrop

    try:
        return GraphCrop(library.ir(choice.model, precision=choice.precision))
    except ModelError:  # a model all the same, whose crop just cannot be looked at
        return None


def _about(metadata: ModelMetadata, choice: Choice) -> dict[str, Any]:
    return {
        "model": metadata.name,
        "engine": choice.runs_on,
        "precision": choice.precision,
        "stored": metadata.precision,
        "preprocessing": metadata.preprocessing,
        "protocol": metadata.preprocess.to_dict(),
        "weights_sha384": metadata.weights_sha384,
        "assumed": list(metadata.assumed),
    }


def _server(address: str, metadata: ModelMetadata) -> ServerSide:
    return ServerSide(ServerPredictor(address, metadata=metadata))
