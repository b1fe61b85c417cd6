"""The command `regnet models`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner
from zoo_weights import weights_of

from regnet.cli import build_app
from regnet.system.errors import OutputError, UnknownModelError
from regnet.zoo.catalogue import card_by_name, card_names
from regnet.zoo.download import import_file
from regnet.zoo.ranking import Candidate, pareto_front


def run(*arguments: str) -> str:
    result = CliRunner().invoke(build_app(["models"]), ["models", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def row(table: str, name: str) -> list[str]:
    return next(line.split() for line in table.splitlines() if line.split()[:1] == [name])


def test_the_table_has_every_model_with_its_protocol() -> None:
    table = run()
    assert [line.split()[0] for line in table.splitlines()[1:]] == list(card_names())
    assert " ".join(row(table, "regnetx-3.2gf")) == (
        "regnetx-3.2gf 78.15 94.09 omz 256/224 15.30 3.18 122.7 MIT"
    )
    assert " ".join(row(table, "regnety-16gf-swag")) == (
        "regnety-16gf-swag 86.012 98.054 torchvision-swag-e2e 384/384 83.59 46.73 335.0 "
        "CC-BY-NC-4.0"
    )


def test_a_pattern_narrows_the_table_and_a_name_shows_a_card() -> None:
    assert len(run("regnetx-3.2gf*").splitlines()) == 4
    card = run("regnetx_032")
    for text in ("122,749,825 bytes", "5757be26", "78.264", "OpenCV, float", "8 V100", "MIT"):
        assert text in card
    assert "non-commercial purposes only" in run("regnety-128gf")
    assert "in the package" in run("bundled")
    assert not any(line != line.rstrip() for line in card.splitlines())


@pytest.mark.parametrize(("width", "columns"), [(40, 3), (60, 3), (80, 6), (120, 9)])
def test_a_narrow_terminal_drops_columns_before_names_are_alike(
    width: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regnet.cli.models.terminal_width", lambda: width)
    monkeypatch.setattr("regnet.cli.console.terminal_width", lambda: width)
    first, *rows = run().splitlines()
    assert (
        len(first.replace("params M", "M").replace("MACs G", "M").replace("size MB", "M").split())
        == columns
    )
    names = [row.split()[0] for row in rows]
    assert len(set(names)) == len(names)
    if width > 40:  # an image size behind the name is cut there
        names = [row.removeprefix("*").split()[0] for row in run("--best").splitlines()[1:]]
        assert len(set(names)) == len(names)


def test_json_is_an_object_for_one_name_and_a_list_else() -> None:
    card = json.loads(run("regnet_x_3_2gf", "--json"))
    assert card["name"] == "regnetx-3.2gf-tv2"
    assert (card["params"], card["macs"]) == (15_296_552, 3_176_622_952)
    assert card["accuracies"][0]["top1"] == 81.196
    assert card["cached"] is None
    assert [card["name"] for card in json.loads(run("--json"))] == list(card_names())
    assert isinstance(json.loads(run("regnetx-3.2g?", "--json")), list)


def test_what_is_cached_is_shown(tmp_path: Path) -> None:
    source = tmp_path / "fetched elsewhere"
    card = card_by_name("regnetx-200mf")
    source.write_bytes(weights_of(card.build_spec(), 6))
    path = import_file(card, source, cache_dir=tmp_path)
    arguments = ("--cache-dir", str(tmp_path))
    assert row(run(*arguments), "regnetx-200mf")[-1] == "yes"
    assert row(run(*arguments), "regnetx-400mf")[-1] != "yes"
    assert json.loads(run("regnetx-200mf", "--json", *arguments))["cached"] == str(path)


def test_an_unknown_model_is_an_error() -> None:
    with pytest.raises(UnknownModelError, match="did you mean"):
        run("regnetx-33gf")


# --- the best of them ---------------------------------------------------------------------------


def test_the_best_come_first_each_size_apart_and_the_front_is_marked() -> None:
    table = run("--best", "--params", "20M")
    assert table.splitlines()[1].split()[:3] == ["*", "regnety-3.2gf-ra:288", "82.724"]
    rows = json.loads(run("--best", "--json"))
    figures = [row["accuracies"][0]["top1"] for row in rows if not row["sizes"]]
    assert figures == sorted(figures, reverse=True)
    sizes = [row["preprocess"]["crop"] for row in rows if row["name"] == "regnety-3.2gf-ra"]
    assert sizes == [288, 224]
    names = {row["name"] for row in rows}
    assert not names & {"bundled", "regnety-16gf-sw-in12k"}  # nobody published a figure to rank by
    least = float("inf")
    for row in rows:
        assert row["front"] == (row["macs"] < least)
        least = min(least, row["macs"])


def test_limits_narrow_the_table() -> None:
    cards = json.loads(run("regnety*", "--macs", "3.5G", "--licence", "apache-2.0", "--json"))
    assert [card["name"] for card in cards] == ["regnety-3.2gf-ra"]
    cards = json.loads(run("regnetx-*", "--at-least", "82.5", "--json"))
    assert [card["name"] for card in cards] == ["regnetx-16gf-tv2", "regnetx-32gf-tv2"]
    with pytest.raises(UnknownModelError, match="within these limits"):
        run("--at-least", "99")
    with pytest.raises(UnknownModelError, match=r"licence 'GPL'; there are Apache-2\.0, BSD"):
        run("--licence", "GPL")
    with pytest.raises(UnknownModelError, match=r"--params 2X: is not a number such as 20M"):
        run("--params", "2X")


def test_the_cost_may_be_the_time_on_this_machine(tmp_path: Path) -> None:
    options = ("--params", "3M", "--latency", "--plot", str(tmp_path / "best.svg"), "--json")
    (row,) = json.loads(run("regnetx-2*", *options))
    assert (row["name"], row["front"]) == ("regnetx-200mf", True)
    assert row["latency_ms"] > 0
    assert "milliseconds for an image on this" in (tmp_path / "best.svg").read_text("utf-8")
    slow, fast = (Candidate(card_by_name("bundled"), latency=time) for time in (2.0, 1.0))
    assert pareto_front([fast, slow]) == [fast]
    assert pareto_front([slow, fast]) == [slow, fast]


def test_a_plot_names_the_front(tmp_path: Path) -> None:
    table = run("regnety-16gf*", "--plot", str(tmp_path / "best.svg"))
    assert table.startswith("front")
    assert "<svg" in (tmp_path / "best.svg").read_text("utf-8")
    with pytest.raises(OutputError, match=r"ends in \.svg, \.png or \.pdf"):
        run("--plot", str(tmp_path / "best.exe"))
    with pytest.raises(OutputError, match="its folder does not exist"):
        run("--plot", str(tmp_path / "none" / "best.svg"))
