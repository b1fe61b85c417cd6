import json
import math
import os
import tomllib
from dataclasses import fields, is_dataclass, replace
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Annotated, get_args, get_origin

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regnet.system.errors import OutputError, RecipeError
from regnet.training import recipe as module
from regnet.training.recipe import (
    RECIPES,
    Augmentation,
    Averages,
    Input,
    Loss,
    Optimizer,
    Recipe,
    Schedule,
    Transfer,
    read_recipe,
    recipe_from_toml,
    write_recipe,
)

PARTS = {f.name: f.type for f in fields(Recipe) if is_dataclass(f.type)}
SHIPPED = sorted(file for file in resources.files(module.__package__).joinpath("recipes").iterdir())
HUGE = "1" + 400 * "0"  # a whole number that no float can hold


def read(text):
    return recipe_from_toml(text, source="my.toml")


def refused(text):
    with pytest.raises(RecipeError) as caught:
        read(text)
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


def test_a_recipe_is_the_papers_unless_told_otherwise():
    paper = read_recipe("paper")
    assert read("") == replace(Recipe(), name="my")
    assert replace(paper, name="my", schedule=Schedule()) == read("")
    assert paper.schedule == Schedule(batch=512)


def test_the_papers_recipe_is_that_of_the_paper():
    """Section 3 of arXiv 2003.13678 and appendix C, and pycls's config of RegNetX-3.2GF."""
    paper = read_recipe("paper")
    assert paper.lr == pytest.approx(0.4, rel=1e-15)
    assert paper.optimizer == Optimizer(
        kind="sgd", lr=0.1, per=128, momentum=0.9, nesterov=True, weight_decay=5e-5,
        decay_norms=True, stage_decay=1.0, clip_norm=0.0,
    )  # fmt: skip
    assert paper.schedule == Schedule(
        epochs=100, batch=512, warmup_epochs=5, warmup_factor=0.1, final_factor=0, every="epoch"
    )
    assert paper.augmentation == Augmentation(
        rule="pycls", area=(0.08, 1.0), flip=0.5, lighting=0.1,
        trivial_augment=False, erasing=0, mixup=0, cutmix=0,
    )  # fmt: skip
    assert paper.averages == Averages(ema=0.0, precise_bn=8192)
    assert paper.loss.label_smoothing == 0
    protocol = paper.input.protocol("paper")
    assert (protocol.resize, protocol.crop, protocol.offset) == (256, 224, "ceil")
    assert (protocol.interpolation, protocol.channels) == ("opencv-linear", "BGR")
    assert protocol.mean == (103.53, 116.28, 123.675)
    assert protocol.scale == (57.375, 57.12, 58.395)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_every_shipped_recipe_survives_being_written_and_read(file):
    shipped = recipe_from_toml(file.read_text("utf-8"), source=file.name)
    text = shipped.to_toml()
    assert read(text) == shipped
    assert read(text).to_toml() == text


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_every_shipped_recipe_says_what_it_is_for_and_its_name(file):
    text = file.read_text("utf-8")
    assert text.startswith("# ")
    assert tomllib.loads(text)["name"]


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipes_are_found_by_name_only(name, tmp_path, monkeypatch):
    assert read_recipe(name).name == name
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("seed = 77")
    assert read_recipe(name).seed == 0
    assert read_recipe(f"./{name}").seed == 77


def test_the_linear_rule_scales_the_rate_with_the_batch():
    recipe = Recipe()
    for batch in (1, 64, 128, 512, 8192):
        changed = recipe.changed("schedule", batch=batch)
        assert changed.lr == pytest.approx(0.1 * batch / 128, rel=1e-15)


def test_a_written_recipe_has_every_value():
    tables = tomllib.loads(Recipe().to_toml())
    assert tables.keys() == {"name", "seed"} | PARTS.keys()
    for name, kind in PARTS.items():
        assert tables[name].keys() == {f.name for f in fields(kind)}


# Every value that a file may hold of the wrong type, whatever the type that is right.
WRONG_TYPES = ('"a"', "true", "1.5", "[1, 2]", "{}", "2020-01-01", "nan", "inf", HUGE)
KEYS = [(part, f) for part, kind in PARTS.items() for f in fields(kind)]


