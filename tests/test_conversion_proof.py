"""The proof of a conversion: what float32 may do to a network is allowed, a wrong graph is not."""

import json
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import planted_faults as faults
import pytest
import torch
from test_conversion_export import SMALL, SMALL_Y, TINY, arrays, confident, described, reference

from regnet.conversion.export import export_network
from regnet.conversion.proof import Reference, Rows, forward
from regnet.conversion.values import Conversion, Distance, Proof, read_conversion, write_conversion
from regnet.network.modules import RegNet
from regnet.network.spec import Spec
from regnet.pixels.preprocess import rgb_pixels
from regnet.pixels.protocol import Preprocess
from regnet.pixels.samples import sample_crops, sample_photos
from regnet.system.errors import ConversionError

FAULTS = {
    "swapped channels": lambda: faults.swapped_channels("s2.b1.f.a"),
    "swapped stem": lambda: faults.swapped_channels("stem.conv"),
    "dropped bias": lambda: faults.dropped_bias("s2.b1.f.c"),
    "one dropped bias": lambda: faults.dropped_bias("s1.b1.f.b", slice(3, 4)),
    "dropped bias of the head": lambda: faults.dropped_bias("head.fc"),
    "wrong stride": lambda: faults.moved_stride("s2.b1"),
    "wrong padding": lambda: faults.shifted_padding("s1.b1.f.b"),
    "epsilon": faults.large_epsilon,
}
NETWORKS = {
    "confident": confident,
    "untrained": lambda spec: faults.untrained(spec, TINY, sample_photos(), seed=3),
    "saturated": faults.saturated,
}


def convert(
    network: RegNet,
    folder: Path,
    planted: AbstractContextManager[None] | None = None,
    *,
    ending: str = "xml",
    precision: str = "fp32",
    preprocess: Preprocess = TINY,
    whole: bool = False,
) -> Conversion:
    metadata = described(network.spec, preprocess, precision)
    images = sample_crops(preprocess)
    if whole:
        metadata = replace(metadata, preprocessing="graph")
        images = [rgb_pixels(path) for path in sample_photos()]
    with planted or nullcontext():
        return export_network(arrays(network), metadata, folder / f"m.{ending}", images)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("spec", [SMALL, SMALL_Y], ids=["x", "y"])
def test_right_graphs_are_written_and_wrong_ones_are_not(
    kind: str, spec: Spec, tmp_path: Path
) -> None:
    network = NETWORKS[kind](spec)
    network.head.fc.bias.data.normal_(0, 0.01)  # it begins at zero: none to drop
    for planted in FAULTS.values():
        with pytest.raises(ConversionError, match="disagrees with the network"):
            convert(network, tmp_path, planted())
    assert list(tmp_path.iterdir()) == []
    proof = convert(network, tmp_path).proof
    assert proof.delta.probabilities <= proof.allowed.probabilities
    assert proof.delta.logits <= proof.allowed.logits


@pytest.mark.parametrize(
    "form",
    [
        {"ending": "onnx"},
        {"ending": "onnx", "precision": "fp16"},
        {"precision": "fp16"},
        {"whole": True},
    ],
    ids=["onnx", "onnx-fp16", "ir-fp16", "whole"],
)
def test_every_form_is_proved(form: dict[str, str], tmp_path: Path) -> None:
    network = faults.saturated(SMALL_Y)
    for planted in FAULTS.values():
        with pytest.raises(ConversionError, match="disagrees with the network"):
            convert(network, tmp_path, planted(), **form)
    assert list(tmp_path.iterdir()) == []
    assert convert(network, tmp_path, **form).proof.delta.logits < 1e-5


def test_a_saturated_softmax_hides_nothing(tmp_path: Path) -> None:
    """Each row has one class at 1: the probabilities alone agree with any logits."""
    network = confident(SMALL)
    network.head.fc.weight.data *= 1e5
    rows = forward(reference(network), TINY, _pixels())
    assert rows.probabilities.max(axis=1) == pytest.approx(1)
    judge = Reference(reference(network), TINY, _pixels())
    wrong = Rows(rows.logits * np.float32(1.01), rows.probabilities)
    assert judge.distance(wrong).probabilities < 1e-5
    with pytest.raises(ConversionError, match=r"logits differ by 0\.0"):
        judge.proof(wrong)


def test_a_fault_that_no_photo_shows_is_refused(tmp_path: Path) -> None:
    """Channels that are negative everywhere are zero after the ReLU, whatever they are."""
    network = confident(SMALL)
    block = network.get_submodule("s2.b1.f")
    block.a_bn.bias.data[:2] = -1e4
    block.a_bn.bias.data[1] -= 1
    with pytest.raises(ConversionError, match=r"disagrees.*: the weights of s2\.b1\.f\.a"):
        convert(network, tmp_path, faults.swapped_channels("s2.b1.f.a"))
    assert convert(network, tmp_path).max_delta < 1e-5


