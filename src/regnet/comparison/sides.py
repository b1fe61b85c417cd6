"""The two sides of a comparison: what each makes of a photo, stage by stage; one class list."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.comparison.differences import PIXEL_STAGES, Array, Stage
from regnet.conversion.store import Library
from regnet.data.class_names import ClassNames
from regnet.inference.predictors import (
    Choice,
    Predictor,
    open_predictor,
    parse_choice,
    split_choice,
)
from regnet.inference.server_predictor import ServerPredictor, is_address
from regnet.ir.assumptions import AssumptionWarning, warn
from regnet.ir.metadata import ModelMetadata
from regnet.network.labels import Labels, numbered_labels
from regnet.pixels.preprocess import stages
from regnet.system.addresses import is_loopback, without_secrets
from regnet.system.errors import DatasetError, ModelError, ServerError, UnknownModelError
from regnet.system.parallel import cores

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


@dataclass(frozen=True, eq=False)
class Side:
    """One of two pipelines, from encoded photos to probabilities. Threads may use it at once.

    `about` describes it as JSON values, by the same fields on both sides; `trace` returns what it
    makes of a photo (raises `ImageError`), `answers` what its model says of what traces gave.
    `labels` are None where only the other side knows them; `hidden` says why a stage is not seen.
    """

    title: str
    about: Mapping[str, Any]
    trace: Callable[[bytes], Trace]
    answers: Callable[[Sequence[Any]], Answers]
    labels: Labels | None = None
    hidden: Mapping[Stage, str] = field(default_factory=dict)


def predictor_side(
    predictor: Predictor,
    *,
    title: str,
    about: Mapping[str, Any],
    graph_crop: Callable[[Array], Array] | None = None,
) -> Side:
    """Return a model run here. One that crops in its graph shows its crop by `graph_crop`."""
    metadata = predictor.metadata
    step = 1 if metadata.preprocess.channels == "RGB" else -1

    def trace(photo: bytes) -> Trace:
        given = predictor.pixels(photo)
        if metadata.preprocessing == "graph":
            pixels: dict[Stage, Array] = {"decode": given}
            if graph_crop is not None:
                pixels["crop"] = graph_crop(given)[..., ::step]
            return Trace(pixels, given)
        # The model's own path computes no more of decode and resize than its crop needs.
        seen = stages(photo, metadata.preprocess)
        shown = (seen.decoded, seen.resized, given)
        return Trace({s: p[..., ::step] for s, p in zip(PIXEL_STAGES, shown, strict=True)}, given)

    def answers(given: Sequence[Array]) -> Answers:
        outputs = predictor.outputs(given)
        return Answers(outputs.logits, outputs.probabilities)

    unseen: tuple[Stage, ...] = ()
    if metadata.preprocessing == "graph":
        unseen = ("resize",) if graph_crop else ("resize", "crop")
    hidden = dict.fromkeys(unseen, "inside the graph")
    return Side(title, about, trace, answers, metadata.labels, hidden)


def _server_side(address: str, metadata: ModelMetadata) -> Side:
    """Return a model behind an address, given photos or the crops of another model's protocol."""
    server = ServerPredictor(address, metadata=metadata)
    return Side(
        server.title,
        {"engine": "server", "takes": server.takes, "assumed": []},
        lambda photo: Trace({}, server.given(photo)),
        lambda given: Answers(*server.answers(given)),
        hidden=dict.fromkeys(PIXEL_STAGES, _HIDDEN[server.takes]),
    )


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
    notes: tuple[str, ...] = ()

    @property
    def sides(self) -> tuple[Side, Side]:
        """A and B."""
        return self.a, self.b

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
        if labels == numbered_labels(len(labels)):
            note = f"{name} only numbers its classes: they are taken to be {other}'s"
            return Pair(a, b, known, notes=(note,))
    return _reordered(a, b, a.labels, b.labels)


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


def open_pair(a: str, b: str, *, library: Library, device: str | None = None) -> Pair:
    """Return the two sides named: choices as `parse_choice` takes them, or a server's address.

    `device` is that of a side which names none, None: the CPU. Raises what `open_predictor` does,
    `ServerError`, and `ModelError` where the classes differ. An offline library refuses servers on
    other machines.
    """
    if is_address(a) and is_address(b):
        raise UnknownModelError(
            "both sides are servers, and neither tells its classes: name a model for one of them"
        )
    for url in filter(is_address, (a, b)):
        if library.offline and not is_loopback(url):
            raise ServerError(f"{without_secrets(url)}: not asked, because of --offline")
    choices = {text: _choice(text, device) for text in (a, b) if not is_address(text)}
    predictors = {n: open_predictor(choice, library=library) for n, choice in choices.items()}
    _warn_assumed({text: predictor.metadata for text, predictor in predictors.items()})
    known = next(iter(predictors.values())).metadata
    first, second = (
        _side(choices[text], predictors[text], library)
        if text in choices
        else _server_side(text, known)
        for text in (a, b)
    )
    return pair_up(first, second)


def _warn_assumed(models: Mapping[str, ModelMetadata]) -> None:
    """Warn once per model, which may be on both sides, of what is assumed about it."""
    warnings: dict[str, AssumptionWarning] = {}
    for text, metadata in models.items():
        if not metadata.assumed:
            continue
        weights = metadata.weights_sha384
        before = warnings[weights].assumed if weights in warnings else ()
        assumed = tuple(dict.fromkeys((*before, *metadata.assumed)))
        model, original = parse_choice(text).model, metadata.original
        warnings[weights] = AssumptionWarning(model, assumed, weights, original)
    for warning in warnings.values():
        warn(warning)


def _choice(text: str, device: str | None) -> Choice:
    named = "device" in split_choice(text)[1]
    return parse_choice(text, device=None if named else device)


def _side(choice: Choice, predictor: Predictor, library: Library) -> Side:
    metadata = predictor.metadata
    about = {
        "model": metadata.name,
        "engine": choice.runs_on,
        "device": choice.device,
        "precision": choice.precision,
        "stored": metadata.precision,
        "preprocessing": metadata.preprocessing,
        "protocol": metadata.preprocess.to_dict(),
        "weights_sha384": metadata.weights_sha384,
        "assumed": list(metadata.assumed),
    }
    crop = None
    if metadata.preprocessing == "graph":
        crop = _graph_crop(library.ir(choice.model, precision=choice.precision))
    return predictor_side(predictor, title=str(choice), about=about, graph_crop=crop)


def _graph_crop(path: Path) -> Callable[[Array], Array] | None:
    """Return the preprocessing part of an IR: a whole photo in, its crop (crop, crop, 3) out.

    None if the graph does not name the tensor of the crop.
    """
    from regnet.conversion.graph_preprocess import PIXELS
    from regnet.ir.engine import InferRequests
    from regnet.ir.graph import read_graph
    from regnet.system.runtime import core, ov

    graph = read_graph(path)
    ports = [port for op in graph.get_ops() for port in op.outputs() if PIXELS in port.get_names()]
    if len(ports) != 1:
        return None
    part = ov.Model(ports, graph.get_parameters(), PIXELS)
    options = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": cores()}
    requests = InferRequests(core.compile_model(part, "CPU", options), cores())

    def crop(image: Array) -> Array:
        with requests.one() as request:
            request.infer({0: image[None]}, share_inputs=True)
            return np.array(request.get_output_tensor(0).data[0].transpose(1, 2, 0))

    return crop
