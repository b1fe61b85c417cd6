"""`regnet.calibrate`: temperature scaling and conformal prediction sets from labelled photos.

The readable photos are split at random, by the seed alone: a quarter sets the temperature, a
quarter the threshold of the sets, and on the other half both are checked. So the threshold and the
check see scores of held-out photos, which is what the guarantee rests on.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from regnet.calibration.temperature import Written, graph_temperature, write_calibrated
from regnet.conversion.store import Library
from regnet.data.dataset import open_dataset, sample
from regnet.data.labelled import Dataset, Unreadable
from regnet.evaluation.scoring import Listener, ScoredBatch, score
from regnet.inference.predictors import Choice, Predictor, open_predictor
from regnet.inference.result import readable, readable_rows
from regnet.ir.assumptions import warn_assumed
from regnet.ir.graph import read_graph
from regnet.ir.metadata import ModelMetadata
from regnet.ir.records import Calibration
from regnet.statistics.conformal import (
    Fit,
    Method,
    coverage_range,
    learn_threshold,
    photos_needed,
    photos_wanted,
    set_sizes,
    softmax,
    supported_temperature,
    truth_scores,
)
from regnet.statistics.metrics import LEAST, Metrics, Share, Tally
from regnet.system.cache import cache_dir as default_cache_dir
from regnet.system.errors import DatasetError, NoGainError
from regnet.system.json_text import plain, plain_fields

Precision = Literal["f32", "int8"]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The metrics on the held-out photos, `before` and `after` the temperature.

    `coverage` of the sets lies in `expected` for 95 % of all samples if the guarantee holds;
    `sizes` counts the sets of 0, 1, ... classes; `single` is the share of sets of one class, and
    `right` the share of those that have the true one.
    """

    before: Metrics
    after: Metrics
    coverage: Share
    expected: tuple[float, float]
    sizes: tuple[int, ...]
    single: Share
    right: Share

    @property
    def mean_size(self) -> float:
        """Classes in a set, on average."""
        return float(np.dot(self.sizes, np.arange(len(self.sizes))) / sum(self.sizes))

    @property
    def wrong(self) -> Share:
        """The photos that get a single class which is not theirs."""
        return Share.of(self.right.images - self.right.hits, self.single.images)

    @property
    def holds(self) -> bool:
        """Whether the coverage is no lower than chance allows."""
        return self.coverage.value >= self.expected[0]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        return plain_fields(self) | {
            "images": self.coverage.images,
            "top1": asdict(self.before.top1),
            "before": _quality(self.before),
            "after": _quality(self.after),
            "holds": self.holds,
            "mean_size": self.mean_size,
            "wrong": asdict(self.wrong),
        }


@dataclass(frozen=True, kw_only=True)
class FittedCalibration:
    """A fitted calibration: `step` divides the logits that the model gave until now."""

    step: float
    calibration: Calibration
    temperature_photos: int
    threshold_photos: int
    held_out: HeldOut


