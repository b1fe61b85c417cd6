"""The bars of `regnet space search`, measured on this machine.

    python bench/space_search.py [--precision int8] [--latency-ms 5] [--held-out 50]

A search; then networks of the same spaces that it has not seen, drawn at random about the budget,
are predicted by its latency model and measured; and the pick is built and measured anew. The last
line is one JSON object; the exit status is 1 where a bar is missed.
"""

import argparse
import json
import statistics
import sys
from typing import Any

import numpy as np
from grid import grid

from regnet.pages.terminal import report_lines
from regnet.space.accuracy_model import fit
from regnet.space.candidates import draw
from regnet.space.measure import LatencySetup, Stopwatch
from regnet.space.published import published
from regnet.space.search import Found, Plan, search
from regnet.space.search_report import search_report
from regnet.space.search_results import found_to_dict

GROUP = 6


def held_out(found: Found, stopwatch: Stopwatch, count: int) -> dict[str, Any]:
    """Return how far off the latency model is for networks that the search has not measured."""
    macs = [one.network.cost.macs for one in found.measured]
    drawn = draw(
        found.plan.spaces,
        found.plan.candidates // 4,
        macs=(min(macs), max(macs)),
        accuracy=fit(published()),
        image_size=found.plan.setup.image_size,
        seed=found.plan.seed + 1,
    )
    seen = {one.network.spec for one in found.measured}
    expected = found.latency.predict(drawn.rows) / found.plan.latency_ms
    fits = np.flatnonzero((expected > 0.2) & (expected < 1.25))
    order = np.random.default_rng(0).permutation(fits)
    places = [int(p) for p in order if drawn.networks[p].spec not in seen][:count]
    measured: list[float] = []
    for start in range(0, len(places), GROUP):
        some = [drawn.networks[place].spec for place in places[start : start + GROUP]]
        measured += stopwatch.comparable(some)
        print(f"held out: {len(measured)} of {len(places)} measured", file=sys.stderr)
    predicted = found.latency.predict(drawn.rows[places])
    return figures(predicted, np.array(measured), [drawn.networks[p].cost.macs for p in places])


def figures(predicted: Any, measured: Any, macs: list[int]) -> dict[str, Any]:
    """Return relative errors, and those of MACs alone, at their best constant speed."""
    apart = np.abs(predicted / measured - 1)
    each = measured / np.array(macs)
    alone = np.abs(np.median(each) / each - 1)
    return {
        "networks": len(measured),
        "median": float(np.median(apart)),
        "p90": float(np.quantile(apart, 0.9)),
        "largest": float(apart.max()),
        "median_of_macs_alone": float(np.median(alone)),
        "least_ms": float(measured.min()),
        "most_ms": float(measured.max()),
    }


def main() -> None:
    """Measure, print the tables, and end in one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", default="int8", help="f32, bf16 or int8")
    parser.add_argument("--latency-ms", type=float, default=5.0)
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--held-out", type=int, default=50, help="networks")
    options = parser.parse_args()
    how = LatencySetup(precision=options.precision, image_size=options.resolution)
    stopwatch = Stopwatch(how)
    plan = Plan(latency_ms=options.latency_ms, setup=how)
    found = search(plan, stopwatch=stopwatch, say=lambda text: print(text, file=sys.stderr))
    unseen = held_out(found, stopwatch, options.held_out)
    pick = [found.pick.network.spec]
    again = statistics.median(Stopwatch(how).latencies(pick)[0].median for _ in range(3))
    sought = [rival for rival in found.rivals if rival.sought]
    beaten = sum(rival.beaten for rival in sought)
    bars = [
        ("latency model, median error held out", unseen["median"], "<=", 0.10),
        ("pick, ms, built and measured anew", again, "<=", options.latency_ms),
        ("published networks matched at their latency", beaten, ">=", len(sought)),
    ]
    cleared = [value <= bar if sign == "<=" else value >= bar for _, value, sign, bar in bars]
    print(*report_lines(search_report(found)), f"\nheld out: {unseen}\n", sep="\n")
    rows = [
        (name, f"{value:.3g}", f"{sign} {bar:g}", "yes" if good else "NO")
        for (name, value, sign, bar), good in zip(bars, cleared, strict=True)
    ]
    print(grid([("bar", "measured", "wanted", "cleared"), *rows]) + "\n")
    print(json.dumps({"held_out": unseen, "again_ms": again, "search": found_to_dict(found, [])}))
    sys.exit(not all(cleared))


if __name__ == "__main__":
    main()
