"""`regnet info`: what a network, a checkpoint or a converted model is and costs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from regnet.checkpoints.model_files import is_model_folder
from regnet.cli.console import print_facts, print_json
from regnet.cli.options import AS_OPTION, Entry, Json
from regnet.conversion.foreign_files import foreign_model
from regnet.conversion.store import Library
from regnet.conversion.values import CHECKPOINT_SUFFIXES
from regnet.inference.predictors import parse_ir_choice
from regnet.ir.assumptions import CONVERTED, warn_assumed
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
from regnet.system.option import argument, option

LAYERS_SHOWN: Final = 3


class _Model(Json, Entry):
    model: str = argument("Network, model card, checkpoint, IR or ONNX", "MODEL", ..., *AS_OPTION)
    image_size: int | None = option(None, "Image size to count for [the protocol's crop]", "PIXELS")


def info(model: _Model) -> None:
    """Report spec, parameters, MACs and activations of a model.

    MODEL is the name of a network or card, a checkpoint (a file, or a Hugging Face folder), or an
    IR (.xml) or ONNX file, whose GFLOPs and MParams are counted on its graph, as on the model card.

      regnet info regnetx-3.2gf
      regnet info regnetx-3.2gf.xml --json
    """
    choice = parse_ir_choice(model.model, "info", precisions=("f32", "int8"))
    library, path = Library(entry=model.entry), Path(choice.model)
    library.note_entry(choice.model)
    if choice.precision == "int8":
        path = library.ir(choice.model, precision="int8")
    path = foreign_model(path) or path
    if path.suffix in CONVERTED:
        report = _converted(path, model.image_size)
    elif path.suffix in CHECKPOINT_SUFFIXES or path.is_file() or is_model_folder(path):
        report = _checkpoint(path, model.image_size, model.entry)
    else:
        report = _named(choice.model, model.image_size)
    if model.json:
        print_json(report, indent=2)
    else:
        known = ((name, value) for name, value in report.items() if value not in (None, []))
        print_facts((name, _value_text(name, value)) for name, value in known)


def _named(name: str, image_size: int | None) -> dict[str, Any]:
    """Report on a card, else on a network that has a name but no published weights of its own."""
    from regnet.zoo.catalogue import bundled_path, card_by_name

    try:
        card = card_by_name(name)
    except UnknownModelError as unknown:
        try:
            known = canonical_name(name)
        except UnknownModelError:
            raise unknown from None
        about = {"name": known, "aliases": list(spec_aliases(known)), "assumed": []}
        return about | _network(spec_by_name(name), image_size, 224)
    if card.bundled is not None:
        return _converted(bundled_path(card), image_size)
    return {
        "name": card.name,
        "aliases": list(card.aliases),
        "licence": card.licence.id,
        "assumed": [],
        **_network(card.build_spec(), image_size, card.preprocess.crop),
    }


def _checkpoint(path: Path, image_size: int | None, entry: str | None) -> dict[str, Any]:
    if not path.exists():
        raise UnknownModelError(f"{path}: no such file")
    from regnet.checkpoints.weights import read_checkpoint
    from regnet.conversion.convert import describe

    checkpoint = read_checkpoint(path, entry=entry)
    metadata = describe(Library(entry=entry).request(path), checkpoint)
    warn_assumed(path, metadata)
    return {
        "file": str(path),
        "layout": checkpoint.layout,
        "channels": checkpoint.channels,
        "sha384": checkpoint.sha384,
        "entry": checkpoint.entry_name if checkpoint.entry_name != "." else None,
        "beside": list(checkpoint.beside),
        "name": checkpoint.name,
        "assumed": list(metadata.assumed),
        **_network(
            checkpoint.spec,
            image_size,
            checkpoint.preprocess.crop if checkpoint.preprocess else 224,
        ),
    }


def _converted(path: Path, image_size: int | None) -> dict[str, Any]:
    from regnet.conversion.onnx_to_ir import as_ir
    from regnet.ir.graph import file_metadata, read_graph
    from regnet.ir.graph_cost import graph_cost

    model = read_graph(path)
    metadata = file_metadata(path, model)
    if metadata and path.suffix == ".onnx":
        model = as_ir(model, metadata)
    cost = graph_cost(model)
    graph = {"gflops": round(cost.gflops, 4), "mparams": round(cost.mparams, 4)}
    if metadata is None:
        return {"file": str(path), "assumed": [], "graph": graph}
    warn_assumed(path, metadata)
    records = {
        "pixel_bound": metadata.pixel_bound,
        "certificate": metadata.certificate,
        "calibration": metadata.calibration,
    }
    crop = metadata.preprocess.crop
    adopted = {"origin": metadata.origin, "classes": metadata.classes, "image_size": crop}
    return {
        "file": str(path),
        "name": metadata.name,
        "card": metadata.card or None,
        "precision": metadata.precision,
        "licence": metadata.licence,
        "sha384": metadata.weights_sha384,
        "version": metadata.version,
        **{name: record.to_dict() for name, record in records.items() if record is not None},
        **({"taught": metadata.taught.summary()} if metadata.taught else {}),
        "preprocessing": metadata.preprocessing,
        "protocol": metadata.preprocess.to_dict(),
        "assumed": list(metadata.assumed),
        "graph": graph,
        **(_network(metadata.spec, image_size, crop) if metadata.spec else adopted),
    }


def _network(spec: Spec, image_size: int | None, default_size: int) -> dict[str, Any]:
    size = default_size if image_size is None else image_size
    cost = complexity(spec, image_size=size)
    return {
        "network": published_name(spec),
        "spec": spec_to_dict(spec),
        "stages": [
            {"depth": s.depth, "width": s.width, "group_width": s.group_width} for s in spec.stages
        ],
        "classes": spec.classes,
        "image_size": size,
        "params": cost.params,
        "macs": cost.macs,
        "acts": cost.acts,
    }


def _value_text(name: str, value: Any) -> str:
    if name == "stages":
        rows = (f"{s['depth']} x {s['width']} (groups of {s['group_width']})" for s in value)
        return ", ".join(rows)
    if name == "spec":
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
