"""The network itself, run by torch: what converted models are compared with."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from regnet.conversion.convert import read_network
from regnet.conversion.values import Request
from regnet.ir.engine import with_protocol
from regnet.ir.metadata import InferencePrecision
from regnet.ir.torch_engine import TorchEngine
from regnet.pixels.protocol import Preprocess


class TorchPredictor(TorchEngine):
    """The network of a checkpoint as torch runs it, batch-norm and all."""

    def __init__(
        self,
        request: Request,
        *,
        device: str = "cpu",
        precision: InferencePrecision = "f32",
        protocol: str | None = None,
    ) -> None:
        network, metadata = read_network(request)
        if protocol is not None:
            metadata = with_protocol(metadata, protocol)
        whole = _Normalised(network, metadata.preprocess, bf16=precision == "bf16")
        super().__init__(whole, metadata, device=device)


class _Normalised(nn.Module):
    """A network behind its normalisation: crops (N, H, W, 3) -> probabilities and logits."""

    def __init__(self, network: nn.Module, preprocess: Preprocess, *, bf16: bool) -> None:
        super().__init__()
        self._network, self._bf16 = network, bf16
        for name in ("mean", "scale"):
            values = torch.tensor(getattr(preprocess, name)).view(1, 3, 1, 1)
            self.register_buffer(name, values)

    def forward(self, crops: Tensor) -> list[Tensor]:
        x = crops.permute(0, 3, 1, 2).float()
        with self._computing(x.device.type):
            x = (x - self.get_buffer("mean")) / self.get_buffer("scale")
            logits = self._network(x).float()
        return [torch.softmax(logits, 1), logits]

    def _computing(self, device: str) -> Any:
        return torch.autocast(device, torch.bfloat16) if self._bf16 else nullcontext()
