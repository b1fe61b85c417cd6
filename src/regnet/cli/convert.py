"""`regnet convert`: published weights, a checkpoint or a converted model -> IR or ONNX."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from regnet.cli.console import print_json
from regnet.cli.options import AS_OPTION, Json, Store
from regnet.conversion.foreign_files import foreign_model
from regnet.conversion.protocol_choice import protocol_of_maker
from regnet.conversion.store import Library, converted_file
from regnet.conversion.values import Conversion, Format, Outputs, Precision
from regnet.inference.predictors import Choice, parse_ir_choice
from regnet.ir.assumptions import AssumptionWarning, warn
from regnet.ir.metadata import Preprocessing
from regnet.ir.records import PixelBound
from regnet.network.labels import read_labels
from regnet.network.spec import SPEC_SUFFIX, Spec, read_spec
from regnet.pixels.protocol import PROTOCOLS, Channels, Fit, Interpolation, Triple
from regnet.system.errors import ConversionError, OutputError, ProtocolError, reason_of
from regnet.system.option import Options, argument, option
from regnet.zoo.catalogue import card_by_name

if TYPE_CHECKING:
    from regnet.conversion.repository import Entry

Result = tuple[dict[str, Any], list[str]]
"""JSON values, and lines of text."""


class _Source(Options):
    model: str = argument(
        "Model card, checkpoint, or ONNX or IR to adopt", "MODEL", ..., *AS_OPTION
    )
    card: str | None = option(None, "Card of a renamed weights file", "CARD")
    spec: str | None = option(None, "Require this network: a name or a spec JSON", "NAME|FILE")
    labels: Path | None = option(None, "Class list, one NAME or WNID<tab>NAME per line", "FILE")
    channels: Channels | None = option(
        None, "Channel order of the network [its layout's, else RGB]", "ORDER"
    )


class _Protocol(Options):
    protocol: str | None = option(
        None, "omz, pycls, torchvision, keras, tensorflow or timm:CONFIG [the file's]", "NAME"
    )
    resize: int | None = option(None, "Short side; with --fit stretch both", "PIXELS")
    crop: int | None = option(None, "Centre crop", "PIXELS")
    fit: Fit | None = option(
        None, "Keep the shape, stretch to a square, or take the largest square"
    )
    interpolation: Interpolation | None = option(None, "Interpolation", "NAME")
    mean: str | None = option(None, "Of pixels 0..255, in the order of --channels", "A,B,C")
    scale: str | None = option(None, "(pixel - mean) / scale, likewise", "A,B,C")

    def changes(self, *, adopted: bool) -> dict[str, Any]:
        """Return the fields of `Preprocess` that are given; `named` has those of a protocol.

        Of omz and pycls a checkpoint takes but interpolation and offset, an adopted model all.
        """
        given = {name: value for name, value in vars(self).items() if value is not None}
        numbers = {n: _triple(given[n], f"--{n}") for n in ("mean", "scale") if n in given}
        name = given.pop("protocol", None)
        if name in PROTOCOLS and not adopted:
            return given | numbers | {"name": name}
        named = {"named": protocol_of_maker(name).to_dict()} if name else {}
        return given | numbers | named


class _Adopted(Options):
    outputs: Outputs | None = option(None, "What the original gives [measured]")
    licence: str | None = option(None, "Licence of the model [the file's, else unknown]", "TEXT")


class _Output(Json):
    format: Format = option("ir", "ir (OpenVINO) or onnx", "-f", "FORMAT")
    precision: Precision | None = option(
        None, "Stored weights; the model computes in FP32 [fp32, or as MODEL's]"
    )
    preprocessing: Preprocessing = option("caller", "Who resizes and crops: caller or graph")
    layout: Literal["files", "repository"] = option("files", "Files, or a model repository")
    output: Path = option(Path(), "Folder to write to", "-o", "DIR")
    name: str | None = option(None, "Name of the model [the card's or file's]", "NAME")


def convert(
    source: _Source,
    output: _Output,
    preprocessing: _Protocol,
    adopted_models: _Adopted,
    models: Store,
) -> None:
    """Convert weights or any image classifier to OpenVINO IR or ONNX.

    The result takes `data` (N, 3, 224, 224), raw BGR pixels 0..255, and gives `prob` (N, classes).
    Mean, scale, softmax, labels, protocol and the weights' hash are inside. It is compared with the
    network in float64 before it is written: no probability may differ by more than 1e-5, or 4 times
    the network's own error in float32.

    MODEL is the model card of published weights, or a checkpoint of pycls, timm, torchvision,
    Lightning or another training script (.pth, .ckpt, .safetensors ...), or a folder of
    transformers or timm. The architecture is read from the tensors; what a checkpoint does not say
    is assumed, and printed.

    Any other image classifier is adopted: MODEL is its .onnx or .xml, or the folder of one. It is
    compared with the original in ONNX Runtime or OpenVINO.

    --preprocessing graph: the model takes a whole RGB photo, `image` (1, height, width, 3), uint8.
    --layout repository: the folder is one for OpenVINO Model Server and Triton.

    MODEL may also be `bundled`, an IR (.xml) or an ONNX file from regnet, calibrated or in INT8
    (bundled:int8). Its copy in another form is compared with it on photos.

    Exit status: 0 done, 2 could not run, 130 interrupted.

      regnet convert regnetx-3.2gf -o models/
      regnet convert my.pth --labels classes.txt --protocol omz --crop 192
      regnet convert resnet50.onnx --labels classes.txt --protocol torchvision
      regnet convert my-int8.xml --format onnx
      regnet convert regnetx-3.2gf --layout repository -o models/
    """
    choice = parse_ir_choice(source.model, "convert", precisions=("f32", "int8"))
    model, folder = choice.model, output.output
    foreign = foreign_model(Path(model))
    changes: dict[str, Any] = {
        "name": output.name,
        "card": card_by_name(source.card) if source.card else None,
        "spec": _spec(source.spec),
        "labels": read_labels(source.labels) if source.labels else None,
        "channels": source.channels,
        "protocol": preprocessing.changes(adopted=foreign is not None),
        "outputs": adopted_models.outputs,
        "licence": adopted_models.licence,
        "format": output.format,
        "precision": output.precision,
        "preprocessing": output.preprocessing,
    }
    with models.library() as library:
        library.note_entry(model)
        if foreign:
            values, lines = _adopt(library, foreign, changes, output)
        elif output.layout == "repository":
            values, lines = _into_repository(library, model, changes, folder)
        elif converted_file(model) or choice.precision == "int8":
            values, lines = _reshape(library, choice, changes, folder)
        else:
            values, lines = _publish(_convert(library, model, changes), folder)
    if output.json:
        print_json(values)
    else:
        typer.echo("\n".join(lines))


def _spec(text: str | None) -> Spec | str | None:
    """Return the spec in a file, or the network's name."""
    if text is None or Path(text).suffix != SPEC_SUFFIX:
        return text
    return read_spec(Path(text))


