import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regnet.checkpoints.shapes import (
    Shape,
    describe_spec,
    difference,
    infer_spec,
    network_shapes,
    same_architecture,
)
from regnet.network.spec import SPEC_NAMES, AnyNetSpec, Spec, Stage, published_name, spec_by_name
from regnet.system.errors import MismatchError


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    group_width = draw(st.sampled_from([1, 2, 3, 8]))
    bottleneck = draw(st.sampled_from([1, 2, 4]))
    width = group_width * bottleneck * draw(st.integers(1, 12))
    return Stage(draw(st.integers(1, 4)), width, group_width, bottleneck)


ratios = st.none() | st.sampled_from([0.25, 0.5, 1 / 3, 0.1]) | st.floats(0.01, 1.0)
specs = st.builds(
    AnyNetSpec,
    stages=st.lists(stages(), min_size=1, max_size=4).map(tuple),
    stem_width=st.integers(1, 48),
    se_ratio=ratios,
    classes=st.integers(1, 30),
)


@settings(deadline=None)
@given(specs)
def test_the_architecture_is_found_from_the_shapes(spec: AnyNetSpec) -> None:
    shapes = network_shapes(spec)
    found = infer_spec(shapes)
    assert found.stages == spec.stages
    assert (found.stem_width, found.classes) == (spec.stem_width, spec.classes)
    assert same_architecture(found, spec)
    assert difference(network_shapes(found), shapes) is None


@settings(deadline=None)
@given(specs)
def test_shapes_equal_those_of_the_network_itself(spec: AnyNetSpec) -> None:
    torch = pytest.importorskip("torch")
    from regnet.network.modules import RegNet

    with torch.device("meta"):
        state = RegNet(spec).state_dict()
    own = [(key, tuple(tensor.shape)) for key, tensor in state.items()]
    # In the same order too: differences then list tensors as the network has them.
    assert own == list(network_shapes(spec).items())


@pytest.mark.parametrize("name", SPEC_NAMES)
def test_published_networks_are_recognised(name: str) -> None:
    spec = spec_by_name(name, classes=7)
    assert infer_spec(network_shapes(spec)) == spec
    assert describe_spec(spec) == name


def test_torchvisions_own_roundings_are_networks_of_their_own(shared: Path) -> None:
    text = (shared / "reference" / "other_weights.json").read_text("utf-8")
    for model in json.loads(text)["torchvision"]["models"]:
        figures = model["resolved"]
        rows = zip(figures["depths"], figures["widths"], figures["group_widths"], strict=True)
        squeeze = 0.25 if model["name"].startswith("regnet_y") else None
        spec = AnyNetSpec(stages=tuple(Stage(*row) for row in rows), se_ratio=squeeze)
        found = infer_spec(network_shapes(spec))
        assert found == spec_by_name(model["name"])
        pycls = model["pycls"]
        if pycls["architecture"] == "different":
            assert published_name(found) == f"{pycls['name']}-tv"


def test_a_new_head_needs_no_old_one() -> None:
    shapes = network_shapes(spec_by_name("regnety-200mf"))
    headless = {k: s for k, s in shapes.items() if not k.startswith("head.")}
    assert infer_spec(headless, classes=12) == spec_by_name("regnety-200mf", classes=12)
    with pytest.raises(MismatchError, match=r"head\.fc\.weight is missing.*new head"):
        infer_spec(headless)