@dataclass(frozen=True, kw_only=True)
class CalibrationReport:
    """A calibrated model: where it was `written`, what was `learnt` from which photos.

    `metadata` is its description; `failures` are the first of the `unreadable` photos of `images`.
    """

    metadata: ModelMetadata
    written: Written
    learnt: FittedCalibration
    dataset: str
    fingerprint: str
    images: int
    unreadable: int
    failures: tuple[Unreadable, ...]
    seed: int

    @property
    def path(self) -> Path:
        """The .xml of the calibrated model."""
        return self.written.path

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain JSON values, as docs/calibrate.md lists them."""
        learnt = self.learnt
        return {
            "path": str(self.path),
            "files": [str(self.path.parent / name) for name in self.written.files],
            "model": self.metadata.name,
            "assumed": list(self.metadata.assumed),
            "dataset": {"path": readable(self.dataset), "fingerprint": self.fingerprint},
            "images": self.images,
            "unreadable": self.unreadable,
            "unreadable_images": readable_rows(self.failures),
            "seed": self.seed,
            "temperature_photos": learnt.temperature_photos,
            "threshold_photos": learnt.threshold_photos,
            "photos_wanted": photos_wanted(learnt.calibration.coverage),
            "calibration": learnt.calibration.to_dict(),
            "held_out": learnt.held_out.to_dict(),
            "max_delta": self.written.max_delta,
            "checked_photos": self.written.photos,
        }


def _quality(metrics: Metrics) -> dict[str, Any]:
    return {"ece": metrics.ece, "nll": metrics.nll, "bins": plain(metrics.bins)}


def calibrate(
    model: str | Path,
    dataset: str | Path,
    *,
    coverage: float = 0.9,
    method: Method = "aps",
    seed: int = 0,
    precision: Precision = "f32",
    truth: str | Path | None = None,
    subset: bool = False,
    folder: str | Path = ".",
    force: bool = False,
    entry: str | None = None,
    cache_dir: str | Path | None = None,
    offline: bool = False,
) -> CalibrationReport:
    """Write a calibrated copy of a model into a folder, as `regnet calibrate` does.

    `dataset` holds labelled photos that the model was not trained on, like those it will see;
    `coverage` is the probability with which a set shall hold the truth; `precision` "int8" takes
    the INT8 model. Raises `DatasetError` if the photos are too few or do not fit; `NoGainError`,
    unless `force`, if the temperature makes held-out photos less likely; `ConversionError` if what
    was written is not the model asked for; `OutputError`, `UnknownModelError`, `ModelError`,
    `DownloadError`. Nothing is written then.
    """
    run = open_run(
        Library(folder=default_cache_dir(cache_dir), offline=offline, entry=entry),
        model,
        dataset,
        precision=precision,
        truth=truth,
        subset=subset,
    )
    fit = Fit(coverage=coverage, method=method, seed=seed)
    return run.calibrate(fit, folder=Path(folder), force=force)


def open_run(
    library: Library,
    model: str | Path,
    dataset: str | Path,
    *,
    precision: Precision,
    truth: str | Path | None,
    subset: bool,
) -> "CalibrationRun":
    """Return a model and photos that fit, ready to be calibrated; errors as of `calibrate`."""
    path = library.ir(model, precision=precision)
    predictor = open_predictor(Choice(model=str(path), precision=precision), library=library)
    warn_assumed(model, predictor.metadata)
    photos = open_dataset(dataset, predictor.metadata.labels, truth=truth, subset=subset)
    return CalibrationRun(path=path, predictor=predictor, dataset=photos)


@dataclass(frozen=True, kw_only=True)
class CalibrationRun:
    """An IR, its model ready to run, and photos, found to fit."""

    path: Path
    predictor: Predictor
    dataset: Dataset

    def calibrate(
        self,
        fit: Fit,
        *,
        folder: Path,
        force: bool = False,
        listeners: Sequence[Listener] = (),
    ) -> CalibrationReport:
        """Fit, check and write; `listeners` are called with every batch of photos."""
        if not 0 < fit.coverage < 1:
            raise ValueError(f"coverage={fit.coverage} must be between 0 and 1, such as 0.9")
        _require_photos(self.dataset.count, fit.coverage, self.dataset.path)
        rows, truths = [], []

        def keep(batch: ScoredBatch) -> None:
            rows.append(batch.probabilities)
            truths.append(batch.readable_truths)

        scores = score(self.predictor, self.dataset, listeners=(keep, *listeners))
        labels = np.concatenate(truths)
        _require_photos(len(labels), fit.coverage, self.dataset.path)
        fitted = learn(np.concatenate(rows), labels, fit)
        if not force:
            _require_gain(fitted, self.predictor.metadata.name)
        total = fitted.step * graph_temperature(read_graph(self.path))  # of a calibrated model
        learnt = replace(fitted, calibration=replace(fitted.calibration, temperature=total))
        metadata = replace(self.predictor.metadata, calibration=learnt.calibration)
        written = write_calibrated(
            self.path, self.predictor, metadata, step=learnt.step, dataset=self.dataset, to=folder
        )
        return CalibrationReport(
            metadata=metadata,
            written=written,
            learnt=learnt,
            dataset=self.dataset.path,
            fingerprint=self.dataset.fingerprint,
            images=self.dataset.count,
            unreadable=scores.unreadable,
            failures=scores.failures,
            seed=fit.seed,
        )


def _require_photos(count: int, coverage: float, path: str) -> None:
    needed = 4 * photos_needed(coverage)
    if count < max(needed, 4):
        raise DatasetError(
            f"{path} has {count} readable photos: a coverage of {coverage:g} needs at least "
            f"{max(needed, 4)}, and {photos_wanted(coverage):,} to be of use (a quarter of them "
            "sets the threshold); give more, or ask for less with --coverage"
        )


def _require_gain(learnt: FittedCalibration, name: str) -> None:
    """Raise `NoGainError` if the temperature makes held-out photos less likely."""
    held, calibration = learnt.held_out, learnt.calibration
    before, after = held.before.nll or 0.0, held.after.nll or 0.0
    if after <= before:
        return
    wanted = photos_wanted(calibration.coverage)
    photos = calibration.photos + calibration.held_out
    raise NoGainError(
        f"{name}: a temperature of {learnt.step:.3f}, fitted on {learnt.temperature_photos:,} "
        f"photos, makes {calibration.held_out:,} held-out photos less likely: their negative "
        f"log-likelihood is {before:.4f} before and {after:.4f} after",
        f"calibrate with more labelled photos ({wanted:,} are enough as a rule, here are "
        f"{photos:,})",
    )


def learn(
    probabilities: NDArray[np.float32],
    truths: NDArray[np.int64],
    fit: Fit,
    *,
    temperature: float | None = None,
) -> FittedCalibration:
    """Return a temperature and threshold fitted on half of the rows (N, classes), checked on half.

    Logits are the logarithms of probabilities, as far as a temperature can tell. One that is given
    is not fitted.
    """
    coverage, method = fit.coverage, fit.method
    temperature_rows, threshold_rows, held_out_rows = _split(len(truths), fit.seed)
    logits = np.log(np.maximum(probabilities, LEAST))
    if temperature is None:
        temperature = supported_temperature(
            logits[temperature_rows],
            truths[temperature_rows],
            enough=len(truths) >= photos_wanted(coverage),
        )
    calibrated = softmax(logits[threshold_rows], temperature)
    threshold = learn_threshold(truth_scores(calibrated, truths[threshold_rows], method), coverage)

    calibrated, labels = softmax(logits[held_out_rows], temperature), truths[held_out_rows]
    sizes = set_sizes(calibrated, method, threshold)
    covered = truth_scores(calibrated, labels, method) <= threshold
    single = sizes == 1
    held_out = HeldOut(
        before=_metrics(probabilities[held_out_rows], labels),
        after=_metrics(calibrated, labels),
        coverage=Share.of(int(covered.sum()), len(labels)),
        expected=coverage_range(len(threshold_rows), len(held_out_rows), coverage),
        sizes=tuple(np.bincount(sizes, minlength=calibrated.shape[1] + 1).tolist()),
        single=Share.of(int(single.sum()), len(labels)),
        right=Share.of(int((single & covered).sum()), int(single.sum())),
    )
    calibration = Calibration(
        temperature=temperature,
        coverage=coverage,
        method=method,
        threshold=threshold,
        photos=len(temperature_rows) + len(threshold_rows),
        held_out=len(held_out_rows),
        measured_coverage=held_out.coverage.value,
        mean_size=held_out.mean_size,
    )
    return FittedCalibration(
        step=temperature,
        calibration=calibration,
        temperature_photos=len(temperature_rows),
        threshold_photos=len(threshold_rows),
        held_out=held_out,
    )


def _split(count: int, seed: int) -> tuple[list[int], list[int], list[int]]:
    """Return a quarter of the photos, another quarter, and the others, at random, by index."""
    half = sample(range(count), count // 2, seed=seed)
    quarter = sample(half, len(half) // 2, seed=seed + 1)
    return quarter, sorted(set(half) - set(quarter)), sorted(set(range(count)) - set(half))


def _metrics(probabilities: NDArray[np.float32], truths: NDArray[np.int64]) -> Metrics:
    tally = Tally(probabilities.shape[1])
    tally.update(probabilities, truths)
    return tally.result()
