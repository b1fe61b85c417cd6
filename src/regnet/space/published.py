"""The 24 networks that the paper published, from the cards, and how they grow with their MACs.

Source: Radosavovic et al., Designing Network Design Spaces (arXiv 2003.13678), section 4 and
figures 11 to 16.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np

from regnet.network.complexity import Complexity, complexity
from regnet.network.spec import PUBLISHED_NAMES, RegNetSpec
from regnet.statistics.bootstrap import Interval, power_law
from regnet.statistics.draws import Reals
from regnet.zoo.catalogue import card_by_name

_PROTOCOL: Final = "pycls"  # of the errors: as measured by those who trained the networks
_PARAMETERS: Final = ("d", "w0", "wa", "wm", "g")


@dataclass(frozen=True)
class Published:
    """A published network: its top-1 error in [0, 1], its cost on images of `image_size` pixels."""

    name: str
    spec: RegNetSpec
    cost: Complexity
    error: float
    image_size: int

    @property
    def family(self) -> str:
        """The network's space: regnetx or regnety."""
        return self.name.partition("-")[0]

    @property
    def percent(self) -> float:
        """The error in percent."""
        return 100 * self.error

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = {name: getattr(self.spec, name) for name in _PARAMETERS}
        return {"name": self.name, "error": self.error, **vars(self.cost), **values}


@cache
def published() -> tuple[Published, ...]:
    """Return the 24 networks of the paper, by family and size."""
    networks = []
    for name in PUBLISHED_NAMES:
        card = card_by_name(name)
        accuracy = next(one for one in card.accuracies if one.protocol == _PROTOCOL)
        spec, size = card.build_spec(), accuracy.crop
        assert isinstance(spec, RegNetSpec)
        cost = complexity(spec, image_size=size)
        networks.append(Published(card.name, spec, cost, 1 - accuracy.top1 / 100, size))
    return tuple(networks)


def column(networks: Sequence[Published], name: str) -> Reals:
    """Return a parameter or cost of each network, (N,)."""
    return np.array([float(network.to_dict()[name]) for network in networks])


@cache
def exponents(*, seed: int = 0) -> dict[str, Interval]:
    """Return the k of each parameter and cost that grows with MACs to the power k.

    It is fitted by least squares to the logarithms of all 24, with its bootstrap interval.
    """
    macs = column(published(), "macs")
    return {
        name: power_law(macs, column(published(), name), seed=seed, purpose=f"published {name}")
        for name in (*_PARAMETERS, "params", "acts")
    }
