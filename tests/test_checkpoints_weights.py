import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regnet.checkpoints.layouts import LAYOUTS, Layout, from_pycls
from regnet.network.labels import Label
from regnet.network.spec import SPEC_NAMES, AnyNetSpec, Spec, Stage, spec_by_name
from regnet.pixels.protocol import OMZ
from regnet.system.errors import MismatchError, OutputError, RegNetError, UnsafeError, WeightsError

torch = pytest.importorskip("torch")
from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch_arrays import to_arrays  # noqa: E402

from regnet.checkpoints.weights import (  # noqa: E402
    Checkpoint,
    check_state,
    load_into,
    read_checkpoint,
    write_safetensors,
)
from regnet.network.modules import RegNet  # noqa: E402

State = dict[str, Any]
SMALL = AnyNetSpec(stages=(Stage(1, 8, 4), Stage(2, 16, 8)), stem_width=8, classes=5)
SMALL_Y = AnyNetSpec(stages=SMALL.stages, stem_width=8, classes=5, se_ratio=0.25)


def random_state(spec: Spec, *, seed: int = 0) -> State:
    """Weights of a network that has seen some training: BN statistics away from 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    state = RegNet(spec).state_dict()
    for key, tensor in state.items():
        if key.endswith("num_batches_tracked"):
            tensor.fill_(100)
        elif tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5, generator=generator)
        else:
            tensor.normal_(std=tensor[0].numel() ** -0.5, generator=generator)
    return dict(state)


def in_layout(state: State, layout: Layout, wrapper: str = "") -> State:
    names = from_pycls(state, layout)
    theirs = {wrapper + names[key]: tensor for key, tensor in state.items()}
    if layout.channels == "RGB":
        stem = wrapper + names["stem.conv.weight"]
        theirs[stem] = theirs[stem][:, [2, 1, 0]].contiguous()
    return theirs


def assert_same(state: State, expected: State) -> None:
    assert list(state) == list(expected)
    for key, tensor in expected.items():
        assert str(state[key].dtype) in str(tensor.dtype)
        assert np.array_equal(state[key], tensor), key


def save_zip(content: Any, path: Path) -> None:
    torch.save(content, path)


def save_legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("save_as", [save_zip, save_legacy, save_file])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("name", ["regnetx-200mf", "regnety-200mf"])
def test_published_networks_through_every_layout_and_format(
    name: str, layout: Layout, save_as: Callable[[Any, Path], None], tmp_path: Path
) -> None:
    spec = spec_by_name(name, classes=11)
    state = random_state(spec)
    path = tmp_path / "weights.bin"
    save_as(in_layout(state, layout), path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.spec == spec
    assert checkpoint.name == name
    assert (checkpoint.layout, checkpoint.channels) == (layout.name, layout.channels)
    assert (checkpoint.classes, checkpoint.labels, checkpoint.preprocess) == (11, None, None)
    assert checkpoint.source == path
    assert sorted(checkpoint.state) == sorted(state)
    assert_same({key: checkpoint.state[key] for key in state}, state)


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    group_width = draw(st.sampled_from([1, 2, 4]))
    bottleneck = draw(st.sampled_from([1, 2]))
    width = group_width * bottleneck * draw(st.integers(1, 4))
    return Stage(draw(st.integers(1, 3)), width, group_width, bottleneck)


small_specs = st.builds(
    AnyNetSpec,
    stages=st.lists(stages(), min_size=1, max_size=4).map(tuple),
    stem_width=st.integers(1, 16),
    se_ratio=st.none() | st.sampled_from([0.25, 0.5]) | st.floats(0.05, 1.0),
    classes=st.integers(1, 7),
)


@settings(deadline=None, max_examples=25)
@given(
    spec=small_specs,
    layout=st.sampled_from(LAYOUTS),
    wrapper=st.sampled_from(["", "module.", "_orig_mod.", "module.model."]),
    container=st.sampled_from([None, "model_state", "state_dict", "model"]),
)
def test_any_network_through_every_layout(
    spec: AnyNetSpec, layout: Layout, wrapper: str, container: str | None
) -> None:
    state = random_state(spec)
    theirs: Any = in_layout(state, layout, wrapper)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.pth"
        torch.save({container: theirs, "epoch": 1} if container else theirs, path)
        checkpoint = read_checkpoint(path)
        again = read_checkpoint(path, spec=spec)
        written = Path(folder) / "any.safetensors"
        write_safetensors(written, checkpoint.state, spec=checkpoint.spec)
        back = read_checkpoint(written)
    assert checkpoint.entry == ((container,) if container else ())
    assert again.spec == spec
    assert (back.spec, back.layout) == (checkpoint.spec, "pycls")
    for read in (checkpoint, again, back):
        assert_same({key: read.state[key] for key in state}, state)
        load_into(RegNet(read.spec), read.state)


def transformers_network(spec: Spec, layer_type: str) -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.RegNetConfig(
        depths=[stage.depth for stage in spec.stages],
        hidden_sizes=[stage.width for stage in spec.stages],
        groups_width=spec.stages[-1].group_width,
        layer_type=layer_type,
        embedding_size=spec.stem_width,
        num_labels=spec.classes,
    )
    network = transformers.RegNetForImageClassification(config).eval()
    generator = torch.Generator().manual_seed(1)
    for key, tensor in network.state_dict().items():
        if key.endswith("running_mean"):
            tensor.normal_(std=0.2, generator=generator)
        elif tensor.ndim == 1 and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.0, generator=generator)
    return network


@pytest.mark.parametrize("name", ["regnetx-200mf", "regnety-200mf"])
def test_logits_equal_those_of_transformers(name: str, tmp_path: Path) -> None:
    spec = spec_by_name(name, classes=13)
    theirs = transformers_network(spec, name[6])
    path = tmp_path / "pytorch_model.bin"
    torch.save(theirs.state_dict(), path)
    checkpoint = read_checkpoint(path)
    assert (checkpoint.spec, checkpoint.layout) == (spec, "transformers")
    ours = RegNet(checkpoint.spec).eval()
    load_into(ours, checkpoint.state)
    rgb = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(2))
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        theirs, ours, rgb = theirs.to(dtype), ours.to(dtype), rgb.to(dtype)
        with torch.inference_mode():
            expected, logits = theirs(rgb).logits, ours(rgb.flip(1))
            mirrored = ours(rgb)
        assert expected.std() > 1
        assert float((logits - expected).abs().max()) <= tolerance
        assert float((mirrored - expected).abs().max()) > 100 * tolerance


def test_transformers_networks_without_a_head(tmp_path: Path) -> None:
    spec = spec_by_name("regnety-200mf", classes=13)
    whole = transformers_network(spec, "y")
    path = tmp_path / "pytorch_model.bin"
    torch.save(whole.regnet.state_dict(), path)
    with pytest.raises(MismatchError, match="ask for a new head"):
        read_checkpoint(path)
    read = read_checkpoint(path, new_head=13)
    torch.save(whole.state_dict(), path)
    expected = read_checkpoint(path).state
    assert (read.spec, read.layout) == (spec, "transformers")
    assert all(np.array_equal(read.state[k], t) for k, t in expected.items() if "head" not in k)


def test_shared_checkpoint(shared: Path) -> None:
    path = shared / "weights" / "regnetx-400mf_tiny200.pyth"
    checkpoint = read_checkpoint(path, spec="regnetx-400mf")
    assert checkpoint.spec == spec_by_name("regnetx-400mf", classes=200)
    assert (checkpoint.name, checkpoint.layout) == ("regnetx-400mf", "pycls")
    assert checkpoint.entry == ("model_state",)
    source = torch.load(path, weights_only=True)["model_state"]
    assert_same(checkpoint.state, source)
    assert len(checkpoint.sha384) == 96


@pytest.mark.parametrize("name", [name for name in SPEC_NAMES if name.endswith("-tv")][:2])
def test_torchvisions_own_networks(name: str, tmp_path: Path) -> None:
    spec = spec_by_name(name)
    path = tmp_path / "regnet_x_400mf-62229a5f.pth"
    layout = next(layout for layout in LAYOUTS if layout.name == "torchvision")
    torch.save(in_layout(random_state(spec), layout), path)
    assert read_checkpoint(path).name == name
    asked = name.removesuffix("-tv")
    with pytest.raises(MismatchError, match=f"{asked} asked, the file holds {name}$"):
        read_checkpoint(path, spec=asked)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.pth"
    torch.save({"model_state": random_state(SMALL)}, path)
    return path


def test_the_spec_asked_for_is_insisted_on(small: Path) -> None:
    assert read_checkpoint(small, spec=SMALL).spec == SMALL
    with pytest.raises(MismatchError) as caught:
        read_checkpoint(small, spec="regnetx-800mf")
    assert str(caught.value) == (
        f"{small}: regnetx-800mf asked, the file holds the network of stem 8, depths 1/2, "
        "widths 8/16, group widths 4/8"
    )
    with pytest.raises(MismatchError, match=r"squeeze-excite 0\.25 asked"):
        read_checkpoint(small, spec=SMALL_Y)
    with pytest.raises(MismatchError, match=r"9 classes asked, the file has 5.*new head of 9"):
        read_checkpoint(small, spec=SMALL.with_classes(9))


def test_the_stem_stride_of_an_explicit_spec_is_taken(small: Path) -> None:
    spec = AnyNetSpec(stages=SMALL.stages, stem_width=8, stem_stride=1, classes=5)
    assert read_checkpoint(small).spec.stem_stride == 2
    assert read_checkpoint(small, spec=spec).spec == spec


def test_a_new_head_replaces_the_old_one(small: Path) -> None:
    old = read_checkpoint(small)
    new = read_checkpoint(small, new_head=500)
    assert new.spec == SMALL.with_classes(500)
    weight, bias = new.state["head.fc.weight"], new.state["head.fc.bias"]
    assert weight.shape == (500, 16)
    assert float(weight.std()) == pytest.approx(0.01, rel=0.05)
    assert abs(float(weight.mean())) < 1e-3
    assert not bias.any()
    assert all(np.array_equal(new.state[k], v) for k, v in old.state.items() if "head" not in k)
    load_into(RegNet(new.spec), new.state)


def test_a_new_head_is_determined_by_its_seed(small: Path) -> None:
    heads = [
        read_checkpoint(small, new_head=3, seed=seed).state["head.fc.weight"] for seed in (0, 0, 1)
    ]
    assert np.array_equal(heads[0], heads[1])
    assert not np.array_equal(heads[0], heads[2])


def test_a_new_head_with_a_spec(small: Path) -> None:
    assert read_checkpoint(small, spec=SMALL, new_head=9).classes == 9
    assert read_checkpoint(small, spec=SMALL.with_classes(9), new_head=9).classes == 9
    with pytest.raises(MismatchError, match="classes must be a whole number from 1"):
        read_checkpoint(small, new_head=0)


def test_weights_without_a_head(tmp_path: Path) -> None:
    path = tmp_path / "features.pth"
    state = {k: t for k, t in random_state(SMALL).items() if "head" not in k}
    torch.save(state, path)
    with pytest.raises(MismatchError, match="ask for a new head"):
        read_checkpoint(path)
    assert read_checkpoint(path, new_head=4).spec == SMALL.with_classes(4)


def test_channel_order_of_an_unusual_file(small: Path) -> None:
    stem = "stem.conv.weight"
    as_bgr, as_rgb = read_checkpoint(small), read_checkpoint(small, channels="RGB")
    assert (as_bgr.channels, as_rgb.channels) == ("BGR", "RGB")
    assert np.array_equal(as_bgr.state[stem][:, ::-1], as_rgb.state[stem])
    assert not np.array_equal(as_bgr.state[stem], as_rgb.state[stem])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read_as_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    state = {k: t.to(dtype) if t.is_floating_point() else t for k, t in random_state(SMALL).items()}
    save_file(state, path)
    read = read_checkpoint(path).state
    assert {t.dtype for k, t in read.items() if "num_batches" not in k} == {np.dtype(np.float32)}
    assert all(np.array_equal(read[k], t.double()) for k, t in state.items())


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    path = tmp_path / "nan.pth"
    state = random_state(SMALL)
    state["s2.b1.f.a.weight"][3, 2] = float("nan")
    torch.save(state, path)
    with pytest.raises(WeightsError, match=r"nan\.pth: s2\.b1\.f\.a\.weight holds values"):
        read_checkpoint(path)


def test_the_state_does_not_change_with_the_file(small: Path) -> None:
    checkpoint = read_checkpoint(small)
    small.write_bytes(b"\0" * small.stat().st_size)
    assert_same(checkpoint.state, random_state(SMALL))


@pytest.mark.parametrize("container", [{}, {"model_state": None}, {"a": 1}])
def test_code_is_refused(container: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({**container, "model_state": Path}, path)
    with pytest.raises(UnsafeError, match=r"pathlib\S*Path"):
        read_checkpoint(path)


def test_a_file_with_tensors_of_another_kind_of_network(tmp_path: Path) -> None:
    path = tmp_path / "resnet.pth"
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.bias": torch.zeros(9)}, path)
    with pytest.raises(MismatchError, match=r"resnet\.pth: these are not a RegNet's weights"):
        read_checkpoint(path)


def test_load_into_says_both_sides() -> None:
    state = random_state(SMALL)
    state["aux.weight"] = state.pop("s1.b1.f.a.weight")
    state["head.fc.bias"] = torch.zeros(6)
    network = RegNet(SMALL)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with pytest.raises(MismatchError) as caught:
        load_into(network, state)
    assert str(caught.value) == (
        "the weights are not those of the network of stem 8, depths 1/2, widths 8/16, "
        "group widths 4/8:\n"
        "  1 missing from the weights:\n"
        "    s1.b1.f.a.weight (8, 8, 1, 1)\n"
        "  1 in the weights, not in the network:\n"
        "    aux.weight (8, 8, 1, 1)\n"
        "  1 of different shapes:\n"
        "    head.fc.bias: network (5,), weights (6,)"
    )
    assert_same(to_arrays(network.state_dict()), before)


def test_load_into_without_step_counters() -> None:
    state = {k: t for k, t in random_state(SMALL).items() if "num_batches" not in k}
    network = RegNet(SMALL)
    load_into(network, state)
    assert all(np.array_equal(network.state_dict()[key], t) for key, t in state.items())
    check_state(SMALL, state)


def test_check_state_needs_the_right_classes() -> None:
    state = random_state(SMALL)
    check_state(SMALL, state)
    with pytest.raises(MismatchError, match=r"head\.fc\.weight: network \(6, 16\), weights \(5, "):
        check_state(SMALL.with_classes(6), state)


LABELS = tuple(Label(f"n{i:08}", f"class {i}, 類") for i in range(5))


def write(path: Path, spec: Spec = SMALL, **options: Any) -> Checkpoint:
    write_safetensors(path, random_state(spec), spec=spec, **options)
    return read_checkpoint(path)


def test_safetensors_carry_everything(tmp_path: Path) -> None:
    extra = {"epoch": 3, "top1": 52.96, "nested": {"a": [1, None, "x"]}}
    stride = AnyNetSpec(stages=SMALL.stages, stem_width=8, stem_stride=1, classes=5)
    read = write(
        tmp_path / "new" / "a.safetensors",
        stride,
        labels=LABELS,
        preprocess=OMZ,
        name="mine",
        extra=extra,
    )
    assert (read.spec, read.labels, read.preprocess) == (stride, LABELS, OMZ)
    assert (read.name, read.extra, read.layout, read.channels) == ("mine", extra, "pycls", "BGR")
    with pytest.raises(MismatchError, match="stride 2 asked, the file was written for one of"):
        read_checkpoint(read.source, spec=SMALL)


def test_safetensors_with_a_new_head_forget_the_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write(path, labels=LABELS, preprocess=OMZ)
    read = read_checkpoint(path, new_head=2)
    assert (read.labels, read.preprocess, read.classes) == (None, OMZ, 2)


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    hashes = {
        write(tmp_path / f"{n}.safetensors", labels=LABELS, extra={"a": 1, "b": 2}).sha384
        for n in range(5)
    }
    assert len(hashes) == 1


def test_other_tools_can_read_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write(path, labels=LABELS)
    with safe_open(path, framework="np") as file:
        metadata = json.loads(file.metadata()["regnet"])
        assert sorted(file.keys()) == sorted(random_state(SMALL))
    assert metadata["labels"][4] == ["n00000004", "class 4, 類"]
    assert (metadata["classes"], metadata["channels"]) == (5, "BGR")
    assert metadata["tool"].startswith("regnet ")


def test_writing_replaces_whole_files_only(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(WeightsError, match="4 labels for 5 classes"):
        write(path, labels=LABELS[:4])
    with pytest.raises(WeightsError, match="not plain JSON"):
        write(path, extra={"a": object()})
    with pytest.raises(WeightsError, match="not plain JSON"):
        write(path, extra={"a": float("nan")})
    with pytest.raises(MismatchError, match="are not those of"):
        write_safetensors(path, random_state(SMALL_Y), spec=SMALL)
    state = random_state(SMALL)
    state["head.fc.bias"][0] = float("inf")
    with pytest.raises(WeightsError, match="not finite"):
        write_safetensors(path, state, spec=SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    assert path.read_bytes() == b"old"
    write(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    usual = tmp_path / "usual"
    usual.write_bytes(b"")
    assert path.stat().st_mode == usual.stat().st_mode


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write"):
        write(tmp_path / "file" / "a.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        write(tmp_path / "folder")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a JSON object"),
        ({"future": 1}, "unknown field 'future'"),
        ({"spec": 3}, "spec must be a table of"),
        ({"spec": {"d": 3}}, "spec: the field 'w0' is missing"),
        ({"spec": {"stages": [[1, 8, 3]]}}, "spec: stages: group_width must be"),
        ({"spec": {"stages": 5}}, "spec: stages must be"),
        ({"spec": {"d": 5, "w0": 16, "wa": 10**400, "wm": 2, "g": 8}}, "spec: wa must be"),
        ({"preprocess": {"name": "x", "mean": [10**400, 1, 1]}}, "preprocess: mean must be"),
        ({"name": "x" * 256}, "name must be"),
        ({"classes": 6}, "classes must be 5"),
        ({"classes": None}, "classes must be 5"),
        ({"channels": "GBR"}, "channels must be"),
        ({"name": ""}, "name must be"),
        ({"name": "\x1b[31m"}, "name must be"),
        ({"name": 3}, "name must be"),
        ({"labels": {}}, "labels must be"),
        ({"labels": [["a", "b"]]}, "1 labels for 5 classes"),
        ({"labels": [["a", "b", "c"]] * 5}, "labels must be"),
        ({"labels": [["a", 1]] * 5}, "labels must be"),
        ({"labels": [["a", "b" * 2000]] * 5}, "labels must be"),
        ({"preprocess": []}, "preprocess: expected a table of name"),
        ({"preprocess": {"name": "x", "size": 1}}, "preprocess: unknown field 'size'"),
        ({"preprocess": {"name": "x", "mean": 3}}, "preprocess: mean must be"),
        ({"preprocess": {}}, "preprocess: the field 'name' is missing"),
        ({"extra": []}, "extra must be"),
    ],
)
def test_bad_metadata(change: str | dict[str, object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write(path, labels=LABELS, preprocess=OMZ)
    with safe_open(path, framework="pt") as file:
        values = json.loads(file.metadata()["regnet"])
    text = change if isinstance(change, str) else json.dumps(values | change)
    save_file(random_state(SMALL), path, metadata={"regnet": text})
    with pytest.raises(WeightsError, match=message) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(deadline=None, max_examples=200)
@given(
    field=st.sampled_from(["spec", "classes", "labels", "channels", "preprocess", "name", "extra"]),
    value=json_values,
)
def test_any_metadata_is_accepted_or_refused_readably(field: str, value: object) -> None:
    from regnet.checkpoints.fields import provenance_from_json

    try:
        provenance_from_json(json.dumps({field: value}))
    except RegNetError as exc:
        assert type(exc) is WeightsError  # noqa: PT017


def test_metadata_that_belongs_to_another_network(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(random_state(SMALL_Y), path, metadata=metadata)
    with pytest.raises(MismatchError, match=r"in the metadata, the file holds .*squeeze-excite"):
        read_checkpoint(path)


WITHOUT_TORCH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
from pathlib import Path
from regnet.checkpoints.weights import read_checkpoint, write_safetensors

for path in map(Path, sys.argv[1:]):
    checkpoint = read_checkpoint(path)
    write_safetensors(path.with_suffix(".out"), checkpoint.state, spec=checkpoint.spec)
    assert read_checkpoint(path.with_suffix(".out"), new_head=3).classes == 3
assert "torch" not in sys.modules
"""


def test_checkpoints_are_read_and_written_without_torch(tmp_path: Path) -> None:
    state = {k: t.bfloat16() if t.ndim == 4 else t for k, t in random_state(SMALL).items()}
    paths = [tmp_path / name for name in ("zip.pth", "old.pyth", "new.safetensors")]
    for save, path in zip((save_zip, save_legacy, save_file), paths, strict=True):
        save(state, path)
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *map(str, paths)], check=True)
    for path in paths:
        read = read_checkpoint(path.with_suffix(".out")).state
        assert all(np.array_equal(read[key], tensor.double()) for key, tensor in state.items())