def kind_of(f):
    """Return a field's type without its rule."""
    return get_args(f.type)[0] if get_origin(f.type) is Annotated else f.type


def fits(f, text):
    if kind_of(f) is float:
        return text == "1.5"
    if kind_of(f) is int:
        return text == HUGE
    return (kind_of(f) is bool and text == "true") or (f.name == "area" and text == "[1, 2]")


@pytest.mark.parametrize(("part", "f"), KEYS, ids=lambda value: getattr(value, "name", value))
def test_a_value_of_the_wrong_type_is_named_with_what_is_allowed(part, f):
    for text in WRONG_TYPES:
        if fits(f, text):
            continue
        message = refused(f"[{part}]\n{f.name} = {text}")
        assert message.startswith(f"my.toml: {part}: {f.name} must be ")
        assert "<class" not in message
        assert len(message) < 300


OUT_OF_RANGE = [
    ("optimizer", "kind", '"lamb"', "'sgd' or 'adamw'"),
    ("optimizer", "lr", "0", "over 0 and at most 1000"),
    ("optimizer", "lr", "-0.1", "over 0 and at most 1000"),
    ("optimizer", "lr", "1e300", "over 0 and at most 1000"),
    ("optimizer", "per", "0", "from 1 to 1000000"),
    ("optimizer", "per", HUGE, "from 1 to 1000000"),
    ("optimizer", "momentum", "1", "from 0 to below 1"),
    ("optimizer", "momentum", "-0.1", "from 0 to below 1"),
    ("optimizer", "weight_decay", "-1e-9", "of at least 0"),
    ("optimizer", "stage_decay", "0", "over 0 and at most 1"),
    ("optimizer", "stage_decay", "1.01", "over 0 and at most 1"),
    ("optimizer", "clip_norm", "-1", "of at least 0"),
    ("schedule", "epochs", "0", "from 1 to 100000"),
    ("schedule", "epochs", "100001", "from 1 to 100000"),
    ("schedule", "batch", "-1", "from 0 to 1000000"),
    ("schedule", "batch", "1000001", "from 0 to 1000000"),
    ("schedule", "warmup_epochs", "-1", "of at least 0"),
    ("schedule", "warmup_factor", "1.1", "from 0 to 1"),
    ("schedule", "final_factor", "-0.1", "from 0 to 1"),
    ("schedule", "every", '"day"', "'epoch' or 'step'"),
    ("schedule", "patience", "-1", "of at least 0"),
    ("input", "resize", "0", "from 1 to 4096"),
    ("input", "resize", "4097", "from 1 to 4096"),
    ("input", "crop", "257", "from 1 to 256"),
    ("input", "crop", "0", "from 1 to 256"),
    ("input", "interpolation", '"lanczos"', "'bicubic', 'bilinear', 'nearest' or 'opencv-linear'"),
    ("input", "offset", '"down"', "'floor'"),
    ("input", "mean", "[1, 2]", "[a finite number, a finite number, a finite number]"),
    ("input", "scale", "[1, 0, 1]", "a finite number over 0"),
    ("input", "progressive", "[[0.5, 128], [0.5, 160]]", "in rising order"),
    ("input", "progressive", "[[0.5, 128], [0.1, 160]]", "in rising order"),
    ("input", "progressive", "[[1.0, 128]]", "from 0 to below 1"),
    ("input", "progressive", "[[-0.1, 128]]", "from 0 to below 1"),
    ("input", "progressive", "[[0.1, 7]]", "from 8 to 4096"),
    ("input", "progressive", "[[0.1, 4097]]", "from 8 to 4096"),
    ("input", "progressive", "[[0.1, 64.0]]", "a list of [a finite number, a whole number]"),
    ("input", "progressive", "[0.1, 64]", "a list of [a finite number, a whole number]"),
    ("augmentation", "rule", '"timm"', "'pycls' or 'torchvision'"),
    ("augmentation", "area", "[0.0, 1.0]", "0 < low <= high <= 1"),
    ("augmentation", "area", "[0.5, 0.4]", "0 < low <= high <= 1"),
    ("augmentation", "area", "[0.5, 1.1]", "0 < low <= high <= 1"),
    ("augmentation", "area", "[0.5]", "[a finite number, a finite number]"),
    ("augmentation", "area", "[0.5, true]", "[a finite number, a finite number]"),
    ("augmentation", "flip", "1.1", "from 0 to 1"),
    ("augmentation", "erasing", "-0.1", "from 0 to 1"),
    ("augmentation", "mix", "2", "from 0 to 1"),
    ("augmentation", "lighting", "-0.1", "of at least 0"),
    ("augmentation", "mixup", "-0.1", "of at least 0"),
    ("augmentation", "noise_bits", "0.5", "0 or from 1 to 16"),
    ("augmentation", "cutmix", "-0.1", "of at least 0"),
    ("augmentation", "stochastic_depth", "1", "from 0 to below 1"),
    ("loss", "label_smoothing", "1", "from 0 to below 1"),
    ("loss", "teacher", "1.5", "from 0 to 1"),
    ("loss", "temperature", "0", "over 0"),
    ("averages", "ema", "1", "from 0 to below 1"),
    ("averages", "precise_bn", "-1", "of at least 0"),
    ("transfer", "head", '"zero"', "'random' or 'fitted'"),
    ("transfer", "freeze", "-1", "from 0 to 64"),
    ("transfer", "freeze", "65", "from 0 to 64"),
]