def test_a_fault_below_the_rounding_of_later_layers_is_refused(tmp_path: Path) -> None:
    network = faults.saturated(SMALL)
    network.head.fc.weight.data *= 1e6
    with pytest.raises(ConversionError, match=r"the bias of head\.fc"):
        convert(network, tmp_path, faults.dropped_bias("head.fc"))


def test_what_float32_does_to_a_network_is_allowed(tmp_path: Path) -> None:
    """Logits of 10,000 that differ by 0.1: rounding them moves probabilities by over 1e-5."""
    network = confident(SMALL)
    weight = network.head.fc.weight.data
    weight[:] = 1e4 * (1 + 1e-5 * weight)
    proof = convert(network, tmp_path).proof
    assert 1e-5 < proof.delta.probabilities <= proof.allowed.probabilities
    assert proof.allowed.probabilities == 4 * max(proof.float32.probabilities, proof.reach)
    with pytest.raises(ConversionError, match="disagrees with the network"):
        convert(network, tmp_path, faults.large_epsilon())


def test_rounding_that_torch_has_alike_in_all_logits_may_differ_in_another_engine() -> None:
    """Found on one-stage networks of positive weights: large logits with little between them."""
    network = confident(SMALL)
    network.head.fc.weight.data = 1e4 * (1 + 1e-5 * network.head.fc.weight.data)
    judge = Reference(reference(network), TINY, _pixels())
    logits, probabilities = judge.rows.logits, judge.rows.probabilities
    image, label = np.unravel_index(np.abs(probabilities - 0.5).argmin(), probabilities.shape)
    error = np.full_like(logits, -judge.float32.logits * np.ptp(logits))
    error[image, label] *= -1  # of float32's size, in the direction that matters most

    def rows(times: float) -> Rows:
        moved = torch.from_numpy(logits + times * error)
        return Rows(moved.numpy(), torch.softmax(moved, 1).numpy())

    assert judge.proof(rows(3)).delta.probabilities > 4 * judge.float32.probabilities
    with pytest.raises(ConversionError, match="probabilities differ by"):
        judge.proof(rows(8))


def test_the_reference_is_the_network_in_float64_with_its_batch_norm() -> None:
    network = confident(SMALL_Y)
    pixels = torch.from_numpy(_pixels()).double()
    mean, scale = (
        torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (TINY.mean, TINY.scale)
    )
    judge = Reference(reference(network), TINY, _pixels())
    with torch.no_grad():
        expected = network.double()((pixels - mean) / scale)
    assert judge.rows.logits.dtype == np.float64
    assert np.abs(judge.rows.logits - expected.numpy()).max() < 1e-12
    assert 0 < judge.float32.logits < 1e-5


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_numbers_are_a_sentence(bad: float, tmp_path: Path) -> None:
    network = confident(SMALL)
    network.get_submodule("s2.b1.f.b").weight.data[0] = bad
    with pytest.raises(ConversionError, match=r"outputs are not numbers.*nothing was written"):
        convert(network, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_float32_cannot_hold_are_a_sentence(tmp_path: Path) -> None:
    network = confident(SMALL)
    network.head.fc.weight.data *= 1e38
    with pytest.raises(ConversionError, match="beyond float32"):
        convert(network, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_logits_that_are_all_the_same_are_no_division_by_zero(tmp_path: Path) -> None:
    network = confident(SMALL)
    for parameter in network.head.fc.parameters():
        parameter.data.zero_()
    proof = convert(network, tmp_path).proof
    assert proof.delta == Distance(pytest.approx(0, abs=1e-7), 0.0)


def test_one_class(tmp_path: Path) -> None:
    assert convert(confident(replace(SMALL, classes=1)), tmp_path).max_delta == 0


def test_the_figures_are_recorded_with_the_conversion(tmp_path: Path) -> None:
    conversion = convert(confident(SMALL), tmp_path)
    write_conversion(tmp_path, conversion)
    assert read_conversion(tmp_path) == conversion
    record = json.loads((tmp_path / "conversion.json").read_text("utf-8"))
    assert record["proof"]["delta"]["probabilities"] == conversion.max_delta


def test_allowed_is_a_multiple_of_float32_or_1e_5() -> None:
    proof = Proof(Distance(0.0, 0.0), Distance(2e-5, 1e-6), 1e-5)
    assert proof.allowed == Distance(8e-5, pytest.approx(1.6e-5))
    assert Proof(proof.delta, Distance(1e-6, 1e-8), 1e-6).allowed == Distance(1e-5, 1e-5)
    assert Proof(proof.delta, proof.float32, 3e-5).allowed.probabilities == 12e-5
    assert proof.to_dict()["allowed"] == 8e-5


def _pixels() -> np.ndarray:
    return np.stack(sample_crops(TINY)).transpose(0, 3, 1, 2).astype(np.float32)
