"""`regnet.evaluate`: a model's accuracy on labelled images, and what else they tell of it."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from regnet.conversion.store import Library
from regnet.data.dataset import open_dataset
from regnet.data.labelled import Dataset
from regnet.evaluation.journal import Journal, open_journal
from regnet.evaluation.scoring import Listener, Scores, score
from regnet.inference.predictors import (
    Choice,
    EngineName,
    Predictor,
    default_precision,
    open_predictor,
)
from regnet.inference.result import readable, readable_rows
from regnet.ir.assumptions import warn_assumed
from regnet.ir.metadata import InferencePrecision, ModelMetadata
from regnet.network.labels import Labels
from regnet.pages.notebook import framed
from regnet.pixels.protocol import PROTOCOLS, Preprocess
from regnet.statistics.metrics import Metrics, Share
from regnet.system.cache import cache_dir as default_cache_dir
from regnet.system.devices import CPU, canonical_device
from regnet.system.errors import UnknownModelError
from regnet.system.files import sha384_of
from regnet.system.json_text import plain_fields
from regnet.system.text import percent
from regnet.system.version import TOOL_VERSION
from regnet.zoo.card import Accuracy, Card
from regnet.zoo.catalogue import card_by_name

_IMAGES: Final = {"ImageNet-1k val": 50_000}
_STATED: Final = re.compile(r"(\d[\d,]*) [\w -]*photos")

CONFUSED: Final = 50  # confused pairs in the JSON values; the report's plots know more


@dataclass(frozen=True)
class CardComparison:
    """The card's figures for this data set and protocol, or the `reason` why none compares.

    `top1_within` and `top5_within` tell whether the card's figure is in the measured 95 % interval;
    None where the card has none.
    """

    accuracy: Accuracy | None
    reason: str | None
    top1_within: bool | None = None
    top5_within: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain JSON values; accuracies are shares from 0 to 1."""
        card = self.accuracy
        return {
            "compared": card is not None,
            "reason": self.reason,
            "dataset": card and card.dataset,
            "protocol": card and card.protocol,
            "source": card and card.source,
            "top1": card and _from_percent(card.top1),
            "top5": card and _from_percent(card.top5),
            "top1_within": self.top1_within,
            "top5_within": self.top5_within,
        }


def compare_with_card(
    metadata: ModelMetadata, dataset: Dataset, metrics: Metrics
) -> CardComparison:
    """Return how measured figures stand to the card's of the same protocol and data set.

    A data set is taken for the card's if it has as many images and all of the model's classes.
    """
    try:
        card = card_by_name(metadata.card) if metadata.card else None
    except UnknownModelError:
        card = None
    if card is None:
        return CardComparison(None, "the model has no card with published figures")
    figures = [
        figure
        for figure in card.accuracies
        if not dataset.missing and dataset.count == _images(figure)
    ]
    if not figures:
        return CardComparison(None, _other_images(card, dataset))
    used = metadata.preprocess
    named = [figure for figure in figures if figure.protocol == used.name]
    own = card.preprocess
    if replace(used, name=own.name) == own:  # the card's own protocol by another name
        named += [figure for figure in figures if figure.protocol == own.name]
    if not named:
        return CardComparison(None, _other_protocol(figures, used))
    figure = named[0]
    return CardComparison(
        figure, None, _within(metrics.top1, figure.top1), _within(metrics.top5, figure.top5)
    )


def _images(figure: Accuracy) -> int | None:
    """Return how many images the card's data set has, where that is known."""
    stated = _STATED.search(figure.dataset)
    return int(stated[1].replace(",", "")) if stated else _IMAGES.get(figure.dataset)


def _within(measured: Share, percent: float | None) -> bool | None:
    return None if percent is None else measured.holds(percent / 100)


def _from_percent(percent: float | None) -> float | None:
    return None if percent is None else round(percent / 100, 8)


def _other_images(card: Card, dataset: Dataset) -> str:
    known = [
        f"{figure.dataset} ({images:,} images)" if not _STATED.search(figure.dataset) else
        figure.dataset
        for figure in card.accuracies
        if (images := _images(figure))
    ]  # fmt: skip
    classes = len(dataset.classes)
    return (
        f"the card's figures are on other images: {', '.join(dict.fromkeys(known))}; these are "
        f"{dataset.count:,} images of {classes:,} of the {classes + len(dataset.missing):,} classes"
    )


def _other_protocol(figures: list[Accuracy], used: Preprocess) -> str:
    names = list(dict.fromkeys(figure.protocol for figure in figures))
    known = [name for name in names if name in PROTOCOLS]
    hint = f"; --protocol {known[0]} gives one that compares" if known else ""
    return f"the card's figures are by the protocol {' and '.join(names)}, not {used.name}{hint}"


