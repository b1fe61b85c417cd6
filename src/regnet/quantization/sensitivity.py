"""Which layers suffer most from INT8, and how many of them must go back to floating point."""

from collections.abc import Callable, Mapping


def ranked(damage: Mapping[str, float], multiplications: Mapping[str, int]) -> tuple[str, ...]:
    """Return the layers, those first that do most damage a multiplication.

    `damage` is what each does alone in INT8 (a mean KL, in nats). Restoring them in this order
    takes away most damage for the arithmetic that becomes slow again.
    """
    return tuple(sorted(damage, key=lambda layer: (-damage[layer] / multiplications[layer], layer)))


def fewest(most: int, holds: Callable[[int], bool]) -> int | None:
    """Return the least number in 1..most of which it holds, by bisection; None if of none.

    It is taken to hold of all greater numbers too.
    """
    if most < 1 or not holds(most):
        return None
    low, high = 0, most  # it does not hold of low, it does of high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
