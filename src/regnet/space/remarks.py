"""What a reader of an analysis has to know before its figures, in sentences."""

from collections.abc import Iterator

import numpy as np

from regnet.space.analysis import Analysis
from regnet.statistics.bootstrap import FEWEST

_ALIKE = 1.1  # times, within which the spaces' median MACs are alike
_NEAR_CHANCE = 0.95  # of the error of guessing


def remarks(found: Analysis) -> list[str]:
    """Return sentences on what limits the figures: failures, mixtures, few networks, chance."""
    kinds = (_failures, _mixture, _too_few, _costs, _chance, _seeds, _resolution)
    return [text for kind in kinds for text in kind(found)]


def _failures(found: Analysis) -> Iterator[str]:
    if found.failed:
        by_space: dict[str, int] = {}
        for run in found.failed:
            by_space[run.space] = by_space.get(run.space, 0) + 1
        names = ", ".join(f"{count:,} of {space}" for space, count in by_space.items())
        yield (
            f"{len(found.failed):,} of {found.runs:,} runs have no result ({names}), and are in "
            "no figure; what they would have come to is not known."
        )


def _mixture(found: Analysis) -> Iterator[str]:
    if len(found.settings) > 1:
        yield (
            f"The runs are of {len(found.settings)} settings, mixed by request: spaces differ by "
            "their settings too."
        )


def _too_few(found: Analysis) -> Iterator[str]:
    if few := [one.space for one in found.spaces if len(one.population) < FEWEST]:
        yield (
            f"{', '.join(few)}: fewer than {FEWEST} networks with a result, too few for an "
            "interval or a verdict."
        )


def _costs(found: Analysis) -> Iterator[str]:
    middles = {s.space: float(np.median(s.population.costs("macs"))) for s in found.spaces}
    least, most = (end(middles, key=lambda name: middles[name]) for end in (min, max))
    if middles[most] > _ALIKE * middles[least]:
        yield (
            f"The spaces' networks do not cost the same: the median is {middles[least] / 1e6:.1f} "
            f"MMACs in {least} and {middles[most] / 1e6:.1f} in {most}, and errors differ by that "
            "too."
        )


def _chance(found: Analysis) -> Iterator[str]:
    guessing = 1 - 1 / min(setting.classes for setting in found.settings)
    for one in found.spaces:
        near = int((one.population.errors >= _NEAR_CHANCE * guessing).sum())
        if near:
            yield (
                f"{one.space}: {near:,} of {len(one.population):,} networks are hardly better than "
                f"guessing ({100 * guessing:.1f} % error): they learnt next to nothing."
            )


def _seeds(found: Analysis) -> Iterator[str]:
    repeated = [n for s in found.spaces for n in s.population.networks if len(n.errors) > 1]
    if repeated:
        variances = [float(np.var(n.errors, ddof=1)) for n in repeated]
        yield (
            f"{len(repeated):,} networks were trained with several seeds and count once, with "
            f"their mean error; between seeds of a network the standard deviation is "
            f"{100 * float(np.sqrt(np.mean(variances))):.2f} points."
        )


def _resolution(found: Analysis) -> Iterator[str]:
    if not found.differences:
        return
    halves = [(one.mean.high - one.mean.low) / 2 for one in found.differences]
    yield (
        f"With so many networks, mean errors that are less than about "
        f"{100 * float(np.median(halves)):.1f} points apart cannot be separated."
    )
    if (count := len(halves)) > 1:
        yield (
            f"Each interval is right in 95 of 100 sweeps; of the {count} of pairs of spaces some "
            "may be wrong."
        )
