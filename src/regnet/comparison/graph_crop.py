"""The crop that a model with preprocessing in its graph makes, to be looked at from outside."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from regnet.conversion.graph_preprocess import PIXELS
from regnet.ir.engine import InferRequests
from regnet.ir.graph import read_graph
from regnet.system.errors import ModelError
from regnet.system.parallel import cores
from regnet.system.runtime import core, ov


class GraphCrop:
    """The preprocessing part of an IR, run by itself.

    Raises `ModelError` where the IR does not say which of its tensors is the crop.
    """

    def __init__(self, path: Path) -> None:
        graph = read_graph(path)
        found = [
            port for op in graph.get_ops() for port in op.outputs() if PIXELS in port.get_names()
        ]
        if len(found) != 1:
            raise ModelError(f"{path}: no tensor in its graph is named {PIXELS}")
        part = ov.Model([found[0]], graph.get_parameters(), PIXELS)
        options = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": cores()}
        compiled = core.compile_model(part, "CPU", options)
        self._requests = InferRequests(compiled, cores())

    def crop(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the crop (crop, crop, 3), 0..255, channels as the protocol orders them.

        `image` is whole, (H, W, 3), RGB. Threads may call it at once.
        """
        with self._requests.one() as request:
            request.infer({0: image[None]}, share_inputs=True)
            return np.array(request.get_output_tensor(0).data[0].transpose(1, 2, 0))
