"""The public names: adding or removing one is a decision, not an accident."""

import ast
from importlib.metadata import version
from pathlib import Path

import pytest

import regnet

PUBLIC = [
    "AnyNetSpec",
    "AssumptionWarning",
    "Card",
    "ClassScore",
    "Classifier",
    "Explainer",
    "Label",
    "OMZ",
    "PYCLS",
    "Prediction",
    "Preprocess",
    "RegNetError",
    "RegNetSpec",
    "SPEC_NAMES",
    "Stage",
    "calibrate",
    "card_by_name",
    "card_names",
    "compare",
    "crop_pixels",
    "evaluate",
    "finetune",
    "imagenet_labels",
    "load",
    "quantize",
    "spec_by_name",
    "teach",
    "to_frame",
    "train",
]


def test_public_names() -> None:
    assert sorted(regnet.__all__) == PUBLIC
    assert sorted(dir(regnet)) == sorted([*PUBLIC, "__version__"])
    assert regnet.__version__ == version("regnet-vision")


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(regnet, name)
    assert isinstance(value, regnet.Preprocess | tuple) or value.__doc__


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = regnet.nothing


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(regnet.__file__).read_text())
    imported = [
        alias.asname
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert sorted(filter(None, imported)) == PUBLIC


def test_errors_are_one_tree_that_imports_nothing() -> None:
    import regnet.system.errors as errors

    assert "\nfrom regnet" not in Path(errors.__file__).read_text("utf-8")  # but in functions
    kinds = [v for v in vars(errors).values() if isinstance(v, type)]
    assert all(issubclass(kind, errors.RegNetError) for kind in kinds)
    for kind in kinds:
        assert kind.__name__ in (errors.__doc__ or "")