@dataclass(frozen=True, kw_only=True, repr=False)
class Evaluation:
    """How good a model is on a data set.

    `choice` is how it was run, `model` its description, whose `preprocess` is the protocol used;
    `scores` are the figures; `card` how they stand to the published ones. `classes` and `missing`
    are the model's classes with and without images: predictions are over all of them.
    """

    choice: Choice
    model: ModelMetadata
    dataset: str
    fingerprint: str
    classes: tuple[int, ...]
    missing: tuple[int, ...]
    strict: bool
    scores: Scores
    card: CardComparison

    @property
    def labels(self) -> Labels:
        """The model's classes, by index."""
        return self.model.labels

    def __repr__(self) -> str:
        metrics = self.scores.metrics
        figures = f"top-1 {percent(metrics.top1.value)}, top-5 {percent(metrics.top5.value)}"
        name = Path(self.dataset).name
        return f"<Evaluation {self.model.name} on {name}: {figures}, {metrics.images:,} images>"

    def _repr_html_(self) -> str | None:
        """Return the report for a notebook, without photos; None without the extra `report`."""
        from regnet.evaluation.report import evaluation_report

        return framed(lambda: evaluation_report(self, None))

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain JSON values, as docs/evaluate.md lists them.

        All but `speed` is a function of the model, the choice and the images.
        """
        metrics, scores, names = self.scores.metrics, self.scores, [x.name for x in self.labels]
        return {
            "model": self.model.name,
            "engine": self.choice.runs_on,
            "device": self.choice.device,
            "precision": self.choice.precision,
            "protocol": self.model.preprocess.to_dict(),
            "assumed": list(self.model.assumed),
            "dataset": {
                "path": readable(self.dataset),
                "fingerprint": self.fingerprint,
                "classes": len(self.classes),
                "missing": [names[index] for index in self.missing],
            },
            **plain_fields(metrics),
            "unreadable": scores.unreadable,
            "unreadable_images": readable_rows(scores.failures),
            "strict": self.strict,
            "top1": _share(metrics.top1),
            "top5": _share(metrics.top5),
            "classes": [
                {"wnid": label.wnid, "label": label.name, **asdict(one)}
                for one, label in zip(metrics.classes, self.labels, strict=True)
            ],
            "confused": [
                asdict(pair)
                | {"truth_label": names[pair.truth], "predicted_label": names[pair.predicted]}
                for pair in metrics.confused[:CONFUSED]
            ],
            "worst": readable_rows(scores.worst),
            "card": self.card.to_dict(),
            "speed": {
                "images_per_s": scores.images_per_s,
                "seconds": scores.seconds,
                "images": scores.images,
                "resumed": scores.resumed,
            },
            "version": TOOL_VERSION,
        }


def _share(share: Share) -> dict[str, Any]:
    """Return a share; of no images it has no value."""
    return asdict(share) | {"value": share.value if share.images else None}


def evaluate(
    model: str | Path,
    dataset: str | Path,
    *,
    engine: EngineName | None = None,
    device: str = CPU,
    precision: InferencePrecision | None = None,
    protocol: str | None = None,
    truth: str | Path | None = None,
    subset: bool = False,
    strict: bool = False,
    entry: str | None = None,
    cache_dir: str | Path | None = None,
    offline: bool = False,
) -> Evaluation:
    """Return how good a model is on labelled images, as `regnet evaluate` does.

    `dataset` is a folder, archive or Parquet file, `truth` a file of labels; with `subset` some of
    the model's classes may have no images. `precision` None is f32, on `cuda` bf16. An unreadable
    image is counted apart, under `strict` as a wrong answer. An interrupted call goes on where it
    was. Raises `DatasetError`, `UnknownModelError`, `ModelError`, `ProtocolError`, `DownloadError`,
    `MissingExtraError`.
    """
    library = Library(folder=default_cache_dir(cache_dir), offline=offline, entry=entry)
    choice = Choice(
        model=str(model),
        engine=engine,
        device=canonical_device(device),
        precision=precision or default_precision(device),
        protocol=protocol,
    )
    run = open_run(choice, dataset, library=library, truth=truth, subset=subset)
    with run.journal() as journal:
        return run.evaluate(journal, strict=strict)


def open_run(
    choice: Choice,
    dataset: str | Path,
    *,
    library: Library,
    truth: str | Path | None = None,
    subset: bool = False,
) -> "EvaluationRun":
    """Return a model and images, opened and found to fit; raises as `evaluate` does."""
    predictor = open_predictor(choice, library=library)
    warn_assumed(choice.model, predictor.metadata)
    images = open_dataset(dataset, predictor.metadata.labels, truth=truth, subset=subset)
    return EvaluationRun(choice=choice, predictor=predictor, dataset=images, library=library)


@dataclass(frozen=True, kw_only=True)
class EvaluationRun:
    """A model and images, opened and found to fit."""

    choice: Choice
    predictor: Predictor
    dataset: Dataset
    library: Library

    @contextmanager
    def journal(self, *, fresh: bool = False) -> Iterator[Journal | None]:
        """Give the journal in the cache, kept if this is left by an exception; None without one."""
        path = Path(self.choice.model)
        if self.choice.runs_on == "ir":
            path = self.library.ir(self.choice.model, precision=self.choice.precision)
        # A checkpoint's hash is in the metadata.
        files = {".xml": (path, path.with_suffix(".bin")), ".onnx": (path,)}.get(path.suffix, ())
        identity = {
            "choice": str(self.choice),
            "metadata": self.predictor.metadata.to_strings(),
            "files": [sha384_of(file) for file in files if file.is_file()],
            "images": self.dataset.fingerprint,
            "version": TOOL_VERSION,
        }
        place = json.dumps([str(self.choice), str(Path(self.dataset.path).absolute())])
        name = f"{hashlib.sha256(place.encode()).hexdigest()[:24]}.journal"
        path = self.library.folder / "evaluations" / name
        with open_journal(path, identity, fresh=fresh, say=self.library.say) as journal:
            yield journal

    def evaluate(
        self,
        journal: Journal | None = None,
        *,
        strict: bool = False,
        listeners: Sequence[Listener] = (),
    ) -> Evaluation:
        """Score the images, but for those in the journal, and compare with the card."""
        scores = score(
            self.predictor, self.dataset, strict=strict, record=journal, listeners=listeners
        )
        metadata, images = self.predictor.metadata, self.dataset
        return Evaluation(
            choice=self.choice,
            model=metadata,
            dataset=images.path,
            fingerprint=images.fingerprint,
            classes=images.classes,
            missing=images.missing,
            strict=strict,
            scores=scores,
            card=compare_with_card(metadata, images, scores.metrics),
        )
