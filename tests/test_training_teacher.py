"""Teachers: what a classifier of any engine says of the student's images, and the loss with it."""

import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_conversion_export import SMALL, TINY, confident

from regnet.checkpoints.weights import write_safetensors
from regnet.conversion.convert import convert
from regnet.conversion.store import Library
from regnet.conversion.values import Request
from regnet.data.class_names import normal
from regnet.ir.constants import ops_by_name, values
from regnet.ir.engine import Outputs
from regnet.ir.graph import graph_metadata, read_graph
from regnet.ir.metadata import ModelMetadata
from regnet.network.labels import Label, Labels, imagenet_labels
from regnet.network.modules import RegNet, fold_batch_norm
from regnet.pixels.protocol import Preprocess
from regnet.pixels.samples import sample_crops
from regnet.system.errors import TrainingError, UnknownModelError
from regnet.training.recipe import Loss
from regnet.training.teacher import (
    distillation_loss,
    engine_logits,
    matched_classes,
    mean_targets,
    open_teacher,
)

NAMED = tuple(Label(f"n0000000{i}", f"thing {i}, stuff {i}") for i in range(SMALL.classes))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(folder=tmp_path_factory.mktemp("cache"), offline=True)


@pytest.fixture(scope="module")
def bundled(library: Library) -> ModelMetadata:
    return graph_metadata(read_graph(library.ir("bundled")), source="bundled")


def images_of(preprocess: Preprocess) -> torch.Tensor:
    """Return the samples, (3, 3, crop, crop), whole numbers in BGR."""
    crops = np.stack(sample_crops(preprocess))
    return torch.from_numpy(crops).permute(0, 3, 1, 2).float()


def write_checkpoint(path: Path, *, preprocess: Preprocess = TINY, labels: Labels = NAMED) -> Path:
    state = confident(SMALL).state_dict()
    write_safetensors(path, state, spec=SMALL, preprocess=preprocess, labels=labels)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights") / "small.safetensors")


def network_in(path: Path, metadata: ModelMetadata) -> RegNet:
    """Return the torch network, BN folded, with the weights in an IR; it takes normalised BGR."""
    network = fold_batch_norm(RegNet(metadata.spec))
    ops = ops_by_name(read_graph(path))
    layers = {n: m for n, m in network.named_modules() if hasattr(m, "weight")}
    for name, layer in layers.items():
        op = ops.get(f"{name}.conv") or ops[name]
        source = op.input_value(1)
        if name == "stem.conv":  # its weights are divided by the pixels' scale
            source = source.get_node().input_value(0)
        weight = torch.from_numpy(values(source))  # of the head (width, classes)
        weight = weight.T if isinstance(layer, torch.nn.Linear) else weight
        layer.weight.data.copy_(weight.reshape(layer.weight.shape))
        layer.bias.data.copy_(torch.from_numpy(values(ops[f"{name}.bias"].output(0))).reshape(-1))
    return network


def test_bundled_teaches_as_its_own_network(bundled: ModelMetadata, library: Library) -> None:
    network = network_in(library.ir("bundled"), bundled)
    images = images_of(bundled.preprocess)
    mean, scale = (
        torch.tensor(v).view(1, 3, 1, 1)
        for v in (bundled.preprocess.mean, bundled.preprocess.scale)
    )
    with torch.no_grad():
        expected = torch.softmax(network((images - mean) / scale) / 2, dim=1)
    found = open_teacher("bundled", bundled.labels, library=library).soft_targets(
        images, temperature=2
    )
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 1e-5
    assert expected.max() > 0.1  # the tolerance is small beside what they say


