"""What records tell of spaces: groups, differences, findings, remarks, JSON and rows."""

import hashlib
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from space_records import SETTING, a_record, records_of

from regnet.network.spec import AnyNetSpec, RegNetSpec, Spec, Stage, spec_by_name
from regnet.space.analysis import Analysis, analyze, analyze_files, rows
from regnet.space.findings import Difference, remarks, space_findings, untested
from regnet.space.outcomes import populations
from regnet.space.records import RunRecord
from regnet.statistics.bootstrap import Interval
from regnet.system.errors import SpaceError


def worse_by_a_tenth(spec: Spec, noise: float) -> float:
    return 0.5 + 0.05 * noise


def good(spec: Spec, noise: float) -> float:
    return 0.4 + 0.05 * noise


@cache
def two_spaces() -> Analysis:
    """Return an analysis where regnetx has 10 points less error than anynetx-a."""
    records = records_of("regnetx", 20, error=good)
    return analyze([*records_of("anynetx-a", 24, error=worse_by_a_tenth), *records])


def write(path: Path, records: list[RunRecord]) -> Path:
    path.write_text("".join(json.dumps(record.to_dict()) + "\n" for record in records))
    return path


def test_spaces_are_in_the_papers_order_and_others_after_them() -> None:
    spec = spec_by_name("regnetx-200mf")
    names = ("mine", "regnetx", "anynetx-e", "anynetx-a")
    found = populations([a_record(spec, space=name) for name in names])
    assert [one.space for one in found] == ["anynetx-a", "anynetx-e", "regnetx", "mine"]


def test_seeds_of_one_network_count_once() -> None:
    spec = spec_by_name("regnetx-200mf")
    runs = [a_record(spec, error=0.4, seed=0), a_record(spec, error=0.6, seed=1)]
    (found,) = populations([*runs, a_record(spec, error=None, seed=2)])
    assert len(found) == 1
    assert found.errors.tolist() == [0.5]
    assert len(found.failed) == 1


def test_parameters_of_regnets_are_those_that_differ() -> None:
    (found,) = populations(records_of("regnetx", 10))
    assert list(found.parameters) == ["d", "w0", "wa", "wm", "g"]
    assert found.parameters["d"].tolist() == [one.spec.d for one in found.networks]
    (one,) = populations([a_record(spec_by_name("regnetx-200mf"))])
    assert one.parameters == {}


def test_parameters_of_anynets_are_by_stage_but_for_what_is_shared() -> None:
    names = {}
    for space in ("anynetx-a", "anynetx-b", "anynetx-c"):
        (found,) = populations(records_of(space, 20))
        names[space] = list(found.parameters)
    stages = ["d", "d1", "d2", "d3", "w1", "w2", "w3"]
    groups = ["g1", "g2", "g3"]
    assert names["anynetx-a"] == [*stages, "b1", "b2", "b3", *groups]
    assert names["anynetx-b"] == [*stages, "b", *groups]
    assert names["anynetx-c"] == [*stages, "b", "g"]


def test_the_shared_group_width_is_the_widest_where_a_stage_is_too_narrow() -> None:
    def net(width: int, group: int) -> AnyNetSpec:
        first = Stage(1, width, min(group, width))
        return AnyNetSpec(stages=(first, Stage(2, 4 * width, group)))

    (found,) = populations([a_record(net(8, 16)), a_record(net(64, 32))])
    assert found.parameters["g"].tolist() == [16, 32]


def test_networks_with_other_numbers_of_stages_have_their_depth_alone() -> None:
    nets = [AnyNetSpec(stages=(Stage(2, 16, 8),) * count) for count in (2, 3)]
    (found,) = populations([a_record(spec) for spec in nets])
    assert {name: v.tolist() for name, v in found.parameters.items()} == {"d": [4, 6]}


