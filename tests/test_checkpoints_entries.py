import argparse
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import regnet
from regnet.checkpoints.layouts import LAYOUTS, TIMM, Layout, from_pycls
from regnet.cli import build_app
from regnet.conversion.store import Library
from regnet.network.spec import AnyNetSpec, Stage
from regnet.pixels.samples import sample_photos
from regnet.system.errors import MismatchError, WeightsError
from regnet.system.notices import RegNetWarning
from regnet.zoo.catalogue import bundled_path, card_by_name

torch = pytest.importorskip("torch")

from torch_arrays import to_arrays  # noqa: E402

from regnet.checkpoints import entries  # noqa: E402
from regnet.checkpoints.entries import MAX_DEPTH, FoundNetwork  # noqa: E402
from regnet.checkpoints.plain_types import Record  # noqa: E402
from regnet.checkpoints.weights import read_checkpoint  # noqa: E402
from regnet.network.modules import RegNet  # noqa: E402

State = dict[str, Any]
SPEC = AnyNetSpec(stages=(Stage(1, 8, 4), Stage(2, 16, 8)), stem_width=8, classes=5)
OTHER = AnyNetSpec(stages=(Stage(1, 8, 4),), stem_width=8, classes=5)


def weights(spec: AnyNetSpec = SPEC, layout: Layout = TIMM, *, seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    state = RegNet(spec).state_dict()
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5, generator=generator)
    names = from_pycls(state, layout)
    return {names[key]: tensor for key, tensor in state.items()}


def under(prefix: str, state: State) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


def headless(state: State) -> State:
    return {key: tensor for key, tensor in state.items() if "head" not in key}


def find_network(content: Any, name: str | None = None) -> FoundNetwork:
    return entries.find_network(to_arrays(content), name)


def assert_found(network: FoundNetwork, state: State) -> None:
    assert network.tensors.keys() == state.keys()
    assert all(np.array_equal(network.tensors[key], tensor) for key, tensor in state.items())


NET = weights()
RESNET = {"layer1.0.conv1.weight": torch.zeros(8, 8, 3, 3), "fc.weight": torch.zeros(5, 8)}
OPTIMIZER = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (NET, "."),
        ({"model_state_dict": NET, "optimizer_state_dict": OPTIMIZER}, "model_state_dict"),
        ({"net": NET, "acc": 93.1}, "net"),
        ({"my": {"own": {"place": NET}}}, "my/own/place"),
        ([3, NET], "1"),
        ((NET, OPTIMIZER), "0"),
        ({"state_dict": under("model.", NET) | {"criterion.weight": torch.ones(5)}},
         "state_dict/model"),
        (under("net.", NET), "net"),
        (under("backbone.", NET), "backbone"),
        (under("student.encoder.", NET), "student.encoder"),
        (under("_orig_mod.module.", NET), "_orig_mod.module"),
        (under("module._orig_mod.", NET), "module"),
        ({key.replace("conv1.", "conv1._orig_mod."): tensor for key, tensor in NET.items()}, "."),
        (under("_fsdp_wrapped_module.", {key.replace(".b1.", ".b1._checkpoint_wrapped_module."): t
                                         for key, t in NET.items()}), "_fsdp_wrapped_module"),
        ({"model": under("module.", NET)}, "model/module"),
        (under("student.", NET) | under("teacher.", RESNET), "student"),
        ({"model": NET, "teacher": RESNET}, "model"),
        ({"model": NET, "backbone": headless(weights(seed=1))}, "model"),
        ({"model": NET, "copy": {key: tensor.clone() for key, tensor in NET.items()}}, "model"),
        ({"model_ema": OrderedDict(n_averaged=torch.tensor(3), **under("module.", NET))},
         "model_ema/module"),
        ({**NET, "lr": 0.1, "args": argparse.Namespace(a=1)}, "."),
    ],
)  # fmt: skip
def test_the_one_network_is_found(content: Any, name: str) -> None:
    network = find_network(content)
    assert network.entry.name == name
    assert_found(network, NET)
    assert_found(find_network(content, name), NET)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("prefix", ["", "model.", "a.b.c.", "s1.b1.", "stages.0."])
def test_every_layout_under_any_prefix(prefix: str, layout: Layout) -> None:
    state = weights(layout=layout)
    network = find_network(under(prefix, state))
    assert (network.entry.prefix, network.entry.layout, network.entry.spec) == (
        prefix,
        layout,
        SPEC,
    )
    assert_found(network, state)


