"""What makes INT8 less noisy: equal channels, roundings that cancel, corrected biases."""

from pathlib import Path

import numpy as np
import pytest
from test_conversion_export import SMALL, SMALL_Y, TINY, arrays, confident, described

from regnet.conversion.export import export_network
from regnet.ir.constants import channel_statistics, ops_by_name, outputs_of, values
from regnet.ir.graph import read_graph
from regnet.network.spec import Spec
from regnet.pixels.samples import sample_crops
from regnet.quantization.int8_graph import Int8Graph, int8_graph
from regnet.quantization.weights import equalize, links, rounded
from regnet.system.runtime import ov

CROPS = [np.roll(crop, shift, axis=1) for crop in sample_crops(TINY) for shift in range(0, 64, 8)]


def exported(spec: Spec, folder: Path) -> ov.Model:
    export_network(
        arrays(confident(spec)), described(spec), folder / "small.xml", sample_crops(TINY)
    )
    return read_graph(folder / "small.xml")


def probabilities(graph: ov.Model) -> np.ndarray:
    prob = ops_by_name(graph)["logits"].output(0)
    return np.concatenate([rows[0].copy() for rows in outputs_of(graph, [prob], CROPS)])


@pytest.fixture(scope="module", params=[SMALL, SMALL_Y], ids=["x", "y"])
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ov.Model:
    return exported(request.param, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def graphs(graph: ov.Model) -> Int8Graph:
    return int8_graph(graph, CROPS)


def test_equalizing_changes_ranges_but_not_the_network(graph: ov.Model) -> None:
    equal = graph.clone()
    equalize(equal, CROPS)
    assert np.array_equal(probabilities(equal), probabilities(graph))
    names = [name for link in links(ops_by_name(graph)) for name in link.between]
    before, after = (channel_statistics(g, names, CROPS, "max") for g in (graph, equal))
    seen = [ranges > 0.02 * ranges.max() for ranges in before]
    spreads = [
        np.mean([np.log(ranges[s]).std() for ranges, s in zip(found, seen, strict=True)])
        for found in (before, after)
    ]
    assert spreads[1] < 0.8 * spreads[0]


def test_every_layer_is_in_the_links(graph: ov.Model) -> None:
    ops = ops_by_name(graph)
    layers = {name.removesuffix(".conv") for name in ops if name.endswith(".conv.conv")}
    layers |= {name.removesuffix(".conv") for name in ops if name.endswith(".conv")}
    layers = {name for name in layers if name in ops and f"{name}.conv" in ops}
    found = list(links(ops))
    sources = [name for link in found for name in link.sources]
    takers = [name for link in found for name in link.takers]
    assert len(set(sources)) == len(sources)
    assert len(set(takers)) == len(takers)
    inner = {name for name in layers if ".se.f_ex" in name}
    assert set(sources) == layers - inner
    assert {name for name in takers if name != "head.fc"} == layers - {"stem.conv"} - {
        name for name in inner if name.endswith("f_ex.2")
    }


def test_int8_is_near_the_network(graph: ov.Model, graphs: Int8Graph) -> None:
    expected, found = probabilities(graph), probabilities(graphs.quantized)
    assert np.sqrt(np.mean((found - expected) ** 2) / np.var(expected)) < 0.05


def test_means_are_those_of_the_network(graphs: Int8Graph) -> None:
    layers = list(graphs.multiplications)
    means = [
        channel_statistics(graph, layers, CROPS[:100], "mean")
        for graph in (graphs.reference, graphs.quantized)
    ]
    for expected, found in zip(*means, strict=True):
        assert np.abs(expected - found).max() < 2e-3 * max(1.0, np.abs(expected).max())


def test_all_layers_restored_are_the_network(graph: ov.Model, graphs: Int8Graph) -> None:
    restored = graphs.restored(list(graphs.multiplications))
    expected = probabilities(graph)
    assert np.abs(probabilities(restored) - expected).max() < 0.02 * np.abs(expected).max()


def test_pixels_enter_exactly(graphs: Int8Graph) -> None:
    pixels = ops_by_name(graphs.quantized)["pixels"]
    low, high = (float(values(pixels.input_value(place)).item()) for place in (1, 2))
    assert (low, high, pixels.get_attributes()["levels"]) == (0, 255, 256)


def test_the_residual_sums_and_the_head_are_float(graphs: Int8Graph) -> None:
    ops = ops_by_name(graphs.quantized)
    for name, op in ops.items():
        if name.endswith(".sum") or name == "head.fc":
            kinds = {op.input_value(place).get_node().get_type_name() for place in (0, 1)}
            assert "FakeQuantize" not in kinds


def test_roundings_cancel_where_inputs_go_together() -> None:
    random = np.random.default_rng(0)
    inputs = random.normal(size=(500, 3)) @ random.normal(size=(3, 24))
    covariance = np.cov(inputs.T)
    weights = random.normal(size=(8, 24))
    steps = np.full(8, 0.1)
    nearest = np.round(weights / 0.1) * 0.1
    found = rounded(weights, steps, covariance) * 0.1

    def damage(levels: np.ndarray) -> float:
        return float(np.trace((levels - weights) @ covariance @ (levels - weights).T))

    assert damage(found) < 0.1 * damage(nearest)


@pytest.mark.parametrize(("inputs", "positions"), [(9, 500), (200, 500), (200, 20)])
def test_the_levels_are_those_of_the_published_algorithm(inputs: int, positions: int) -> None:
    """GPTQ shifts the weights still to come after each one, by the inverse of the covariance."""
    random = np.random.default_rng(inputs)
    seen = random.normal(size=(positions, inputs)) * random.lognormal(size=inputs)
    covariance, weights = seen.T @ seen / positions, random.normal(size=(16, inputs))
    steps = np.abs(weights).max(axis=1) / 100
    damped = covariance + 0.01 * np.trace(covariance) / inputs * np.eye(inputs)
    left, expected = weights.copy(), np.empty_like(weights)
    to_come = list(np.argsort(-np.diag(covariance), kind="stable"))
    while to_come:
        inverse = np.linalg.inv(damped[np.ix_(to_come, to_come)])
        place = to_come[0]
        expected[:, place] = np.clip(np.round(left[:, place] / steps), -127, 127)
        error = (left[:, place] - expected[:, place] * steps) / inverse[0, 0]
        left[:, to_come] -= np.outer(error, inverse[0])
        del to_come[0]
    assert np.array_equal(rounded(weights, steps, covariance), expected)


def test_inputs_that_vary_alone_are_rounded_to_the_nearest() -> None:
    random = np.random.default_rng(0)
    weights, variances = random.normal(size=(4, 16)), random.uniform(0.1, 2, 16)
    found = rounded(weights, np.full(4, 0.1), np.diag(variances))
    assert np.array_equal(found, np.round(weights / 0.1))


def test_inputs_that_never_vary_are_no_trouble() -> None:
    weights = np.random.default_rng(0).normal(size=(4, 16))
    found = rounded(weights, np.full(4, 0.01), np.zeros((16, 16)))
    assert np.abs(found).max() == 127
