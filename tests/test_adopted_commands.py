"""Every command that takes a model takes an adopted one."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import run_main
from foreign_models import write_classifier
from labelled_photos import CLASSES, write_labelled_photos
from test_quantization_layers import write_tokens

from regnet.ir.engine import read_model

pytest.importorskip("onnxruntime", reason="the originals run in ONNX Runtime")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGNET_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "photos"
    write_labelled_photos(folder, each=70)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an adopted classifier of three classes, by luck better than chance."""
    folder = tmp_path_factory.mktemp("adopted")
    path = write_classifier(folder / "other.onnx", classes=len(CLASSES), size=64, batch=1, seed=24)
    labels = folder / "classes.txt"
    labels.write_text("".join(f"{wnid}\tclass {wnid}\n" for wnid in CLASSES))
    done = run_main(
        *("convert", path, "--labels", labels, "--protocol", "torchvision"),
        *("--name", "adopted", "-o", folder),
    )
    assert done.returncode == 0, done.stderr
    return folder / "adopted.xml"


def run(*arguments: object) -> str:
    done = run_main(*arguments)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.parametrize(
    "command",
    [
        "classify --model {model} --top-k 2 {photo}",
        "embed --model {model} {photo} -o {out}/photos.npy",
        "evaluate --model {model} {photos}",
        "compare {model} {model} {photos}",
        "explain --model {model} {photo} -o {out}/maps",
        "info {model}",
        "benchmark {model} --seconds 0.2",
        "convert {model} --preprocessing graph -o {out}",
        "convert {model} --layout repository -o {out}",
        "convert {model} --format onnx -o {out}",
        "convert {model} --precision fp16 -o {out}",
        "calibrate {model} {photos} -o {out}",
    ],
)
def test_a_command_takes_an_adopted_model(
    command: str, model: Path, photos: Path, tmp_path: Path
) -> None:
    photo = photos / CLASSES[0] / "00.png"
    given = {"model": model, "photo": photo, "photos": photos, "out": tmp_path}
    run(*(word.format(**given) for word in command.split()))


def test_an_adopted_model_is_quantized_with_a_certificate(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    text = run(
        *("quantize", model, "--calibration", photos, "--samples", 20, "--checks", 100),
        *("--min-agreement", 0.5, "--force", "-o", tmp_path, "--json"),
    )
    certificate = json.loads(text)["certificate"]
    int8 = read_model(tmp_path / "adopted-int8.xml").metadata
    assert (int8.precision, int8.spec) == ("int8", None)
    assert int8.certificate is not None
    assert int8.certificate.agreement == certificate["agreement"] >= 0.5
    assert len(run("classify", "--model", tmp_path / "adopted-int8.xml", photos, "-f", "csv")) > 0


def test_an_adopted_model_is_no_start_of_a_training(
    photos: Path, model: Path, tmp_path: Path
) -> None:
    done = run_main("train", photos, "--weights", model, "-o", tmp_path / "run")
    assert done.returncode == 2
    assert b"adopted" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_network_that_does_not_end_in_a_mean_over_positions_is_not_explained(
    photos: Path, tmp_path: Path
) -> None:
    path = write_tokens(tmp_path / "tokens.onnx")
    run("convert", path, "--protocol", "torchvision", "-o", tmp_path)
    photo = photos / CLASSES[0] / "00.png"
    done = run_main("explain", "-m", tmp_path / "tokens.xml", photo, "-o", tmp_path / "maps")
    assert done.returncode == 2
    assert b"cannot be explained: its network does not end in mean" in done.stderr
