"""What a checkpoint does not say and was therefore assumed: one sentence each, said to the user.

A sentence begins with its subject and a colon: "names: its classes are numbered".
"""

import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regnet.system.notices import RegNetWarning

if TYPE_CHECKING:
    from regnet.ir.metadata import ModelMetadata

CONVERTED: Final = (".xml", ".onnx")

_OPTIONS: Final = {
    "names": "--labels FILE",
    "protocol": "--protocol NAME",
    "channels": "--channels ORDER",
    "stem stride": "--spec NAME",
}
_PACKAGE: Final = __name__.partition(".")[0]


class AssumptionWarning(RegNetWarning):
    """A model's checkpoint does not say all that is needed to use it; the message says the rest.

    `model` is the model as it was named, `assumed` has one sentence per assumption, `weights` is
    the hash of its weights, "" if that is not known. `original` is the file of an adopted model.
    """

    def __init__(
        self, model: str, assumed: Sequence[str], weights: str = "", original: str = ""
    ) -> None:
        super().__init__(model, tuple(assumed), weights, original)
        self.model = model
        self.original = original
        self.assumed = tuple(assumed)
        self.weights = weights

    @property
    def key(self) -> object:
        """The weights and what was assumed: a model may be opened under several names."""
        return self.weights, self.assumed

    def __str__(self) -> str:
        converted = Path(self.model).suffix in CONVERTED
        source = shlex.quote(self.original or ("MODEL" if converted else self.model))
        silent = "original" if self.original or converted else "checkpoint"
        options = [_OPTIONS[name] for name in map(subject, self.assumed) if name in _OPTIONS]
        return (
            f"{self.model}: assumed, because the {silent} does not say: "
            f"{'; '.join(self.assumed)}. To give them: regnet convert "
            f"{' '.join([source, *options])}"
        )


def warn_assumed(model: str | Path, metadata: "ModelMetadata") -> None:
    """Warn once, at the caller of regnet, of all that was assumed about a model, if anything."""
    if metadata.assumed:
        weights, original = metadata.weights_sha384, metadata.original
        warn(AssumptionWarning(str(model), metadata.assumed, weights, original))


def warn(warning: AssumptionWarning) -> None:
    """Give a warning at the first frame outside regnet."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        level, frame = level + 1, frame.f_back
    warnings.warn(warning, stacklevel=level)


def subject(sentence: str) -> str:
    """Return what a sentence is about: `names`, `protocol`, `channels` or `stem stride`."""
    return sentence.partition(":")[0]


def without(assumed: Sequence[str], known: str) -> tuple[str, ...]:
    """Return the sentences about subjects other than the known one."""
    return tuple(sentence for sentence in assumed if subject(sentence) != known)