@pytest.mark.parametrize(("part", "key", "text", "allowed"), OUT_OF_RANGE)
def test_a_value_out_of_range_is_named_with_the_range(part, key, text, allowed):
    message = refused(f"[{part}]\n{key} = {text}")
    assert message.startswith(f"my.toml: {part}: {key}")
    assert allowed in message


def test_every_key_with_a_range_is_tested_above():
    tested = {(part, key) for part, key, *_ in OUT_OF_RANGE}
    assert {(part, f.name) for part, f in KEYS if f.type is not bool} == tested


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("seed = -1", "seed must be a whole number from 0 to 9223372036854775807, not -1"),
        (f"seed = {2**63}", "from 0 to 9223372036854775807"),
        ("seed = 1.0", "seed must be a whole number"),
        ("seed = true", "seed must be a whole number"),
        ("name = 3", "name must be a text that is printable and not blank, not 3"),
        ('name = ""', "printable and not blank"),
        ('name = " "', "printable and not blank"),
        ('name = "a\\nb"', "printable and not blank"),
        ("optimizer = 3", "optimizer must be a table of kind, lr, per"),
        ("optimizer = [1]", "optimizer: expected a table of kind, lr, per"),
        ("[[optimizer]]\nlr = 1", "optimizer: expected a table of kind, lr, per"),
    ],
)
def test_what_stands_outside_the_tables_is_checked(text, allowed):
    assert allowed in refused(text)


@pytest.mark.parametrize("key", ["learning_rate", "Lr", "lr "])
def test_an_unknown_key_is_named_with_the_known(key):
    message = refused(f'[optimizer]\n"{key}" = 1')
    assert f"optimizer: unknown field {key!r}; known: kind, lr, per, momentum" in message
    message = refused(f'"{key}" = 1')
    assert f"unknown field {key!r}; known: name, seed, optimizer, schedule" in message


def test_an_unknown_table_is_named_with_the_known():
    message = refused("[optimiser]\nlr = 1")
    assert message.startswith("my.toml: unknown field 'optimiser'; known: name, seed, optimiz")


@pytest.mark.parametrize(
    "text",
    [
        *("lr 3", "[optimizer", "lr = ", "a = 1\na = 2", "\0", f"lr = {5000 * '9'}"),
        *(2000 * "a = [\n", f"a = {5000 * '['}", f"a = {5000 * '{a='}", 3000 * "a."),
    ],
    ids=lambda text: text[:9],
)
def test_what_is_no_toml_says_so(text):
    assert refused(text).startswith("my.toml: ")


