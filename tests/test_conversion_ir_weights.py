"""Weights out of an IR, and batch normalisation put back: the same network as went in."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_conversion_export import SMALL, SMALL_Y, TINY, arrays, confident, described

from regnet.conversion.export import export_network
from regnet.conversion.export import fold_batch_norm as export_folded
from regnet.conversion.ir_weights import read_ir_weights
from regnet.conversion.store import Library
from regnet.ir.graph import read_graph, set_graph_metadata
from regnet.network.modules import fold_batch_norm
from regnet.network.spec import Spec
from regnet.pixels.protocol import Preprocess
from regnet.pixels.samples import sample_crops
from regnet.system.errors import ModelError, TrainingError, WeightsError
from regnet.system.runtime import core, ov
from regnet.training.batch_norm import unfold_batch_norm


def exported(
    path: Path, spec: Spec, protocol: Preprocess = TINY, precision: str = "fp32"
) -> dict[str, NDArray[np.float32]]:
    """Convert a network; return its weights with batch norm folded."""
    weights = arrays(confident(spec))
    metadata = described(spec, protocol, precision)
    export_network(weights, metadata, path, sample_crops(protocol))
    return export_folded(spec, weights)


def images(count: int = 24, side: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("spec", [SMALL, SMALL_Y])
def test_weights_come_back_bit_by_bit(spec: Spec, tmp_path: Path) -> None:
    folded = exported(tmp_path / "m.xml", spec)
    found = read_ir_weights(tmp_path / "m.xml").state
    assert found.keys() == folded.keys()
    assert all(np.array_equal(found[name], folded[name]) for name in folded)


def test_fp16_weights_come_back_as_they_were_rounded(tmp_path: Path) -> None:
    folded = exported(tmp_path / "m.xml", SMALL, precision="fp16")
    found = read_ir_weights(tmp_path / "m.xml").state
    for name, values in folded.items():
        expected = values.astype(np.float16) if name.endswith("weight") else values
        assert found[name].dtype == np.float32
        assert np.array_equal(found[name], expected)


def test_a_stem_for_rgb_comes_back_in_bgr(tmp_path: Path) -> None:
    folded = exported(tmp_path / "m.xml", SMALL, replace(TINY, channels="RGB"))
    found = read_ir_weights(tmp_path / "m.xml").state
    assert np.array_equal(found["stem.conv.weight"], folded["stem.conv.weight"][:, ::-1])


def test_int8_and_other_graphs_are_refused(tmp_path: Path) -> None:
    exported(tmp_path / "m.xml", SMALL)
    graph = read_graph(tmp_path / "m.xml")
    set_graph_metadata(graph, described(SMALL, precision="int8"))
    ov.save_model(graph, tmp_path / "int8.xml")
    with pytest.raises(WeightsError, match="INT8, from which nothing learns well: name the model"):
        read_ir_weights(tmp_path / "int8.xml")
    set_graph_metadata(graph, described(SMALL_Y))  # says of itself what it is not
    ov.save_model(graph, tmp_path / "other.xml")
    with pytest.raises(WeightsError, match="has not the layers that `regnet convert` writes"):
        read_ir_weights(tmp_path / "other.xml")
    with pytest.raises(ModelError, match="no such file"):
        read_ir_weights(tmp_path / "absent.xml")


@pytest.mark.parametrize("spec", [SMALL, SMALL_Y])
def test_unfolded_networks_compute_the_same_in_both_modes(spec: Spec) -> None:
    network = confident(spec)
    folded = fold_batch_norm(network)
    batches = list(images(96).split(32))
    unfolded = unfold_batch_norm(spec, folded.state_dict(), batches)
    assert not unfolded.training
    unseen = images(8, side=48)
    with torch.no_grad():
        expected = network(unseen)
        assert expected.abs().max() > 1
        assert torch.allclose(unfolded(unseen), expected, atol=1e-4)
        whole = torch.cat(batches)
        training = unfolded.train()(whole)  # its statistics are those of these very images
        assert torch.allclose(training, folded(whole), atol=1e-3)


def test_batch_normalisation_works_again() -> None:
    """Statistics are those of the images, and scale and offset can learn."""
    folded = fold_batch_norm(confident(SMALL))
    batches = list(images(64).split(16))
    unfolded = unfold_batch_norm(SMALL, folded.state_dict(), batches)
    with torch.no_grad():
        outputs = folded.stem.conv(torch.cat(batches)) - folded.stem.conv.bias[:, None, None]
    norm = unfolded.stem.bn
    assert torch.allclose(norm.running_mean, outputs.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(norm.running_var, outputs.var((0, 2, 3), correction=0), rtol=1e-4)
    assert (norm.weight > 0.01).all()
    assert norm.weight.requires_grad
    with pytest.raises(TrainingError, match="no readable photo to take batch-norm statistics from"):
        unfold_batch_norm(SMALL, folded.state_dict(), [])


def test_a_channel_that_is_always_the_same_stays_so() -> None:
    folded = fold_batch_norm(confident(SMALL))
    with torch.no_grad():
        folded.stem.conv.weight[0] = 0
    unfolded = unfold_batch_norm(SMALL, folded.state_dict(), [images()])
    with torch.no_grad():
        assert torch.allclose(unfolded(images(4)), folded(images(4)), atol=1e-4)
        assert torch.isfinite(unfolded.train()(images(4))).all()


def test_the_bundled_model_gives_its_own_answers(tmp_path: Path) -> None:
    """As its IR does, whose engine is another."""
    path = Library(folder=tmp_path).ir("bundled")
    found = read_ir_weights(path)
    protocol = found.metadata.preprocess
    pixels = np.stack(sample_crops(protocol)).transpose(0, 3, 1, 2).astype(np.float32)
    mean, scale = (torch.tensor(v).view(1, 3, 1, 1) for v in (protocol.mean, protocol.scale))
    crops = (torch.from_numpy(pixels) - mean) / scale
    network = unfold_batch_norm(
        found.metadata.spec,
        {name: torch.from_numpy(array) for name, array in found.state.items()},
        [crops],
    )
    compiled = core.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    with torch.no_grad():
        probabilities = torch.softmax(network(crops), 1).numpy()
    assert np.abs(probabilities - compiled(pixels)["prob"]).max() < 1e-5
