"""How the bundled model is trained: its recipe, its network, and the growing of the weights."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from regnet.network import RegNet
from regnet.spec import RegNetSpec

ROOT = Path(__file__).parent.parent
SHALLOW = RegNetSpec(d=4, w0=8, wa=8.0, wm=2.0, g=8, classes=5)
DEEP = RegNetSpec(d=8, w0=8, wa=4.0, wm=2.0, g=8, classes=5)


@pytest.fixture(scope="module")
def grow() -> ModuleType:
    spec = importlib.util.spec_from_file_location("grow", ROOT / "tools" / "grow.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_grown_network_computes_the_same(grow: ModuleType) -> None:
    torch.manual_seed(1)
    small, large = RegNet(SHALLOW).eval(), RegNet(DEEP).eval()
    for buffer in small.buffers():  # as after training: no block is the identity by chance
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    large.load_state_dict(grow.grown(small.state_dict(), DEEP))
    photos = torch.randn(2, 3, 64, 64)
    assert len(large.state_dict()) > len(small.state_dict())
    torch.testing.assert_close(large(photos), small(photos))


def test_a_network_grows_deeper_only(grow: ModuleType) -> None:
    with pytest.raises(ValueError, match="the deeper network has no"):
        grow.grown(RegNet(DEEP).state_dict(), SHALLOW)
    with pytest.raises(ValueError, match="has shape"):
        grow.grown(RegNet(SHALLOW).state_dict(), RegNetSpec(d=8, w0=16, wa=8.0, wm=2.0, g=8))
