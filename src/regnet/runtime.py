"""OpenVINO as regnet uses it: without telemetry, and safe for threads from the first call.

Everything in regnet imports `ov` from here.
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

__all__ = ["ov"]
