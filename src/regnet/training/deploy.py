"""What a finished run leaves: weights, the converted model, its figures, calibration, a report."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from regnet.checkpoints.weights import write_safetensors
from regnet.conversion import Request
from regnet.convert import convert
from regnet.data.labelled import Dataset
from regnet.errors import MissingExtraError
from regnet.evaluation.evaluate import Evaluation
from regnet.evaluation.evaluate import Run as EvaluationRun
from regnet.library import Library
from regnet.predictors import Choice, open_predictor
from regnet.training.loop import Trainer
from regnet.training.photo_sets import PhotoSets
from regnet.training.photos import Unreadable
from regnet.training.run_folder import REPORT, WEIGHTS
from regnet.training.train import Task, Training

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
    training = _converted(training, trainer, sets, name=task.name)
    model = training.model
    assert model is not None
    evaluation = calibration = None
    if sets.validation is not None and sets.validation.count:
        evaluation = _evaluated(model, sets.validation, task.library)
        training = _measured(training, evaluation)
        calibration = _calibrated(model, sets.validation, task.library)
    if calibration is not None:
        training = replace(
            training,
            model=calibration.path,
            calibrated=True,
            figures=training.figures | {"calibration": _learnt(calibration)},
        )
    return _reported(training, trainer, sets, task, started_from, evaluation, calibration)


def _converted(
    training: Training, trainer: Trainer, sets: PhotoSets, *, name: str | None
) -> Training:
    """Write weights.safetensors and the IR made of it."""
    recipe, folder = training.recipe, training.folder
    best = bool(recipe.schedule.patience) and trainer.best.epoch > 0
    epoch = trainer.best.epoch if best else len(training.records)
    name = name or folder.resolve().name
    weights = folder / WEIGHTS
    write_safetensors(
        weights,
        trainer.best.weights if best else trainer.weights,
        spec=trainer.bare.spec,
        labels=sets.labels,
        preprocess=recipe.input.protocol(recipe.name),
        name=name,
        extra={"epochs": epoch, "recipe": recipe.to_toml()},
    )
    conversion = convert(Request(weights=weights, name=name), folder)
    return replace(training, epoch=epoch, weights=weights, model=conversion.path)


def _evaluated(model: Path, photos: Dataset, library: Library) -> Evaluation:
    choice = Choice(model=str(model))
    predictor = open_predictor(choice, library=library)
    run = EvaluationRun(choice=choice, predictor=predictor, dataset=photos, library=library)
    return run.evaluate()


def _measured(training: Training, evaluation: Evaluation) -> Training:
    """Return the run with the figures of its model."""
    metrics, scores = evaluation.scores.metrics, evaluation.scores
    known = {photo.source for photo in training.unreadable}
    failed = [Unreadable(f.source, f.error) for f in scores.failures if f.source not in known]
    some = metrics.top1.images > 0
    return replace(
        training,
        top1=metrics.top1.value if some else None,
        top5=metrics.top5.value if some else None,
        unreadable=(*training.unreadable, *failed),
        figures=training.figures | {"evaluation": evaluation.to_dict()},
    )


def _calibrated(model: Path, photos: Dataset, library: Library) -> "CalibrationReport | None":
    """Return the model's calibrated copy, beside it; None where photos are too few."""
    if photos.count < CALIBRATION:
        return None
    from regnet.calibration.calibrate import Run

    predictor = open_predictor(Choice(model=str(model)), library=library)
    return Run(path=model, predictor=predictor, dataset=photos).calibrate(folder=model.parent)


def _learnt(report: "CalibrationReport") -> dict[str, Any]:
    values = report.to_dict()
    names = ("calibration", "held_out", "temperature_photos", "threshold_photos")
    return {name: values[name] for name in names}


def _reported(
    training: Training,
    trainer: Trainer,
    sets: PhotoSets,
    task: Task,
    started_from: str,
    evaluation: Evaluation | None,
    calibration: "CalibrationReport | None",
) -> Training:
    """Write the HTML report, where the extra for it is installed."""
    with suppress(MissingExtraError):
        from regnet.report import require_report, write_page
        from regnet.report.training import TrainingRun, training_page

        require_report()
        run = TrainingRun(
            name=training.folder.resolve().name,
            spec=trainer.bare.spec,
            recipe=training.recipe,
            records=training.records,
            dataset=str(task.dataset),
            train_photos=training.train_photos,
            val_photos=training.val_photos,
            machine=task.devices.described,
            finished=True,
            epoch=training.epoch,
            started_from=started_from,
            teacher=task.teacher or "",
            remarks=training.remarks,
        )
        html = training_page(
            run,
            evaluation=evaluation,
            photos=sets.validation,
            calibration=calibration.learnt if calibration else None,
        )
        write_page(training.folder / REPORT, html)
        return replace(training, report=training.folder / REPORT)
    task.say(f"{training.folder}: no report: that needs the extra 'report'")
    return training
