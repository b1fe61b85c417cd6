"""The errors of regnet, one tree.

RegNetError
├── SpecError            a network description is impossible (also a ValueError)
├── ProtocolError        a preprocessing protocol is impossible (also a ValueError)
├── ImageError           one image cannot be read; other images go on
├── DatasetError         labelled images do not fit the model or their labels
├── UnknownModelError    no card, spec or file of that name
├── CardError            a model card is not valid (also a ValueError)
├── DownloadError        weights could not be fetched
│   ├── OfflineError     ... because the network was not to be used, or is not there
│   ├── IntegrityError   ... because what came has the wrong size or hash
│   └── LicenceError     ... because their licence was not accepted
├── WeightsError         a checkpoint cannot be used
│   ├── UnsafeError      ... because reading it would run code
│   └── MismatchError    ... because its tensors are not the network's
├── ModelError           a converted model (IR, ONNX) cannot be used
├── ServerError          a running server does not answer as it should
├── LimitError           a server's limits are impossible (also a ValueError)
├── StartError           a server cannot start
├── ConversionError      a conversion failed or disagrees with the network
├── QuantizationError    an INT8 model cannot be made
│   └── AgreementError   ... because it would not agree with the original
├── NoGainError          the result would be no better than the original; --force writes it
├── SpaceError           a design space has (almost) no networks of that kind
├── RecipeError          a training recipe is impossible (also a ValueError)
├── TrainingError        a training run cannot start or go on
├── ClusterError         a Ray cluster cannot be used, or its work not done
├── MissingExtraError    an optional dependency is not installed
├── MissingEngineError   OpenVINO is not installed, or cannot be loaded (also an ImportError)
└── OutputError          a result could not be written
"""

import re
import reprlib
from typing import Final

_NUMBER: Final = re.compile(r"^\[Errno -?\d+\] ")


class RegNetError(Exception):
    """Anything regnet raises on purpose; its message says what, where and what to do."""


class SpecError(RegNetError, ValueError):
    """A network description is impossible; `parameter` names what is wrong."""

    parameter: str = ""
    value: object = None
    allowed: str = ""


def shown(value: object) -> str:
    """Return a short `repr` of anything, also of what has no end or too many digits."""
    try:
        return reprlib.repr(value)
    except ValueError:
        return f"this {type(value).__name__}"


def reason_of(exc: BaseException, *, named: bool = False) -> str:
    """Return what an error says, without its number, and only where `named` with its file."""
    if isinstance(exc, FileExistsError) and exc.filename:
        return f"{exc.filename} exists and is not a folder"
    if isinstance(exc, OSError) and exc.strerror:
        return f"{exc.filename}: {exc.strerror}" if named and exc.filename else exc.strerror
    return _NUMBER.sub("", str(exc)) or type(exc).__name__


class ProtocolError(RegNetError, ValueError):
    """A preprocessing protocol is impossible."""


class ImageError(RegNetError):
    """One image cannot be read."""


class DatasetError(RegNetError):
    """Labelled images do not fit the model or their own labels."""


class UnknownModelError(RegNetError):
    """No card, spec or file of that name."""


class CardError(RegNetError, ValueError):
    """A model card is not valid."""


class DownloadError(RegNetError):
    """Weights could not be fetched."""


class OfflineError(DownloadError):
    """The network was not to be used, or is not there."""


class IntegrityError(DownloadError):
    """What came has the wrong size or hash."""


class LicenceError(DownloadError):
    """The licence of the weights was not accepted."""


class WeightsError(RegNetError):
    """A checkpoint cannot be used."""


class UnsafeError(WeightsError):
    """Reading the checkpoint would run code."""


class MismatchError(WeightsError):
    """The checkpoint's tensors are not the network's."""


class ModelError(RegNetError):
    """A converted model cannot be used."""


class ServerError(RegNetError):
    """A running server does not answer as it should."""


class StartError(RegNetError):
    """A server cannot start."""


class LimitError(RegNetError, ValueError):
    """A server's limits are impossible."""


class ConversionError(RegNetError):
    """A conversion failed or disagrees with the network."""


class QuantizationError(RegNetError):
    """An INT8 model cannot be made."""


class AgreementError(QuantizationError):
    """An INT8 model does not agree with the original as often as asked."""


class NoGainError(RegNetError):
    """The result would be no better than the original, so nothing was written without `force`.

    `reason` says what was measured, without the remedy.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}. Nothing was written: {remedy}, or write it with --force")
        self.reason = reason


class SpaceError(RegNetError):
    """A design space has (almost) no networks of that kind."""


class RecipeError(RegNetError, ValueError):
    """A training recipe is impossible."""


class TrainingError(RegNetError):
    """A training run cannot start or go on."""


class ClusterError(RegNetError):
    """A Ray cluster cannot be used, or its work not be done."""


class MissingExtraError(RegNetError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        from regnet.system.installation import this_installation

        super().__init__(f"{what} needs the extra {extra!r}: {this_installation().command(extra)}")
        self.extra = extra


class MissingEngineError(RegNetError, ImportError):
    """OpenVINO is not installed, or cannot be loaded."""


class OutputError(RegNetError):
    """A result could not be written."""
