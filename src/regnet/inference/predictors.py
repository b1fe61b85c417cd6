"""One interface to models, whatever runs them: pixels in, logits and probabilities out."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from numpy.typing import NDArray

from regnet.conversion.store import Library
from regnet.ir.assumptions import CONVERTED
from regnet.ir.metadata import InferencePrecision, ModelMetadata
from regnet.pixels.decode_limits import DecodeLimits
from regnet.pixels.protocol import PROTOCOLS
from regnet.system.devices import CPU, canonical_device, is_cuda, require_device
from regnet.system.errors import MissingExtraError, UnknownModelError
from regnet.system.parallel import cores
from regnet.zoo.catalogue import is_card

if TYPE_CHECKING:
    from regnet.ir.engine import Batch, Outputs
    from regnet.pixels.preprocess import ImageLike

EngineName = Literal["ir", "onnx", "torch"]


class Predictor(Protocol):
    """A model ready to run. Thread-safe."""

    @property
    def metadata(self) -> ModelMetadata:
        """The model's description; `preprocess` is the protocol that it is run with."""

    @property
    def limits(self) -> DecodeLimits:
        """The limits of decoding an image."""

    @property
    def batch(self) -> int:
        """The number of images in a call that it runs well."""

    @property
    def outruns_decoding(self) -> bool:
        """Whether the threads of one process are too slow to decode ahead of it."""

    def pixels(self, image: "ImageLike") -> NDArray[Any]:
        """Return the model's input for one image; raises `ImageError`."""

    def outputs(self, pixels: "Batch") -> "Outputs":
        """Return logits and probabilities (N, classes) of N images' `pixels`."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A model and how to run it: engine, device, precision, protocol.

    `engine` None is ONNX Runtime for .onnx files, else OpenVINO; `protocol` None is the model's.
    """

    model: str
    engine: EngineName | None = None
    device: str = CPU
    precision: InferencePrecision = "f32"
    protocol: str | None = None

    @property
    def runs_on(self) -> EngineName:
        """The named engine, or the one chosen by the model."""
        return self.engine or ("onnx" if Path(self.model).suffix == ".onnx" else "ir")

    def __str__(self) -> str:
        device = None if self.device == CPU else self.device
        parts = (self.model, self.runs_on, device, self.precision, self.protocol)
        return ":".join(part for part in parts if part)


def parse_choice(text: str, **given: Any) -> Choice:
    """Parse `MODEL[:size][:engine][:device][:precision][:protocol]`, such as `bundled:bf16`.

    The parts after the model come in any order; a number is the image size, which stays part of the
    model's name as one of the sizes of its card. A file of that very name is taken as the model.
    `given` are options of the same names, None where there is none. Raises `UnknownModelError` if a
    part comes twice, or an option contradicts it.
    """
    model, parts = split_choice(text)
    for kind, value in given.items():
        if value is not None and parts.setdefault(kind, value) != value:
            raise UnknownModelError(f"{text} contradicts --{kind} {value}: leave out one of them")
    if "device" in parts:
        parts["device"] = canonical_device(parts["device"])
        parts.setdefault("precision", default_precision(parts["device"]))
    return Choice(model=model, **parts)


def default_precision(device: str) -> InferencePrecision:
    """Return the precision that a device runs if none is named."""
    return "bf16" if is_cuda(device) else "f32"


def split_choice(text: str) -> tuple[str, dict[str, Any]]:
    """Return the model in a choice, and the parts that are given; raises as `parse_choice`."""
    model, parts = text, dict[str, Any]()
    while ":" in model and not os.path.lexists(model):
        rest, _, part = model.rpartition(":")
        size = "size" if part.isdecimal() else None
        kind = next((kind for kind, words in _PARTS.items() if part in words), size)
        if kind is None or not rest:
            break
        if kind in parts:
            raise UnknownModelError(f"{text}: names two of {kind}; name one")
        parts[kind] = part
        model = rest
    _require_known_parts(text, model)
    size = parts.pop("size", None)
    return f"{model}:{size}" if size else model, parts


