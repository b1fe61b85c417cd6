"""`regnet convert`: published weights or a checkpoint -> OpenVINO IR or ONNX."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from regnet.cli.console import interruptible, print_json
from regnet.cli.options import Store, grouped
from regnet.cli.progress import download_display
from regnet.conversion.store import Library
from regnet.conversion.values import Conversion, Format, Precision, require_format
from regnet.ir.assumptions import AssumptionWarning, warn
from regnet.ir.metadata import Preprocessing
from regnet.ir.records import PixelBound
from regnet.network.labels import read_labels
from regnet.network.spec import SPEC_SUFFIX, Spec, read_spec
from regnet.pixels.protocol import Channels, Interpolation
from regnet.system.errors import ConversionError, OutputError
from regnet.zoo.catalogue import card_by_name

if TYPE_CHECKING:
    from regnet.conversion.repository import Entry

Layout = Literal["files", "repository"]

HELP = """Convert published weights or a checkpoint file to OpenVINO IR or ONNX.

The result takes `data` (N, 3, 224, 224), raw 0..255 pixels in BGR, and gives `prob` (N, classes): \
mean, scale and softmax are inside, and so are labels, protocol and the weights' hash. It is \
compared with the network in float64 before it is written, layer by layer and on real photos: no \
probability may differ by more than 1e-5, or 4 times what torch in float32 differs by.

With --preprocessing graph the IR takes a whole photo instead, of any size: `image` \
(1, height, width, 3), uint8, RGB. Resize and crop are inside too, and equal Pillow's. MODEL may \
then also be `bundled` or an IR (.xml).

MODEL is a card's name (see `regnet models`) or a checkpoint: a file of pycls, timm, torchvision, \
Lightning or another training script (.pth, .ckpt, .safetensors ...), or a folder that \
transformers or timm wrote. The architecture is found from the tensors. Needs the extra `torch`; \
the result does not.

What a checkpoint does not say (names of classes, protocol, order of channels, stem stride) is \
assumed, and printed by every command that uses the model; the options here give it.

With --layout repository the folder becomes one that OpenVINO Model Server and Triton load as it \
is. MODEL may then also be `bundled` or an IR (.xml), which is only copied.

Examples:

  regnet convert regnetx-3.2gf -o models/

  regnet convert regnetx_032-ed0c7f7e.pth --precision fp16

  regnet convert my.pth --labels classes.txt --protocol omz --crop 192

  regnet convert my.safetensors --format onnx --labels classes.txt

  regnet convert regnetx-3.2gf --preprocessing graph

  regnet convert regnetx-3.2gf --layout repository -o models/