def _triple(text: str, name: str) -> Triple:
    """Return three numbers separated by commas, or one for all three."""
    try:
        values = [float(word) for word in text.split(",")]
        a, b, c = values * 3 if len(values) == 1 else values
    except ValueError as exc:
        raise ProtocolError(f"{name} {text}: give one number, or three with commas") from exc
    return a, b, c


def _adopt(models: Library, source: Path, changes: dict[str, Any], output: _Output) -> Result:
    """Adopt a foreign classifier; all but a plain IR is made of the result."""
    model = str(source)
    if output.layout == "repository":
        return _into_repository(models, model, changes, output.output)
    plain = {"format": "ir", "precision": None, "preprocessing": "caller"}
    conversion = _convert(models, model, changes | plain)
    if all(changes[key] == value for key, value in plain.items()):
        return _publish(conversion, output.output, source=source)
    values, lines = _copy(conversion.path, changes, output.output, source=source)
    return _values(conversion) | values, [*lines, *_lines(conversion)]


def _convert(models: Library, model: str, changes: dict[str, Any]) -> Conversion:
    """Return the conversion, from the cache if it was made before."""
    request = models.request(model)
    changes = changes | {
        "card": changes["card"] or request.card,
        "precision": changes["precision"] or "fp32",
    }
    conversion = models.convert(replace(request, **changes))
    _warn(model, conversion.assumed, original=model if conversion.original else "")
    return conversion


def _warn(model: str, assumed: tuple[str, ...], *, original: str = "") -> None:
    if assumed:
        warn(AssumptionWarning(model, assumed, original=original))


def _publish(conversion: Conversion, folder: Path, *, source: Path | None = None) -> Result:
    """Copy the converted model from the cache to a folder; each file appears atomically.

    Raises `OutputError` instead of replacing the `source` that it was made from.
    """
    from regnet.system.files import copy_all

    if source and (target := folder / conversion.path.name).exists() and target.samefile(source):
        raise OutputError(f"{target} is the original: choose another folder (-o) or --name")
    try:
        copy_all(conversion.path.parent, folder, conversion.files)
    except OSError as exc:
        raise OutputError(f"cannot write to {folder}: {reason_of(exc)}") from exc
    path, files = folder / conversion.path.name, [str(folder / name) for name in conversion.files]
    values = {"path": str(path), "files": files} | _values(conversion)
    return values, [str(path), *_lines(conversion)]