@pytest.mark.parametrize("prefix", ["", "regnet.", "backbone.", "backbone.regnet."])
def test_transformers_with_and_without_its_first_part(prefix: str) -> None:
    transformers = next(layout for layout in LAYOUTS if layout.name == "transformers")
    state = headless(weights(layout=transformers))
    state = {k: t for k, t in state.items() if "classifier" not in k}
    bare = {key.removeprefix("regnet."): tensor for key, tensor in state.items()}
    network = find_network(under(prefix, bare))
    assert network.entry.prefix == prefix.removesuffix("regnet.")
    assert_found(network, state)


def test_what_lies_beside_is_listed() -> None:
    content = {
        "epoch": 3,
        "optimizer": OPTIMIZER,
        "state_dict": {
            **under("model.", NET),
            "criterion.weight": torch.ones(5),
            **under("teacher.", RESNET),
        },
    }
    assert find_network(content).beside == ("optimizer", "criterion.weight", "teacher (2 tensors)")
    assert find_network(NET).beside == ()


SECOND = weights(seed=1)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (under("model.", NET) | under("ema_model.", SECOND), ("model", "ema_model")),
        ({"net": NET, "best": SECOND}, ("net", "best")),
        ({"a": {"student": NET}, "b": [SECOND]}, ("a/student", "b/0")),
        ({"model": NET, "state_dict": SECOND}, ("model", "state_dict")),
        ({"model": NET, "model_ema": weights(OTHER)}, ("model", "model_ema")),
        ({"model_state": NET, "ema_state": weights(OTHER)}, ("model_state", "ema_state")),
        ({"state_dict": under("student.", NET) | under("teacher.", SECOND)},
         ("state_dict/student", "state_dict/teacher")),
        ({**NET, "averaged": SECOND}, (".", "averaged")),
    ],
)  # fmt: skip
def test_two_networks_are_an_error_that_names_both(content: Any, names: tuple[str, str]) -> None:
    with pytest.raises(MismatchError, match=r"2 networks: .*--entry") as caught:
        find_network(content)
    assert f"{names[0]}, {names[1]}." in str(caught.value)
    for name in names:
        assert find_network(content, name).entry.name == name
    assert_found(find_network(content, names[0]), NET)


def test_entries_are_chosen_by_a_part_of_their_name() -> None:
    content = {"state_dict": under("model.net.", NET) | under("ema_model.", SECOND)}
    for name in ("state_dict/model.net", "state_dict.model.net", "model.net", "model", "net"):
        assert_found(find_network(content, name), NET)
    with pytest.raises(MismatchError, match="2 networks"):
        find_network(content, "state_dict")
    with pytest.raises(MismatchError, match=r"called modele; there are: state_dict/model.net"):
        find_network(content, "modele")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"state_dict": NET, "state_dict_ema": SECOND}, "state_dict_ema"),
        ({"model": NET, "model_ema": under("module.", SECOND)}, "model_ema/module"),
        ({"model": {"state_dict": NET, "state_dict_ema": SECOND}}, "model/state_dict_ema"),
        ({"model_state": NET, "ema_state": SECOND}, "model_state"),
        ({"model_state": NET, "ema_state": SECOND, "test_err": 9, "ema_err": 8}, "ema_state"),
        ({"model_state": NET, "ema_state": SECOND, "test_err": float("nan"), "ema_err": 99},
         "ema_state"),
        ({"model_state": NET, "ema_state": SECOND, "test_err": 8, "ema_err": 8}, "model_state"),
        ({"model_state": NET, "ema_state": SECOND, "ema_err": torch.tensor(2.0)}, "ema_state"),
        ({"model_state": NET, "ema_state": {}}, "model_state"),
    ],
)  # fmt: skip
def test_versions_of_one_network(content: Any, name: str) -> None:
    assert find_network(content).entry.name == name
    for entry in [key for key in content if "model" in key or "state" in key]:
        if content[entry]:
            assert find_network(content, entry).entry.path[0] == entry


@pytest.mark.parametrize("error", ["x", torch.zeros(3), [1]])
def test_errors_that_are_no_numbers(error: Any) -> None:
    content = {"model_state": NET, "ema_state": SECOND, "test_err": error}
    with pytest.raises(WeightsError, match="test_err is not a number"):
        find_network(content)


