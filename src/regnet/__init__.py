"""RegNet image classifiers: verified weights, exact conversion, fast classification.

    import regnet

    classifier = regnet.load("bundled")
    print(classifier.classify("cat.jpg").top.label)

Importing this package imports nothing else; names are looked up when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regnet.assumptions import AssumptionWarning as AssumptionWarning
    from regnet.calibration.calibrate import calibrate as calibrate
    from regnet.classify import Classifier as Classifier
    from regnet.comparison.compare import compare as compare
    from regnet.errors import RegNetError as RegNetError
    from regnet.evaluation.evaluate import evaluate as evaluate
    from regnet.explanation import Explainer as Explainer
    from regnet.labels import Label as Label
    from regnet.labels import imagenet_labels as imagenet_labels
    from regnet.loading import load as load
    from regnet.preprocess import crop_pixels as crop_pixels
    from regnet.protocol import OMZ as OMZ
    from regnet.protocol import PYCLS as PYCLS
    from regnet.protocol import Preprocess as Preprocess
    from regnet.quantization.quantize import quantize as quantize
    from regnet.result import ClassScore as ClassScore
    from regnet.result import Prediction as Prediction
    from regnet.spec import SPEC_NAMES as SPEC_NAMES
    from regnet.spec import AnyNetSpec as AnyNetSpec
    from regnet.spec import RegNetSpec as RegNetSpec
    from regnet.spec import Stage as Stage
    from regnet.spec import spec_by_name as spec_by_name
    from regnet.training.finetune import finetune as finetune
    from regnet.training.train import train as train
    from regnet.zoo.card import Card as Card
    from regnet.zoo.catalogue import card_by_name as card_by_name
    from regnet.zoo.catalogue import card_names as card_names

_HOMES = {
    "AnyNetSpec": "spec",
    "AssumptionWarning": "assumptions",
    "Card": "zoo.card",
    "ClassScore": "result",
    "Classifier": "classify",
    "Explainer": "explanation",
    "Label": "labels",
    "OMZ": "protocol",
    "PYCLS": "protocol",
    "Prediction": "result",
    "Preprocess": "protocol",
    "RegNetError": "errors",
    "RegNetSpec": "spec",
    "SPEC_NAMES": "spec",
    "Stage": "spec",
    "card_by_name": "zoo.catalogue",
    "card_names": "zoo.catalogue",
    "crop_pixels": "preprocess",
    "calibrate": "calibration.calibrate",
    "compare": "comparison.compare",
    "evaluate": "evaluation.evaluate",
    "finetune": "training.finetune",
    "imagenet_labels": "labels",
    "load": "loading",
    "quantize": "quantization.quantize",
    "spec_by_name": "spec",
    "train": "training.train",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'regnet' has no attribute {name!r}")
    return getattr(import_module(f"regnet.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
