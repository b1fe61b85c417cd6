"""The end of a run: weights, the converted model, its metrics, calibration, a report."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from regnet.checkpoints.weights import write_safetensors
from regnet.conversion.convert import convert
from regnet.conversion.values import Request
from regnet.evaluation.evaluate import Evaluation, EvaluationRun
from regnet.inference.predictors import Choice, open_predictor
from regnet.statistics.conformal import Fit
from regnet.system.errors import (
    ConversionError,
    DatasetError,
    MissingEngineError,
    MissingExtraError,
    NoGainError,
    OutputError,
)
from regnet.training.loop import Trainer
from regnet.training.photo_sets import PhotoSets, validation_remarks
from regnet.training.run_folder import REPORT, WEIGHTS, resuming
from regnet.training.task import Task, Training

if TYPE_CHECKING:
    from regnet.calibration.calibrate import CalibrationReport

CALIBRATION: Final = 200
"""Validation photos needed to calibrate a model: a quarter of them sets the temperature."""


def deploy(
    training: Training, trainer: Trainer, sets: PhotoSets, task: Task, *, started_from: str
) -> Training:
    """Return the finished run with its model: converted, evaluated, calibrated if photos suffice.

    With patience the model has the weights of the best epoch, else of the last.
    """
    work = _Deployment(training, trainer, sets, task, started_from)
    stages = (work.convert, work.evaluate, work.calibrate, work.report)
    for stage in task.watch(stages, "converting and measuring", len(stages)):
        try:
            stage()
        except (OutputError, ConversionError) as exc:
            then = f"The training is kept; once that is mended: {resuming(training.folder)}"
            raise type(exc)(f"{exc}. {then}") from exc
    return work.training


class _Deployment:
    """The stages, in their order; each adds to `training`."""

    def __init__(
        self, training: Training, trainer: Trainer, sets: PhotoSets, task: Task, started_from: str
    ) -> None:
        self.training = training
        self._state, self._sets, self._task = trainer.state, sets, task
        self._weights, self._started_from = trainer.weights, started_from
        self._photos = sets.validation if sets.validation and sets.validation.count else None
        self._evaluation: Evaluation | None = None
        self._calibration: CalibrationReport | None = None

    def convert(self) -> None:
        """Write weights.safetensors and the IR made of it, if OpenVINO is installed."""
        recipe, folder = self.training.recipe, self.training.folder
        best = self._state.best
        deploys_best = recipe.schedule.patience and best.epoch
        epoch = best.epoch if deploys_best else len(self.training.records)
        name = self._task.command.name or folder.resolve().name
        weights = folder / WEIGHTS
        state = best.weights if deploys_best else self._weights
        write_safetensors(
            weights,
            {key: tensor.cpu() for key, tensor in state.items()},
            spec=self._state.bare.spec,
            labels=self._sets.labels,
            preprocess=recipe.input.protocol(recipe.name),
            name=name,
            extra={"epochs": epoch, "recipe": recipe.to_toml()},
        )
        self.training = replace(self.training, epoch=epoch, weights=weights)
        try:
            model = convert(Request(weights=weights, name=name), folder).path
        except MissingEngineError:
            self._warn(
                f"OpenVINO is not installed, so {weights} is not converted. Convert it where "
                f"OpenVINO is: regnet convert {weights}; or install it here, then: "
                f"{resuming(folder)}"
            )
            return
        self.training = replace(self.training, model=model)

    def evaluate(self) -> None:
        """Evaluate the converted model on the validation photos."""
        if self._photos is None or self.training.model is None:
            return
        choice, library = Choice(model=str(self._model)), self._task.library
        predictor = open_predictor(choice, library=library)
        run = EvaluationRun(
            choice=choice, predictor=predictor, dataset=self._photos, library=library
        )
        evaluation = self._evaluation = run.evaluate()
        metrics, known = evaluation.scores.metrics, {p.source for p in self.training.unreadable}
        failures = [f for f in evaluation.scores.failures if f.source not in known]
        some = metrics.top1.images > 0
        self.training = replace(
            self.training,
            val_read=metrics.images - metrics.unreadable,
            top1=metrics.top1.value if some else None,
            top5=metrics.top5.value if some else None,
            unreadable=(*self.training.unreadable, *failures),
            figures=self.training.figures | {"evaluation": evaluation.to_dict()},
        )
        supports = {one.index: one.support for one in metrics.classes}
        unread = [evaluation.labels[i] for i in evaluation.classes if not supports[i]]
        names = [label.name or label.wnid for label in unread]
        read, count = self.training.val_read, self.training.val_photos
        for remark in validation_remarks(read, count, names):
            if remark not in self.training.remarks:  # said before the run, if they were read then
                self._warn(remark)

    def calibrate(self) -> None:
        """Calibrate the model's probabilities, in a copy beside it."""
        photos = self._photos
        if self.training.model is None:
            return
        if photos is None or photos.count < CALIBRATION:
            self._remark(
                f"Its probabilities are not calibrated: that needs {CALIBRATION} photos to "
                f"validate with, and there are {photos.count if photos else 0}."
            )
            return
        from regnet.calibration.calibrate import CalibrationRun

        predictor = open_predictor(Choice(model=str(self._model)), library=self._task.library)
        run = CalibrationRun(path=self._model, predictor=predictor, dataset=photos)
        try:
            report = self._calibration = run.calibrate(Fit(), folder=self._model.parent)
        except (DatasetError, NoGainError) as exc:  # such as photos that are all correct
            reason = exc.reason if isinstance(exc, NoGainError) else exc
            self._remark(f"Its probabilities are not calibrated: {reason}.")
            return
        values = report.to_dict()
        names = ("calibration", "held_out", "temperature_photos", "threshold_photos")
        figures: dict[str, Any] = {"calibration": {name: values[name] for name in names}}
        figures = self.training.figures | figures
        self.training = replace(self.training, model=report.path, calibrated=True, figures=figures)

    def report(self) -> None:
        """Write the HTML report, if its extra is installed."""
        with suppress(MissingExtraError):
            from regnet.pages.html import write_report
            from regnet.training.report import training_report

            report = training_report(
                self.training,
                spec=self._state.bare.spec,
                dataset=str(self._task.command.dataset),
                machine=self._task.command.devices.described,
                started_from=self._started_from,
                evaluation=self._evaluation,
                photos=self._sets.validation,
                calibration=self._calibration.learnt if self._calibration else None,
            )
            write_report(self.training.folder / REPORT, report)
            self.training = replace(self.training, report=self.training.folder / REPORT)

    @property
    def _model(self) -> Path:
        assert self.training.model is not None
        return self.training.model

    def _warn(self, text: str) -> None:
        self._task.say(f"warning: {text}")
        self._remark(text)

    def _remark(self, text: str) -> None:
        self.training = replace(self.training, remarks=(*self.training.remarks, text))
