"""How parameters and costs of the 24 networks that the paper published grow with their MACs.

Source: Radosavovic et al., Designing Network Design Spaces (arXiv
2003.13678), section 4 and figures 11 to 16.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from regnet.space.published import PARAMETERS, Published, published
from regnet.statistics.bootstrap import Interval, power_law
from regnet.statistics.draws import Reals

COSTS: Final = ("params", "acts")


def column(networks: Sequence[Published], name: str) -> Reals:
    """Return a parameter or cost of each network, (N,)."""
    return np.array([network.value(name) for network in networks])


def exponents(*, seed: int = 0) -> dict[str, Interval]:
    """Return k for each parameter and cost, as it grows with MACs to the power k.

    The line of least squares through the logarithms of all 24, with its bootstrap interval.
    """
    networks = published()
    macs = column(networks, "macs")
    return {
        name: power_law(macs, column(networks, name), seed=seed, purpose=f"published {name}")
        for name in (*PARAMETERS, *COSTS)
    }
