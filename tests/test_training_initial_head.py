"""The head of new classes in closed form: of the photos' features, as validation takes them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from photo_folders import COLOURS, write_photos
from test_training_train import RECIPE, SPEC

from regnet.data.labelled import LabelledItem
from regnet.network.modules import RegNet
from regnet.pixels.protocol import Preprocess
from regnet.training import initial_head
from regnet.training.initial_head import fit_head
from regnet.training.photo_sets import open_photo_sets
from regnet.training.photos import CentreCrops
from regnet.training.validation import Normalise

PROTOCOL = RECIPE.input.protocol("small")


@pytest.fixture
def network() -> RegNet:
    """Return a random network of the photos' classes."""
    torch.manual_seed(0)
    return RegNet(SPEC.with_classes(len(COLOURS)))


def photos_of(folder: Path, each: int) -> tuple[LabelledItem, ...]:
    write_photos(folder, each)
    return open_photo_sets(folder, None, None, seed=0).train


def fit(network: RegNet, photos: tuple[LabelledItem, ...]) -> initial_head.FittedHead | None:
    return fit_head(network, photos, PROTOCOL, seed=0, device=torch.device("cpu"))


def accuracy(network: RegNet, photos: tuple[LabelledItem, ...], protocol: Preprocess) -> float:
    (batch,) = CentreCrops(photos, protocol, batch=len(photos)).batches()
    normalise = Normalise(protocol, torch.device("cpu"))
    with torch.no_grad():
        logits = network.eval()(normalise(normalise.on_device(batch)[0]))
    return float((logits.argmax(1).numpy() == batch.truths).mean())


def test_the_head_is_right_before_any_training(network: RegNet, tmp_path: Path) -> None:
    photos = photos_of(tmp_path, 20)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fitted = fit(network, photos)
    assert fitted is not None
    assert (fitted.photos, network.training) == (len(photos), True)
    assert fitted.accuracy is not None
    assert fitted.accuracy > 0.8
    assert accuracy(network, photos, PROTOCOL) >= fitted.accuracy
    changed = {n for n, value in network.state_dict().items() if not torch.equal(value, before[n])}
    assert changed == {"head.fc.weight", "head.fc.bias"}
    assert str(fitted).startswith(
        f"the new head starts from the features of {len(photos)} photos, "
    )


def test_so_many_photos_of_each_class_at_most(
    network: RegNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = photos_of(tmp_path, 20)
    monkeypatch.setattr(initial_head, "MOST", 15)
    chosen = initial_head._drawn(photos, 5, 0)
    assert np.bincount([photo.truth for photo in chosen]).tolist() == [5, 5, 5]
    assert chosen == initial_head._drawn(photos, 5, 0) != initial_head._drawn(photos, 5, 1)
    fitted = fit(network, photos)
    assert fitted is not None
    assert fitted.photos == 15


def test_a_head_that_cannot_be_fitted_stays_as_it_is(
    network: RegNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = photos_of(tmp_path, 6)
    before = network.head.fc.weight.clone()
    for limit, number in (("MOST", 5), ("FEW", 5)):  # a single photo of each class; not few
        monkeypatch.setattr(initial_head, limit, number)
        assert fit(network, photos) is None
        monkeypatch.undo()
    for path in (tmp_path / "blue").iterdir():
        path.write_bytes(b"")
    assert fit(network, photos) is None
    assert torch.equal(network.head.fc.weight, before)
