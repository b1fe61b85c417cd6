"""The 24 networks that the paper published: what they cost, their errors, from the cards."""

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from regnet.network.complexity import Complexity, complexity
from regnet.network.spec import PUBLISHED_NAMES, RegNetSpec
from regnet.zoo.catalogue import card_by_name

PROTOCOL: Final = "pycls"  # of the errors: what those who trained them measured
PARAMETERS: Final = ("d", "w0", "wa", "wm", "g")


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
        """The space it is of: regnetx or regnety."""
        return self.name.partition("-")[0]

    @property
    def percent(self) -> float:
        """The error in percent."""
        return 100 * self.error

    def value(self, name: str) -> float:
        """Return a parameter (`PARAMETERS`) or a cost."""
        source: Any = self.cost if hasattr(self.cost, name) else self.spec
        return float(getattr(source, name))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = {name: getattr(self.spec, name) for name in PARAMETERS}
        return {"name": self.name, "error": self.error, **vars(self.cost), **values}


@cache
def published() -> tuple[Published, ...]:
    """Return the 24 networks of the paper, by family and size."""
    return tuple(_published(name) for name in PUBLISHED_NAMES)


def _published(name: str) -> Published:
    card = card_by_name(name)
    own = next(one for one in card.accuracies if one.protocol == PROTOCOL)
    spec = card.build_spec()
    cost = complexity(spec, image_size=own.crop)
    return Published(card.name, spec, cost, 1 - own.top1 / 100, own.crop)
