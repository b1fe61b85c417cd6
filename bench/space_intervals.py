"""How often the bootstrap's 95 % interval holds the true difference of two spaces' mean errors.

Errors are drawn from one skewed distribution for both spaces, so the true difference is 0:
python bench/space_intervals.py
"""

import numpy as np

from regnet.statistics.bootstrap import interval, resampled_means

SWEEPS = 2000
NETWORKS = (8, 20, 100)


def main() -> None:
    """Print the share of sweeps for each number of networks a space."""
    random = np.random.default_rng(0)
    for networks in NETWORKS:
        held = sum(_holds(random, networks, sweep) for sweep in range(SWEEPS))
        print(f"{networks:3} networks a space: {100 * held / SWEEPS:.1f} % of {SWEEPS:,} sweeps")


def _holds(random: np.random.Generator, networks: int, sweep: int) -> bool:
    a, b = (0.4 + 0.05 * random.gamma(2.0, size=networks) for _ in range(2))
    first = resampled_means(a, seed=sweep, purpose="a", draws=1000)
    second = resampled_means(b, seed=sweep, purpose="b", draws=1000)
    return interval(a.mean() - b.mean(), first - second).holds(0.0)


if __name__ == "__main__":
    main()
