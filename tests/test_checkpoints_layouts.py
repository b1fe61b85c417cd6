import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regnet.checkpoints.layouts import LAYOUTS, PYCLS, Layout, find_prefixes, from_pycls, to_pycls
from regnet.system.errors import MismatchError

BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def pycls_keys(depths: list[int], *, squeeze: bool, counters: bool = True) -> list[str]:
    """Keys of a network in pycls's names, written out here independently of the package."""
    bn = BN if counters else BN[:-1]
    keys = ["stem.conv.weight", *(f"stem.bn.{x}" for x in bn)]
    for i, depth in enumerate(depths, start=1):
        for j in range(1, depth + 1):
            block = f"s{i}.b{j}"
            if j == 1:
                keys += [f"{block}.proj.weight", *(f"{block}.bn.{x}" for x in bn)]
            for part in "abc":
                keys += [f"{block}.f.{part}.weight", *(f"{block}.f.{part}_bn.{x}" for x in bn)]
            if squeeze:
                keys += [f"{block}.f.se.f_ex.{n}.{x}" for n in (0, 2) for x in ("weight", "bias")]
    return [*keys, "head.fc.weight", "head.fc.bias"]


networks = st.builds(
    pycls_keys,
    st.lists(st.integers(1, 12), min_size=1, max_size=5),
    squeeze=st.booleans(),
    counters=st.booleans(),
)
layouts = st.sampled_from(LAYOUTS)
wrappers = st.sampled_from(
    ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "model.module."]
)


@settings(deadline=None)
@given(keys=networks, layout=layouts, wrapper=wrappers)
def test_translation_there_and_back_is_the_identity(
    keys: list[str], layout: Layout, wrapper: str
) -> None:
    theirs = from_pycls(keys, layout)
    assert list(theirs) == keys
    assert len(set(theirs.values())) == len(keys)
    wrapped = [wrapper + key for key in theirs.values()]
    assert list(find_prefixes(wrapped).values()) == [layout]
    back = to_pycls(wrapped)
    assert list(back) == wrapped
    assert list(back.values()) == keys


@settings(deadline=None)
@given(keys=networks, layout=layouts, data=st.data())
def test_any_one_strange_key_is_named(keys: list[str], layout: Layout, data: st.DataObject) -> None:
    theirs = list(from_pycls(keys, layout).values())
    spoilt = data.draw(st.sampled_from(theirs)) + data.draw(st.sampled_from(["x", ".x", "."]))
    with pytest.raises(MismatchError, match="no tensors of these 1 names") as caught:
        to_pycls([*theirs, spoilt])
    assert f"\n  {spoilt}" in str(caught.value)


@settings(deadline=None)
@given(st.lists(st.text(max_size=30), max_size=20))
def test_arbitrary_text_is_no_network(keys: list[str]) -> None:
    with pytest.raises(MismatchError, match="not a RegNet's weights"):
        to_pycls(keys)


def reference_keys(layout: str, reference: dict[str, dict[str, object]], variant: str) -> set[str]:
    entry = reference[layout]
    keys: set[str] = set()
    for part in ("stem", "head", f"first_block_stage1_{variant}", f"non_first_block_{variant}"):
        keys |= set(entry[part])  # type: ignore[call-overload]
    return keys


