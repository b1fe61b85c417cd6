"""`regnet.evaluate`: a model's accuracy on labelled images, and what else they tell of it."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from regnet.conversion.store import Library
from regnet.data.dataset import open_dataset
from regnet.data.labelled import Dataset
from regnet.evaluation.card_comparison import CardComparison, compare_with_card
from regnet.evaluation.journal import Journal, open_journal
from regnet.evaluation.scoring import Listener, Scores, score
from regnet.inference.predictors import Choice, EngineName, Predictor, open_predictor
from regnet.inference.result import readable
from regnet.ir.assumptions import warn_assumed
from regnet.ir.metadata import InferencePrecision, ModelMetadata
from regnet.network.labels import Labels
from regnet.statistics.metrics import ClassMetrics, Confusion, Share
from regnet.system.cache import cache_dir as default_cache_dir
from regnet.system.files import sha384_of
from regnet.system.version import TOOL_VERSION

CONFUSED: Final = 50
"""Confused pairs in the JSON values; the report's plots know more."""


@dataclass(frozen=True, kw_only=True)
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

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain JSON values, as docs/evaluate.md lists them.

        All but `speed` is a function of the model, the choice and the images.
        """
        metrics, scores = self.scores.metrics, self.scores
        return {
            "model": self.model.name,
            "engine": self.choice.runs_on,
            "precision": self.choice.precision,
            "protocol": self.model.preprocess.to_dict(),
            "assumed": list(self.model.assumed),
            "dataset": self._dataset(),
            "images": metrics.images,
            "unreadable": scores.unreadable,
            "unreadable_images": [asdict(f) for f in _clean(scores.failures)],
            "strict": self.strict,
            "top1": _share(metrics.top1),
            "top5": _share(metrics.top5),
            "macro_precision": metrics.macro_precision,
            "macro_recall": metrics.macro_recall,
            "macro_f1": metrics.macro_f1,
            "ece": metrics.ece,
            "nll": metrics.nll,
            "bins": [asdict(one) for one in metrics.bins],
            "classes": [self._class(one) for one in metrics.classes],
            "confused": [self._pair(pair) for pair in metrics.confused[:CONFUSED]],
            "worst": [asdict(mistake) for mistake in _clean(scores.worst)],
            "card": self.card.to_dict(),
            "speed": self._speed(),
            "version": TOOL_VERSION,
        }

    def _dataset(self) -> dict[str, Any]:
        return {
            "path": readable(self.dataset),
            "fingerprint": self.fingerprint,
            "classes": len(self.classes),
            "missing": [self.labels[index].name for index in self.missing],
        }

    def _class(self, one: ClassMetrics) -> dict[str, Any]:
        label = self.labels[one.index]
        return {"index": one.index, "wnid": label.wnid, "label": label.name} | asdict(one)

    def _pair(self, pair: Confusion) -> dict[str, Any]:
        truth, predicted = self.labels[pair.truth].name, self.labels[pair.predicted].name
        return asdict(pair) | {"truth_label": truth, "predicted_label": predicted}

    def _speed(self) -> dict[str, Any]:
        scores = self.scores
        return {
            "images_per_s": scores.images_per_s,
            "seconds": scores.seconds,
            "images": scores.images,
            "resumed": scores.resumed,
        }


def evaluate(
    model: str | Path,
    dataset: str | Path,
    *,
    engine: EngineName | None = None,
    precision: InferencePrecision = "f32",
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
    the model's classes may have no images. An unreadable image is counted apart, under `strict` as
    a wrong answer. An interrupted call goes on where it was. Raises `DatasetError`,
    `UnknownModelError`, `ModelError`, `ProtocolError`, `DownloadError`, `MissingExtraError`.
    """
    library = Library(folder=default_cache_dir(cache_dir), offline=offline, entry=entry)
    choice = Choice(model=str(model), engine=engine, precision=precision, protocol=protocol)
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
        path = self.library.folder / "evaluations" / f"{self._place()}.journal"
        identity = self._identity()
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

    def _place(self) -> str:
        """Return a name for this model, choice and path of images, whatever they hold."""
        where = json.dumps([str(self.choice), str(Path(self.dataset.path).absolute())])
        return hashlib.sha256(where.encode()).hexdigest()[:24]

    def _identity(self) -> dict[str, Any]:
        """Return all that the model's answers are a function of."""
        return {
            "choice": str(self.choice),
            "metadata": self.predictor.metadata.to_strings(),
            "files": self._hashes(),
            "images": self.dataset.fingerprint,
            "version": TOOL_VERSION,
        }

    def _hashes(self) -> list[str]:
        """Return the hashes of a converted model's files; a checkpoint's is in the metadata."""
        path = Path(self.choice.model)
        if self.choice.runs_on == "ir":
            path = self.library.ir(self.choice.model, precision=self.choice.precision)
        files = {".xml": (path, path.with_suffix(".bin")), ".onnx": (path,)}
        return [sha384_of(file) for file in files.get(path.suffix, ()) if file.is_file()]


def _clean(found: Sequence[Any]) -> list[Any]:
    return [type(one)(**(vars(one) | {"source": readable(one.source)})) for one in found]


def _share(share: Share) -> dict[str, Any]:
    """Return a share; of no images it has no value."""
    return asdict(share) | {"value": share.value if share.images else None}
