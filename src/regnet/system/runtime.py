"""OpenVINO as regnet uses it: without telemetry, safe for threads and for signals.

Everything in regnet imports `ov` from here, and uses this `core`.
"""

import sys

_SENDER = "openvino_telemetry"

# Importing OpenVINO reports the use to its maker, in a process of its own, and leaves an identifier
# in the home folder. Where that package is not to be had, it goes without; so it is hidden from it.
_hidden = _SENDER not in sys.modules
if _hidden:
    sys.modules[_SENDER] = None  # type: ignore[assignment]
try:
    import openvino as ov
finally:
    if _hidden:
        del sys.modules[_SENDER]

# OpenVINO makes its table of array types on first use; two threads that do so at once wait for each
# other for ever. Imports are for one thread at a time.
ov.Type.u8.to_dtype()

# One for the whole process, never given up: a CPU plugin gives the thread that loads it a stack for
# signals, and unmaps it when the plugin ends. Of plugins that do not end in reverse order a stack
# that is gone stays behind, and the next signal, such as Ctrl-C, ends the process.
core = ov.Core()

__all__ = ["core", "ov"]
