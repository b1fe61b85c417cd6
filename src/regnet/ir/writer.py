"""Converted models as IR files that describe themselves and know the checksum of their weights."""

from pathlib import Path

from regnet.ir.checksum import KEY, UNKNOWN, record_checksum
from regnet.ir.graph import RT_INFO, set_graph_metadata
from regnet.ir.metadata import ModelMetadata
from regnet.ir.model_api import MODEL_INFO, model_info
from regnet.system.errors import ConversionError
from regnet.system.runtime import ov


def write_ir(model: ov.Model, metadata: ModelMetadata, path: Path) -> list[str]:
    """Write `path` (.xml) and its .bin; return their names, the .xml last.

    rt_info gets the metadata, the checksum of the .bin, and the settings of OpenVINO Model API;
    the model changes accordingly. Raises `ConversionError` if a file cannot be written.
    """
    model.set_friendly_name(metadata.name)
    set_graph_metadata(model, metadata)
    model.set_rt_info(UNKNOWN, [RT_INFO, KEY])
    model.set_rt_info(model_info(metadata), [MODEL_INFO])
    try:
        ov.save_model(model, path, compress_to_fp16=False)
        record_checksum(path)
    except (RuntimeError, OSError) as exc:
        raise ConversionError(f"cannot write {path.name}: {exc}") from exc
    return [path.with_suffix(".bin").name, path.name]