def test_several_settings_are_refused_with_what_differs() -> None:
    record = a_record(spec_by_name("regnetx-200mf"))
    longer = replace(record, setting=replace(SETTING, epochs=9))
    with pytest.raises(SpaceError, match=r"2 settings \(epochs 3 and 9\).*--mixed"):
        analyze([record, longer])
    found = analyze([record, longer], mixed=True)
    assert found.networks == 2
    assert any("2 settings" in text for text in remarks(found))


@pytest.mark.parametrize("records", [[], [a_record(spec_by_name("regnetx-200mf"), error=None)]])
def test_nothing_to_analyze_is_an_error(records: list[RunRecord]) -> None:
    with pytest.raises(SpaceError, match=r"no records|none of the 1 runs.*out of memory"):
        analyze(records)


def test_a_difference_is_the_first_minus_the_second() -> None:
    (found,) = two_spaces().differences
    assert (found.first, found.second) == ("regnetx", "anynetx-a")
    assert found.mean.value == pytest.approx(-0.1, abs=0.02)
    assert found.mean.high < 0
    assert found.area.value > 0
    assert found.separated
    assert "regnetx has" in found.sentence
    assert "less error on average than anynetx-a" in found.sentence


def test_means_are_those_of_the_records() -> None:
    records = records_of("regnet", 12)
    (one,) = analyze(records).spaces
    assert one.mean is not None
    assert one.mean.value == pytest.approx(np.mean([record.error for record in records]))
    assert one.edf.share[-1] == 1.0


def test_an_analysis_does_not_depend_on_other_spaces_or_the_order_of_spaces() -> None:
    alone = analyze(records_of("regnetx", 20, error=good)).spaces[0]
    among = two_spaces().spaces[1]
    assert alone.mean == among.mean
    assert alone.best == among.best
    assert analyze(records_of("regnetx", 20, error=good), seed=1).spaces[0].mean != alone.mean


def test_same_errors_are_not_separated() -> None:
    found = analyze([*records_of("anynetx-a", 20), *records_of("anynetx-b", 20)])
    (difference,) = found.differences
    assert not difference.separated
    assert "not separated" in difference.sentence
    assert "the interval holds 0" in difference.sentence
    assert found.findings[0].verdict == "not separated"


def test_few_networks_have_no_interval_and_no_verdict() -> None:
    found = analyze([*records_of("anynetx-a", 7), *records_of("regnetx", 20)])
    assert found.spaces[0].mean is None
    assert found.spaces[0].best == {}
    assert found.differences == ()
    assert "regnetx is better than anynetx-a" in found.untested
    assert any("anynetx-a: fewer than 8 networks" in text for text in remarks(found))


def a_difference(low: float, high: float, spread: float = 0.04) -> Difference:
    mean = Interval((low + high) / 2, low, high)
    return Difference("first", "second", mean, mean, spread)


@pytest.mark.parametrize(
    ("low", "high", "same", "not_worse", "better"),
    [
        (-0.05, -0.02, "contradicted", "confirmed", "confirmed"),
        (-0.05, 0.005, "not separated", "confirmed", "not separated"),
        (-0.005, 0.005, "confirmed", "confirmed", "not separated"),
        (-0.05, 0.05, "not separated", "not separated", "not separated"),
        (0.001, 0.009, "confirmed", "confirmed", "contradicted"),
        (0.02, 0.05, "contradicted", "contradicted", "contradicted"),
    ],
)
def test_verdicts(low: float, high: float, same: str, not_worse: str, better: str) -> None:
    pairs = [("anynetx-b", "anynetx-a"), ("anynetx-d", "anynetx-c"), ("regnet", "anynetx-e")]
    found = list(space_findings({pair: a_difference(low, high) for pair in pairs}))
    assert [one.verdict for one in found] == [same, not_worse, better]


def test_findings_that_cannot_be_tested_are_named() -> None:
    assert len(untested(set())) == 11
    assert untested({"regnet", "anynetx-e"}).count("regnet is better than anynetx-e") == 0