@pytest.mark.parametrize("variant", ["x", "y"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_names_equal_the_collected_reference(layout: Layout, variant: str, shared: Path) -> None:
    text = (shared / "reference" / "other_weights.json").read_text("utf-8")
    reference = json.loads(text)["state_dict_layouts"]
    keys = pycls_keys([2], squeeze=variant == "y")
    assert set(keys) == reference_keys("pycls", reference, variant)
    theirs = from_pycls(keys, layout)
    assert set(theirs.values()) == reference_keys(layout.name, reference, variant)
    assert layout.channels == reference[layout.name]["input_channel_order"]
    for role, ours in reference["pycls"]["roles"].items():
        expected = reference[layout.name]["roles"][role]
        expected = expected[variant] if isinstance(expected, dict) else expected
        pairs = [(ours, expected)] if isinstance(ours, str) else zip(ours, expected, strict=True)
        for our_part, their_part in pairs:
            got = theirs.get(f"s1.b1.{our_part}.weight")
            assert got is None or got.endswith(f".{their_part}.weight")


@pytest.mark.parametrize(
    ("layout", "key"),
    [
        ("pycls", "s3.b12.f.c_bn.running_var"),
        ("timm", "s3.b12.conv3.bn.running_var"),
        ("torchvision", "trunk_output.block3.block3-11.f.c.1.running_var"),
        ("transformers", "regnet.encoder.stages.2.layers.11.layer.2.normalization.running_var"),
    ],
)
def test_stage_and_block_numbers(layout: str, key: str) -> None:
    ours = "s3.b12.f.c_bn.running_var"
    target = next(known for known in LAYOUTS if known.name == layout)
    assert from_pycls([ours], target) == {ours: key}
    assert to_pycls([key]) == {key: ours}


def test_transformers_last_convolution_moves_where_there_is_squeeze_excite() -> None:
    prefix = "regnet.encoder.stages.0.layers.0.layer"
    assert to_pycls([f"{prefix}.2.convolution.weight"]) == {
        f"{prefix}.2.convolution.weight": "s1.b1.f.c.weight"
    }
    keys = [f"{prefix}.2.attention.0.weight", f"{prefix}.3.convolution.weight"]
    assert list(to_pycls(keys).values()) == ["s1.b1.f.se.f_ex.0.weight", "s1.b1.f.c.weight"]
    with pytest.raises(MismatchError, match=r"layer\.2\.convolution"):
        to_pycls([*keys, f"{prefix}.2.convolution.weight"])


@pytest.mark.parametrize(
    "key",
    [
        "s0.b1.f.a.weight",
        "s01.b1.f.a.weight",
        "s1.b0.f.a.weight",
        "s1.b99999.f.a.weight",
        "s1.b1.f.a.bias",
        "s\u0661.b1.f.a.weight",
        "trunk_output.block1.block2-0.f.a.0.weight",
        "head.conv.weight",
    ],
)
def test_numbers_and_parts_that_no_network_has(key: str) -> None:
    with pytest.raises(MismatchError, match="no tensors of these 1 names"):
        to_pycls(["s1.b1.f.a.weight", key])


def test_wrappers_are_stripped_only_where_all_keys_have_them() -> None:
    keys = pycls_keys([1], squeeze=False)
    with pytest.raises(MismatchError, match="no tensors of these 1 names"):
        to_pycls([*keys[:-1], f"module.{keys[-1]}"])


def test_counter_of_averaged_models_is_left_out() -> None:
    keys = pycls_keys([1], squeeze=False)
    assert "n_averaged" not in to_pycls(["n_averaged", *(f"module.{key}" for key in keys)])


@pytest.mark.parametrize("wrapper", ["", "module.", "model."])
def test_transformers_networks_without_a_head(wrapper: str) -> None:
    """A RegNetModel has the names of the whole network without its first part."""
    transformers = next(layout for layout in LAYOUTS if layout.name == "transformers")
    keys = [key for key in pycls_keys([1, 2], squeeze=True) if "head" not in key]
    whole = from_pycls(keys, transformers)
    theirs = [wrapper + key.removeprefix("regnet.") for key in whole.values()]
    assert list(find_prefixes(theirs).values()) == [transformers]
    assert to_pycls(theirs) == dict(zip(theirs, keys, strict=True))


def test_two_projects_names_in_one_file() -> None:
    with pytest.raises(MismatchError, match="half by one project"):
        find_prefixes(["s1.b1.f.a.weight", "s1.b1.conv1.conv.weight"])


def test_long_lists_of_strange_keys_are_cut() -> None:
    with pytest.raises(MismatchError, match=r"these 40 names(.|\n)*\.\.\. and 30 more$"):
        to_pycls(["s1.b1.f.a.weight", *(f"extra{n}" for n in range(40))])


def test_pycls_to_pycls_changes_nothing() -> None:
    keys = pycls_keys([1, 2], squeeze=True)
    assert from_pycls(keys, PYCLS) == {key: key for key in keys}
