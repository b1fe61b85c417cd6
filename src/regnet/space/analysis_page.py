"""The report of `regnet space analyze`: what records of training runs tell of design spaces."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np

from regnet.pages.figures import svg
from regnet.pages.html import (
    Bar,
    Cell,
    Html,
    Number,
    Section,
    Tile,
    facts,
    figure,
    note,
    page,
    table,
    tiles,
)
from regnet.pages.small_plots import rows_of
from regnet.space.analysis import COSTS, Analysis, SpaceResult
from regnet.space.analysis_plots import (
    COLUMNS,
    draw_costs,
    draw_differences,
    draw_each_edf,
    draw_edfs,
    draw_fits,
    draw_parameters,
    parameter_rows,
)
from regnet.space.analysis_table import measured
from regnet.space.findings import Difference, Finding, points
from regnet.space.networks_page import failed_section, networks_section, published_section
from regnet.space.remarks import remarks
from regnet.statistics.bootstrap import DRAWS, FEWEST, SHARE, Interval
from regnet.system.version import TOOL_VERSION

_SMALL: Final = 1.9  # inches, the height of a row of small plots
_WIDE: Final = 9.0
_COST_COLUMNS: Final = ("Space", "MACs", "95 %", "Parameters", "95 %", "Activations", "95 %")


def analysis_page(found: Analysis) -> str:
    """Return the report's HTML. Raises `MissingExtraError` without the extra `report`."""
    sections = [Section("", (tiles(_tiles(found)),))]
    if texts := remarks(found):
        sections.append(Section("", tuple(map(note, texts))))
    sections.append(_edf_section(found))
    sections += [_findings_section(found)] if found.findings else []
    sections += [_pairs_section(found)] if found.differences else []
    sections += [_parameters_section(one) for one in found.spaces if one.best]
    sections.append(_costs_section(found))
    sections += [_fit_section(fits)] if (fits := [s for s in found.spaces if s.fits]) else []
    sections.append(networks_section(found))
    sections += [failed_section(found)] if found.failed else []
    sections += [published_section(found.seed), _made_section(found)]
    return page(
        "Design spaces, from trained networks",
        sections,
        subtitle=f"{found.networks:,} networks of {_listed([s.space for s in found.spaces])}"
        f"{_trained(found)}",
        foot=f"regnet {TOOL_VERSION}, regnet space analyze",
    )