@pytest.mark.parametrize("engine", ["ir", "onnx", "torch"])
@pytest.mark.parametrize("protocol", [TINY, replace(TINY, interpolation="opencv-linear")])
def test_all_engines_teach_alike(
    engine: str, protocol: Preprocess, tmp_path: Path, library: Library
) -> None:
    path = write_checkpoint(tmp_path / "small.safetensors", preprocess=protocol)
    images = images_of(TINY)
    if protocol.interpolation == "opencv-linear":  # such models take pixels unrounded
        images = images * 0.97 + 1.3
    logits = confident(SMALL)((images - torch.tensor(TINY.mean).view(1, 3, 1, 1))
                              / torch.tensor(TINY.scale).view(1, 3, 1, 1))  # fmt: skip
    teacher = open_teacher(f"{path}:{engine}", NAMED, library=library)
    found = teacher.soft_targets(images, temperature=20)
    assert (found - torch.softmax(logits / 20, dim=1)).abs().max() < 1e-5


def test_a_teacher_of_rgb_gets_rgb(tmp_path: Path, library: Library, checkpoint: Path) -> None:
    """The same file read as RGB is another network; given BGR images it has to turn them."""
    state = {**confident(SMALL).state_dict()}
    state["stem.conv.weight"] = state["stem.conv.weight"].flip(1)
    mean, scale = TINY.mean[::-1], TINY.scale[::-1]
    protocol = replace(TINY, channels="RGB", mean=mean, scale=scale)
    path = tmp_path / "rgb.safetensors"
    write_safetensors(path, state, spec=SMALL, preprocess=protocol, labels=NAMED)
    images = images_of(TINY)
    bgr = open_teacher(str(checkpoint), NAMED, library=library)
    expected = bgr.soft_targets(images, temperature=20)
    for engine in ("ir", "torch"):
        teacher = open_teacher(f"{path}:{engine}", NAMED, library=library)
        assert teacher.metadata.preprocess.channels == "RGB"
        assert (teacher.soft_targets(images, temperature=20) - expected).abs().max() < 1e-5


