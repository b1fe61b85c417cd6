"""What a finished run leaves: weights, the converted model, its figures, calibration, a report."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from regnet.checkpoints.weights import write_safetensors
from regnet.conversion.convert import convert
from regnet.conversion.values import Request
from regnet.evaluation.evaluate import Evaluation, EvaluationRun
from regnet.inference.predictors import Choice, open_predictor
from regnet.system.errors import (
    ConversionError,
    DatasetError,
    MissingExtraError,
    NoGainError,
    OutputError,
)
from regnet.training.command import resuming
from regnet.training.loop import Trainer
from regnet.training.photo_sets import PhotoSets
from regnet.training.photos import Unreadable
from regnet.training.run_folder import REPORT, WEIGHTS
from regnet.training.task import Task, Training
from regnet.training.unreadable import validation_remarks

if TYPE_CHECKING:
    from regnet.calibration.calibrate import CalibrationReport

CALIBRATION: Final = 200
"""Validation photos from which on a model is calibrated: a quarter of them sets the temperature."""


def deploy(
    training: Training, trainer: Trainer, sets: PhotoSets, task: Task, *, started_from: str
) -> Training:
    """Return the finished run with its model: converted, measured, calibrated where photos suffice.

    With patience the model has the weights of the best epoch, else of the last.
    """
    work = _Deployment(training, trainer, sets, task, started_from)
    stages = (work.convert, work.evaluate, work.calibrate, work.report)
    for stage in task.watch(stages, "converting and measuring", len(stages)):
        try:
            stage()
        except (OutputError, ConversionError) as exc:
            kept = f"The training is kept; once that is mended: {resuming(training.folder)}"
            raise type(exc)(f"{exc}. {kept}") from exc
    return work.training


class _Deployment:
    """The stages, in their order; each adds to `training`."""

    def __init__(
        self, training: Training, trainer: Trainer, sets: PhotoSets, task: Task, started_from: str
    ) -> None:
        self.training = training
        self._trainer, self._sets, self._task = trainer, sets, task
        self._started_from = started_from
        self._photos = sets.validation if sets.validation and sets.validation.count else None
        self._evaluation: Evaluation | None = None
        self._calibration: CalibrationReport | None = None

    def convert(self) -> None:
        """Write weights.safetensors and the IR made of it."""
        recipe, folder = self.training.recipe, self.training.folder
        best = self._trainer.best if recipe.schedule.patience else None
        chosen = best if best and best.epoch else None
        epoch = chosen.epoch if chosen else len(self.training.records)
        name = self._task.command.name or folder.resolve().name
        weights = folder / WEIGHTS
        write_safetensors(
            weights,
            chosen.weights if chosen else self._trainer.weights,
            spec=self._trainer.bare.spec,
            labels=self._sets.labels,
            preprocess=recipe.input.protocol(recipe.name),
            name=name,
            extra={"epochs": epoch, "recipe": recipe.to_toml()},
        )
        model = convert(Request(weights=weights, name=name), folder).path
        self.training = replace(self.training, epoch=epoch, weights=weights, model=model)

    def evaluate(self) -> None:
        """Measure the converted model on the validation photos."""
        if self._photos is None:
            return
        run = EvaluationRun(
            choice=Choice(model=str(self._model)),
            predictor=open_predictor(Choice(model=str(self._model)), library=self._task.library),
            dataset=self._photos,
            library=self._task.library,
        )
        found = self._evaluation = run.evaluate()
        metrics, known = found.scores.metrics, {p.source for p in self.training.unreadable}
        failed = [
            Unreadable(f.source, f.error) for f in found.scores.failures if f.source not in known
        ]
        some = metrics.top1.images > 0
        self.training = replace(
            self.training,
            val_read=metrics.images - metrics.unreadable,
            top1=metrics.top1.value if some else None,
            top5=metrics.top5.value if some else None,
            unreadable=(*self.training.unreadable, *failed),
            figures=self.training.figures | {"evaluation": found.to_dict()},
        )
        self._remark_unread(found)

    def _remark_unread(self, found: Evaluation) -> None:
        """Say which validation photos did not count, unless that was said before the run."""
        supports = {one.index: one.support for one in found.scores.metrics.classes}
        unread = [index for index in found.classes if not supports[index]]
        names = [found.labels[index].name or found.labels[index].wnid for index in unread]
        read, count = self.training.val_read, self.training.val_photos
        for remark in validation_remarks(read, count, names):
            if remark not in self.training.remarks:
                self._task.say(f"warning: {remark}")
                self._remark(remark)

    def calibrate(self) -> None:
        """Calibrate the model's probabilities, in a copy beside it."""
        photos = self._photos
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
            found = self._calibration = run.calibrate(folder=self._model.parent)
        except DatasetError as exc:  # such as photos that it gets all right
            self._remark(f"Its probabilities are not calibrated: {exc}.")
            return
        except NoGainError as exc:
            self._remark(f"Its probabilities are not calibrated: {exc.reason}.")
            return
        figures = self.training.figures | {"calibration": _learnt(found)}
        self.training = replace(self.training, model=found.path, calibrated=True, figures=figures)

    def report(self) -> None:
        """Write the HTML report, where the extra for it is installed."""
        training, sets = self.training, self._sets
        with suppress(MissingExtraError):
            from regnet.pages.html import require_report, write_page
            from regnet.training.page import TrainingRun, training_page

            require_report()
            run = TrainingRun(
                name=training.folder.resolve().name,
                spec=self._trainer.bare.spec,
                recipe=training.recipe,
                records=training.records,
                dataset=str(self._task.command.dataset),
                train_photos=training.train_photos,
                val_photos=training.val_photos,
                machine=self._task.command.devices.described,
                finished=True,
                epoch=training.epoch,
                started_from=self._started_from,
                assumed=training.assumed,
                teacher=", ".join(training.recipe.teachers),
                remarks=training.remarks,
            )
            html = training_page(
                run,
                evaluation=self._evaluation,
                photos=sets.validation,
                calibration=self._calibration.learnt if self._calibration else None,
            )
            write_page(training.folder / REPORT, html)
            self.training = replace(training, report=training.folder / REPORT)

    @property
    def _model(self) -> Path:
        assert self.training.model is not None
        return self.training.model

    def _remark(self, text: str) -> None:
        self.training = replace(self.training, remarks=(*self.training.remarks, text))


def _learnt(report: "CalibrationReport") -> dict[str, Any]:
    values = report.to_dict()
    names = ("calibration", "held_out", "temperature_photos", "threshold_photos")
    return {name: values[name] for name in names}
