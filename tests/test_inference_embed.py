"""Embeddings: torch's pooled features, the same in any batch and thread, heads of any kind."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_conversion_export import SMALL, SMALL_Y, confident, described
from test_conversion_export import convert as convert_small

from regnet.conversion.ir_weights import read_ir_weights
from regnet.data.sources import Item, iter_items
from regnet.inference.classify import Classifier
from regnet.ir.constants import values
from regnet.ir.features import last_layer
from regnet.ir.graph import graph_metadata, read_graph, write_ir
from regnet.network.modules import RegNet, fold_batch_norm, to_tensors
from regnet.network.spec import RegNetSpec
from regnet.pixels.preprocess import crop_pixels
from regnet.pixels.samples import sample_photos
from regnet.system.errors import ImageError, ModelError
from regnet.system.runtime import ov
from regnet.zoo.catalogue import bundled_path, card_by_name

BUNDLED = bundled_path(card_by_name("bundled"))
PHOTOS = list(sample_photos())

opset = ov.opset15


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(BUNDLED)


def pooled_features(network: RegNet, classifier: Classifier) -> NDArray[np.float32]:
    """Return what the last layer of a network in torch takes."""
    preprocess, pooled = classifier.metadata.preprocess, list[torch.Tensor]()
    network.head.fc.register_forward_pre_hook(lambda _, given: pooled.append(given[0]))
    crops = np.stack([crop_pixels(photo, preprocess) for photo in PHOTOS]).astype(np.float32)
    mean, scale = (np.float32(value) for value in (preprocess.mean, preprocess.scale))
    with torch.inference_mode():
        network(torch.from_numpy((crops - mean) / scale).permute(0, 3, 1, 2))
    return pooled[0].numpy()


@pytest.mark.parametrize("spec", [SMALL, SMALL_Y], ids=["x", "y"])
def test_embeddings_are_torchs_pooled_features(spec: RegNetSpec, tmp_path: Path) -> None:
    convert_small(spec, tmp_path / "small.xml")
    classifier = Classifier(tmp_path / "small.xml")
    rows = classifier.embed(PHOTOS)
    assert rows.shape == (len(PHOTOS), classifier.width)
    assert np.abs(rows - pooled_features(confident(spec), classifier)).max() <= 1e-5


def test_the_bundled_models_embeddings_are_torchs(classifier: Classifier) -> None:
    weights = read_ir_weights(BUNDLED)
    network = fold_batch_norm(RegNet(weights.metadata.spec))
    network.load_state_dict(to_tensors(weights.state))
    rows = classifier.embed(PHOTOS)
    assert np.abs(rows - pooled_features(network, classifier)).max() <= 1e-5


def test_the_last_layer_makes_the_models_logits_of_embeddings(classifier: Classifier) -> None:
    graph = read_graph(BUNDLED)
    product = last_layer(graph, source="bundled").op
    (user,) = product.output(0).get_target_inputs()
    bias = values(user.get_node().input_value(1))
    logits = classifier.embed(PHOTOS) @ values(product.input_value(1)) + bias
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = classifier.probabilities(PHOTOS)
    assert np.abs(powers / powers.sum(axis=1, keepdims=True) - expected).max() <= 1e-5


def test_every_batch_and_thread_gives_the_same_rows(classifier: Classifier) -> None:
    given = PHOTOS * 3
    expected = np.tile(np.concatenate([classifier.embed(photo) for photo in PHOTOS]), (3, 1))
    rows: dict[int, NDArray[np.float32]] = {}
    threads = [
        threading.Thread(target=lambda n=n: rows.update({n: classifier.embed(given[n % 5 :])}))
        for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(16):
        np.testing.assert_array_equal(rows[number], expected[number % 5 :])
    for size in (1, 3, 8):
        found = classifier.embed_items(iter_items(given), batch_size=size)
        np.testing.assert_array_equal([each.vector for each in found], expected)


def test_int8_and_models_that_crop_themselves_have_nearly_the_same(
    classifier: Classifier, tmp_path: Path
) -> None:
    from regnet.conversion.graph_preprocess import embed_preprocessing

    own = graph_metadata(read_graph(BUNDLED), source="")
    whole = embed_preprocessing(read_graph(BUNDLED), own.preprocess)
    write_ir(whole, replace(own, preprocessing="graph"), tmp_path / "whole.xml")
    expected = classifier.embed(PHOTOS)
    for path in (BUNDLED.with_name("bundled-int8.xml"), tmp_path / "whole.xml"):
        rows = Classifier(path).embed(PHOTOS)
        cosine = (rows * expected).sum(axis=1)
        cosine /= np.linalg.norm(rows, axis=1) * np.linalg.norm(expected, axis=1)
        assert cosine.min() > 0.995


def test_errors_of_images_and_frames_of_nothing(classifier: Classifier) -> None:
    assert classifier.embed([]).shape == (0, 384)
    with pytest.raises(ImageError, match="image 1: the file is empty"):
        classifier.embed([PHOTOS[0], b""])
    items = [Item("a", PHOTOS[0].read_bytes), Item("b", lambda: b"")]
    good, bad = classifier.embed_items(items)
    assert good.vector is not None
    assert (bad.source, bad.vector, bad.error) == ("b", None, "the file is empty")


def _images() -> ov.Node:
    return opset.parameter([-1, 3, 64, 64], np.float32, name="data")


def _random(*shape: int) -> ov.Node:
    return opset.constant(np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32))


def _linear(features: ov.Node) -> ov.Node:
    return opset.softmax(
        opset.add(opset.matmul(features, _random(3, 7), False, False), _random(7)), 1
    )


def _pooled(data: ov.Node) -> ov.Node:
    return opset.reduce_mean(data, [2, 3], False)


def _with_convolution(data: ov.Node) -> ov.Node:
    """A head that is a convolution of a single position, as in MobileNetV3."""
    pooled = opset.reduce_mean(data, [2, 3], keep_dims=True)
    logits = opset.convolution(pooled, _random(7, 3, 1, 1), [1, 1], [0, 0], [0, 0], [1, 1])
    return opset.softmax(opset.reshape(logits, [0, -1], special_zero=True), 1)


def _log_of_probabilities(data: ov.Node) -> ov.Node:
    """A softmax of log probabilities, whose images are reshaped by their own shape."""
    shape = opset.concat([opset.gather(opset.shape_of(data), [0], 0), np.array([3])], 0)
    flat = opset.reshape(_pooled(data), shape, special_zero=False)
    return opset.softmax(opset.log(opset.clamp(_linear(flat), 1e-30, 1)), 1)


def _all_convolutional(data: ov.Node) -> ov.Node:
    """As SqueezeNet: the mean comes after the last layer, so that nothing is pooled before it."""
    logits = opset.convolution(data, _random(7, 3, 1, 1), [1, 1], [0, 0], [0, 0], [1, 1])
    return opset.softmax(_pooled(logits), 1)


def _two_heads(data: ov.Node) -> ov.Node:
    return opset.multiply(
        opset.add(_linear(_pooled(data)), _linear(_pooled(data))), np.float32(0.5)
    )


def _written(network: Callable[[ov.Node], ov.Node], path: Path) -> Path:
    data = _images()
    write_ir(ov.Model([network(data)], [data], "small"), described(SMALL), path)
    return path


@pytest.mark.parametrize(
    "network", [lambda data: _linear(_pooled(data)), _with_convolution, _log_of_probabilities]
)
def test_the_last_layer_of_other_makers_is_found(
    network: Callable[[ov.Node], ov.Node], tmp_path: Path
) -> None:
    classifier = Classifier(_written(network, tmp_path / "other.xml"))
    crop = crop_pixels(PHOTOS[0], classifier.metadata.preprocess)
    assert classifier.width == 3
    assert classifier.embed(PHOTOS)[0] == pytest.approx(crop.mean(axis=(0, 1)), rel=1e-5)


@pytest.mark.parametrize("network", [_all_convolutional, _two_heads])
def test_models_without_such_a_layer_are_refused_in_one_sentence(
    network: Callable[[ov.Node], ov.Node], tmp_path: Path
) -> None:
    classifier = Classifier(_written(network, tmp_path / "other.xml"))
    classifier.classify(PHOTOS[0])
    with pytest.raises(ModelError, match=r"other\.xml: has no pooled features"):
        classifier.embed(PHOTOS[0])