def test_other_sizes_are_resized_and_pixels_clipped(checkpoint: Path, library: Library) -> None:
    ir, network = (
        open_teacher(f"{checkpoint}:{engine}", NAMED, library=library) for engine in ("ir", "torch")
    )
    images = torch.rand(5, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 255
    smaller = torch.nn.functional.interpolate(images, (64, 64), mode="bilinear", antialias=True)
    expected = network.soft_targets(smaller, temperature=20)
    assert torch.equal(network.soft_targets(images, temperature=20), expected)
    rounded = network.soft_targets(smaller.round(), temperature=20)
    assert (ir.soft_targets(images, temperature=20) - rounded).abs().max() < 1e-5
    far = smaller.round() + 400 * (torch.arange(64) % 3 - 1)  # as lighting may take pixels
    clipped = network.soft_targets(far.clamp(0, 255), temperature=20)
    assert (ir.soft_targets(far, temperature=20) - clipped).abs().max() < 1e-5
    assert (network.soft_targets(far, temperature=20) - clipped).abs().max() > 1e-3


def test_any_number_of_images_in_their_order(checkpoint: Path, library: Library) -> None:
    teacher = open_teacher(str(checkpoint), NAMED, library=library)
    images = torch.rand(37, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    whole = teacher.soft_targets(images, temperature=20)
    assert torch.equal(whole, teacher.soft_targets(images, temperature=20))  # bit for bit
    for count in (1, 2, 17):
        part = teacher.soft_targets(images[:count], temperature=20)
        assert torch.allclose(part, whole[:count], atol=1e-5)
    assert torch.allclose(whole.sum(1), torch.ones(37))


class _Counting:
    """A predictor whose first logit is the image's first pixel; remembers its parts' sizes."""

    def __init__(self, metadata: ModelMetadata) -> None:
        self.metadata = metadata
        self.sizes: list[int] = []

    def outputs(self, pixels: np.ndarray) -> Outputs:
        self.sizes.append(len(pixels))
        rows = pixels[:, 0, 0].astype(np.float32)
        return Outputs(rows, rows)


def test_cores_share_a_batch_evenly(
    bundled: ModelMetadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regnet.training.teacher.cores", lambda: 3)
    predictor = _Counting(bundled)
    run = engine_logits(predictor)
    images = torch.arange(52.0).view(52, 1, 1, 1).expand(52, 3, 2, 2)
    assert run(images)[:, 0].tolist() == list(range(52))
    assert len(predictor.sizes) == 9  # three each
    assert {5, 6} == set(predictor.sizes)
    predictor.sizes.clear()
    assert len(run(images[:2])) == 2
    assert predictor.sizes == [1, 1]


def test_bf16_differs_a_little_also_inside_the_students_autocast(
    checkpoint: Path, library: Library
) -> None:
    images = images_of(TINY)
    f32, bf16 = (
        open_teacher(f"{checkpoint}:torch:{p}", NAMED, library=library) for p in ("f32", "bf16")
    )
    exact = f32.soft_targets(images, temperature=20)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(f32.soft_targets(images, temperature=20), exact)
        rough = bf16.soft_targets(images, temperature=20)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.05


def test_a_checkpoint_is_run_where_the_student_is(checkpoint: Path, library: Library) -> None:
    """Torch's device without storage stands for an accelerator."""
    teachers = {
        model: open_teacher(model, NAMED, library=library, device="meta")._logits
        for model in (str(checkpoint), f"{checkpoint}:bf16", f"{checkpoint}:ir")
    }
    by_torch = [t.__qualname__.startswith("network_logits") for t in teachers.values()]  # type: ignore[attr-defined]
    assert by_torch == [True, True, False]


def test_several_teachers_say_their_mean(
    checkpoint: Path, bundled: ModelMetadata, library: Library
) -> None:
    images, labels = images_of(bundled.preprocess), bundled.labels[: SMALL.classes]
    path = write_checkpoint(checkpoint.parent / "other.safetensors", labels=labels[::-1])
    pair = [open_teacher(model, labels, library=library) for model in ("bundled", str(path))]
    one, other = (teacher.soft_targets(images, temperature=3) for teacher in pair)
    found = mean_targets(pair, images, temperature=3)
    assert torch.allclose(found, (one + other) / 2, atol=1e-6)
    assert (one - other).abs().max() > 0.1
    assert torch.equal(mean_targets(pair[:1], images, temperature=3), one)


# Classes


def test_classes_are_put_in_the_students_order(bundled: ModelMetadata, library: Library) -> None:
    images = images_of(bundled.preprocess)
    own = open_teacher("bundled", bundled.labels, library=library)
    whole = own.soft_targets(images, temperature=1)
    places = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    permuted = tuple(bundled.labels[i] for i in places)
    teacher = open_teacher("bundled", permuted, library=library)
    found = teacher.soft_targets(images, temperature=1)
    assert torch.allclose(found, whole[:, places], atol=1e-6)

    fewer = permuted[:10]
    found = open_teacher("bundled", fewer, library=library).soft_targets(images, temperature=1)
    expected = whole[:, places[:10]]
    assert found.shape == (3, 10)
    assert torch.allclose(found, expected / expected.sum(1, keepdim=True), atol=1e-6)


def test_classes_are_matched_by_wnid_else_by_name() -> None:
    imagenet = imagenet_labels()
    by_folder = (Label("", imagenet[5].wnid), Label(imagenet[0].wnid.upper(), "my fish"))
    assert matched_classes(imagenet, by_folder, teacher="t") == [5, 0]
    by_name = (Label("", "Great_White_Shark"), Label("", "tench"))
    assert matched_classes(imagenet, by_name, teacher="t") == [2, 0]
    cranes = [i for i, label in enumerate(imagenet) if normal(label.name) == "crane"]
    assert len(cranes) == 2
    twice = tuple(imagenet[i] for i in reversed(cranes))
    assert matched_classes(imagenet, twice, teacher="t") == cranes[::-1]
    named = tuple(Label("", f"thing {i}") for i in range(7))
    wnids = tuple(Label(f"n0000000{i}", label.name) for i, label in enumerate(named))
    assert matched_classes(named, wnids[::-1], teacher="t") == [6, 5, 4, 3, 2, 1, 0]


def test_the_same_name_of_another_wnid_is_another_class() -> None:
    teacher = (Label("n02012849", "crane"), Label("n00000001", "tub"))
    with pytest.raises(TrainingError, match=r"does not know 1 of.*n03126707 crane;"):
        matched_classes(teacher, (Label("n03126707", "crane"), teacher[1]), teacher="t")


def test_numbered_classes_teach_only_the_same_ones() -> None:
    numbered = tuple(Label("", f"class {i}") for i in range(3))
    assert matched_classes(numbered, numbered, teacher="t") == [0, 1, 2]
    with pytest.raises(TrainingError, match=r"does not name its 3 classes.*--labels"):
        matched_classes(numbered, NAMED[:3], teacher="t")


def test_classes_that_do_not_fit_are_listed(library: Library) -> None:
    labels = (Label("", "cat"), Label("", "unicorn"), Label("", "yeti"), Label("", "espresso"))
    with pytest.raises(TrainingError) as error:
        open_teacher("bundled", labels, library=library)
    text = str(error.value)
    assert text.startswith("the teacher bundled:ir:f32 does not fit the student: ")
    assert "cat, unicorn, yeti;" in text
    assert text.endswith("or train without one")
    with pytest.raises(TrainingError, match=r"name several classes.*crane"):
        matched_classes(imagenet_labels(), (Label("", "crane"), Label("", "tench")), teacher="t")
    same = (Label("", "tench"), Label("", "Tinca tinca"))
    with pytest.raises(TrainingError, match="are one of it: tench, Tinca tinca; take a teacher"):
        matched_classes(imagenet_labels(), same, teacher="t")


def test_models_that_cannot_teach(checkpoint: Path, library: Library, tmp_path: Path) -> None:
    request = Request(weights=checkpoint, preprocessing="graph")
    graph = convert(request, tmp_path).path
    for model, error, match in (
        (str(graph), TrainingError, "whole photos.*without --preprocessing graph"),
        ("http://127.0.0.1:1/v2/models/m", TrainingError, "is a server"),
        (f"{checkpoint}:pycls", TrainingError, "leave out pycls"),
        (f"{checkpoint}:torch:int8", UnknownModelError, "runs f32 and bf16 only"),
        ("bundled:torch", UnknownModelError, "name a checkpoint"),
        ("nothing", UnknownModelError, "nothing"),
    ):
        with pytest.raises(error, match=match):
            open_teacher(model, NAMED, library=library)


# The loss

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.5, 0.0]])
SOFT = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.6, 0.4]])


