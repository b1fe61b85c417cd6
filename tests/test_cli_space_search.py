"""`regnet space search`: what it prints and writes, and what train makes of the pick."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from labelled_photos import write_labelled_photos
from simulated_machine import SimulatedMachine
from typer.testing import CliRunner

from regnet.cli import build_app
from regnet.ir.engine import read_model
from regnet.network.spec import read_spec, spec_from_dict
from regnet.space import search
from regnet.system.errors import DatasetError, SpaceError, UnknownModelError

OPTIONS = ("--space", "regnetx", "--candidates", 500, "--measure", 12)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let networks take as long as a formula says."""
    monkeypatch.setattr(search, "Stopwatch", lambda setup: SimulatedMachine())


def run(*arguments: object) -> str:
    done = CliRunner().invoke(build_app(["space"]), ["space", "search", *map(str, arguments)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_tables_say_what_was_found():
    text = run("--latency-ms", 6, *OPTIONS)
    title, _, _, pick = text.splitlines()[:4]
    assert title == "RegNets within 6 ms"
    assert pick.startswith(("X d=", "regnetx-"))
    assert "of 6 allowed (f32, 224 pixels" in pick
    assert "<- the pick" in text
    assert "regnetx-200mf" in text
    assert "from the 24 published networks; each of them from the others: 0.07 points off" in text


def test_json_spec_model_and_report(tmp_path: Path):
    pytest.importorskip("onnx")
    pytest.importorskip("jinja2")
    pick, folder, front = tmp_path / "pick.json", tmp_path / "model", tmp_path / "front.html"
    options = ("--latency-ms", 4, "--precision", "int8", "--resolution", 64, *OPTIONS)
    found = json.loads(run(*options, "-o", pick, "--export", folder, "--front", front, "--json"))
    spec = spec_from_dict(found["pick"]["spec"])
    assert found["pick"]["ms"] <= found["latency_ms"] == 4
    assert found["pick"]["verified"]["median"] <= 4
    assert len(found["measured"]) == 12
    assert found["published"][0]["published_error"] == pytest.approx(31.088)
    assert read_spec(pick) == read_spec(folder / "pick.json") == spec
    precisions = {
        name: read_model(folder / f"{name}.xml").metadata.precision
        for name in ("pick", "pick-int8")
    }
    assert precisions == {"pick": "fp32", "pick-int8": "int8"}
    assert read_model(folder / "pick.xml").metadata.spec == spec
    text = front.read_text()
    assert text.count("<svg") >= 1
    assert "regnetx-200mf" in text
    HTMLParser().feed(text)
    assert "://" not in text.replace("http://www.w3.org", "")


def test_the_best_are_trained_and_ranked_by_that(tmp_path: Path):
    pytest.importorskip("lightning_fabric")
    photos, records = tmp_path / "photos", tmp_path / "runs.jsonl"
    write_labelled_photos(photos)
    options = ("--latency-ms", 4, "--resolution", 32, *OPTIONS, "--records", records)
    pick = tmp_path / "pick.json"
    options = (*options, "--train", photos, "--top", 2, "--epochs", 1, "-o", pick, "--json")
    found = json.loads(run(*options))
    trained = found["trained"]
    assert len(records.read_text().splitlines()) == len(trained) == 2
    errors = [one["error"] for one in trained]
    assert errors == sorted(errors)
    assert trained[0]["spec"] == json.loads(pick.read_text())
    assert json.loads(run(*options))["trained"] == trained  # not trained again


def test_train_begins_with_the_network_of_a_spec_file(tmp_path: Path):
    pytest.importorskip("lightning_fabric")
    from regnet.conversion.store import Library
    from regnet.training.initial_network import open_start

    pick = tmp_path / "pick.json"
    run("--latency-ms", 6, *OPTIONS, "-o", pick)
    for model in (pick, str(pick)):
        for pretrained in (False, True):
            start = open_start(model, None, pretrained=pretrained, library=Library())
            assert start.spec == read_spec(pick)
            assert start.state is None
    (tmp_path / "none.json").write_text('{"d": 0}')
    for name in ("none.json", "absent.json"):
        with pytest.raises(UnknownModelError, match=name):
            open_start(tmp_path / name, None, pretrained=False, library=Library())


def test_photos_that_are_not_there_are_found_out_first(tmp_path: Path):
    pytest.importorskip("lightning_fabric")
    with pytest.raises(DatasetError, match="absent"):
        run("--latency-ms", 0.1, *OPTIONS, "--train", tmp_path / "absent")


def test_errors():
    with pytest.raises(SpaceError, match="spaces that can be searched"):
        run("--latency-ms", 5, "--space", "regnet")
    with pytest.raises(SpaceError, match="precision must be 'f32'"):
        run("--latency-ms", 5, "--precision", "fp16")
    with pytest.raises(SpaceError, match=r"no network was found within 0\.1 ms"):
        run("--latency-ms", 0.1, *OPTIONS)
