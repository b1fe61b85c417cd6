"""Write a checkpoint whose logits are divided by the temperature of a calibrated model.

python tools/temper.py CHECKPOINT CALIBRATED.xml OUT.safetensors

A network trained with soft labels is right more often than it says. The temperature that mends it
is in the calibrated model that `regnet train` and `regnet calibrate` write, as a part of the graph;
in the weights of the head it needs none. No ranking changes.
"""

import argparse
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from regnet.calibration.temperature import graph_temperature
from regnet.checkpoints.weights import read_checkpoint, write_safetensors
from regnet.ir.graph import read_graph

HEAD = ("head.fc.weight", "head.fc.bias")


def tempered(state: dict[str, NDArray[Any]], temperature: float) -> dict[str, NDArray[Any]]:
    """Return the weights with the head's divided; raises `ValueError` for what is not over 0."""
    if not temperature > 0:
        raise ValueError(f"temperature {temperature}: must be over 0")
    return state | {name: state[name] / temperature for name in HEAD}


def main() -> None:
    """Read, divide, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("calibrated", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    found = read_checkpoint(arguments.checkpoint)
    temperature = graph_temperature(read_graph(arguments.calibrated))
    print(f"temperature {temperature:.4f}")
    write_safetensors(
        arguments.output,
        tempered(found.state, temperature),
        spec=found.spec,
        labels=found.labels,
        preprocess=found.preprocess,
        name=found.name,
    )


if __name__ == "__main__":
    main()