def by_hand(smoothing: float, weight: float, temperature: float) -> float:
    """Return the loss of `LOGITS` with classes 0 and 2 true, written out in float64."""
    total = 0.0
    for row, soft, truth in zip(LOGITS.tolist(), SOFT.tolist(), (0, 2), strict=True):
        shares = [smoothing / 3 + (1 - smoothing) * (i == truth) for i in range(3)]
        log_p = np.array(row) - np.log(np.sum(np.exp(row)))
        warm = np.array(row) / temperature
        log_q = warm - np.log(np.sum(np.exp(warm)))
        truth_part = -sum(s * p for s, p in zip(shares, log_p, strict=True))
        terms = (s * (np.log(s) - q) for s, q in zip(soft, log_q, strict=True) if s > 0)
        total += (1 - weight) * truth_part + weight * temperature**2 * sum(terms)
    return total / 2


def test_the_loss_is_the_one_written_out() -> None:
    targets = torch.tensor([0, 2])
    for smoothing, weight, temperature in ((0.0, 0.5, 1.0), (0.1, 0.3, 4.0), (0.0, 1.0, 2.0)):
        loss = Loss(label_smoothing=smoothing, teacher=weight, temperature=temperature)
        found = distillation_loss(LOGITS, targets, SOFT, loss=loss)
        assert found.item() == pytest.approx(by_hand(smoothing, weight, temperature), abs=1e-6)
    # two classes, logits 0 and 0: cross entropy ln 2; KL(0.75, 0.25 || halves) = 0.130812
    found = distillation_loss(
        torch.zeros(1, 2), torch.tensor([1]), torch.tensor([[0.75, 0.25]]),
        loss=Loss(teacher=0.25, temperature=2.0),
    )  # fmt: skip
    assert found.item() == pytest.approx(0.75 * 0.693147 + 0.25 * 4 * 0.130812, abs=1e-6)