deep: Any = NET
for _ in range(MAX_DEPTH + 1):
    deep = {"model": deep}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no named tensors .but dict"),
        (3, "no named tensors .but int"),
        ({"a": 1, "b": {"c": []}}, "no named tensors"),
        (deep, "no named tensors"),
        ([torch.zeros(2)], "not a RegNet's weights.*names here: 0"),
        ({"a": {"w": torch.zeros(2)}}, "not a RegNet's weights.*names here: w"),
    ],
)
def test_content_without_a_network(content: Any, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        find_network(content)


def test_shared_and_endless_containers() -> None:
    loop: dict[str, Any] = {"net": NET}
    loop["self"] = loop
    loop["same"] = NET
    assert find_network(loop).entry.name == "net"
    wide: Any = [torch.zeros(1)]
    for _ in range(MAX_DEPTH):
        wide = [wide] * 50
    with pytest.raises(MismatchError, match="not a RegNet"):
        find_network(wide)


@pytest.mark.parametrize(
    ("layout", "layer"),
    [
        ("torchvision", "fc.1"),
        ("torchvision", "fc.drop.linear"),
        ("timm", "head.fc.2"),
        ("timm", "head.2"),
        ("pycls", "head"),
        ("transformers", "classifier"),
        ("transformers", "classifier.3"),
    ],
)
def test_a_head_inside_a_sequential(layout: str, layer: str, tmp_path: Path) -> None:
    theirs = next(known for known in LAYOUTS if known.name == layout)
    state = weights(layout=theirs)
    usual = theirs.parts["head.fc"]
    moved = {key.replace(f"{usual}.", f"{layer}."): tensor for key, tensor in state.items()}
    assert moved.keys() != state.keys()
    torch.save(moved, tmp_path / "moved.pth")
    torch.save(state, tmp_path / "usual.pth")
    read, expected = (read_checkpoint(tmp_path / f"{n}.pth").state for n in ("moved", "usual"))
    assert all(np.array_equal(read[key], tensor) for key, tensor in expected.items())


def test_a_head_of_several_layers_is_named(tmp_path: Path) -> None:
    state = headless(weights())
    for n, shape in ((1, (16, 16)), (4, (5, 16))):
        state |= {f"head.{n}.weight": torch.zeros(shape), f"head.{n}.bias": torch.zeros(shape[0])}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(MismatchError, match=r"a\.pth: its classifier .*: head\.1, head\.4$"):
        read_checkpoint(tmp_path / "a.pth")


def test_a_backbone_with_a_head_beside_it(tmp_path: Path) -> None:
    state = under("0.model.", headless(weights()))
    state |= {"1.2.weight": torch.zeros(16), "1.4.weight": torch.zeros(5, 16)}
    torch.save({"model": state, "opt": OPTIMIZER}, tmp_path / "learner.pth")
    with pytest.raises(MismatchError, match=r"entry model/0\.model: .*no classifier.*1 \(2 tens"):
        read_checkpoint(tmp_path / "learner.pth")
    assert read_checkpoint(tmp_path / "learner.pth", new_head=3).classes == 3


def test_evonorm_variants_of_timm_are_refused_in_one_line() -> None:
    norm = "stages.0.0.conv1_1x1.bn"
    state = {f"{norm}.{part}": torch.ones(128) for part in ("weight", "bias", "v")}
    state["stages.0.0.conv1_1x1.conv.weight"] = torch.ones(128, 32, 1, 1)
    with pytest.raises(MismatchError, match=r"timm's regnetz with EvoNorm \(evos\)") as caught:
        find_network({"state_dict": state})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "network"),
    [
        ("layer1.0.conv1.weight", "a ResNet"),
        ("blocks.0.attn.qkv.weight", "a Vision Transformer"),
        ("features.1.0.block.0.0.weight", "an EfficientNet"),
        ("features.1.conv.0.0.weight", "a MobileNet"),
        ("stages.0.blocks.0.conv_dw.weight", "a ConvNeXt"),
        ("0.1.block1.block1-0.f.a.0.weight", "a torchvision RegNet taken apart, as by fastai"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module.", "model.backbone."])
def test_other_families_are_named(prefix: str, key: str, network: str) -> None:
    with pytest.raises(MismatchError, match=rf"those of {network} \({prefix}{key}\)"):
        find_network({"model": {prefix + key: torch.zeros(1), "x": torch.zeros(1)}})


def test_group_norm_is_named(tmp_path: Path) -> None:
    state = {k: t for k, t in NET.items() if "running" not in k and "num_batches" not in k}
    with pytest.raises(MismatchError, match=r"a variant with group norm.*stem.bn.weight"):
        find_network(state)


def test_names_without_end_do_not_take_for_ever() -> None:
    state = {"encoder.layer.0.attention." + "query." * 200_000: torch.zeros(1)}
    with pytest.raises(MismatchError, match="not a RegNet's weights") as caught:
        find_network(state)
    assert len(str(caught.value)) < 500


def test_counters_of_tools_are_no_weights(tmp_path: Path) -> None:
    counters = {"total_ops": torch.zeros(1), "s1.b1.conv1.total_params": torch.zeros(1)}
    torch.save({**NET, **counters}, tmp_path / "profiled.pth")
    assert read_checkpoint(tmp_path / "profiled.pth").beside == ()


def test_names_beside_the_weights_are_the_classes(tmp_path: Path) -> None:
    names = ["ash", "beech", "elm", "oak", "yew"]
    torch.save({"net": NET, "args": argparse.Namespace(class_names=names)}, tmp_path / "a.pth")
    labels = read_checkpoint(tmp_path / "a.pth").labels
    assert labels is not None
    assert [label.name for label in labels] == names
    assert read_checkpoint(tmp_path / "a.pth", new_head=5).labels is None


def test_weights_in_a_dictionary_of_a_class_of_its_own() -> None:
    held = Record("framework.StateDict")
    held.items = dict(NET)
    assert_found(find_network({"weights": held}), NET)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(build_app(), [str(argument) for argument in arguments])


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A file with two different networks."""
    path = tmp_path / "two.ckpt"
    torch.save({"state_dict": under("model.", NET) | under("ema_model.", weights(OTHER))}, path)
    return path


def test_info_chooses_by_entry(two: Path) -> None:
    blocks = {}
    for name in ("model", "state_dict/ema_model"):
        report = json.loads(run("info", two, "--json", "--entry", name).stdout)
        blocks[report["entry"]] = sum(stage["depth"] for stage in report["stages"])
    assert blocks == {"state_dict/model": 3, "state_dict/ema_model": 1}


PHOTOS = sample_photos()[0].parent
COMMANDS: dict[str, tuple[object, ...]] = {
    "classify": ("-m", "MODEL", sample_photos()[0]),
    "evaluate": ("MODEL", PHOTOS),
    "compare": ("bundled", "MODEL", PHOTOS),
    "quantize": ("MODEL", "--calibration", PHOTOS),
    "calibrate": ("MODEL", PHOTOS),
    "serve": ("MODEL",),
    "explain": ("-m", "MODEL", sample_photos()[0]),
    "benchmark": ("MODEL",),
    "convert": ("MODEL",),
    "info": ("MODEL",),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_an_entry(command: str, two: Path, tmp_path: Path) -> None:
    """The first error is about the choice: without a name, and with one that is not there."""
    words = [two if word == "MODEL" else word for word in COMMANDS[command]]
    cache = () if command == "info" else ("--cache-dir", tmp_path / "cache")
    for entry, message in (((), "2 networks"), (("--entry", "none"), "entry called none")):
        result = run(command, *words, *entry, *cache)
        assert isinstance(result.exception, MismatchError)
        assert message in str(result.exception)
        assert "state_dict/model, state_dict/ema_model" in str(result.exception)


@pytest.mark.parametrize(
    "words",
    [
        ("info", "bundled"),
        ("info", "MODEL.xml"),
        ("info", "regnetx-400mf"),
        ("classify", "-m", "MODEL.xml", sample_photos()[0]),
        ("evaluate", "bundled", PHOTOS),
        ("evaluate", "none.onnx", PHOTOS),
        ("convert", "bundled"),
        ("quantize", "bundled", "--calibration", PHOTOS),
    ],
)
def test_an_entry_of_what_is_no_checkpoint_is_said_to_be_unused(words: tuple[object, ...]) -> None:
    ir = bundled_path(card_by_name("bundled"))
    chosen = [ir if word == "MODEL.xml" else word for word in words]
    said = run(*chosen, "--entry", "ema").stderr
    assert said.count("is not a checkpoint with networks to choose from: --entry is not used") == 1


def test_python_warns_of_an_entry_that_is_not_used() -> None:
    with pytest.warns(RegNetWarning, match="bundled: is not a checkpoint"):
        regnet.load("bundled", entry="ema")


def test_python_chooses_by_entry(two: Path, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="2 networks"):
        regnet.load(two, cache_dir=tmp_path / "cache")
    with pytest.raises(MismatchError, match="entry called none"):
        regnet.load(two, cache_dir=tmp_path / "cache", entry="none")
    requests = [Library(folder=tmp_path, entry=entry).request(two) for entry in (None, "model")]
    assert [request.key_parts()["entry"] for request in requests] == [None, "model"]