def test_python_values_are_checked_too():
    with pytest.raises(RecipeError, match=r"optimizer must be a table of kind, .*, not 3"):
        Recipe(optimizer=3)
    with pytest.raises(RecipeError, match=r"schedule must be a table of .*, not Optimizer"):
        Recipe(schedule=Optimizer())
    with pytest.raises(RecipeError, match=r"area must be \[a finite num.*, not 1"):
        Augmentation(area=1)
    with pytest.raises(RecipeError, match=r"lr must be .*, not nan"):
        Optimizer(lr=math.nan)
    assert Augmentation(area=[0.3, 1]) == Augmentation(area=(0.3, 1.0))
    assert Input(progressive=[[0.5, 64]]).progressive == ((0.5, 64),)
    assert hash(Input(progressive=[[0.5, 64]]))


def test_a_part_can_be_changed():
    changed = Recipe().changed("schedule", epochs=7, batch=None)
    assert changed.schedule == Schedule(epochs=7)
    assert replace(changed, schedule=Schedule()) == Recipe()
    assert Recipe().changed("loss") == Recipe()
    assert Recipe().changed("augmentation", area=[0.5, 1]).augmentation.area == (0.5, 1)


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        (
            "schedule",
            {"epochs": 0},
            r"^schedule: epochs must be a whole number from 1 to 100000, not 0",
        ),
        ("schedule", {"epoch": 3}, r"^schedule: unknown field 'epoch'; known: epochs, batch"),
        ("plan", {"epochs": 3}, r"^unknown field 'plan'; known: name, seed, optimizer"),
        ("seed", {"epochs": 3}, r"^seed must be a whole number from 0 to \d+, not {"),
    ],
)
def test_an_impossible_change_is_refused(part, values, message):
    with pytest.raises(RecipeError, match=message):
        Recipe().changed(part, **values)


def test_a_file_is_named_by_itself_unless_it_says_its_name(tmp_path):
    path = tmp_path / "größe 🙂.toml"
    path.write_text("seed = 3\r\n[loss]\r\nteacher = 1\r\n", "utf-8-sig")  # as Windows writes it
    recipe = read_recipe(path)
    assert (recipe.name, recipe.seed, recipe.loss.teacher) == ("größe 🙂", 3, 1)
    write_recipe(tmp_path / "again.toml", recipe)
    assert read_recipe(str(tmp_path / "again.toml")) == recipe
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["again.toml", path.name]


def test_a_path_that_leads_to_no_recipe_says_why(tmp_path):
    for path, reason in {
        "papper": "No such file",
        str(tmp_path): "Is a directory",
        "a\0b": "embedded null byte",
        "x" * 5000: "name too long",
        "": "Is a directory",
    }.items():
        with pytest.raises(RecipeError, match=f"(?i)name \\(paper, .*{reason}"):
            read_recipe(path)


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "huge.toml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RecipeError, match="over 1,048,576 bytes"):
        read_recipe(path)
    with pytest.raises(RecipeError, match="over 1,048,576 bytes"):
        read_recipe("/dev/zero")


