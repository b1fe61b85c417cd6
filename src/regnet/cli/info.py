"""`regnet info`: what a network, a checkpoint or a converted model is and costs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regnet.checkpoints.model_files import is_model_folder
from regnet.cli.console import print_json
from regnet.cli.options import CheckpointEntry
from regnet.conversion.store import CHECKPOINT_SUFFIXES, Library
from regnet.ir.assumptions import warn_assumed
from regnet.network.complexity import complexity
from regnet.network.spec import (
    Spec,
    canonical_name,
    published_name,
    spec_aliases,
    spec_by_name,
    spec_to_dict,
)
from regnet.system.errors import UnknownModelError

if TYPE_CHECKING:
    from regnet.ir.metadata import ModelMetadata

LAYERS_SHOWN = 3

HELP = """Report spec, parameters, MACs and activations of a network, checkpoint or converted model.

MODEL is a network's or card's name, a checkpoint (a file, or a folder of Hugging Face's), or an \
IR (.xml) or ONNX file. For a \
converted model GFLOPs and MParams are counted on its graph, as on the model card.

Examples:

  regnet info regnetx-3.2gf

  regnet info regnetx-3.2gf.xml --json
"""


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command("info", help=HELP)(info)


def info(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name, checkpoint, IR or ONNX")],
    image_size: Annotated[
        int | None, typer.Option(help="Pixels a side to count for (default: the protocol's crop)")
    ] = None,
    entry: CheckpointEntry = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """Print the report."""
    report = _report(model, image_size, entry)
    if as_json:
        print_json(report, indent=2)
    else:
        typer.echo(_as_text(report))


def _report(model: str, image_size: int | None, entry: str | None) -> dict[str, Any]:
    path = Path(model)
    Library(entry=entry).note_entry(model)
    if path.suffix in (".xml", ".onnx"):
        return _converted(path, image_size)
    if path.suffix in CHECKPOINT_SUFFIXES or path.is_file() or is_model_folder(path):
        return _checkpoint(path, image_size, entry)
    return _named(model, image_size)


def _size(asked: int | None, otherwise: int) -> int:
    return otherwise if asked is None else asked


def _named(name: str, image_size: int | None) -> dict[str, Any]:
    """Report on a card, else on a network that has a name but no published weights of its own."""
    from regnet.zoo.catalogue import bundled_path, card_by_name

    try:
        card = card_by_name(name)
    except UnknownModelError as unknown:
        try:
            return _bare_network(name, _size(image_size, 224))
        except UnknownModelError:
            raise unknown from None
    if card.bundled is not None:
        return _converted(bundled_path(card), image_size)
    size = _size(image_size, card.preprocess.crop)
    about = {
        "name": card.name,
        "aliases": list(card.aliases),
        "licence": card.licence.id,
        "assumed": [],
    }
    return about | _network(card.build_spec(), size)


def _bare_network(name: str, image_size: int) -> dict[str, Any]:
    known = canonical_name(name)
    aliases = list(spec_aliases(known))
    return {
        "name": known,
        "aliases": aliases,
        "assumed": [],
        **_network(spec_by_name(name), image_size),
    }


def _checkpoint(path: Path, image_size: int | None, entry: str | None) -> dict[str, Any]:
    if not path.exists():
        raise UnknownModelError(f"{path}: no such file")
    from regnet.checkpoints.weights import read_checkpoint
    from regnet.conversion.convert import describe

    found = read_checkpoint(path, entry=entry)
    metadata = describe(Library(entry=entry).request(path), found)
    warn_assumed(path, metadata)
    size = _size(image_size, found.preprocess.crop if found.preprocess else 224)
    return {
        "file": str(path),
        "layout": found.layout,
        "channels": found.channels,
        "sha384": found.sha384,
        "entry": found.entry_name if found.entry_name != "." else None,
        "beside": list(found.beside),
        "name": found.name,
        "assumed": list(metadata.assumed),
        **_network(found.spec, size),
    }


def _converted(path: Path, image_size: int | None) -> dict[str, Any]:
    from regnet.ir.graph import file_metadata, read_graph
    from regnet.ir.graph_cost import graph_cost

    model = read_graph(path)
    cost = graph_cost(model)
    graph = {"gflops": round(cost.gflops, 4), "mparams": round(cost.mparams, 4)}
    metadata = file_metadata(path, model)
    if metadata is None:
        return {"file": str(path), "assumed": [], "graph": graph}
    warn_assumed(path, metadata)
    return {
        "file": str(path),
        "name": metadata.name,
        "card": metadata.card or None,
        "precision": metadata.precision,
        "licence": metadata.licence,
        "sha384": metadata.weights_sha384,
        "version": metadata.version,
        **_measured(metadata),
        "preprocessing": metadata.preprocessing,
        "protocol": metadata.preprocess.to_dict(),
        "assumed": list(metadata.assumed),
        "graph": graph,
        **_network(metadata.spec, _size(image_size, metadata.preprocess.crop)),
    }


def _measured(metadata: "ModelMetadata") -> dict[str, Any]:
    """Return what was measured of the model when it was made."""
    records = {
        "pixel_bound": metadata.pixel_bound,
        "certificate": metadata.certificate,
        "calibration": metadata.calibration,
    }
    return {name: record.to_dict() for name, record in records.items() if record is not None}


def _network(spec: Spec, image_size: int) -> dict[str, Any]:
    cost = complexity(spec, image_size=image_size)
    known = published_name(spec)
    return {
        "network": known,
        "spec": spec_to_dict(spec),
        "stages": [
            {"depth": s.depth, "width": s.width, "group_width": s.group_width} for s in spec.stages
        ],
        "classes": spec.classes,
        "image_size": image_size,
        "params": cost.params,
        "macs": cost.macs,
        "acts": cost.acts,
    }


def _as_text(report: dict[str, Any]) -> str:
    return "\n".join(
        f"{name:12} {_value_text(name, value)}"
        for name, value in report.items()
        if value not in (None, [])
    )


def _value_text(name: str, value: Any) -> str:
    if name == "stages":
        rows = (f"{s['depth']} x {s['width']} (groups of {s['group_width']})" for s in value)
        return ", ".join(rows)
    if name == "spec" and "stages" in value:
        value = {key: v for key, v in value.items() if key != "stages"}
    if name == "certificate":
        value = {**value, "restored": _layers_text(value["restored"])}
    if name == "graph":
        return f"GFLOPs {value['gflops']:.4f}, MParams {value['mparams']:.4f}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {v}" for key, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def _layers_text(layers: Sequence[str]) -> str:
    """Return how many layers there are and the first of them; `--json` has them all."""
    if not layers:
        return "no layers"
    first, more = ", ".join(layers[:LAYERS_SHOWN]), len(layers) - LAYERS_SHOWN
    count = f"{len(layers):,} {'layers' if len(layers) > 1 else 'layer'}"
    return f"{count} ({first} and {more:,} more)" if more > 0 else f"{count} ({first})"