def test_the_paper_is_found_again_in_errors_that_follow_it() -> None:
    found = two_spaces()
    verdicts = {one.claim: one.verdict for one in found.findings}
    assert verdicts["regnetx is better than anynetx-a"] == "confirmed"
    far = analyze(records_of("anynetx-c", 40))  # the formula's errors grow with e_fit
    (line,) = [one for one in far.findings if "line" in one.claim]
    assert line.verdict == "confirmed"
    assert line.measured.low > 0


def ratio_is_best(spec: Spec, noise: float) -> float:
    assert isinstance(spec, RegNetSpec)
    return 0.3 + 0.1 * (spec.b != 1) + 0.02 * noise


def test_the_best_bottleneck_ratio() -> None:
    found = analyze(records_of("regnet", 60, error=ratio_is_best))
    assert found.spaces[0].best["b"] == Interval(1.0, 1.0, 1.0)
    verdicts = {one.claim: one.verdict for one in found.findings}
    assert verdicts["regnet: a bottleneck ratio of 1 is best"] == "confirmed"


def remarks_of(records: list[RunRecord]) -> str:
    return " ".join(remarks(analyze(records)))


def test_failed_runs_are_counted_and_change_no_figure() -> None:
    records = records_of("regnetx", 12)
    failed = [replace(records[0], seed=9, failure="diverged", errors=(0.9,))]
    assert "1 of 13 runs have no result (1 of regnetx)" in remarks_of([*records, *failed])
    assert analyze([*records, *failed]).spaces[0].mean == analyze(records).spaces[0].mean


def test_networks_that_learnt_nothing_are_named() -> None:
    records = records_of("regnetx", 12, error=lambda spec, noise: 0.9)
    assert "12 of 12 networks are hardly better than guessing (90.0 % error)" in remarks_of(records)


def test_spaces_of_other_costs_are_named() -> None:
    cheap = [replace(r, macs=r.macs // 2) for r in records_of("regnetx", 12)]
    text = remarks_of([*records_of("anynetx-a", 12), *cheap])
    assert "do not cost the same" in text


def test_the_spread_between_seeds_is_told() -> None:
    records = [replace(r, errors=(0.5,)) for r in records_of("regnetx", 10)]
    again = [replace(r, errors=(0.52,), seed=1) for r in records]
    text = remarks_of([*records, *again])
    assert "10 networks were trained with several seeds" in text
    assert "1.41 points" in text


def test_what_cannot_be_separated_is_told() -> None:
    found = two_spaces()
    half = (found.differences[0].mean.high - found.differences[0].mean.low) / 2
    assert f"less than about {100 * half:.1f} points apart" in " ".join(remarks(found))


def test_files_are_named_with_the_hash_of_their_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", records_of("regnetx", 9))
    found = analyze_files([path, path])
    (source,) = found.sources
    assert source.runs == found.runs == 9
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="cannot read"):
        analyze_files([tmp_path / "none.jsonl"])


def test_json_has_every_part_and_plain_values() -> None:
    values = json.loads(json.dumps(two_spaces().to_dict(), allow_nan=False))
    assert [one["space"] for one in values["spaces"]] == ["anynetx-a", "regnetx"]
    first = values["spaces"][0]
    assert first["networks"] == len(first["e_fit"]["networks"]) == 24
    assert first["edf"]["share"][-1] == 1.0
    assert set(first["best_values"]) >= {"d", "w1", "b1", "g1"}
    assert values["differences"][0]["separated"] is True
    assert {one["verdict"] for one in values["findings"]} <= {
        "confirmed",
        "contradicted",
        "not separated",
    }
    assert len(values["published"]["networks"]) == 24


def test_rows_have_each_network_and_each_failed_run() -> None:
    records = records_of("regnetx", 9)
    failed = replace(records[0], seed=9, failure="diverged", errors=())
    found = list(rows(analyze([*records, failed])))
    assert len(found) == 10
    assert found[0]["d"] == json.loads(found[0]["spec"])["d"]
    assert found[-1]["failure"] == "diverged"
    assert found[-1]["error"] is None
