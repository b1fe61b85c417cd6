"""RegNetSpec, the published networks, and their names."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regnet.network.spec import (
    PUBLISHED_NAMES,
    SPEC_NAMES,
    AnyNetSpec,
    RegNetSpec,
    Stage,
    canonical_name,
    published_name,
    spec_aliases,
    spec_by_name,
    spec_from_dict,
    spec_to_dict,
)
from regnet.system.errors import SpecError, UnknownModelError

specs = st.builds(
    RegNetSpec,
    d=st.integers(1, 64),
    w0=st.integers(1, 32).map(lambda n: 8 * n),
    wa=st.floats(0, 256),
    wm=st.floats(1.05, 3),
    g=st.integers(1, 256),
    b=st.sampled_from([1, 2, 4]),
    se_ratio=st.none() | st.floats(0.01, 1),
    rounding=st.sampled_from(["pycls", "torchvision"]),
    classes=st.integers(1, 2000),
)


def test_the_card_of_3_2gf_is_the_network_of_the_paper() -> None:
    stages = spec_by_name("regnetx-3.2gf").stages
    assert [s.depth for s in stages] == [2, 6, 15, 2]
    assert [s.width for s in stages] == [96, 192, 432, 1008]
    assert {s.group_width for s in stages} == {48}


def test_there_are_24_published_networks() -> None:
    assert len(PUBLISHED_NAMES) == 24
    assert {published_name(spec_by_name(name)) for name in SPEC_NAMES} == set(SPEC_NAMES)


@given(specs)
def test_every_stage_can_be_built(spec: RegNetSpec) -> None:
    assert sum(stage.depth for stage in spec.stages) == spec.d
    for stage in spec.stages:
        assert stage.width == stage.inner_width * spec.b
        assert stage.inner_width % stage.group_width == 0


@given(specs)
def test_widths_grow_in_steps_of_q(spec: RegNetSpec) -> None:
    widths = spec.block_widths
    assert widths[0] == spec.w0
    assert list(widths) == sorted(widths)
    assert all(w % spec.q == 0 for w in widths)


@given(specs)
def test_rounding_moves_a_width_by_less_than_a_group(spec: RegNetSpec) -> None:
    wanted = sorted(set(spec.block_widths))
    for stage, width in zip(spec.stages, wanted, strict=True):
        assert abs(stage.inner_width - width // spec.b) < max(stage.group_width, 2)


@given(specs)
def test_specs_survive_json(spec: RegNetSpec) -> None:
    assert spec_from_dict(json.loads(json.dumps(spec_to_dict(spec)))) == spec
    free = AnyNetSpec(stages=spec.stages, se_ratio=spec.se_ratio, classes=spec.classes)
    assert spec_from_dict(json.loads(json.dumps(spec_to_dict(free)))) == free


GOOD = {"d": 22, "w0": 24, "wa": 24.48, "wm": 2.54, "g": 16}


@pytest.mark.parametrize(
    ("parameter", "value", "allowed"),
    [
        ("wm", 1, "over 1"),
        ("wm", 0.5, "over 1"),
        ("wm", math.nan, "finite"),
        ("wa", math.inf, "finite"),
        ("wa", -0.1, "from 0"),
        ("wa", 10**400, "finite"),
        ("wa", -(10**400), "finite"),
        ("wm", 10**400, "finite"),
        ("se_ratio", 10**400, "finite"),
        ("w0", 25, "multiple of q=8"),
        ("w0", 0, "from 1"),
        ("w0", 24.0, "whole number"),
        ("d", 0, "from 1"),
        ("d", True, "whole number"),
        ("g", 0, "from 1"),
        ("g", -8, "from 1"),
        ("b", 0, "from 1"),
        ("q", 0, "from 1"),
        ("se_ratio", 0.0, "over 0"),
        ("se_ratio", 1.5, "at most 1"),
        ("classes", 0, "from 1"),
        ("stem_width", 0, "from 1"),
        ("stem_stride", 3, "from 1 to 2"),
        ("rounding", "other", "pycls"),
    ],
)
def test_impossible_parameters_are_named(parameter: str, value: object, allowed: str) -> None:
    with pytest.raises(SpecError, match=f"(?s){parameter}.*{allowed}") as caught:
        RegNetSpec(**(GOOD | {parameter: value}))
    assert caught.value.parameter == parameter
    assert isinstance(caught.value, ValueError)


def test_a_group_width_must_divide() -> None:
    with pytest.raises(SpecError, match=r"group_width must be a divisor of .* 100 channels"):
        Stage(depth=1, width=100, group_width=48)


def test_unknown_fields_of_a_stored_spec_are_refused() -> None:
    with pytest.raises(SpecError, match=r"unknown field 'depth'; known: .*wm"):
        spec_from_dict({"depth": 3})
    with pytest.raises(SpecError, match="the field 'w0' is missing"):
        spec_from_dict({"d": 3})


def test_the_small_image_stem_has_stride_one() -> None:
    small = spec_by_name("regnetx-200mf", classes=10).with_small_stem()
    assert (small.stem_width, small.stem_stride, small.classes) == (16, 1, 10)
    assert published_name(small) is None


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("regnetx_032", "regnetx-3.2gf"),
        ("regnet_x_3_2gf", "regnetx-3.2gf"),
        ("RegNetX-3.2GF", "regnetx-3.2gf"),
        ("regnety_160", "regnety-16gf"),
        ("regnet_y_16gf", "regnety-16gf"),
        ("regnetx_004", "regnetx-400mf"),
        ("regnet_x_400mf", "regnetx-400mf-tv"),
        ("regnetx_004_tv", "regnetx-400mf-tv"),
        ("regnet_y_800mf", "regnety-800mf-tv"),
        ("regnet_y_8gf", "regnety-8.0gf-tv"),
    ],
)
def test_aliases(alias: str, name: str) -> None:
    assert canonical_name(alias) == name


def test_no_alias_means_two_networks() -> None:
    names = [n for name in SPEC_NAMES for n in (name, *spec_aliases(name))]
    assert len(names) == len(set(names))


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UnknownModelError, match=r"resnet50.*regnetx-3\.2gf"):
        spec_by_name("resnet50")


def test_torchvision_networks_equal_the_reference(shared: Path) -> None:
    reference = json.loads((shared / "reference" / "other_weights.json").read_text())
    for model in reference["torchvision"]["models"]:
        stages = spec_by_name(model["name"]).stages
        resolved = model["resolved"]
        assert [s.depth for s in stages] == resolved["depths"]
        assert [s.width for s in stages] == resolved["widths"]
        assert [s.group_width for s in stages] == resolved["group_widths"]


def test_timm_names_equal_the_reference(shared: Path) -> None:
    reference = json.loads((shared / "reference" / "other_weights.json").read_text())
    for row in reference["timm"]["mapping"]:
        assert canonical_name(row["timm"]) == row["pycls"]
