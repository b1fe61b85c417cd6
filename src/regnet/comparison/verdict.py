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
    "resize": {"resize": "short side {}", "fit": "{}", "interpolation": "{}"},
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
    unseen, agreement = _unseen(comparison), comparison.agreement
    if first is None:
        return Verdict("identical", None, f"no stage differs: identical{unseen}")
    after_pixels = first.stage not in PIXEL_STAGES
    pixels = "pixels are identical; " if after_pixels and not unseen else ""
    if after_pixels and agreement.max_delta <= ROUNDING:
        amounts = " and ".join(
            f"{stage.stage} differ by at most {stage.largest:.2g}"
            for stage in comparison.stages
            if stage.stage not in PIXEL_STAGES and stage.photos
        )
        allowed = f"rounding of floating point ({ROUNDING:g} is allowed)"
        return Verdict("rounding", first.stage, f"{pixels}{amounts}: {allowed}{unseen}")
    effect = f"; probabilities differ by up to {agreement.max_delta:.3g}"
    text = (
        f"{pixels}first to differ: {first.stage}{_causes(first.stage, pair)}, {_amount(first)}"
        f"{effect if first.stage != 'probabilities' else ''}, top-1 in {agreement.flipped} of "
        f"{counted(agreement.images, 'photo')}{_unseen(comparison, before=first.stage)}"
    )
    return Verdict("differs", first.stage, text)


def _amount(stage: StageDifference) -> str:
    """Return how much a stage differs, as a phrase."""
    parts = []
    if stage.other_size and stage.sizes is not None:
        a, b = (f"{width} x {height}" for height, width in stage.sizes)
        photos = counted(stage.photos, "photo")
        parts.append(f"other sizes in {stage.other_size} of {photos} (A {a}, B {b}, say)")
    if stage.values and stage.largest > 0:
        unit = (" level" if stage.largest == 1 else " levels") if stage.unit == "levels" else ""
        parts.append(f"{share_text(stage.values - stage.equal_values, stage.values)} of the values")
        parts.append(f"by up to {stage.largest:.4g}{unit}")
    return ", ".join(parts)


def _causes(stage: Stage, pair: Pair) -> str:
    """Return the settings that bear on a stage and are not the same on both sides, in brackets."""
    a, b = (_settings(side.about, stage) for side in pair.sides)
    differing = [name for name in a if name in b and a[name] != b[name]]
    if not differing:
        return ""
    first, second = (", ".join(texts[name] for name in differing) for texts in (a, b))
    return f" (A: {first}; B: {second})"


def _settings(about: Mapping[str, Any], stage: Stage) -> dict[str, str]:
    """Return the settings of a side that bear on a stage, as texts."""
    protocol = about.get("protocol", {})
    patterns, values = (
        (_SETTINGS[stage], protocol) if stage in _SETTINGS else (_MODEL_SETTINGS, about)
    )
    texts = {name: text.format(values[name]) for name, text in patterns.items() if name in values}
    for name in ("mean", "scale") if stage not in _SETTINGS and protocol else ():
        step = 1 if protocol["channels"] == "RGB" else -1
        rgb = "/".join(f"{value:g}" for value in protocol[name][::step])
        texts[name] = f"{name} {rgb} of RGB"
    return texts


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
