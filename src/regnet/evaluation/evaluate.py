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
from regnet.evaluation.scoring import Failure, Listener, Mistake, Scores, score
from regnet.inference.predictors import Choice, EngineName, Predictor, open_predictor
from regnet.inference.result import readable
from regnet.ir.assumptions import warn_assumed
from regnet.ir.metadata import InferencePrecision, ModelMetadata
from regnet.network.labels import Labels
from regnet.statistics.metrics import Share
from regnet.system.cache import cache_dir as default_cache_dir
from regnet.system.files import sha384_of
from regnet.system.json_text import plain_fields
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
        metrics, scores, names = self.scores.metrics, self.scores, [x.name for x in self.labels]
        return {
            "model": self.model.name,
            "engine": self.choice.runs_on,
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
            "unreadable_images": _readable(scores.failures),
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
            "worst": _readable(scores.worst),
            "card": self.card.to_dict(),
            "speed": {
                "images_per_s": scores.images_per_s,
                "seconds": scores.seconds,
                "images": scores.images,
                "resumed": scores.resumed,
            },
            "version": TOOL_VERSION,
        }


def _readable(values: Sequence[Failure] | Sequence[Mistake]) -> list[dict[str, Any]]:
    return [plain_fields(one) | {"source": readable(one.source)} for one in values]


def _share(share: Share) -> dict[str, Any]:
    """Return a share; of no images it has no value."""
    return asdict(share) | {"value": share.value if share.images else None}


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
