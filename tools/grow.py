"""Make a checkpoint's network deeper without changing what it computes.

python tools/grow.py CHECKPOINT NETWORK.json OUT.safetensors

NETWORK is a spec as `regnet space sample` writes it, with the checkpoint's widths and at least its
depths. The blocks that the checkpoint lacks begin as the identity: the last batch norm of their
residual branch has weight 0 (Goyal et al., arXiv 1706.02677, section 5.1).
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from regnet.checkpoints.weights import read_checkpoint, write_safetensors
from regnet.network import RegNet
from regnet.spec import Spec
from regnet.spec_file import read_spec


def grown(state: dict[str, Tensor], spec: Spec) -> dict[str, Tensor]:
    """Return the weights of the deeper network `spec`; raises `ValueError` where they don't fit."""
    torch.manual_seed(0)
    whole = RegNet(spec).state_dict()
    for name, tensor in whole.items():
        if name in state:
            if state[name].shape != tensor.shape:
                raise ValueError(f"{name} has shape {state[name].shape}, not {tensor.shape}")
            whole[name] = state[name]
        elif name.endswith("c_bn.weight"):
            tensor.zero_()
    if unknown := state.keys() - whole.keys():
        raise ValueError(f"the deeper network has no {sorted(unknown)[0]}")
    return whole


def main() -> None:
    """Read, grow, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("network", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    found = read_checkpoint(arguments.checkpoint)
    spec = read_spec(arguments.network).with_classes(found.spec.classes)
    write_safetensors(
        arguments.output,
        grown(found.state, spec),
        spec=spec,
        labels=found.labels,
        preprocess=found.preprocess,
    )


if __name__ == "__main__":
    main()
