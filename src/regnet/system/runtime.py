"""OpenVINO as regnet uses it: light, without telemetry, safe for threads and for signals.

Everything in regnet imports `ov` from here, and uses this `core`.
"""

import sys
from typing import Any

from regnet.system.errors import MissingEngineError

# Importing OpenVINO reports the use to its maker, in a process of its own, and leaves an identifier
# in the home folder; and it loads its converter, which takes half of the time. It does without both
# if they cannot be imported, so they are hidden from it.
_hidden = {"openvino_telemetry", "openvino.tools.ovc"} - sys.modules.keys()
sys.modules.update(dict.fromkeys(_hidden))  # type: ignore[arg-type]
try:
    import openvino as ov
except ImportError as exc:
    raise MissingEngineError(
        f"this needs OpenVINO, which cannot be loaded here ({exc}). Install it (pip install "
        "openvino), or use a machine that has it"
    ) from exc
finally:
    for _name in _hidden:
        del sys.modules[_name]


def _convert_model(*inputs: Any, **options: Any) -> ov.Model:
    """Convert a model as `openvino.convert_model` does, which is loaded on first use."""
    from openvino.tools.ovc import convert_model

    return convert_model(*inputs, **options)


if not hasattr(ov, "convert_model"):
    ov.convert_model = _convert_model

# OpenVINO makes its table of array types on first use; two threads that do so at once wait for each
# other for ever. Imports are for one thread at a time.
ov.Type.u8.to_dtype()

# One for the whole process, never given up: a CPU plugin gives the thread that loads it a stack for
# signals, and unmaps it when the plugin ends. Of plugins that do not end in reverse order a stack
# that is gone stays behind, and the next signal, such as Ctrl-C, ends the process.
core = ov.Core()

__all__ = ["core", "ov"]
