"""Files of weights as publishers have them, for tests of downloads: small networks, real bytes."""

from io import BytesIO

import torch

from regnet.network.modules import RegNet
from regnet.network.spec import RegNetSpec, Spec

TINY = RegNetSpec(d=3, w0=24, wa=24.0, wm=2.2, g=8)


def weights_of(spec: Spec, seed: int, *, size: int = 0, zipped: bool = True) -> bytes:
    """Return a checkpoint of random weights, of at least so many bytes; of one seed the same."""
    torch.manual_seed(seed)
    file = BytesIO()
    more = torch.randint(256, (size,), dtype=torch.uint8)
    saved = {"epoch": 99, "model_state": RegNet(spec).state_dict(), "optimizer_state": {0: more}}
    torch.save(saved, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()