"""


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command("convert", help=HELP)(grouped(convert))


def convert(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Card name or checkpoint file")],
    format: Annotated[Format, typer.Option("--format", "-f", help="OpenVINO IR or ONNX")] = "ir",
    precision: Annotated[
        Precision, typer.Option(help="How weights are stored; the model computes in FP32")
    ] = "fp32",
    preprocessing: Annotated[
        Preprocessing, typer.Option(help="Who resizes and crops: the caller, or the IR's graph")
    ] = "caller",
    layout: Annotated[
        Layout, typer.Option(help="The IR's files, or a repository of models for other servers")
    ] = "files",
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write to")
    ] = Path(),
    name: Annotated[
        str | None, typer.Option(help="Name of the model (default: the card's or the file's)")
    ] = None,
    card: Annotated[
        str | None, typer.Option(help="The card whose weights the file holds, where it is renamed")
    ] = None,
    spec: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE", help="Insist on this network: its name, or its spec (.json)"
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Class list, a line each: NAME or WNID<tab>NAME"),
    ] = None,
    protocol: Annotated[
        Literal["omz", "pycls"] | None,
        typer.Option(help="Protocol that it was trained for; the next options change it"),
    ] = None,
    resize: Annotated[int | None, typer.Option(help="Protocol: short side, pixels")] = None,
    crop: Annotated[int | None, typer.Option(help="Protocol: centre crop, pixels")] = None,
    interpolation: Annotated[Interpolation | None, typer.Option(help="Protocol")] = None,
    channels: Annotated[
        Channels | None, typer.Option(help="The checkpoint's order, where not its layout's own")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON")] = False,
    *,
    store: Store,
) -> None:
    """Convert and say what was measured."""
    models = store.library()
    models.note_entry(model)
    rules = {"name": protocol, "resize": resize, "crop": crop, "interpolation": interpolation}
    changes: dict[str, Any] = {
        "name": name,
        "card": card_by_name(card) if card else None,
        "spec": _spec(spec),
        "labels": read_labels(labels) if labels else None,
        "channels": channels,
        "protocol": {key: value for key, value in rules.items() if value is not None},
        "format": format,
        "precision": precision,
        "preprocessing": preprocessing,
    }
    with interruptible():
        require_format(format, preprocessing)
        if layout == "files" and preprocessing == "graph" and _is_converted(model):
            values, text = _embed(model, changes, output)
            _print(values, text, as_json=as_json)
            return
        if layout == "repository":
            values, text = _into_repository(models, model, changes, output)
            _print(values, text, as_json=as_json)
            return
        conversion = _convert(models, model, changes)
        path = _publish(conversion, output)
    _print(_as_json(conversion, path), _as_text(conversion, path), as_json=as_json)


def _print(values: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        print_json(values)
    else:
        typer.echo(text)


def _spec(text: str | None) -> Spec | str | None:
    """Return the spec in a file, or the network's name."""
    if text is None or Path(text).suffix != SPEC_SUFFIX:
        return text
    return read_spec(Path(text))


def _convert(models: Library, model: str, changes: dict[str, Any]) -> Conversion:
    """Return the conversion, from the cache where it was made before."""
    with download_display() as on_event:
        request = replace(models, on_event=on_event).request(model)
    changes = changes | {"card": changes["card"] or request.card}
    conversion = models.convert(replace(request, **changes))
    _warn(model, conversion.assumed)
    return conversion


def _warn(model: str, assumed: tuple[str, ...]) -> None:
    if assumed:
        warn(AssumptionWarning(model, assumed))


def _is_converted(model: str) -> bool:
    from regnet.conversion.repository import converted_file

    return converted_file(model) is not None


def _embed(model: str, changes: dict[str, Any], folder: Path) -> tuple[dict[str, Any], str]:
    """Write a copy of a converted model that takes whole photos; return the JSON and the text."""
    from regnet.conversion.repository import converted_file
    from regnet.conversion.whole_photo import write_whole_photo_model

    _require_unchanged(model, changes | {"preprocessing": "caller"})
    path = converted_file(model)
    assert path is not None
    try:
        written = write_whole_photo_model(path, folder, name=changes["name"])
    except OSError as exc:
        raise OutputError(f"cannot write to {folder}: {exc.strerror or exc}") from exc
    _warn(model, written.assumed)
    bound = written.pixel_bound
    lines = [
        str(written.path),
        f"  checked on {written.photos} photos: probabilities differ from those of {path.name} by "
        f"at most {written.max_delta:.1e}",
        f"  resizes and crops by itself: {_of_pixels(bound)}",
    ]
    values = {
        "path": str(written.path),
        "files": [str(folder / name) for name in written.files],
        "max_delta": written.max_delta,
        "pixel_bound": bound.to_dict(),
        "assumed": list(written.assumed),
    }
    return values, "\n".join(lines)


