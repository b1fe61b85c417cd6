"""The report of `regnet space analyze`."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np

from regnet.network.spec import RegNetSpec, Spec
from regnet.pages import report as page
from regnet.pages.small_plots import rows_of
from regnet.space import analysis_plots as plots
from regnet.space.analysis import COSTS, Analysis, SpaceResult
from regnet.space.findings import Finding, points, remarks
from regnet.space.published import column, exponents, published
from regnet.statistics.bootstrap import DRAWS, FEWEST, SHARE, Interval
from regnet.system.text import counted, percent

_SMALL: Final = 1.9  # inches, the height of a row of small plots
_ERRORS: Final = ("Least", "Median", "Mean")
_LETTERS: Final = ("d", "w0", "wa", "wm", "w", "b", "g")

_plot = partial(page.Plot, width=9.0)
_table = partial(page.Table, first=1_000)


def analysis_report(found: Analysis) -> page.Report:
    """Return what records of training runs say of design spaces as a report."""
    with_fits = [one for one in found.spaces if one.fits]
    return page.Report(
        "Design spaces, from trained networks",
        [
            page.Section("", [page.Tiles(_tiles(found)), *remarks(found)]),
            _edf_section(found),
            *([_findings_section(found)] if found.findings else []),
            *([_pairs_section(found)] if found.differences else []),
            *_parameter_sections([one for one in found.spaces if one.best]),
            _costs_section(found),
            *([_fit_section(with_fits)] if with_fits else []),
            _networks_section(found),
            *([_failed_section(found)] if found.failed else []),
            _published_section(found.seed),
            _made_section(found),
        ],
        subtitle=f"{found.networks:,} networks of {', '.join(s.space for s in found.spaces)}; "
        f"{_trained(found)}",
        command="regnet space analyze",
    )


def _trained(found: Analysis) -> str:
    if len(found.settings) > 1:
        return f"{len(found.settings)} settings"
    (one,) = found.settings
    data = one.data.partition("@")[0]
    return (
        f"{one.epochs:,} epochs on {one.train_photos:,} photos of {data}, {one.image_size} pixels"
    )


def _tiles(found: Analysis) -> list[page.Tile]:
    best = min(found.spaces, key=lambda one: float(one.population.errors.min()))
    error = percent(best.population.errors.min(), 1)
    tiles = [
        page.Tile("Networks", f"{found.networks:,}", f"of {counted(len(found.spaces), 'space')}"),
        page.Tile("Least error", error, f"top-1, a network of {best.space}"),
    ]
    if found.findings:
        verdicts = Counter(one.verdict for one in found.findings)
        confirmed = f"{verdicts['confirmed']} of {len(found.findings)}"
        others = [f"{verdicts[name]} {name}" for name in ("contradicted", "not separated")]
        tiles.append(
            page.Tile("The paper's findings", confirmed, f"confirmed; {', '.join(others)}")
        )
    return [
        *tiles,
        page.Tile("Without a result", f"{len(found.failed):,}", f"of {found.runs:,} runs"),
    ]


def _edf_section(found: Analysis) -> page.Section:
    spaces = found.spaces
    together = _plot(
        "edf",
        partial(plots.draw_edfs, spaces=spaces),
        "Share of networks by their error, a line for each space",
        "In brackets, networks. The band is the bootstrap's, 95 % at each error.",
        height=4.4,
    )
    each = _plot(
        "edf-each",
        partial(plots.draw_each_edf, spaces=spaces),
        "The same, a plot for each space with its band",
        "The same, a plot for each space with its band.",
        height=_grid_height(len(spaces)),
    )
    low, high = found.area_range
    columns = ("Space", "Networks", "Failed", *_ERRORS, "95 %", "EDF height", "95 %", "MMACs")
    rows = [_space_row(one) for one in spaces]
    return page.Section(
        "How errors are distributed",
        [together, *([each] if len(spaces) > 2 else []), _table(columns, rows)],
        lead="The share of a space's networks with at most that top-1 error: a better space's line "
        "is farther left. The EDF height is the line's mean height from "
        f"{100 * low:.1f} to {100 * high:.1f} % error, the best and the median of all networks.",
    )


def _grid_height(spaces: int) -> float:
    """Return the height in inches of a small plot for each space."""
    return 0.85 + _SMALL * rows_of(spaces, plots.COLUMNS)


def _space_row(one: SpaceResult) -> list[page.Cell]:
    population, errors = one.population, one.population.errors
    macs = population.costs("macs") / 1e6
    return [
        one.space,
        page.Number(len(population)),
        page.Number(len(population.failed)),
        *(page.Number(float(error), ".1%") for error in (errors.min(), one.median, errors.mean())),
        _ends(one.mean, ".1f", scale=100),
        *_cells(one.area, ".3f"),
        f"{macs.min():.3g} to {macs.max():.3g}",
    ]


def _ends(interval: Interval | None, spec: str, *, scale: float = 1) -> str:
    if interval is None:
        return "-"
    return f"{scale * interval.low:{spec}} to {scale * interval.high:{spec}}"


def _cells(interval: Interval | None, spec: str) -> tuple[page.Number, str]:
    """Return the cells of a value and its interval."""
    return page.Number(None if interval is None else interval.value, spec), _ends(interval, spec)


def _findings_section(found: Analysis) -> page.Section:
    columns = ("Finding of the paper", "Measured", "95 %", "Verdict", "Because")
    table = _table(columns, [_finding_row(one) for one in found.findings])
    untested = f"Not to be tested with these records: {', '.join(found.untested)}."
    return page.Section(
        "The paper's findings",
        [table, *([untested] if found.untested else [])],
        lead="For spaces, the difference of mean errors in points, below 0 if the first has less. "
        "As good means a mean within a quarter of the errors' standard deviation. For lines, the "
        "rank correlation of e_fit and error. Not separated means that these records say neither.",
    )


def _finding_row(one: Finding) -> list[page.Cell]:
    value = one.measured
    cells = {
        "points": (page.Number(100 * value.value, "+.2f"), points(value)),
        "rank correlation": _cells(value, "+.2f"),
        "bottleneck ratio": _cells(value, "g"),
    }
    return [one.claim, *cells[one.unit], one.verdict, one.reason]


def _pairs_section(found: Analysis) -> page.Section:
    plot = page.Plot(
        "pairs",
        partial(plots.draw_differences, differences=found.differences),
        "Differences of mean errors with their intervals",
        "The first minus the second; grey if the interval holds 0.",
        width=7,
        height=1.1 + 0.26 * len(found.differences),
    )
    columns = ("In words", "Mean error, points", "95 %", "EDF height", "95 %")
    rows = [
        (
            one.sentence,
            page.Number(100 * one.mean.value, "+.2f"),
            points(one.mean),
            *_cells(one.area, "+.3f"),
        )
        for one in found.differences
    ]
    return page.Section("Spaces in pairs", [plot, _table(columns, rows)])


def _parameter_sections(spaces: Sequence[SpaceResult]) -> list[page.Section]:
    """Return the best values of all spaces in a table, and the parameters of each in plots."""
    if not spaces:
        return []
    order = partial(sorted, key=lambda n: (_LETTERS.index(n if n in _LETTERS else n[0]), n))
    rows = [
        [name, *(_best(one.best.get(name)) for one in spaces)]
        for name in order({name for one in spaces for name in one.best})
    ]
    table = _table(("Parameter", *(one.space for one in spaces)), rows)
    lead = (
        "The likely best value of each parameter, and the range of 95 % of those that won among "
        f"{100 * SHARE:.0f} % of the networks, drawn {DRAWS:,} times. Numbers are stages; the d "
        "of AnyNets is the depth of all."
    )
    sections = [page.Section("Best values", [table], lead)]
    for one in spaces:
        plot = _plot(
            f"parameters-{one.space}",
            partial(plots.draw_parameters, one=one),
            f"Error against each parameter of {one.space}",
            "A dot is a network. The line is the likely best value, and the band its range.",
            height=0.85 + _SMALL * len(plots.parameter_rows(one)),
        )
        sections.append(page.Section(f"Parameters of {one.space}", [plot]))
    return sections


def _best(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.value:g} ({_ends(interval, 'g')})"


def _costs_section(found: Analysis) -> page.Section:
    label = "Error against MACs, parameters and activations"
    plot = _plot("costs", partial(plots.draw_costs, spaces=found.spaces), label, height=3.4)
    rows = [
        [one.space, *(c for name in COSTS for c in _cells(one.correlations.get(name), "+.2f"))]
        for one in found.spaces
        if one.correlations
    ]
    columns = ("Space", "MACs", "95 %", "Parameters", "95 %", "Activations", "95 %")
    return page.Section(
        "Error against complexity",
        [plot, *([_table(columns, rows)] if rows else [])],
        lead="The rank correlation with the error is below 0 if costlier networks have less error.",
    )


def _fit_section(spaces: Sequence[SpaceResult]) -> page.Section:
    plot = _plot(
        "fits",
        partial(plots.draw_fits, spaces=spaces),
        "Error against e_fit, a plot for each space",
        height=_grid_height(len(spaces)),
    )
    rows: list[list[page.Cell]] = [
        [
            one.space,
            *(page.Number(float(at(one.fit_errors)), ".3f") for at in (np.median, np.min, np.max)),
            *_cells(one.fit_correlation, "+.2f"),
        ]
        for one in spaces
    ]
    columns = ("Space", "Median e_fit", "Least", "Most", "Rank correlation", "95 %")
    return page.Section(
        "How near widths are to a line",
        [plot, _table(columns, rows)],
        lead="e_fit is the mean absolute log-ratio of a network's widths, block by block, to those "
        "of the nearest RegNet: 0.1 is about 10 %. The rank correlation is with the error; above "
        "0, networks nearer to a line have less.",
    )


def _networks_section(found: Analysis) -> page.Section:
    networks = [(one.space, network) for one in found.spaces for network in one.population.networks]
    rows = [
        (
            spec_text(one.spec),
            space,
            page.Number(one.error, ".1%"),
            page.Number(one.macs / 1e6, ",.2f"),
            page.Number(one.params / 1e6, ",.3f"),
            page.Number(one.acts / 1e6, ",.3f"),
        )
        for space, one in sorted(networks, key=lambda pair: pair[1].error)
    ]
    columns = ("Network", "Space", "Error", "MMACs", "Params, M", "Acts, M")
    return page.Section(
        "Every network",
        [page.PageOnly([page.Table(columns, rows, sortable=True)])],
        lead="The best first. Stages are depth x width, in groups of g; the 3x3 convolution is "
        "narrower by b.",
    )


def spec_text(spec: Spec) -> str:
    """Return a network in short: its parameters, or its stages."""
    if isinstance(spec, RegNetSpec):
        return f"d {spec.d}, w0 {spec.w0}, wa {spec.wa:g}, wm {spec.wm:g}, g {spec.g}, b {spec.b}"
    return ", ".join(
        f"{s.depth} x {s.width} (g {s.group_width}, b {s.bottleneck})" for s in spec.stages
    )


def _failed_section(found: Analysis) -> page.Section:
    rows = [
        (spec_text(run.spec), run.space, page.Number(run.seed, "d"), run.failure or "no error")
        for run in found.failed
    ]
    table = page.Table(("Network", "Space", "Seed", "Why"), rows, first=10)
    return page.Section("Runs without a result", [table])


def _published_section(seed: int) -> page.Section:
    """Return the trends of the 24 published networks."""
    networks, grow = published(), exponents(seed=seed)
    depths = column(networks, "d")[column(networks, "macs") > 1e9]
    power = {name: f"{one.value:.2f}, {_ends(one, '.2f')}" for name, one in grow.items()}
    trends = _plot(
        "trends",
        partial(plots.draw_trends, networks=networks, exponents=grow),
        "Parameters of the published networks against MACs",
        f"Depth is {depths.min():.0f} to {depths.max():.0f} blocks above 1 GMAC, "
        f"{np.mean(depths):.1f} on average; wm stays, while the group width (power {power['g']}) "
        f"and the widths (w0 {power['w0']}, wa {power['wa']}) grow with MACs.",
        height=5.2,
    )
    costs = _plot(
        "published-costs",
        partial(plots.draw_published_costs, networks=networks, exponents=grow),
        "Activations and parameters against MACs",
        f"Activations grow with MACs to the power {power['acts']}, the paper's square root being "
        f"0.5; parameters to the power {power['params']}.",
        height=3.4,
    )
    widths = _plot(
        "widths",
        partial(plots.draw_widths, networks=networks),
        "The width of every block of the published networks",
        "Widths by block, and in grey the line that they were rounded from.",
        height=6.4,
    )
    size = networks[0].image_size
    return page.Section(
        "The 24 published networks",
        [trends, costs, widths],
        lead=f"From the package's model cards, not from the records: errors are pycls's own, MACs "
        f"those of {size} x {size} pixels. Powers have 95 % bootstrap intervals over the networks.",
    )


def _made_section(found: Analysis) -> page.Section:
    settings = [
        f"{one.data}: {one.train_photos:,} photos to train, {one.val_photos:,} to validate, "
        f"{one.classes:,} classes, {one.image_size} pixels, {one.epochs:,} epochs, recipe "
        f"{one.recipe}"
        for one in found.settings
    ]
    bootstrap = (
        f"{DRAWS:,} resamples of a space's networks, seed {found.seed}; intervals are from the "
        f"2.5th to the 97.5th percentile, and none is given for fewer than {FEWEST} networks"
    )
    pairs = [
        *((one.path, f"{one.runs:,} runs, SHA-256 {one.sha256}") for one in found.sources),
        *(("Setting", text) for text in settings),
        ("Bootstrap", bootstrap),
        ("Machines", ", ".join(found.machines)),
    ]
    return page.Section(
        "What this was made from",
        [page.Facts(pairs)],
        lead="All figures but those of the published networks are computed from these records.",
    )
