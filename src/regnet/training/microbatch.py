"""A step's photos as they go through the network."""

from dataclasses import dataclass, replace

from torch import Tensor

from regnet.data.labelled import Unreadable
from regnet.training.draws import Draws


@dataclass(frozen=True)
class MicroBatch:
    """Photos that go through the network at once: crops (N, S, S, 3), classes (N,).

    `draws` are what their augmentation does, in chunks. `place` is the first one's in the step's
    batch, the same with any number of processes.
    """

    crops: Tensor
    truths: Tensor
    draws: tuple[Draws, ...]
    place: int

    def pin_memory(self) -> "MicroBatch":
        """Return the same in pinned memory, from which a GPU copies while it computes."""
        return replace(self, crops=self.crops.pin_memory(), truths=self.truths.pin_memory())


@dataclass(frozen=True)
class Step:
    """A step's photos: parts (gradient accumulation), and the photos that were left out."""

    number: int
    parts: tuple[MicroBatch, ...]
    unreadable: tuple[Unreadable, ...]

    def pin_memory(self) -> "Step":
        """Return the same in pinned memory."""
        return replace(self, parts=tuple(part.pin_memory() for part in self.parts))
