"""`regnet demo`: the sample photos, classified by the model in the package."""

from regnet.cli.classify import Input, Output, classify
from regnet.cli.options import Store
from regnet.cluster.address import Spread
from regnet.inference.result import Wanted
from regnet.inference.sorting import Sorting
from regnet.pixels.decode_limits import DecodeLimits
from regnet.video.sampling import Sampling


def demo() -> bool:
    """Classify the sample photos with the bundled model.

    Needs no network. The same as:

      regnet classify --samples --top-k 3 --offline
    """
    return classify(
        Input(sources=(), samples=True),
        Wanted(top_k=3),
        Output(),
        Sorting(),
        Sampling(),
        Spread(),
        DecodeLimits(),
        Store(offline=True),
    )