def test_without_a_teacher_it_is_cross_entropy() -> None:
    targets, loss = torch.tensor([0, 2]), Loss(label_smoothing=0.1, teacher=0.9)
    found = distillation_loss(LOGITS, targets, None, loss=loss)
    assert found.item() == pytest.approx(by_hand(0.1, 0.0, 1.0), abs=1e-6)
    shares = torch.nn.functional.one_hot(targets, 3).float()
    assert torch.equal(distillation_loss(LOGITS, shares, None, loss=loss), found)
    mixed = distillation_loss(LOGITS[:1], torch.tensor([[0.4, 0.6, 0.0]]), None, loss=Loss())
    log_p = torch.log_softmax(LOGITS[0], 0)
    assert mixed.item() == pytest.approx(-(0.4 * log_p[0] + 0.6 * log_p[1]).item(), abs=1e-6)


def test_class_weights_are_for_the_truth_and_parts_average_to_the_whole() -> None:
    targets, loss = torch.tensor([0, 2]), Loss(teacher=0.5)
    weights = torch.tensor([2.0, 1.0, 0.5])
    whole = distillation_loss(LOGITS, targets, SOFT, loss=loss, class_weights=weights)
    log_p = torch.log_softmax(LOGITS, 1)
    truth = -(2 * log_p[0, 0] + 0.5 * log_p[1, 2]) / 2
    teacher = distillation_loss(LOGITS, targets, SOFT, loss=Loss(teacher=1.0))
    assert whole.item() == pytest.approx((truth / 2 + teacher / 2).item(), abs=1e-6)
    parts = [
        distillation_loss(LOGITS[i : i + 1], targets[i : i + 1], SOFT[i : i + 1], loss=loss,
                          class_weights=weights).item()
        for i in range(2)
    ]  # fmt: skip
    assert np.mean(parts) == pytest.approx(whole.item(), abs=1e-6)


def test_the_loss_is_float32_in_autocast() -> None:
    targets, loss = torch.tensor([0, 2]), Loss(label_smoothing=0.1)
    rough = LOGITS.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = distillation_loss(rough, targets, SOFT, loss=loss)
    assert found.dtype == torch.float32
    assert torch.equal(found, distillation_loss(rough.float(), targets, SOFT, loss=loss))


def test_only_the_student_learns(checkpoint: Path, library: Library) -> None:
    images = images_of(TINY)
    for engine in ("ir", "torch"):
        teacher = open_teacher(f"{checkpoint}:{engine}", NAMED, library=library)
        student = RegNet(SMALL)
        soft = teacher.soft_targets(images.clone().requires_grad_(), temperature=2)
        assert not soft.requires_grad
        loss = Loss(teacher=1.0, temperature=2.0)
        distillation_loss(student(images), torch.zeros(3, dtype=int), soft, loss=loss).backward()
        assert all(p.grad is not None for p in student.parameters())
        assert student.head.fc.weight.grad.abs().max() > 0
    network = inspect.getclosurevars(teacher._logits).nonlocals["folded"]
    assert not any(p.requires_grad for p in network.parameters())


def test_a_student_that_says_what_the_teacher_says_has_nothing_to_learn() -> None:
    logits = (LOGITS + 3).requires_grad_()
    soft = torch.softmax(LOGITS / 4, dim=1)
    loss = distillation_loss(
        logits, torch.tensor([0, 1]), soft, loss=Loss(teacher=1.0, temperature=4.0)
    )
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert logits.grad.abs().max() < 1e-6
