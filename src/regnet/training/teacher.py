"""Teachers: any classifier that runs here says what it sees in the student's training images.

Source: Hinton et al. 2015 (arXiv 1503.02531); teacher and student see the very same crops, as in
Beyer et al. 2022 (arXiv 2106.05237).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from regnet.conversion.convert import read_network
from regnet.conversion.store import Library
from regnet.conversion.values import Request
from regnet.data.class_names import ClassNames, listed
from regnet.inference.predictors import Choice, Predictor, open_predictor, parse_choice
from regnet.inference.server_predictor import is_address
from regnet.ir.metadata import InferencePrecision, ModelMetadata
from regnet.network.labels import Label, Labels, first_name
from regnet.network.modules import RegNet, fold_batch_norm
from regnet.pixels.protocol import Preprocess
from regnet.system.errors import DatasetError, TrainingError, UnknownModelError
from regnet.system.parallel import BATCH_SIZE, cores

Logits = Callable[[Tensor], Tensor]
"""Pixels (N, 3, crop, crop), float32, 0..255, in the model's channels -> logits (N, classes)."""


class Teacher:
    """A classifier that does not learn, and the student's classes among its own.

    `logits` runs it, `metadata` describes it, `places` are its classes that are the student's, in
    the student's order.
    """

    def __init__(self, logits: Logits, metadata: ModelMetadata, places: Sequence[int]) -> None:
        self.metadata = metadata
        self._logits = logits
        self._places = torch.tensor(places)

    @torch.no_grad()
    def soft_targets(self, images: Tensor, *, temperature: float) -> Tensor:
        """Return the probabilities (N, student's classes) of images, rows sum to 1.

        `images` (N, 3, S, S) are the student's, 0..255, BGR, before normalising. They are the
        softmax of the logits of the student's classes / `temperature`, on the images' device.
        """
        logits = self._logits(_as_taken(images, self.metadata.preprocess)).to(images.device)
        self._places = self._places.to(images.device)
        return torch.softmax(logits[:, self._places] / temperature, dim=1)


def open_teacher(
    model: str, labels: Labels, *, library: Library, device: torch.device | str = "cpu"
) -> Teacher:
    """Return the teacher of a student with these `labels`: `MODEL[:engine][:precision]`.

    A checkpoint on another `device` than the CPU, or with the engine torch, is run there by torch;
    every other model on the CPU by its engine. Raises `TrainingError` where the model cannot
    teach, and what `open_predictor` does.
    """
    choice, device = _choice(model), torch.device(device)
    request = _checkpoint(choice, library, device)
    if request is None:
        predictor = open_predictor(choice, library=library)
        _require_crops(choice, predictor.metadata)
        places = matched_classes(predictor.metadata.labels, labels, teacher=str(choice))
        return Teacher(EngineLogits(predictor), predictor.metadata, places)
    network, metadata = read_network(request)
    places = matched_classes(metadata.labels, labels, teacher=str(choice))
    run = NetworkLogits(network, metadata.preprocess, precision=choice.precision, device=device)
    return Teacher(run, metadata, places)


def mean_targets(teachers: Sequence[Teacher], images: Tensor, *, temperature: float) -> Tensor:
    """Return the mean of what one or more `teachers` say, as `Teacher.soft_targets` has it."""
    said = [teacher.soft_targets(images, temperature=temperature) for teacher in teachers]
    return torch.stack(said).mean(dim=0)


def matched_classes(known: Labels, wanted: Labels, *, teacher: str) -> list[int]:
    """Return the teacher's class of each of the student's: by wnid, else by name.

    `known` are the teacher's classes, `wanted` the student's. Raises `TrainingError` that lists
    those that the teacher does not know, or cannot tell apart.
    """
    if known == wanted:
        return list(range(len(known)))
    wnids = {label.wnid.lower() for label in known}
    try:
        names = [_reference(label, wnids) for label in wanted]
        found = ClassNames(known).match_list(names, range(len(names)), what="student's classes")
    except DatasetError as exc:
        raise _misfit(teacher, str(exc)) from exc
    times = Counter(found)
    if twice := [name for name, place in zip(names, found, strict=True) if times[place] > 1]:
        raise _misfit(teacher, f"several of the student's classes are one of it: {listed(twice)}")
    return found


