"""A network's spec in a file of its own, as `regnet space search -o` writes it."""

import json
from pathlib import Path
from typing import Final

from regnet.network.spec import Spec, spec_from_dict, spec_to_dict
from regnet.system.errors import SpecError, UnknownModelError
from regnet.system.files import write_whole
from regnet.system.json_text import json_bytes
from regnet.system.output_file import naming

SUFFIX: Final = ".json"

_LARGEST: Final = 1 << 20  # bytes


def read_spec(path: Path) -> Spec:
    """Return the spec in a file of one JSON object; raises `UnknownModelError` where it is none."""
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(_LARGEST))
        if not isinstance(values, dict):
            raise ValueError("it is no JSON object")
        return spec_from_dict(values)
    except OSError as exc:
        raise UnknownModelError(f"{path}: cannot be read ({exc.strerror or exc})") from exc
    except (SpecError, ValueError, RecursionError) as exc:
        raise UnknownModelError(
            f"{path}: is no network's spec ({exc}); `regnet space search -o` writes one, and each "
            "line of `regnet space sample` is one"
        ) from exc


def write_spec(path: Path, spec: Spec) -> None:
    """Write a spec to a file, whole or not at all. Raises `OutputError`."""
    with naming(path):
        write_whole(path, json_bytes(spec_to_dict(spec)) + b"\n")
