"""Which of two states in a pycls checkpoint has the lower error."""

import math
from collections.abc import Mapping
from typing import Any

from regnet.system.errors import WeightsError, shown


def better_state(content: Mapping[str, Any]) -> str:
    """Return "model_state" or "ema_state", as pycls chooses: by `test_err` and `ema_err`.

    An error that is missing or undefined counts as 100 %; at equal errors it is `model_state`.
    Raises `WeightsError` where an error is not a number.
    """
    plain = _error(content, "test_err")
    return "model_state" if plain <= _error(content, "ema_err") else "ema_state"


def _error(content: Mapping[str, Any], name: str) -> float:
    value = content.get(name)
    if value is None:
        return 100.0
    try:
        error = float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as exc:
        raise WeightsError(f"{name} is no number: {shown(value):.80}") from exc
    return 100.0 if math.isnan(error) else error
