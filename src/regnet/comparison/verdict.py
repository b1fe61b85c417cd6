"""The first stage at which two pipelines part, by how much, and by which of their settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from regnet.comparison.differences import PIXEL_STAGES, Stage, StageDifference
from regnet.comparison.sides import Pair
from regnet.comparison.tally import Comparison
from regnet.system.json_text import ToDict
from regnet.system.text import counted

ROUNDING: Final = 1e-5
"""The largest difference of a probability that `regnet convert` allows: sums in another order."""

Kind = Literal["identical", "rounding", "differs"]

_SETTINGS: Final[dict[Stage, dict[str, str]]] = {
    "decode": {},
    "resize": {"resize": "short side {}", "interpolation": "{}"},
    "crop": {"crop": "crop {}", "offset": "offset {}"},
}
_MODEL_SETTINGS: Final = {
    "engine": "{}",
    "precision": "{}",
    "stored": "stored in {}",
    "weights_sha384": "weights {:.8}",
}


@dataclass(frozen=True)
class Verdict(ToDict):
    """What a comparison comes to.

    `stage` is the first that differs, None where none does; `text` says so in a sentence. The kind
    is "rounding" where pixels that were seen are identical and no probability differs by more than
    `ROUNDING`.
    """

    kind: Kind
    stage: Stage | None
    text: str


def verdict(comparison: Comparison, pair: Pair) -> Verdict:
    """Return what a comparison of two sides comes to."""
    first = next((stage for stage in comparison.stages if stage.differs), None)
    if first is None:
        return Verdict("identical", None, f"no stage differs: identical{_unseen(comparison)}")
    if first.stage not in PIXEL_STAGES:
        pixels = "" if _unseen(comparison) else "pixels are identical; "
        if comparison.agreement.max_delta <= ROUNDING:
            return Verdict("rounding", first.stage, _rounding(comparison, pixels))
    else:
        pixels = ""
    found = f"{pixels}first to differ: {first.stage}{causes(first.stage, pair)}, {amount(first)}"
    return Verdict("differs", first.stage, f"{found}{_effect(first, comparison)}")


def _rounding(comparison: Comparison, pixels: str) -> str:
    seen = [stage for stage in comparison.stages if stage.stage not in PIXEL_STAGES]
    amounts = " and ".join(
        f"{stage.stage} differ by at most {stage.largest:.2g}" for stage in seen if stage.photos
    )
    return (
        f"{pixels}{amounts}: rounding of floating point ({ROUNDING:g} is allowed)"
        f"{_unseen(comparison)}"
    )


def _effect(first: StageDifference, comparison: Comparison) -> str:
    """Return what the difference does to the probabilities, and what was not seen before it."""
    agreement = comparison.agreement
    effect = ""
    if first.stage != "probabilities":
        effect = f"; probabilities differ by up to {agreement.max_delta:.3g}"
    flips = f", top-1 in {agreement.flipped} of {counted(agreement.images, 'photo')}"
    return f"{effect}{flips}{_unseen(comparison, before=first.stage)}"


def amount(found: StageDifference) -> str:
    """Return how much a stage differs, as a phrase."""
    parts = []
    if found.other_size and found.sizes is not None:
        a, b = (f"{width} x {height}" for height, width in found.sizes)
        photos = counted(found.photos, "photo")
        parts.append(f"other sizes in {found.other_size} of {photos} (A {a}, B {b}, say)")
    if found.values and found.largest > 0:
        parts.append(f"{share_text(found.values - found.equal_values, found.values)} of the values")
        parts.append(f"by up to {found.largest:.4g} {unit_text(found)}".strip())
    return ", ".join(parts)


def unit_text(found: StageDifference) -> str:
    """Return a stage's unit as it follows a number."""
    if found.stage in PIXEL_STAGES:
        return "level" if found.largest == 1 else "levels"
    return ""


def causes(stage: Stage, pair: Pair) -> str:
    """Return the settings that bear on a stage and are not the same on both sides, in brackets."""
    a, b = (_settings(side.about, stage) for side in (pair.a, pair.b))
    differing = [name for name in a if name in b and a[name] != b[name]]
    if not differing:
        return ""
    first, second = (", ".join(texts[name] for name in differing) for texts in (a, b))
    return f" (A: {first}; B: {second})"


def _settings(about: Mapping[str, Any], stage: Stage) -> dict[str, str]:
    """Return the settings of a side that bear on a stage, as texts."""
    protocol = about.get("protocol", {})
    if stage in _SETTINGS:
        return _texts(_SETTINGS[stage], protocol)
    return _texts(_MODEL_SETTINGS, about) | {
        name: f"{name} {_in_rgb(protocol, name)} of RGB"
        for name in ("mean", "scale")
        if name in protocol
    }


def _texts(patterns: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, str]:
    return {name: text.format(values[name]) for name, text in patterns.items() if name in values}


def _in_rgb(protocol: Mapping[str, Any], name: str) -> str:
    step = 1 if protocol["channels"] == "RGB" else -1
    return "/".join(f"{value:g}" for value in protocol[name][::step])


def notes(pair: Pair) -> tuple[str, ...]:
    """Return what has to be known to read a comparison: what was assumed, and channel orders."""
    orders = [side.about.get("protocol", {}).get("channels") for side in (pair.a, pair.b)]
    if None in orders or orders[0] == orders[1]:
        return pair.notes
    return (*pair.notes, f"A takes {orders[0]}, B takes {orders[1]}: pixels are compared as RGB")


def _unseen(comparison: Comparison, *, before: Stage | None = None) -> str:
    """Return the stages that were not seen, or those of them before another, as a phrase."""
    by_reason: dict[str, list[str]] = {}
    for found in comparison.stages:
        if found.stage == before:
            break
        if found.hidden is not None:
            by_reason.setdefault(found.hidden, []).append(found.stage)
    texts = [f"{' and '.join(stages)} ({reason})" for reason, stages in by_reason.items()]
    return f"; not seen: {', '.join(texts)}" if texts else ""


def share_text(part: int, whole: int) -> str:
    """Return a share as text; only all of it is 100 %, and only nothing 0 %."""
    if part in (0, whole):
        return "0 %" if part == 0 else "100 %"
    share = 100 * part / whole
    digits = 4 if share < 1 or share > 99 else 1
    least = 10.0**-digits
    if share < least / 2:
        return f"under {least:g} %"
    if share > 100 - least / 2:
        return f"over {100 - least:g} %"
    return f"{share:.{digits}f} %"
