"""What a checkpoint does not say is said by every command, every time, and in Python."""

import json
import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from labelled_photos import CLASSES
from PIL import Image
from serving_process import serving
from typer.testing import CliRunner

import regnet
from regnet import AssumptionWarning
from regnet.checkpoints.layouts import TIMM, from_pycls
from regnet.checkpoints.weights import write_safetensors
from regnet.cli import build_app
from regnet.conversion.store import Library
from regnet.inference.classify import Classifier
from regnet.ir.assumptions import subject, without
from regnet.ir.engine import read_model
from regnet.network.labels import imagenet_labels
from regnet.network.modules import RegNet
from regnet.network.spec import AnyNetSpec, Stage, write_spec
from regnet.pixels.protocol import OMZ
from regnet.pixels.samples import sample_photos

CAT = sample_photos()[0]
SPEC = AnyNetSpec(stages=(Stage(1, 16, 8), Stage(1, 16, 8)), stem_width=16, classes=1000)
ALL = ["names", "protocol", "channels", "stem stride"]


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = RegNet(SPEC).state_dict()
    network["head.fc.weight"] *= 30  # sure of something
    return network


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Return a checkpoint of tensors alone, named as timm does."""
    path = tmp_path / "trees.pth"
    names = from_pycls(state(), TIMM)
    torch.save({names[key]: tensor for key, tensor in state().items()}, path)
    return path


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Return a file of our own that says all of it."""
    path = tmp_path / "own.safetensors"
    small = replace(OMZ, name="small", resize=40, crop=32)
    write_safetensors(path, state(), spec=SPEC, labels=imagenet_labels(), preprocess=small)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 120 small photos in a folder per class."""
    folder, chance = tmp_path_factory.mktemp("data") / "photos", np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(40):
            coarse = chance.integers(0, 256, (4, 4, 3), np.uint8)
            Image.fromarray(coarse).resize((40, 40)).save(folder / name / f"{number:02}.png")
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(build_app(), [str(argument) for argument in arguments])


def lines(result: Result) -> list[str]:
    """Return the lines about assumptions on standard error."""
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        assert "no temperature fits" in str(result.exception)  # what calibrate says of noise
    return [line for line in result.stderr.splitlines() if "assumed" in line]


def subjects(sentences: list[str] | tuple[str, ...]) -> list[str]:
    return [subject(sentence) for sentence in sentences]


COMMANDS = {
    "classify": ("classify", "-m", "MODEL", CAT),
    "evaluate": ("evaluate", "MODEL", "PHOTOS", "--subset", "--json"),
    "compare": ("compare", "MODEL", "MODEL:pycls", "PHOTOS", "--json"),
    "quantize": ("quantize", "MODEL", "--calibration", "PHOTOS", "--samples", 10, "--checks", 110,
                 "--min-agreement", 0, "--force", "-o", "OUT", "--json"),
    "calibrate": ("calibrate", "MODEL", "PHOTOS", "--subset", "-o", "OUT", "--json"),
    "explain": ("explain", "-m", "MODEL", CAT, "--json"),
    "benchmark": ("benchmark", "MODEL", "--seconds", 0, "--rounds", 1, "--json"),
    "info": ("info", "MODEL", "--json"),
    "convert": ("convert", "MODEL", "-o", "OUT", "--json"),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_it_once_also_from_the_cache(
    name: str, bare: Path, photos: Path, tmp_path: Path
) -> None:
    places = {"MODEL": bare, "MODEL:pycls": f"{bare}:pycls", "PHOTOS": photos, "OUT": tmp_path}
    arguments = [places.get(str(word), word) for word in COMMANDS[name]]
    for _ in range(2):
        result = run(*arguments)
        (line,) = lines(result)
        assert line.startswith(f"regnet: {bare}: assumed, because the checkpoint does not say: n")
        for known in ALL:
            assert f" {known}: " in line
        assert "--labels FILE --protocol NAME --channels ORDER --spec NAME" in line
        if "--json" in arguments and result.stdout:
            found = json.loads(result.stdout)
            found = found[0] if isinstance(found, list) else found
            found = found["a"] if name == "compare" else found
            assert subjects(found["assumed"]) == ALL


@pytest.mark.parametrize("name", [n for n in COMMANDS if n not in ("quantize", "calibrate")])
def test_nothing_is_said_of_a_model_that_knows_itself(
    name: str, own: Path, photos: Path, tmp_path: Path
) -> None:
    places = {"MODEL": own, "MODEL:pycls": f"{own}:pycls", "PHOTOS": photos, "OUT": tmp_path}
    arguments = [places.get(str(word), word) for word in COMMANDS[name]]
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    assert lines(result) == []
    if "--json" in arguments:
        found = json.loads(result.stdout)
        found = found[0] if isinstance(found, list) else found
        found = found["b"] if name == "compare" else found
        assert found["assumed"] == []


def test_a_protocol_named_for_a_run_is_not_assumed(bare: Path, photos: Path) -> None:
    result = run("evaluate", bare, photos, "--subset", "--protocol", "omz", "--json")
    assert subjects(json.loads(result.stdout)["assumed"]) == ["names", "channels", "stem stride"]
    assert "protocol:" not in lines(result)[0]
    sides = json.loads(run("compare", bare, f"{bare}:omz", photos, "--json").stdout)
    assert subjects(sides["a"]["assumed"]) == ALL
    assert subjects(sides["b"]["assumed"]) == ["names", "channels", "stem stride"]


def converted(bare: Path, *options: object) -> tuple[str, ...]:
    """Return the assumptions in the model that these options make."""
    folder = bare.parent / "out"
    result = run("convert", bare, "-o", folder, "--json", *options)
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    assumed = read_model(Path(printed["path"])).metadata.assumed
    assert printed["assumed"] == printed["notes"] == list(assumed)
    assert bool(lines(result)) == bool(assumed)
    return assumed


def test_what_the_user_gives_is_not_assumed(bare: Path, tmp_path: Path) -> None:
    labels, spec = tmp_path / "labels.txt", tmp_path / "spec.json"
    labels.write_text("".join(f"plant {number}\n" for number in range(1000)))
    write_spec(spec, SPEC)
    given = {
        "names": ("--labels", labels),
        "protocol": ("--protocol", "pycls"),
        "channels": ("--channels", "RGB"),
        "stem stride": ("--spec", spec),
    }
    for known, options in given.items():
        assert subjects(converted(bare, *options)) == [name for name in ALL if name != known]
    assert converted(bare, *(word for options in given.values() for word in options)) == ()


def test_only_the_rest_of_a_protocol_is_assumed(bare: Path) -> None:
    found = converted(bare, "--resize", 40, "--crop", 32)
    assert found[1] == "protocol: bicubic interpolation, ImageNet's mean and scale"
    found = converted(bare, "--resize", 40, "--crop", 32, "--interpolation", "bilinear")
    assert found[1] == "protocol: ImageNet's mean and scale"
    found = converted(bare, "--protocol", "omz", "--crop", 192)
    assert "protocol" not in subjects(found)


def test_classes_are_imagenets_or_numbered(bare: Path, tmp_path: Path) -> None:
    with pytest.warns(AssumptionWarning, match="1,000 classes are taken to be ImageNet-1k's"):
        assert regnet.load(bare).metadata.labels == imagenet_labels()
    path = tmp_path / "five.pth"
    torch.save(RegNet(SPEC.with_classes(5)).state_dict(), path)
    with pytest.warns(AssumptionWarning, match="its classes are numbered; protocol.*: BGR, the or"):
        assert regnet.load(path).metadata.labels[4].name == "class 4"
    state = RegNet(SPEC.with_classes(5)).state_dict()
    torch.save({"model": state, "class_names": ["ash", "elm"]}, path)
    said = "names: the file has 2 for 5 classes, so its classes are numbered; .*--labels FILE --pro"
    with pytest.warns(AssumptionWarning, match=said):
        assert regnet.load(path).metadata.labels[4].name == "class 4"


def test_python_is_warned_once_and_the_converted_file_goes_on_saying_it(bare: Path) -> None:
    for model in (bare, Library().ir(bare)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            classifier = regnet.load(model)
        (warning,) = caught
        assert isinstance(warning.message, AssumptionWarning)
        assert warning.filename == __file__
        assert warning.message.model == str(model)
        assert warning.message.assumed == classifier.metadata.assumed
        assert subjects(warning.message.assumed) == ALL
        prediction = classifier.classify(CAT)
        assert prediction.to_dict()["assumed"] == list(classifier.metadata.assumed)


def test_other_entries_of_python_warn_once(bare: Path, own: Path, photos: Path) -> None:
    calls = {
        "explain": lambda: regnet.Explainer.load(bare),
        "open": lambda: Classifier(Library().ir(bare)),
        "evaluate": lambda: regnet.evaluate(bare, photos, subset=True),
        "compare": lambda: regnet.compare(str(own), str(bare), photos),
    }
    for name, call in calls.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        found = [w.category for w in caught]
        assert found == [AssumptionWarning], name


def test_what_is_made_of_a_model_says_it_too(bare: Path, photos: Path, tmp_path: Path) -> None:
    converted = run("convert", bare, "-f", "onnx", "-o", tmp_path, "--json")
    result = run("evaluate", json.loads(converted.stdout)["path"], photos, "--subset", "--json")
    assert subjects(json.loads(result.stdout)["assumed"]) == ALL
    assert "To give them: regnet convert MODEL --labels FILE" in lines(result)[0]
    options = ("--samples", 10, "--checks", 110, "--min-agreement", 0, "--force", "-o", tmp_path)
    whole = run("convert", Library().ir(bare), "--preprocessing", "graph", "-o", tmp_path, "--json")
    assert subjects(json.loads(whole.stdout)["assumed"]) == ALL
    assert len(lines(whole)) == 1
    made = run("quantize", bare, "--calibration", photos, *options, "--json")
    int8 = Path(json.loads(made.stdout)["path"])
    assert subjects(read_model(int8).metadata.assumed) == ALL


def test_rows_say_it_where_there_is_something(bare: Path) -> None:
    (row,) = run("classify", "-m", bare, CAT, "-f", "jsonl").stdout.splitlines()
    assert subjects(json.loads(row)["assumed"]) == ALL
    result = run("classify", "-m", "bundled", CAT, "-f", "jsonl")
    assert "assumed" not in result.stdout + result.stderr


def test_a_server_says_it_in_its_log_and_answers(bare: Path, tmp_path: Path) -> None:
    import httpx

    environ = {"OMP_NUM_THREADS": "1"}
    with serving(tmp_path, f"mine={bare}", environ=environ) as served:
        said = [line for line in served.log.read_text().splitlines() if "assumed" in line]
        answer = httpx.post(f"{served.url}/v1/classify", content=CAT.read_bytes()).json()
        (model,) = httpx.get(f"{served.url}/v1/models").json()["models"]
        about = httpx.get(f"{served.url}/v2/models/mine").json()
    (line,) = said
    assert line.startswith(f"regnet: {bare}: assumed")
    for found in (answer, model, about, *answer["predictions"]):
        assert subjects(found["assumed"]) == ALL


def test_training_says_what_it_begins_with(bare: Path, photos: Path, tmp_path: Path) -> None:
    options = ("--recipe", "finetune", "--epochs", 1, "--crop", 32, "--batch", 16)
    result = run("train", photos, "-m", bare, *options, "-o", tmp_path / "run", "--json")
    (line,) = lines(result)
    assert "protocol: the recipe's input" in line
    found = json.loads(result.stdout)
    assert set(subjects(found["assumed"])) == set(ALL)
    assert read_model(Path(found["model"])).metadata.assumed == ()  # it was trained with all this


def test_sentences_by_subject() -> None:
    assumed = ("names: a: b", "protocol: omz")
    assert without(assumed, "protocol") == ("names: a: b",)
    assert subject(assumed[0]) == "names"


def test_the_line_is_one_line_whatever_the_name(bare: Path) -> None:
    strange = bare.rename(bare.with_name("new\nline \x1b[31m.pth"))
    (line,) = lines(run("info", strange))
    assert "new\\nline \\x1b[31m.pth: assumed" in line


def test_a_warning_survives_being_sent_to_another_process() -> None:
    warning = AssumptionWarning("my trees.pth", ["names: its classes are numbered"], "00")
    again = pickle.loads(pickle.dumps(warning))
    assert (str(again), again.assumed, again.weights) == (str(warning), warning.assumed, "00")
    assert str(warning).endswith("regnet convert 'my trees.pth' --labels FILE")
