"""Distillation: teachers' soft targets for the student's crops, and the loss that uses them.

Source: Hinton et al. 2015 (arXiv 1503.02531); teacher and student see the very same crops, as in
Beyer et al. 2022 (arXiv 2106.05237).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from regnet.conversion.convert import read_network
from regnet.conversion.store import Library
from regnet.conversion.values import Request
from regnet.data.class_names import ClassNames, listed
from regnet.inference.predictors import Choice, Predictor, open_predictor, parse_choice
from regnet.inference.server_predictor import is_address
from regnet.ir.metadata import ModelMetadata
from regnet.network.labels import Label, Labels, first_name
from regnet.network.modules import RegNet, fold_batch_norm
from regnet.pixels.protocol import Preprocess
from regnet.system.errors import DatasetError, TrainingError, UnknownModelError
from regnet.system.parallel import BATCH_SIZE, cores
from regnet.training.recipe import Loss
from regnet.training.validation import Normalise

Logits = Callable[[Tensor], Tensor]
"""Pixels (N, 3, crop, crop), float32, 0..255, in the model's channels -> logits (N, classes)."""


def distillation_loss(
    logits: Tensor,
    targets: Tensor,
    soft: Tensor | None,
    *,
    loss: Loss,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Return the mean loss of a batch, a scalar in float32 whatever the logits are.

    `logits` are (N, classes); `targets` classes (N,), or their shares (N, classes) after mixing;
    `soft` the teacher's probabilities (N, classes) at `loss.temperature`, None without one.
    It is (1 - teacher) * cross entropy + teacher * T^2 * KL(teacher || student at T): the factor
    T^2 keeps the size of the gradient. `class_weights` (classes,) do not apply to the teacher; the
    sum is divided by N, not by the weights, so that parts of a batch average to the whole.
    """
    logits = logits.float()
    shares = targets if targets.ndim == 2 else F.one_hot(targets, logits.shape[1])
    truth = F.cross_entropy(
        logits, shares.float(), weight=class_weights, label_smoothing=loss.label_smoothing
    )
    if soft is None:
        return truth
    student = F.log_softmax(logits / loss.temperature, dim=1)
    divergence = loss.temperature**2 * F.kl_div(student, soft.float(), reduction="batchmean")
    return (1 - loss.teacher) * truth + loss.teacher * divergence


class Teacher:
    """A classifier that is not trained, with the student's classes among its own.

    `logits` runs it, `places` are the student's classes among its own, in the student's order.
    """

    def __init__(self, logits: Logits, metadata: ModelMetadata, places: Sequence[int]) -> None:
        self.metadata = metadata
        self._logits = logits
        self._places = torch.tensor(places)

    @torch.no_grad()
    def soft_targets(self, images: Tensor, *, temperature: float) -> Tensor:
        """Return the probabilities (N, student's classes) of images, on their device.

        `images` (N, 3, S, S) are the student's, 0..255, BGR, before normalising. They are resized
        to the teacher's crop. The result is the softmax of logits / `temperature`.
        """
        protocol, device = self.metadata.preprocess, images.device
        images = images.float()
        size = (protocol.crop, protocol.crop)
        if images.shape[2:] != size:
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        logits = self._logits(images if protocol.channels == "BGR" else images.flip(1)).to(device)
        self._places = self._places.to(device)
        return torch.softmax(logits[:, self._places] / temperature, dim=1)


def open_teacher(
    model: str, labels: Labels, *, library: Library, device: torch.device | str = "cpu"
) -> Teacher:
    """Return the teacher of a student with these `labels`: `MODEL[:engine][:precision]`.

    torch runs a checkpoint if the `device` is no CPU or the engine is torch; every other model
    runs on the CPU by its engine. Raises `TrainingError` if the model cannot teach, and what
    `open_predictor` does.
    """
    choice, device = _choice(model), torch.device(device)
    request = _checkpoint(choice, library, device)
    if request is None:
        predictor = open_predictor(choice, library=library)
        metadata, logits = predictor.metadata, engine_logits(predictor)
        if metadata.preprocessing == "graph":
            raise TrainingError(
                f"the teacher {choice} makes its crop from whole photos, in its graph, but a "
                "teacher gets the student's crops: convert it without --preprocessing graph"
            )
    else:
        network, metadata = read_network(request)
        bf16 = choice.precision == "bf16"
        logits = network_logits(network, metadata.preprocess, bf16=bf16, device=device)
    return Teacher(logits, metadata, matched_classes(metadata.labels, labels, teacher=str(choice)))


def mean_targets(teachers: Sequence[Teacher], images: Tensor, *, temperature: float) -> Tensor:
    """Return the mean of the teachers' soft targets."""
    soft = [teacher.soft_targets(images, temperature=temperature) for teacher in teachers]
    return torch.stack(soft).mean(dim=0)


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
        places = ClassNames(known).match_list(names, range(len(names)), what="student's classes")
        times = Counter(places)
        twice = [name for name, place in zip(names, places, strict=True) if times[place] > 1]
        if twice:
            raise DatasetError(f"several of the student's classes are one of it: {listed(twice)}")
    except DatasetError as exc:
        raise TrainingError(
            f"the teacher {teacher} does not fit the student: {exc}; take a teacher that knows "
            "every class of the student, or train without one"
        ) from exc
    return places


def _reference(label: Label, wnids: set[str]) -> str:
    """Return the key to look up a class by: its wnid if the teacher has wnids, else its name.

    So two classes of one name, such as ImageNet's cranes, are not confused.
    """
    by_wnid = label.wnid and (label.wnid.lower() in wnids or "" not in wnids)
    return f"{label.wnid} {first_name(label.name)}".strip() if by_wnid else label.name


def engine_logits(predictor: Predictor) -> Logits:
    """Return a function that runs a predictor on all cores, on the same parts of a batch each time.

    Parts have at most 8 images, as many on each core if there are enough. Pixels are rounded to
    0..255 if the model takes bytes; the logits are on the CPU.
    """
    takes_bytes = predictor.metadata.preprocess.interpolation != "opencv-linear"
    pool = ThreadPoolExecutor(cores(), "regnet-teacher")

    def logits(pixels: Tensor) -> Tensor:
        if takes_bytes:
            pixels = pixels.round().clamp(0, 255).to(torch.uint8)
        batch = pixels.cpu().permute(0, 2, 3, 1).contiguous().numpy()
        rounds = -(-len(batch) // (BATCH_SIZE * cores()))
        parts = np.array_split(batch, min(len(batch), rounds * cores()))
        outputs = pool.map(predictor.outputs, parts)
        return torch.from_numpy(np.concatenate([part.logits for part in outputs]))

    return logits


def network_logits(
    network: RegNet, preprocess: Preprocess, *, bf16: bool, device: torch.device
) -> Logits:
    """Return a function that runs a network by torch on the student's device, BN folded.

    It computes in its own precision, not in the student's; its logits are in float32.
    """
    folded = fold_batch_norm(network).requires_grad_(False)
    folded.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    normalise = Normalise(preprocess, device)

    def logits(pixels: Tensor) -> Tensor:
        batch = normalise(pixels.to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            computed: Tensor = folded(batch)
        return computed.float()

    return logits


def _choice(model: str) -> Choice:
    if is_address(model):
        raise TrainingError(
            f"the teacher {model} is a server, and a teacher runs here: name the file of its model"
        )
    choice = parse_choice(model)
    if choice.protocol is not None:
        raise TrainingError(
            f"the teacher {model} gets the student's crops: leave out {choice.protocol}"
        )
    return choice


def _checkpoint(choice: Choice, library: Library, device: torch.device) -> Request | None:
    """Return the checkpoint to run by torch, None if the model is for another engine."""
    if choice.runs_on == "torch":
        if choice.precision == "int8":
            raise UnknownModelError(f"{choice}: the engine torch runs f32 and bf16 only")
        return library.request(choice.model)
    if device.type == "cpu" or choice.engine is not None or choice.precision == "int8":
        return None
    try:
        return library.request(choice.model)
    except UnknownModelError:  # not a checkpoint: its engine reports what it is
        return None