SMALL = AnyNetSpec(stages=(Stage(1, 8, 4), Stage(2, 16, 4), Stage(1, 24, 8)), se_ratio=0.25)


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("stem.conv.weight", None, r"stem\.conv\.weight is missing"),
        ("stem.conv.weight", (32, 3, 7, 7), r"stem\.conv\.weight has shape \(32, 3, 7, 7\)"),
        ("stem.conv.weight", (32, 1, 3, 3), r"a RegNet's stem is \(width, 3, 3, 3\)"),
        ("s2.b2.f.b.weight", None, r"s2\.b2\.f\.b\.weight is missing"),
        ("s2.b1.f.c.weight", None, r"s2\.b1\.f\.c\.weight is missing"),
        ("s2.b2.f.b.weight", (16, 8, 3, 3), r"blocks of one stage differ: .*s2\.b2"),
        ("s1.b1.f.b.weight", (8, 4), r"s1\.b1\.f\.b\.weight has shape .*: 4 dimensions"),
        ("s1.b1.f.b.weight", (8, 4, 5, 5), r"s1\.b1\.f\.b\.weight .* 3x3 kernel expected"),
        ("s1.b1.f.b.weight", (3, 3, 3, 3), r"s1\.b1\.f\.b\.weight has 3 channels.*whole number"),
        ("s1.b1.f.b.weight", (12, 4, 3, 3), r"s1\.b1\.f\.b\.weight has 12 channels"),
        ("s1.b1.f.b.weight", (8, 3, 3, 3), "make no network: group_width must be a divisor"),
        ("s1.b1.f.b.weight", (0, 4, 3, 3), r"s1\.b1\.f\.b\.weight has 0 channels"),
        ("s2.b2.f.se.f_ex.0.weight", None, r"s2\.b2\.f\.se\.f_ex\.0\.weight is missing"),
        ("s2.b2.f.se.f_ex.0.weight", (16, 16, 1, 1), "no one squeeze-excite ratio"),
        ("head.fc.weight", (10,), r"head\.fc\.weight has shape \(10,\): 2 dimensions"),
        ("head.fc.weight", (0, 24), "make no network: classes must be"),
    ],
)
def test_impossible_shapes_are_named(key: str, shape: Shape | None, message: str) -> None:
    shapes = network_shapes(SMALL)
    if shape is None:
        del shapes[key]
    else:
        shapes[key] = shape
    with pytest.raises(MismatchError, match=message):
        infer_spec(shapes)


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("s1.", "a stage is missing: there is s2 but no s1"),
        ("s2.", "a stage is missing: there is s3 but no s2"),
        ("s2.b1.", r"a block of stage s2 is missing: there is s2\.b2 but no s2\.b1"),
        ("s", r"no tensor belongs to a block"),
    ],
)
def test_gaps_in_the_numbering(prefix: str, message: str) -> None:
    shapes = {k: s for k, s in network_shapes(SMALL).items() if not k.startswith(prefix)}
    with pytest.raises(MismatchError, match=message):
        infer_spec(shapes)


@settings(deadline=None)
@given(specs, st.data())
def test_any_damage_is_either_named_or_seen_as_a_difference(
    spec: AnyNetSpec, data: st.DataObject
) -> None:
    shapes = network_shapes(spec)
    key = data.draw(st.sampled_from([k for k in shapes if "num_batches" not in k]))
    shape = data.draw(st.none() | st.lists(st.integers(0, 9), max_size=5).map(tuple))
    damaged = {k: s for k, s in shapes.items() if k != key}
    if shape is not None:
        damaged[key] = shape
    try:
        found = infer_spec(damaged)
    except MismatchError:
        return
    if shape != shapes[key]:
        text = difference(network_shapes(spec), damaged)
        assert text is not None
        assert key in text
        assert (
            difference(network_shapes(found), damaged)
            or not same_architecture(found, spec)
            or (found.classes != spec.classes)
        )


def test_both_sides_of_a_difference() -> None:
    network = network_shapes(SMALL)
    weights = {k: s for k, s in network.items() if not k.startswith("s2.b2.")}
    del weights["stem.bn.num_batches_tracked"]
    del weights["head.fc.bias"]
    weights |= {"head.fc.weight": (5, 24), "fc.weight": (5, 24), "aux.a": (1,), "aux.b": (2,)}
    weights["s3.b1.f.a.weight"] = (24, 24, 1, 1)
    assert difference(network, weights) == (
        "  20 missing from the weights:\n"
        "    s2.b2.*: 19 tensors, the first s2.b2.f.a.weight (16, 16, 1, 1)\n"
        "    head.fc.bias (1000,)\n"
        "  3 in the weights, not in the network:\n"
        "    fc.weight (5, 24)\n"
        "    aux.a (1,)\n"
        "    aux.b (2,)\n"
        "  2 of different shapes:\n"
        "    s3.b1.f.a.weight: network (24, 16, 1, 1), weights (24, 24, 1, 1)\n"
        "    head.fc.weight: network (1000, 24), weights (5, 24)"
    )


def test_long_differences_are_counted() -> None:
    a, b = (network_shapes(spec_by_name(n)) for n in ("regnetx-3.2gf", "regnety-16gf"))
    text = difference(a, b)
    assert text is not None
    assert len(text.splitlines()) <= 24
    assert "... and" in text


def test_counters_of_batch_norm_may_be_absent() -> None:
    network = network_shapes(SMALL)
    bare = {k: s for k, s in network.items() if not k.endswith("num_batches_tracked")}
    assert difference(network, bare) is None
    assert difference(bare, network) is not None


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (spec_by_name("regnet_x_400mf"), "regnetx-400mf-tv"),
        (
            AnyNetSpec(stages=(Stage(1, 8, 4), Stage(2, 16, 4, 2)), stem_width=16, se_ratio=0.5),
            "the network of stem 16, depths 1/2, widths 8/16, group widths 4/4, "
            "bottleneck ratios 1/2, squeeze-excite 0.5",
        ),
    ],
)
def test_a_network_in_a_line(spec: Spec, text: str) -> None:
    assert describe_spec(spec) == text
