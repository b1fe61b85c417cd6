"""Change a checkpoint's network into another one that computes the same.

python tools/grow.py CHECKPOINT NETWORK.json OUT.safetensors

NETWORK is a spec as `regnet space sample` writes it, with the checkpoint's widths and at least its
depths. The blocks that the checkpoint lacks begin as the identity: the last batch norm of their
residual branch has weight 0 (Goyal et al., arXiv 1706.02677, section 5.1). Where one has a stem of
stride 1 and the other one of stride 2, that of stride 1 answers to a photo as that of stride 2 does
to the photo enlarged to twice its size by linear interpolation, and the protocol's sizes change so.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from regnet.checkpoints.weights import read_checkpoint, write_safetensors
from regnet.network.modules import RegNet, to_tensors
from regnet.network.spec import Spec, read_spec
from regnet.pixels.protocol import Preprocess

# Pixels of a photo, by rows, of which three of the enlarged one are made: each is 0.75 of the
# nearest and 0.25 of the next.
TAPS = torch.tensor([[0.75, 0.25, 0.0], [0.25, 0.75, 0.75], [0.0, 0.0, 0.25]])
DAMPING = 1e-3


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


def at_half_size(kernel: Tensor) -> Tensor:
    """Return the kernels (O, C, 3, 3) of stride 1 for those of stride 2 on enlarged photos."""
    return torch.einsum("yi,xj,ocij->ocyx", TAPS, TAPS, kernel)


def at_twice_the_size(kernel: Tensor) -> Tensor:
    """Return the kernels (O, C, 3, 3) of stride 2, on enlarged photos, for those of stride 1.

    The inverse is damped: the exact one answers loudly to detail that enlarged photos lack, and
    that others have.
    """
    taps = torch.kron(TAPS, TAPS)
    inverse = torch.linalg.solve(taps.T @ taps + DAMPING * torch.eye(9), taps.T)
    return (kernel.flatten(2) @ inverse.T).view_as(kernel)


def resized(protocol: Preprocess, before: int, after: int) -> Preprocess:
    """Return the protocol of a network whose stem had stride `before` and has stride `after`."""
    resize, crop = (size * after // before for size in (protocol.resize, protocol.crop))
    return replace(protocol, resize=resize, crop=crop)


TURNS = {(2, 1): at_half_size, (1, 2): at_twice_the_size}


def main() -> None:
    """Read, grow, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("network", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    found = read_checkpoint(arguments.checkpoint)
    spec = read_spec(arguments.network).with_classes(found.spec.classes)
    state, protocol = to_tensors(found.state), found.preprocess
    strides = found.spec.stem_stride, spec.stem_stride
    if strides in TURNS:
        state["stem.conv.weight"] = TURNS[strides](state["stem.conv.weight"])
        protocol = protocol and resized(protocol, *strides)
    write_safetensors(
        arguments.output,
        grown(state, spec),
        spec=spec,
        labels=found.labels,
        preprocess=protocol,
    )


if __name__ == "__main__":
    main()
