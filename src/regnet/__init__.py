"""RegNet image classifiers: verified weights, exact conversion, fast classification.

    import regnet

    classifier = regnet.load("bundled")
    print(classifier.classify("cat.jpg").top.label)

Importing this package imports nothing heavy; names are looked up when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from regnet.system.version import TOOL_VERSION

if TYPE_CHECKING:
    from regnet.calibration.calibrate import calibrate as calibrate
    from regnet.comparison.compare import compare as compare
    from regnet.evaluation.evaluate import evaluate as evaluate
    from regnet.explanation.activation_maps import Explainer as Explainer
    from regnet.features.teach import teach as teach
    from regnet.inference.classify import Classifier as Classifier
    from regnet.inference.load import load as load
    from regnet.inference.result import ClassScore as ClassScore
    from regnet.inference.result import Prediction as Prediction
    from regnet.inference.result import to_frame as to_frame
    from regnet.ir.assumptions import AssumptionWarning as AssumptionWarning
    from regnet.network.labels import Label as Label
    from regnet.network.labels import imagenet_labels as imagenet_labels
    from regnet.network.spec import SPEC_NAMES as SPEC_NAMES
    from regnet.network.spec import AnyNetSpec as AnyNetSpec
    from regnet.network.spec import RegNetSpec as RegNetSpec
    from regnet.network.spec import Stage as Stage
    from regnet.network.spec import spec_by_name as spec_by_name
    from regnet.pixels.preprocess import crop_pixels as crop_pixels
    from regnet.pixels.protocol import OMZ as OMZ
    from regnet.pixels.protocol import PYCLS as PYCLS
    from regnet.pixels.protocol import Preprocess as Preprocess
    from regnet.quantization.quantize import quantize as quantize
    from regnet.system.errors import RegNetError as RegNetError
    from regnet.training.train import finetune as finetune
    from regnet.training.train import train as train
    from regnet.zoo.card import Card as Card
    from regnet.zoo.catalogue import card_by_name as card_by_name
    from regnet.zoo.catalogue import card_names as card_names

_MODULES = {
    "calibration.calibrate": "calibrate",
    "comparison.compare": "compare",
    "evaluation.evaluate": "evaluate",
    "explanation.activation_maps": "Explainer",
    "features.teach": "teach",
    "inference.classify": "Classifier",
    "inference.load": "load",
    "inference.result": "ClassScore Prediction to_frame",
    "ir.assumptions": "AssumptionWarning",
    "network.labels": "Label imagenet_labels",
    "network.spec": "SPEC_NAMES AnyNetSpec RegNetSpec Stage spec_by_name",
    "pixels.preprocess": "crop_pixels",
    "pixels.protocol": "OMZ PYCLS Preprocess",
    "quantization.quantize": "quantize",
    "system.errors": "RegNetError",
    "training.train": "finetune train",
    "zoo.card": "Card",
    "zoo.catalogue": "card_by_name card_names",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = sorted(_HOMES)
__version__ = TOOL_VERSION


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'regnet' has no attribute {name!r}")
    return getattr(import_module(f"regnet.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
