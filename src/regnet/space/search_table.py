"""What `regnet space search` found, as rows of text and as sentences."""

from collections.abc import Iterator, Sequence
from typing import Final

from regnet.network.spec import RegNetSpec
from regnet.space.candidates import Measured, Rival
from regnet.space.search import UNSTEADY, Found
from regnet.space.search_results import Trained

Row = tuple[str, ...]

FRONT_COLUMNS: Final = ("network", "ms", "top-1, predicted", "MMACs", "params M")
RIVAL_COLUMNS: Final = (
    "published", "ms", "top-1, published", "found, as fast", "ms", "top-1, predicted"
)  # fmt: skip
TRAINED_COLUMNS: Final = ("network", "ms", "top-1, predicted", "top-1, trained")

_BUSY: Final = 0.05


def describe(spec: RegNetSpec) -> str:
    """Return a network in the paper's symbols, on one line."""
    family = "Y" if spec.se_ratio is not None else "X"
    return f"{family} d={spec.d} w0={spec.w0} wa={spec.wa:g} wm={spec.wm:g} g={spec.g}"


def percent(error: float) -> str:
    """Return the accuracy of an error in percent."""
    return f"{100 - error:.2f} %"


def top1(one: Measured) -> str:
    """Return a network's accuracy with its mark: published, or a guess (~), or predicted."""
    if one.published_error is not None:
        return f"{percent(one.published_error)} (published)"
    return f"{'~' if one.network.extrapolated else ''}{percent(one.network.error)}"


def name(one: Measured) -> str:
    """Return a published network's name, or what a network is in the paper's symbols."""
    return one.name or describe(one.network.spec)


def front_rows(found: Found) -> Iterator[Row]:
    """Yield the networks that none as fast is more accurate than."""
    for one in found.front:
        yield _row(one, mark=" <- the pick" if one == found.pick else "")


def _row(one: Measured, *, mark: str = "") -> Row:
    network = one.network
    return (
        name(one) + mark,
        f"{one.ms:.2f}",
        top1(one),
        f"{network.cost.macs / 1e6:.0f}",
        f"{network.cost.params / 1e6:.2f}",
    )


def rival_rows(found: Found) -> Iterator[Row]:
    """Yield the published networks, each beside the most accurate found that is as fast."""
    for rival in found.rivals:
        one, better = rival.published, rival.better if rival.sought else None
        yield (
            one.name,
            f"{one.ms:.2f}",
            percent(one.error),
            describe(better.network.spec) if better else "",
            f"{better.ms:.2f}" if better else "",
            top1(better) if better else "",
        )


def trained_rows(trained: Sequence[Trained]) -> Iterator[Row]:
    """Yield the networks that were trained, the most accurate first."""
    for one in trained:
        error = one.record.error
        yield (
            name(one.measured),
            f"{one.measured.ms:.2f}",
            top1(one.measured),
            f"failed: {one.record.failure}" if error is None else percent(100 * error),
        )


def pick_line(found: Found) -> str:
    """Return the answer in a sentence."""
    setup, pick = found.plan.setup, found.pick
    accuracy = f"top-1 {top1(pick)}" if pick.name else f"predicted top-1 {top1(pick)}"
    return (
        f"{name(pick)}: {pick.ms:.2f} ms, of {found.plan.latency_ms:g} allowed "
        f"({setup.precision}, {setup.image_size} pixels, {found.machine.cores} cores), {accuracy}"
    )


def remarks(found: Found) -> Iterator[str]:
    """Yield what must be known to read the figures."""
    yield (
        f"latency: one image, all cores, medians of calls in turns; {len(found.measured)} networks "
        f"measured of {found.trusted:,} that are as the published ones, of {found.drawn:,} drawn"
    )
    yield latency_remark(found)
    loo = found.accuracy
    yield (
        "accuracy: predicted, for ImageNet-1k and pycls's recipe and protocol, from the 24 "
        f"published networks; each of them by the others: {loo.mean:.2f} points off in the mean, "
        f"{loo.largest:.2f} at most"
    )
    yield from _warnings(found)


def latency_remark(found: Found) -> str:
    """Return how well latencies were predicted."""
    held_out = f"{100 * found.latency.median_error:.1f} % off in the median, held out"
    if found.ahead_error is None:
        return f"latency model: {held_out}"
    return (
        f"latency model: {held_out}; {100 * found.ahead_error:.1f} % over the {found.ahead} "
        "networks that it chose to be measured"
    )


def beaten_line(rivals: Sequence[Rival]) -> str | None:
    """Return at how many published networks' latencies something better was found."""
    sought = [rival for rival in rivals if rival.sought]
    if not sought:
        return None
    beaten = sum(rival.beaten for rival in sought)
    return (
        f"at the latency of {beaten} of the {len(sought)} published networks within the budget, "
        "one was found that is predicted at least as accurate"
    )


def _warnings(found: Found) -> Iterator[str]:
    if found.plan.setup.precision != "f32":
        yield (
            f"accuracies are those in f32: {found.plan.setup.precision} may cost a little, which "
            "`regnet quantize` or `regnet compare` measures once the network has learnt"
        )
    if found.plan.setup.image_size != 224:
        yield (
            f"accuracies are those of 224 pixels: at {found.plan.setup.image_size} only their "
            "order means something"
        )
    if any(one.network.extrapolated and not one.name for one in (*found.front, *found.measured)):
        yield "~: fewer or more MACs than all published networks, so the prediction is a guess"
    if max(found.drift) > UNSTEADY * min(found.drift):
        yield (
            f"the machine's speed changed: the reference took {min(found.drift):.2f} to "
            f"{max(found.drift):.2f} ms"
        )
    if found.other_work is not None and found.other_work > _BUSY:
        yield (
            f"other processes took {100 * found.other_work:.0f} % of the machine meanwhile: "
            "latencies are too high; search again when it is idle"
        )