def _trained(found: Analysis) -> str:
    """Return how all networks were trained, where it was alike."""
    if len(found.settings) > 1:
        return f"; {len(found.settings)} settings"
    (one,) = found.settings
    data = one.data.partition("@")[0]
    return (
        f"; {one.epochs:,} epochs on {one.train_photos:,} photos of {data}, {one.image_size} pixels"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _tiles(found: Analysis) -> list[Tile]:
    best = min(found.spaces, key=lambda one: float(one.population.errors.min()))
    shown = [
        Tile("Networks", f"{found.networks:,}", f"of {_spaces(len(found.spaces))}"),
        Tile(
            "Least error",
            _percent(float(best.population.errors.min())),
            f"top-1, a network of {best.space}",
        ),
    ]
    if found.findings:
        verdicts = Counter(one.verdict for one in found.findings)
        shown.append(
            Tile(
                "The paper's findings",
                f"{verdicts['confirmed']} of {len(found.findings)}",
                f"confirmed; {verdicts['contradicted']} contradicted, "
                f"{verdicts['not separated']} not separated",
            )
        )
    runs = f"of {found.runs:,} runs"
    return [*shown, Tile("Without a result", f"{len(found.failed):,}", runs)]


def _spaces(count: int) -> str:
    return "1 space" if count == 1 else f"{count} spaces"


def _edf_section(found: Analysis) -> Section:
    parts = [
        figure(
            svg("edf", partial(draw_edfs, spaces=found.spaces), width=_WIDE, height=4.4,
                label="Share of networks by their error, a line for each space"),
            "In brackets, networks. The band is the bootstrap's, 95 % at each error.",
        ),
        table(
            ("Space", "Networks", "Failed", "Least", "Median", "Mean", "95 %", "EDF height",
             "95 %", "MMACs"),
            [_space_row(one) for one in found.spaces],
        ),
    ]  # fmt: skip
    if len(found.spaces) > 2:
        parts.insert(1, _each_edf(found.spaces))
    low, high = found.area_range
    return Section(
        "How errors are distributed",
        tuple(parts),
        lead="The share of a space's networks whose top-1 error is at most what the axis says: a "
        "better space's line is farther left. The EDF height is the line's mean height from "
        f"{100 * low:.1f} to {100 * high:.1f} % error, the best and the median of all networks.",
    )


def _each_edf(spaces: Sequence[SpaceResult]) -> Html:
    height = _grid_height(len(spaces))
    draw = partial(draw_each_edf, spaces=spaces)
    label = "The same, a plot for each space with its band"
    return figure(svg("edf-each", draw, width=_WIDE, height=height, label=label), f"{label}.")


def _grid_height(spaces: int) -> float:
    """Return the height in inches of a small plot for each space."""
    return 0.85 + _SMALL * rows_of(spaces, COLUMNS)


def _space_row(one: SpaceResult) -> list[Cell]:
    population, errors = one.population, one.population.errors
    macs = population.costs("macs") / 1e6
    ends = f"{macs.min():.3g} to {macs.max():.3g}"
    failed = len(population.failed)
    return [
        one.space,
        Number(f"{len(population):,}", len(population)),
        Number(f"{failed:,}", failed),
        *(_error(value) for value in (float(errors.min()), one.median, float(errors.mean()))),
        _ends(one.mean),
        Number("-" if one.area is None else f"{one.area.value:.3f}", None),
        Number("-" if one.area is None else f"{one.area.low:.3f} to {one.area.high:.3f}", None),
        Number(ends, float(np.median(macs))),
    ]


def _percent(error: float) -> str:
    return f"{100 * error:.1f} %"


def _error(error: float) -> Number:
    return Number(_percent(error), error)


def _ends(found: Interval | None) -> Number:
    text = "-" if found is None else f"{100 * found.low:.1f} to {100 * found.high:.1f}"
    return Number(text, None)


def _findings_section(found: Analysis) -> Section:
    parts = [
        table(
            ("Finding of the paper", "Measured", "95 %", "Verdict", "Because"),
            [_finding_row(one) for one in found.findings],
        )
    ]
    if found.untested:
        parts.append(note(f"Not to be tested with these records: {_listed(found.untested)}."))
    return Section(
        "The paper's findings",
        tuple(parts),
        lead="On spaces, what was measured is the difference of mean errors in points, below 0 "
        "where the first has less. As good means a mean within a quarter of the errors' standard "
        "deviation. On lines it is the rank correlation of e_fit and error. Not separated means "
        "that these records say neither.",
    )


def _finding_row(one: Finding) -> list[Cell]:
    value, ends = measured(one)
    return [
        one.claim,
        Number(value, one.measured.value),
        Number(ends, None),
        one.verdict,
        one.reason,
    ]


def _pairs_section(found: Analysis) -> Section:
    count = len(found.differences)
    draw = partial(draw_differences, differences=found.differences)
    plot = svg(
        "pairs", draw, width=7, height=1.1 + 0.26 * count,
        label="Differences of mean errors with their intervals",
    )  # fmt: skip
    caption = "The first minus the second; grey where the interval holds 0."
    rows = [_pair_row(one) for one in found.differences]
    columns = ("In words", "Mean error, points", "95 %", "EDF height", "95 %")
    return Section("Spaces in pairs", (figure(plot, caption), table(columns, rows)))


def _pair_row(one: Difference) -> list[Cell]:
    return [
        one.sentence,
        Number(f"{100 * one.mean.value:+.2f}", one.mean.value),
        Number(points(one.mean), None),
        Number(f"{one.area.value:+.3f}", one.area.value),
        Number(f"{one.area.low:+.3f} to {one.area.high:+.3f}", None),
    ]


def _parameters_section(one: SpaceResult) -> Section:
    rows = parameter_rows(one)
    plot = svg(
        f"parameters-{one.space}",
        partial(draw_parameters, one=one),
        width=_WIDE,
        height=0.85 + _SMALL * len(rows),
        label=f"Error against each parameter of {one.space}",
    )
    best = "; ".join(f"{name} {_best(found)}" for name, found in one.best.items())
    stages = "" if one.population.is_line else " Numbers are stages, d is the depth of all."
    return Section(
        f"Parameters of {one.space}",
        (figure(plot, f"Best values: {best}."),),
        lead="A dot is a network. The line is the likely best value of a parameter, and the band "
        f"holds 95 % of those that won among {100 * SHARE:.0f} % of the networks, drawn "
        f"{DRAWS:,} times.{stages}",
    )


def _best(found: Interval) -> str:
    return f"{found.value:g} ({found.low:g} to {found.high:g})"


def _costs_section(found: Analysis) -> Section:
    plot = svg(
        "costs", partial(draw_costs, spaces=found.spaces), width=_WIDE, height=3.4,
        label="Error against MACs, parameters and activations",
    )  # fmt: skip
    parts = [figure(plot)]
    if rows := [_correlation_row(one) for one in found.spaces if one.correlations]:
        parts.append(table(_COST_COLUMNS, rows))
    return Section(
        "Error against complexity",
        tuple(parts),
        lead="The table has the rank correlation of error and cost: below 0 where costlier "
        "networks have less error.",
    )


def _correlation_row(one: SpaceResult) -> list[Cell]:
    cells: list[Cell] = [one.space]
    for name in COSTS:
        cells += _correlation(one.correlations.get(name))
    return cells


def _correlation(found: Interval | None) -> tuple[Number, Number]:
    if found is None:
        return Number("-", None), Number("-", None)
    value = Number(f"{found.value:+.2f}", found.value)
    return value, Number(f"{found.low:+.2f} to {found.high:+.2f}", None)


def _fit_section(spaces: Sequence[SpaceResult]) -> Section:
    plot = svg(
        "fits", partial(draw_fits, spaces=spaces), width=_WIDE,
        height=_grid_height(len(spaces)), label="Error against e_fit, a plot for each space",
    )  # fmt: skip
    rows: list[list[Cell]] = [
        [
            one.space,
            Bar(f"{np.median(one.fit_errors):.3f}", None),
            Number(f"{one.fit_errors.min():.3f}", None),
            Number(f"{one.fit_errors.max():.3f}", None),
            *_correlation(one.fit_correlation),
        ]
        for one in spaces
    ]
    columns = ("Space", "Median e_fit", "Least", "Most", "Rank correlation", "95 %")
    return Section(
        "How near widths are to a line",
        (figure(plot), table(columns, rows)),
        lead="e_fit is the mean absolute log-ratio of a network's widths, block by block, to those "
        "of the nearest RegNet: 0.1 is about 10 %. The rank correlation is with the error; above "
        "0, networks nearer to a line have less.",
    )


def _made_section(found: Analysis) -> Section:
    pairs = []
    for source in found.sources:
        pairs.append((source.path, f"{source.runs:,} runs, SHA-256 {source.sha256}"))
    for setting in found.settings:
        pairs.append(
            (
                "Setting",
                f"{setting.data}: {setting.train_photos:,} photos to train, "
                f"{setting.val_photos:,} to validate, {setting.classes:,} classes, "
                f"{setting.image_size} pixels, {setting.epochs:,} epochs, "
                f"recipe {setting.recipe}",
            )
        )
    text = (
        f"{DRAWS:,} resamples of a space's networks, seed {found.seed}; intervals are from the "
        f"2.5th to the 97.5th percentile, and none is given for fewer than {FEWEST} networks"
    )
    pairs += [("Bootstrap", text), ("Machines", _listed(found.machines))]
    return Section(
        "What this was made from",
        (facts(pairs),),
        lead="Every figure above, but for those of the published networks, is computed from these "
        "records alone.",
    )