def test_a_file_that_is_no_text_says_so(tmp_path):
    path = tmp_path / "weights.toml"
    path.write_bytes(b"seed = 3 # \xff\xfe")
    with pytest.raises(RecipeError, match=r"weights.toml: is not a text in UTF-8"):
        read_recipe(path)


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such names")
def test_a_file_whose_name_is_no_text_needs_a_name_inside(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.toml")
    path.write_text("seed = 3")
    with pytest.raises(RecipeError, match="printable"):
        read_recipe(path)
    path.write_text('name = "mine"')
    assert read_recipe(path).name == "mine"


def test_a_recipe_that_cannot_be_written_leaves_the_file_as_it_was(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match="cannot write"):
        write_recipe(tmp_path / "file" / "recipe.toml", Recipe())
    assert (tmp_path / "file").read_text() == "kept"


NUMBERS = {
    "lr": st.floats(1e-12, 1000),
    "per": st.integers(1, 1_000_000),
    "momentum": st.floats(0, 1, exclude_max=True),
    "stage_decay": st.floats(0, 1, exclude_min=True),
    "epochs": st.integers(1, 100_000),
    "batch": st.integers(0, 1_000_000),
    "freeze": st.integers(0, 64),
    "temperature": st.floats(1e-9, 1e9),
    "label_smoothing": st.floats(0, 1, exclude_max=True),
    "ema": st.floats(0, 1, exclude_max=True),
    "noise_bits": st.just(0.0) | st.floats(1, 16),
    "stochastic_depth": st.floats(0, 1, exclude_max=True),
    "mean": st.tuples(*3 * [st.floats(allow_nan=False, allow_infinity=False)]),
    "scale": st.tuples(*3 * [st.floats(1e-300, 1e300)]),
    "area": st.floats(1e-9, 1).flatmap(lambda low: st.tuples(st.just(low), st.floats(low, 1))),
    "resize": st.integers(224, 4096),
    "crop": st.integers(1, 224),
    "progressive": st.dictionaries(
        st.floats(0, 1, exclude_max=True), st.integers(8, 4096), max_size=4
    ).map(lambda sizes: tuple(sorted({share + 0.0: n for share, n in sizes.items()}.items()))),
}
SHARES = {"warmup_factor", "final_factor", "flip", "erasing", "mix", "teacher"}


def values(f):
    if f.name in NUMBERS:
        return NUMBERS[f.name]
    if f.name in SHARES:
        return st.floats(0, 1)
    if kind_of(f) is float:
        return st.floats(0, 1e300) | st.integers(0, 10**9)
    if kind_of(f) is int:
        return st.integers(0, 10**12)
    if f.type is bool:
        return st.booleans()
    return st.sampled_from(f.type.__args__)


RECIPE = st.builds(
    Recipe,
    name=st.text(min_size=1).filter(lambda name: name.isprintable() and name.strip()),
    seed=st.integers(0, 2**63 - 1),
    **{
        name: st.builds(kind, **{f.name: values(f) for f in fields(kind)})
        for name, kind in PARTS.items()
    },
)


@settings(max_examples=60)
@given(RECIPE)
def test_any_recipe_survives_being_written_and_read(recipe):
    again = read(recipe.to_toml())
    assert again == recipe
    assert again.to_toml() == recipe.to_toml()


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@settings(max_examples=100)
@given(st.sampled_from(list(PARTS)), st.data())
def test_whatever_a_table_holds_it_is_a_recipe_or_a_recipe_error(part, data):
    key = data.draw(st.sampled_from([f.name for f in fields(PARTS[part])]))
    table = {part: {key: data.draw(JUNK)}}
    try:
        recipe = Recipe.from_dict({"name": "junk"} | table)
    except RecipeError as exc:
        message = str(exc)
    else:
        message = key
        assert read(recipe.to_toml()) == replace(recipe, name="junk")
    assert key in message


def test_parts_are_frozen_values():
    for kind in (Recipe, Optimizer, Schedule, Input, Augmentation, Loss, Averages, Transfer):
        assert kind() == kind()
        with pytest.raises(AttributeError):
            kind().name = "other"


def test_the_lists_of_recipes_and_files_agree():
    names = {file.name.removesuffix(".toml") for file in SHIPPED}
    assert names >= set(RECIPES)
    for name in RECIPES:
        assert recipe_from_toml(
            next(f for f in SHIPPED if f.name == f"{name}.toml").read_text("utf-8"), source=name
        ) == read_recipe(name)


def test_crops_of_shipped_recipes_grow_and_never_over_what_is_deployed():
    for file in SHIPPED:
        shipped = recipe_from_toml(file.read_text("utf-8"), source=file.name).input
        sizes = [size for _, size in shipped.progressive]
        assert all(smaller < larger for smaller, larger in pairwise(sizes))
        assert max(sizes, default=0) <= shipped.crop


GOLDEN = Path(__file__).parent / "golden" / "learning_rates.json"


def test_the_papers_rates_are_those_of_its_code():
    """The golden file is pycls's formula for each of 100 epochs at batch 512, to 50 digits."""
    golden = json.loads(GOLDEN.read_text())
    paper = read_recipe("paper")
    assert [paper.lr_at(epoch) for epoch in range(100)] == pytest.approx(golden, rel=1e-12)


def test_the_papers_rates_by_hand():
    """Of batch 128: warm-up times half a cosine, at epochs where both are simple numbers."""
    paper = read_recipe("paper").changed("schedule", batch=128)
    known = {
        0: 0.1 * 0.1,
        1: 0.1 * 0.28 * (1 + math.cos(math.pi / 100)) / 2,
        4: 0.1 * 0.82 * (1 + math.cos(math.pi / 25)) / 2,
        5: 0.1 * (1 + math.cos(math.pi / 20)) / 2,
        25: 0.1 * (1 + math.sqrt(0.5)) / 2,
        50: 0.1 / 2,
        75: 0.1 * (1 - math.sqrt(0.5)) / 2,
        100: 0,
    }
    for epoch, rate in known.items():
        assert paper.lr_at(epoch) == pytest.approx(rate, rel=1e-12, abs=1e-18)


def test_the_papers_rate_changes_once_an_epoch():
    paper = read_recipe("paper")
    for epoch in (0, 3, 4, 5, 99):
        for step in (1, 1250, 2502):
            assert paper.lr_at(epoch + step / 2503) == paper.lr_at(epoch)


def test_every_step_of_a_recipe_by_steps_has_its_own_rate():
    recipe = read_recipe("modern")
    rates = [recipe.lr_at(step / 10) for step in range(6000)]
    warm, cooling = rates[:51], rates[50:]
    assert all(earlier < later for earlier, later in pairwise(warm))
    assert all(earlier > later for earlier, later in pairwise(cooling))
    assert rates[0] == pytest.approx(0.5 * 0.01)
    assert rates[3000] == pytest.approx(0.25)


@pytest.mark.parametrize("every", ["epoch", "step"])
def test_the_rate_ends_at_the_final_factor(every):
    schedule = Schedule(epochs=10, warmup_epochs=0, final_factor=0.2, every=every)
    recipe = Recipe(schedule=schedule, optimizer=Optimizer(lr=3.0))
    assert recipe.lr_at(0) == 3.0
    assert recipe.lr_at(5) == pytest.approx(3 * 0.6)
    assert recipe.lr_at(10) == pytest.approx(0.6)
    assert recipe.lr_at(11.5) == pytest.approx(0.6)


def test_a_run_shorter_than_its_warm_up_never_reaches_the_whole_rate():
    recipe = read_recipe("paper").changed("schedule", epochs=2)
    assert recipe.lr_at(1) == pytest.approx(0.4 * 0.28 * 0.5)


@given(
    st.integers(1, 1000),
    st.floats(0, 50),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(["epoch", "step"]),
    st.floats(0, 1.5),
)
def test_no_rate_is_negative_or_over_the_whole(epochs, warmup, first, last, every, share):
    schedule = Schedule(
        epochs=epochs,
        warmup_epochs=warmup,
        warmup_factor=first,
        final_factor=last,
        every=every,
    )
    assert 0 <= Recipe(schedule=schedule).lr_at(share * epochs) <= 0.1


def test_crops_are_of_one_size_unless_they_progress():
    paper = read_recipe("paper")
    assert {paper.crop_at(epoch) for epoch in range(101)} == {224}


def test_crops_grow_as_the_modern_recipe_says():
    modern = read_recipe("modern")
    sides = [modern.crop_at(epoch) for epoch in range(601)]
    sizes, counts = np.unique(sides, return_counts=True)
    assert dict(zip(sizes.tolist(), counts.tolist(), strict=True)) == {
        128: 180,
        160: 180,
        176: 180,
        224: 61,  # the last one is for precise BN, after the end
    }


def test_before_the_first_share_crops_have_the_usual_size():
    small = Recipe(input=Input(progressive=[[0.5, 64]]), schedule=Schedule(epochs=4))
    assert [small.crop_at(epoch) for epoch in range(4)] == [224, 224, 64, 64]


@given(st.integers(1, 1000), st.data())
def test_a_share_that_is_a_number_of_epochs_begins_there(epochs, data):
    first = data.draw(st.integers(0, epochs - 1))
    growing = Input(progressive=[[first / epochs, 64]])
    small = Recipe(input=growing, schedule=Schedule(epochs=epochs))
    sides = [small.crop_at(epoch) for epoch in range(epochs)]
    assert sides == first * [224] + (epochs - first) * [64]


def test_shares_written_as_decimals_are_meant_exactly():
    for percent in range(1, 100):
        growing = Input(progressive=[[float(f"0.{percent:02}"), 64]])
        small = Recipe(input=growing, schedule=Schedule(epochs=100))
        sides = [small.crop_at(epoch) for epoch in range(100)]
        assert sides.index(64) == percent
