"""The page of an analysis: every part of it, from the records alone."""

import re
from dataclasses import replace

import pytest
from pages import plots, text_of, titles, words
from space_records import a_record, records_of

pytest.importorskip("matplotlib")

from regnet.network.spec import spec_by_name
from regnet.pages.html import report_html
from regnet.space.analysis import Analysis, Source, analyze
from regnet.space.analysis_report import analysis_report
from regnet.space.records import RunRecord


def page(found: Analysis) -> str:
    return report_html(analysis_report(found))


EVIL = "<script>alert('&')</script>"


def failed_run() -> RunRecord:
    record = a_record(spec_by_name("regnetx-200mf"), error=None, seed=4)
    return replace(record, failure=f"out of memory {EVIL}")


@pytest.fixture(scope="module")
def found() -> Analysis:
    spaces = ("anynetx-a", "anynetx-c", "regnetx")
    records = [record for space in spaces for record in records_of(space, 12)]
    source = Source("runs/all.jsonl", "0f" * 32, 37)
    return analyze([*records, failed_run()], sources=[source])


@pytest.fixture(scope="module")
def html(found: Analysis) -> str:
    return page(found)


def test_the_page_has_every_section(html: str) -> None:
    assert titles(html) == [
        "How errors are distributed",
        "The paper&#39;s findings",
        "Spaces in pairs",
        "Best values",
        "Parameters of anynetx-a",
        "Parameters of anynetx-c",
        "Parameters of regnetx",
        "Error against complexity",
        "How near widths are to a line",
        "Every network",
        "Runs without a result",
        "The 24 published networks",
        "What this was made from",
    ]


def test_plots_are_vectors_with_their_words(html: str) -> None:
    found = plots(html)
    assert len(found) == 11
    assert "anynetx-a (12)" in words(
        found["Share of networks by their error, a line for each space"]
    )
    parameters = words(found["Error against each parameter of anynetx-a"])
    assert {"d", "d1", "d2", "d3", "w1", "b3", "g2"} <= set(parameters)
    assert "<image" not in html
    assert "mathdefault" not in html


def test_the_page_loads_nothing(html: str) -> None:
    assert not re.search(r'(src|href)="(?!#)', html)
    assert "url(http" not in html


def test_figures_are_those_of_the_analysis(html: str, found: Analysis) -> None:
    text = text_of(html)
    assert "|36|of 3 spaces|" in text
    for one in found.spaces:
        assert one.mean is not None
        assert f"|{100 * one.mean.low:.1f} to {100 * one.mean.high:.1f}|" in text
    for difference in found.differences:
        assert f"|{difference.sentence}|" in text
    for finding in found.findings:
        assert f"|{finding.claim}|" in text
    assert all(claim in text for claim in found.untested)


def test_the_page_says_what_it_is_made_from(html: str) -> None:
    text = text_of(html)
    assert f"|runs/all.jsonl|37 runs, SHA-256 {'0f' * 32}|" in text
    assert "photos: 2,000 photos to train, 1,000 to validate, 10 classes" in text
    assert "|a machine|" in text
    assert (
        "36 networks of anynetx-a, anynetx-c, regnetx; 3 epochs on 2,000 photos of photos" in text
    )


def test_texts_of_records_stay_texts(html: str) -> None:
    assert EVIL not in html
    assert "out of memory &lt;script&gt;" in html


def test_the_published_networks_come_from_the_cards(html: str) -> None:
    text = text_of(html)
    assert "From the package&#39;s model cards, not from the records" in text
    assert "Depth is 17 to 27 blocks above 1 GMAC" in text
    names = words(plots(html)["The width of every block of the published networks"])
    assert {"regnetx-200mf", "regnety-32gf"} <= set(names)


def test_one_space_of_few_networks_has_a_page_without_intervals() -> None:
    html = page(analyze(records_of("anynetx-b", 3)))
    assert titles(html) == [
        "How errors are distributed",
        "Error against complexity",
        "How near widths are to a line",
        "Every network",
        "The 24 published networks",
        "What this was made from",
    ]
    assert "fewer than 8 networks" in html


def test_regnets_alone_have_no_section_on_lines() -> None:
    html = page(analyze(records_of("regnetx", 9)))
    assert "How near widths are to a line" not in titles(html)
    assert "Spaces in pairs" not in titles(html)


def test_networks_that_are_all_the_same_have_a_page() -> None:
    spec = spec_by_name("regnetx-200mf")
    records = [
        replace(a_record(spec), setting=replace(a_record(spec).setting, epochs=e))
        for e in range(1, 10)
    ]
    html = page(analyze(records, mixed=True))
    assert "9 settings" in html
