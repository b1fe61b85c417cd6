"""Which layers suffer most from INT8."""

from collections.abc import Mapping


def ranked(damage: Mapping[str, float], multiplications: Mapping[str, int]) -> tuple[str, ...]:
    """Return the layers, most damage per multiplication first.

    `damage` is that of each layer alone in INT8 (mean KL in nats). Restoring layers in this order
    removes most damage for the arithmetic that becomes slow again.
    """
    return tuple(sorted(damage, key=lambda layer: (-damage[layer] / multiplications[layer], layer)))