def _into_repository(
    models: Library, model: str, changes: dict[str, Any], folder: Path
) -> tuple[dict[str, Any], str]:
    """Add the model to a repository, converted if it is not yet; return the JSON and the text."""
    from regnet.conversion.repository import add_to_repository, converted_file

    if changes["format"] != "ir":
        raise ConversionError("--layout repository is for OpenVINO IR: leave out --format onnx")
    if path := converted_file(model):
        _require_unchanged(model, changes)
        entry = add_to_repository(path, folder, name=changes["name"])
        _warn(model, entry.assumed)
        return _entry_values(entry), _entry_text(entry)
    conversion = _convert(models, model, changes)
    entry = add_to_repository(conversion.path, folder)
    text = "\n".join([_entry_text(entry), *_text_lines(conversion)])
    return _entry_values(entry) | _values(conversion), text


def _require_unchanged(model: str, changes: dict[str, Any]) -> None:
    """Refuse options of a conversion where there is none."""
    usual: tuple[Any, ...] = (None, {}, "ir", "fp32", "caller")
    given = [key for key, value in changes.items() if key != "name" and value not in usual]
    if given:
        raise ConversionError(
            f"{model} is converted already: leave out what would change it "
            f"({', '.join(given)}), or name a checkpoint or another card"
        )


def _entry_values(entry: "Entry") -> dict[str, Any]:
    return {
        "path": str(entry.folder),
        "version": entry.version,
        "new": entry.new,
        "files": [str(entry.folder / name) for name in entry.files],
        "assumed": list(entry.assumed),
    }


def _entry_text(entry: "Entry") -> str:
    version = f"version {entry.version}{'' if entry.new else ', which was there already'}"
    return "\n".join([f"{entry.folder}: {version}", *(f"  {name}" for name in entry.files)])


def _publish(conversion: Conversion, folder: Path) -> Path:
    """Copy the converted model from the cache to a folder; each file appears whole."""
    from regnet.system.files import copy_all

    try:
        copy_all(conversion.path.parent, folder, conversion.files)
    except OSError as exc:
        raise OutputError(f"cannot write to {folder}: {exc.strerror or exc}") from exc
    return folder / conversion.path.name


def _as_json(conversion: Conversion, path: Path) -> dict[str, Any]:
    files = [str(path.parent / name) for name in conversion.files]
    return {"path": str(path), "files": files} | _values(conversion)


def _values(conversion: Conversion) -> dict[str, Any]:
    return {
        **conversion.proof.to_dict(),
        "rounding": conversion.rounding,
        "pixel_bound": conversion.pixel_bound and conversion.pixel_bound.to_dict(),
        "notes": [*conversion.assumed, *conversion.notes],
        "assumed": list(conversion.assumed),
    }


def _as_text(conversion: Conversion, path: Path) -> str:
    return "\n".join([str(path), *_text_lines(conversion)])


def _text_lines(conversion: Conversion) -> list[str]:
    """Return what was measured, a line each."""
    from regnet.inference.writers import visible

    delta, float32 = conversion.proof.delta, conversion.proof.float32
    allowed = conversion.proof.allowed
    lines = [
        f"  checked against float64 on {conversion.photos} photos, and layer by layer",
        f"  probabilities differ by at most {delta.probabilities:.1e} (torch in float32: "
        f"{float32.probabilities:.1e}; allowed: {allowed.probabilities:.1e})",
        f"  logits differ by at most {delta.logits:.1e} of their range (torch in float32: "
        f"{float32.logits:.1e}; allowed: {allowed.logits:.1e})",
    ]
    if conversion.rounding:
        lines.append(
            f"  storing the weights in FP16 changed probabilities by at most "
            f"{conversion.rounding:.1e}"
        )
    if conversion.pixel_bound:
        lines.append(f"  resizes and crops by itself: {_of_pixels(conversion.pixel_bound)}")
    return [*lines, *(f"  {visible(note)}" for note in conversion.notes)]


def _of_pixels(bound: PixelBound) -> str:
    if bound.levels == 0:
        return f"all pixels are the protocol's ({bound.photos} images)"
    return (
        f"{bound.identical:.5%} of the pixels' values are the protocol's, the others differ by "
        f"at most {bound.levels} of 255 ({bound.photos} images)"
    )