def _reference(label: Label, wnids: set[str]) -> str:
    """Return what a class is looked up by: its wnid where the teacher has wnids, else its name.

    Two classes of one name, such as ImageNet's cranes, are then not taken for each other.
    """
    by_wnid = label.wnid and (label.wnid.lower() in wnids or "" not in wnids)
    return f"{label.wnid} {first_name(label.name)}".strip() if by_wnid else label.name


def _misfit(teacher: str, reason: str) -> TrainingError:
    return TrainingError(
        f"the teacher {teacher} does not fit the student: {reason}; take a teacher that knows "
        "every class of the student, or train without one"
    )


class EngineLogits:
    """Runs a predictor on the cores, a part of the batch on each; parts are alike in every run."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._whole = predictor.metadata.preprocess.interpolation != "opencv-linear"
        self._workers = cores()
        self._pool = ThreadPoolExecutor(self._workers, "regnet-teacher")

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the logits on the CPU; pixels are rounded to 0..255 where the model takes that."""
        if self._whole:
            pixels = pixels.round().clamp(0, 255).to(torch.uint8)
        batch = pixels.cpu().permute(0, 2, 3, 1).contiguous().numpy()
        parts = self._pool.map(self._predictor.outputs, self._parts(batch))
        return torch.from_numpy(np.concatenate([part.logits for part in parts]))

    def _parts(self, batch: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        """Split evenly into parts of at most 8 images, as many on each core where they suffice."""
        rounds = -(-len(batch) // (BATCH_SIZE * self._workers))
        return np.array_split(batch, min(len(batch), rounds * self._workers))


class NetworkLogits:
    """Runs a network by torch where the student is, in f32 or bf16, BN folded."""

    def __init__(
        self,
        network: RegNet,
        preprocess: Preprocess,
        *,
        precision: InferencePrecision,
        device: torch.device,
    ) -> None:
        folded = fold_batch_norm(network).requires_grad_(False)
        self._network = folded.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._mean, self._scale = (
            torch.tensor(v, device=device).view(1, 3, 1, 1)
            for v in (preprocess.mean, preprocess.scale)
        )
        self._bf16, self._device = precision == "bf16", device

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the logits in float32, computed as chosen whatever the student computes in."""
        batch = (pixels.to(self._device) - self._mean) / self._scale
        batch = batch.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            logits: Tensor = self._network(batch)
        return logits.float()


def _as_taken(images: Tensor, preprocess: Preprocess) -> Tensor:
    """Return the student's images at the teacher's crop size, in its order of channels."""
    images = images.float()
    size = (preprocess.crop, preprocess.crop)
    if images.shape[2:] != size:
        images = F.interpolate(images, size, mode="bilinear", antialias=True)
    return images if preprocess.channels == "BGR" else images.flip(1)


def _choice(model: str) -> Choice:
    if is_address(model):
        raise TrainingError(
            f"the teacher {model} is a server, and a teacher runs here: name the file of its model"
        )
    choice = parse_choice(model)
    if choice.protocol is not None:
        raise TrainingError(
            f"the teacher {model} is given the student's crops: leave out {choice.protocol}"
        )
    return choice


def _checkpoint(choice: Choice, library: Library, device: torch.device) -> Request | None:
    """Return the checkpoint to run by torch, None where the model is for another engine."""
    if choice.runs_on == "torch":
        if choice.precision == "int8":
            raise UnknownModelError(f"{choice}: the engine torch runs f32 and bf16 only")
        return library.request(choice.model)
    if device.type == "cpu" or choice.engine is not None or choice.precision == "int8":
        return None
    try:
        return library.request(choice.model)
    except UnknownModelError:  # a converted model, or none: its engine says which
        return None


def _require_crops(choice: Choice, metadata: ModelMetadata) -> None:
    if metadata.preprocessing == "graph":
        raise TrainingError(
            f"the teacher {choice} makes its crop from whole photos, in its graph, but a teacher "
            "is given the student's crops: convert it without --preprocessing graph"
        )