def _reshape(models: Library, choice: Choice, changes: dict[str, Any], folder: Path) -> Result:
    """Write a converted model in another form; that of an ONNX file may be its IR."""
    path, model = models.ir(choice.model, precision=choice.precision), choice.model
    forms = ("format", "precision", "preprocessing")
    _require_unchanged(model, {k: v for k, v in changes.items() if k not in forms})
    if Path(model).suffix == ".onnx" and all(changes[k] in ("ir", None, "caller") for k in forms):
        conversion = models.convert(models.request(model))
        values, lines = _publish(conversion, folder)
    else:
        values, lines = _copy(path, changes, folder, source=Path(model))
    _warn(model, tuple(values["assumed"]))
    return values, lines


def _copy(path: Path, changes: dict[str, Any], folder: Path, *, source: Path) -> Result:
    """Write a copy of an IR in another form, but not over the `source` that it came from."""
    from regnet.conversion.model_copy import Form, write_copy

    form = Form(
        format=changes["format"],
        precision=changes["precision"],
        whole=changes["preprocessing"] == "graph",
        name=changes["name"],
    )
    try:
        copy = write_copy(path, folder, form, keep=source)
    except OSError as exc:
        raise OutputError(f"cannot write to {folder}: {reason_of(exc)}") from exc
    values = {"path": str(copy.path), "files": [str(folder / name) for name in copy.files]}
    return values | _values(copy), [str(copy.path), *_lines(copy)]


def _into_repository(models: Library, model: str, changes: dict[str, Any], folder: Path) -> Result:
    """Add the model to a repository, converted if it is not yet."""
    from regnet.conversion.repository import add_to_repository

    if changes["format"] != "ir":
        raise ConversionError("--layout repository is for OpenVINO IR: leave out --format onnx")
    if not foreign_model(Path(model)) and converted_file(model):
        path = models.ir(model)
        _require_unchanged(model, changes)
        entry = add_to_repository(path, folder, name=changes["name"])
        _warn(model, entry.assumed)
        return _entry(entry)
    conversion = _convert(models, model, changes)
    values, lines = _entry(add_to_repository(conversion.path, folder))
    return values | _values(conversion), [*lines, *_lines(conversion)]


def _entry(entry: "Entry") -> Result:
    values = {
        "path": str(entry.folder),
        "version": entry.version,
        "new": entry.new,
        "files": [str(entry.folder / name) for name in entry.files],
        "assumed": list(entry.assumed),
    }
    version = f"version {entry.version}{'' if entry.new else ', which was there already'}"
    return values, [f"{entry.folder}: {version}", *(f"  {name}" for name in entry.files)]


def _require_unchanged(model: str, changes: dict[str, Any]) -> None:
    """Refuse options of a conversion if there is none."""
    usual: tuple[Any, ...] = (None, {}, "ir", "caller")
    given = [key for key, value in changes.items() if key != "name" and value not in usual]
    if given:
        raise ConversionError(
            f"{model} is converted already: leave out what would change it "
            f"({', '.join(given)}), or convert what it was made from"
        )


def _values(conversion: Conversion) -> dict[str, Any]:
    return {
        **conversion.proof.to_dict(),
        "rounding": conversion.rounding,
        "pixel_bound": conversion.pixel_bound and conversion.pixel_bound.to_dict(),
        "original": conversion.original or None,
        "notes": [*conversion.assumed, *conversion.notes],
        "assumed": list(conversion.assumed),
    }


def _lines(conversion: Conversion) -> Iterator[str]:
    """Yield what was measured, one per line."""
    from regnet.system.text import visible

    delta, float32 = conversion.proof.delta, conversion.proof.float32
    allowed = conversion.proof.allowed
    network = "the network in float32"
    if conversion.original:
        yield f"  checked against {visible(conversion.original)} on {conversion.photos} images"
        network = "its own rounding"
    else:
        yield f"  checked against float64 on {conversion.photos} photos, and layer by layer"
    yield (
        f"  probabilities differ by at most {delta.probabilities:.1e} ({network}: "
        f"{float32.probabilities:.1e}; allowed: {allowed.probabilities:.1e})"
    )
    yield (
        f"  logits differ by at most {delta.logits:.1e} of their range ({network}: "
        f"{float32.logits:.1e}; allowed: {allowed.logits:.1e})"
    )
    if change := conversion.rounding:
        yield f"  storing the weights in FP16 changed probabilities by at most {change:.1e}"
    if conversion.pixel_bound:
        yield _of_pixels(conversion.pixel_bound)
    yield from (f"  {visible(note)}" for note in conversion.notes)


def _of_pixels(bound: PixelBound) -> str:
    equal = "all pixels are the protocol's"
    if bound.levels:
        equal = (
            f"{bound.identical:.5%} of the pixels' values are the protocol's, the others differ by "
            f"at most {bound.levels} of 255"
        )
    return f"  resizes and crops by itself: {equal} ({bound.photos} images)"