def _require_known_parts(text: str, model: str) -> None:
    """Raise `UnknownModelError` if a model is a known one with an unknown part behind it."""
    known, _, part = model.rpartition(":")
    if known and not os.path.lexists(model) and (os.path.lexists(known) or is_card(known)):
        words = ", ".join(chain(*_PARTS.values()))
        raise UnknownModelError(f"{text}: unknown part {part!r}; known are {words}")


def parse_ir_choice(
    text: str,
    command: str,
    *,
    precisions: Sequence[str] = get_args(InferencePrecision),
    **given: Any,
) -> Choice:
    """Parse a choice for a command that only runs IRs in these precisions.

    A command without a `device` among its options has the CPU alone. Raises `UnknownModelError` for
    another engine, device, precision or protocol.
    """
    choice = parse_choice(text, **given)
    for kind, part, known in (
        ("engine", choice.engine or "ir", ("ir",)),
        ("device", choice.device, (choice.device if "device" in given else CPU,)),
        ("precision", choice.precision, precisions),
        ("protocol", choice.protocol, (None,)),
    ):
        if part not in known:
            allowed = "the model's own" if known == (None,) else " or ".join(map(str, known))
            raise UnknownModelError(
                f"{text}: `regnet {command}` takes no {kind} but {allowed}: leave out {part}"
            )
    return choice


_PARTS: dict[str, tuple[str, ...]] = {
    "engine": get_args(EngineName),
    "device": ("CPU", "GPU", "NPU", "AUTO", "cuda"),
    "precision": get_args(InferencePrecision),
    "protocol": tuple(PROTOCOLS),
}


def open_predictor(choice: Choice, *, library: Library) -> Predictor:
    """Return the model ready to run; downloads and converts it if necessary.

    Raises `UnknownModelError`, `DownloadError`, `WeightsError`, `ConversionError`, `ModelError`,
    `ProtocolError`, and `MissingExtraError` if the engine is not installed.
    """
    engine = choice.runs_on
    allowed = {"onnx": ("f32",), "torch": ("f32", "bf16")}.get(engine)
    if allowed and choice.precision not in allowed:
        raise UnknownModelError(
            f"{choice}: the engine {engine} runs {' and '.join(allowed)} only; "
            f"{choice.precision} is for the engine ir"
        )
    by_torch = engine == "torch" and is_cuda(choice.device)
    if engine != "ir" and choice.device != CPU and not by_torch:
        raise UnknownModelError(
            f"{choice}: the engine {engine} does not run on {choice.device}: leave that out"
        )
    require_device(choice.device)
    opens = {"ir": _open_ir, "onnx": _open_onnx, "torch": _open_torch}
    return opens[engine](choice, library)


def _open_ir(choice: Choice, library: Library) -> Predictor:
    from regnet.ir.engine import read_model
    from regnet.ir.engines import open_engine

    path = library.ir(choice.model, precision=choice.precision)
    model = read_model(path, protocol=choice.protocol, logits=True)
    return open_engine(
        model,
        device=choice.device,
        precision=choice.precision,
        streams=cores(),
        compiled_cache=library.compiled,
    )


def _open_onnx(choice: Choice, library: Library) -> Predictor:
    try:
        from regnet.inference.onnx_predictor import OnnxPredictor
    except ImportError as exc:
        raise MissingExtraError("running ONNX models", "onnx") from exc

    path = Path(choice.model)
    if path.suffix == ".onnx":
        library.note_entry(path)
    else:
        path = library.convert(replace(library.request(choice.model), format="onnx")).path
    return OnnxPredictor(path, protocol=choice.protocol)


def _open_torch(choice: Choice, library: Library) -> Predictor:
    try:
        from regnet.inference.torch_predictor import TorchPredictor
    except ImportError as exc:
        raise MissingExtraError("running checkpoints with torch", "torch") from exc

    if Path(choice.model).suffix in CONVERTED:
        raise UnknownModelError(f"{choice.model}: is a converted model; torch runs checkpoints")
    request = library.request(choice.model)
    return TorchPredictor(
        request,
        device=choice.device.lower(),
        precision=choice.precision,
        protocol=choice.protocol,
    )
