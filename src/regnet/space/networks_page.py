"""The networks in the report of `regnet space analyze`: trained, failed, and published ones."""

from functools import cache, partial
from typing import Final

import numpy as np

from regnet.pages.figures import svg
from regnet.pages.html import Cell, Number, Section, figure, table
from regnet.space.analysis import Analysis
from regnet.space.analysis_table import spec_text
from regnet.space.outcomes import TrainedNetwork
from regnet.space.published import published
from regnet.space.published_plots import draw_published_costs, draw_trends, draw_widths
from regnet.space.trends import column, exponents
from regnet.statistics.bootstrap import Interval

_WIDE: Final = 9.0


def networks_section(found: Analysis) -> Section:
    """Return a table of all networks with a result, the best first."""
    of_spaces = [
        (one.space, network) for one in found.spaces for network in one.population.networks
    ]
    rows = [_row(space, network) for space, network in sorted(of_spaces, key=lambda o: o[1].error)]
    columns = ("Network", "Space", "Error", "MMACs", "Params, M", "Acts, M")
    return Section(
        "Every network",
        (table(columns, rows, sortable=True),),
        lead="The best first. Stages are depth x width, in groups of g, the 3x3 convolution "
        "narrower by b.",
    )  # fmt: skip


def _row(space: str, network: TrainedNetwork) -> list[Cell]:
    return [
        spec_text(network.spec),
        space,
        Number(f"{100 * network.error:.1f} %", network.error),
        Number(f"{network.macs / 1e6:,.2f}", network.macs),
        Number(f"{network.params / 1e6:,.3f}", network.params),
        Number(f"{network.acts / 1e6:,.3f}", network.acts),
    ]


def failed_section(found: Analysis) -> Section:
    """Return a table of the runs without a result."""
    rows: list[list[Cell]] = [
        [spec_text(run.spec), run.space, Number(str(run.seed), run.seed), run.failure or "no error"]
        for run in found.failed
    ]
    return Section("Runs without a result", (table(("Network", "Space", "Seed", "Why"), rows),))


@cache
def published_section(seed: int) -> Section:
    """Return the trends of the 24 published networks."""
    networks, grow = published(), exponents(seed=seed)
    depths = column(networks, "d")[column(networks, "macs") > 1e9]
    trends = svg(
        "trends", partial(draw_trends, networks=networks, exponents=grow), width=_WIDE, height=5.2,
        label="Parameters of the published networks against MACs",
    )  # fmt: skip
    costs = svg(
        "published-costs", partial(draw_published_costs, networks=networks, exponents=grow),
        width=_WIDE, height=3.4, label="Activations and parameters against MACs",
    )  # fmt: skip
    widths = svg(
        "widths", partial(draw_widths, networks=networks), width=_WIDE, height=6.4,
        label="The width of every block of the published networks",
    )  # fmt: skip
    size = networks[0].image_size
    return Section(
        "The 24 published networks",
        (
            figure(
                trends,
                f"Depth is {depths.min():.0f} to {depths.max():.0f} blocks above 1 GMAC, "
                f"{np.mean(depths):.1f} on average; wm stays, while the group width (power "
                f"{_power(grow['g'])}) and the widths (w0 {_power(grow['w0'])}, wa "
                f"{_power(grow['wa'])}) grow with MACs.",
            ),
            figure(
                costs,
                f"Activations grow with MACs to the power {_power(grow['acts'])}, the paper's "
                f"square root being 0.5; parameters to the power {_power(grow['params'])}.",
            ),
            figure(widths, "Widths by block, and in grey the line that they were rounded from."),
        ),
        lead=f"From the package's model cards, not from the records: errors are pycls's own, MACs "
        f"those of {size} x {size} pixels. Powers have 95 % bootstrap intervals over the networks.",
    )


def _power(found: Interval) -> str:
    return f"{found.value:.2f}, {found.low:.2f} to {found.high:.2f}"
