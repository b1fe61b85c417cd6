"""`regnet convert`: published weights or a checkpoint -> OpenVINO IR or ONNX."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from regnet.certificate import PixelBound
from regnet.cli.console import interruptible
from regnet.cli.options import CacheDir, Mirrors, Offline, library
from regnet.cli.progress import download_display
from regnet.conversion import Conversion, Format, Precision, require_format
from regnet.errors import OutputError
from regnet.labels import read_labels
from regnet.metadata import Preprocessing
from regnet.protocol import Channels, Interpolation
from regnet.zoo.catalogue import card_by_name

HELP = """Convert published weights or a checkpoint file to OpenVINO IR or ONNX.

The result takes `data` (N, 3, 224, 224), raw 0..255 pixels in BGR, and gives `prob` (N, classes): \
mean, scale and softmax are inside, and so are labels, protocol and the weights' hash. It is \
compared with the network on real photos before it is written: no probability may differ by more \
than 1e-5.

With --preprocessing graph the IR takes a whole photo instead, of any size: `image` \
(1, height, width, 3), uint8, RGB. Resize and crop are inside too, and equal Pillow's.

MODEL is a card's name (see `regnet models`) or a checkpoint: .pyth, .pth, .pt, .bin or \
.safetensors, from pycls, timm, torchvision or Hugging Face. The architecture is found from the \
tensors. Needs the extra `torch`; the result does not.

Examples:

  regnet convert regnetx-3.2gf -o models/

  regnet convert regnetx_032-ed0c7f7e.pth --precision fp16

  regnet convert my.safetensors --format onnx --labels classes.txt

  regnet convert regnetx-3.2gf --preprocessing graph
"""


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command("convert", help=HELP)(convert)


def convert(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Card name or checkpoint file")],
    format: Annotated[Format, typer.Option("--format", "-f", help="OpenVINO IR or ONNX")] = "ir",
    precision: Annotated[
        Precision, typer.Option(help="How weights are stored; the model computes in FP32")
    ] = "fp32",
    preprocessing: Annotated[
        Preprocessing, typer.Option(help="Who resizes and crops: the caller, or the IR's graph")
    ] = "caller",
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
        str | None, typer.Option(help="Insist on this network, such as regnetx-3.2gf")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Class list, a line each: NAME or WNID<tab>NAME"),
    ] = None,
    resize: Annotated[int | None, typer.Option(help="Protocol: short side, pixels")] = None,
    crop: Annotated[int | None, typer.Option(help="Protocol: centre crop, pixels")] = None,
    interpolation: Annotated[Interpolation | None, typer.Option(help="Protocol")] = None,
    channels: Annotated[
        Channels | None, typer.Option(help="The checkpoint's order, where not its layout's own")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON")] = False,
    cache_dir: CacheDir = None,
    offline: Offline = False,
    mirror: Mirrors = None,
) -> None:
    """Convert and say what was measured."""
    models = library(cache_dir, offline, mirror)
    protocol = {"resize": resize, "crop": crop, "interpolation": interpolation}
    with interruptible():
        require_format(format, preprocessing)
        with download_display() as on_event:
            request = replace(models, on_event=on_event).request(model)
        request = replace(
            request,
            card=card_by_name(card) if card else request.card,
            name=name,
            spec=spec,
            labels=read_labels(labels) if labels else None,
            channels=channels,
            protocol={key: value for key, value in protocol.items() if value is not None},
            format=format,
            precision=precision,
            preprocessing=preprocessing,
        )
        conversion = models.convert(request)
        path = _publish(conversion, output)
    typer.echo(_as_json(conversion, path) if as_json else _as_text(conversion, path))


def _publish(conversion: Conversion, folder: Path) -> Path:
    """Copy the converted model from the cache to a folder; each file appears whole."""
    from regnet.files import copy_all

    try:
        copy_all(conversion.path.parent, folder, conversion.files)
    except OSError as exc:
        raise OutputError(f"cannot write to {folder}: {exc.strerror or exc}") from exc
    return folder / conversion.path.name


def _as_json(conversion: Conversion, path: Path) -> str:
    return json.dumps(
        {
            "path": str(path),
            "files": [str(path.parent / name) for name in conversion.files],
            "max_delta": conversion.max_delta,
            "rounding": conversion.rounding,
            "pixel_bound": conversion.pixel_bound and conversion.pixel_bound.to_dict(),
            "notes": list(conversion.notes),
        }
    )


def _as_text(conversion: Conversion, path: Path) -> str:
    lines = [
        str(path),
        f"  checked on {conversion.photos} photos: probabilities differ from the network's "
        f"by at most {conversion.max_delta:.1e} (1e-05 is allowed)",
    ]
    if conversion.rounding:
        lines.append(
            f"  storing the weights in FP16 changed probabilities by at most "
            f"{conversion.rounding:.1e}"
        )
    if conversion.pixel_bound:
        lines.append(f"  resizes and crops by itself: {_of_pixels(conversion.pixel_bound)}")
    return "\n".join([*lines, *(f"  note: {note}" for note in conversion.notes)])


def _of_pixels(bound: PixelBound) -> str:
    if bound.levels == 0:
        return f"all pixels are the protocol's ({bound.photos} images)"
    return (
        f"{bound.identical:.5%} of the pixels' values are the protocol's, the others differ by "
        f"at most {bound.levels} of 255 ({bound.photos} images)"
    )
