"""What follows a search: training the best networks, exporting the pick, the figures as JSON."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from regnet.ir.metadata import InferencePrecision
from regnet.network.spec import spec_to_dict, write_spec
from regnet.space.candidates import Measured, Rival
from regnet.space.measure import write_random_ir
from regnet.space.plans import Budget, Population, TrainBest
from regnet.space.records import RunRecord
from regnet.space.search import Found
from regnet.system.errors import MissingExtraError, OutputError, reason_of
from regnet.system.files import new_folder_beside, replace_all, temporary_folder
from regnet.system.json_text import json_text
from regnet.system.parallel import cores

SPACE: Final = "search"
"""The name of the space in the records."""
_NAME: Final = "pick"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network of a search with the record of its training."""

    measured: Measured
    record: RunRecord


def require_training(asked: TrainBest) -> None:
    """Raise early, before a long search, what `train_best` would of missing extras and photos."""
    if asked.train is None:
        return
    from regnet.training.photo_sets import open_photo_sets

    if find_spec("torch") is None or find_spec("lightning_fabric") is None:
        raise MissingExtraError("training", "train")
    open_photo_sets(asked.train, asked.val, None, seed=0)


def train_best(found: Found, asked: TrainBest, say: Callable[[str], None]) -> list[Trained]:
    """Train the `top` networks within the budget and return them, the least error first.

    Each is trained as `regnet space sweep` does, on images of the search's size. A network with a
    record is not trained again. Failed ones come last. Raises what `sweep` raises.
    """
    if asked.train is None:
        return []
    from regnet.space.sweep import sweep

    best = [found.pick, *found.runners_up][: asked.top]
    with temporary_folder() as folder:
        specs = folder / f"{SPACE}.jsonl"
        lines = [json_text(spec_to_dict(one.network.spec)) + "\n" for one in best]
        specs.write_text("".join(lines), "utf-8")
        swept = sweep(
            Population(source=specs, space=SPACE, seed=found.plan.seed),
            Budget(epochs=asked.epochs, resolution=found.plan.setup.image_size, cpus=cores()),
            asked.train,
            asked.records,
            val=asked.val,
            say=say,
        )
    say(f"{asked.records}: {len(swept.records)} records")
    trained = [Trained(measured=m, record=r) for m, r in zip(best, swept.records, strict=True)]
    worst = float("inf")
    return sorted(trained, key=lambda t: worst if t.record.error is None else t.record.error)


def export_pick(found: Found, pick: Measured, folder: Path) -> list[Path]:
    """Write a network's spec, and IRs of it with random weights, into a folder; return the files.

    `pick.xml` is in floating point; an INT8 search also writes `pick-int8.xml`. They are as fast as
    trained models, so `regnet benchmark` verifies the latency. Raises `OutputError`.
    """
    setup, spec = found.plan.setup, pick.network.spec
    names: dict[str, InferencePrecision] = {_NAME: "f32"}
    if setup.precision == "int8":
        names[f"{_NAME}-int8"] = "int8"
    files = [f"{name}{suffix}" for name in names for suffix in (".bin", ".xml")]
    files.append(f"{_NAME}.json")
    try:
        with new_folder_beside(folder / _NAME) as scratch:
            for name, precision in names.items():
                path = scratch / f"{name}.xml"
                write_random_ir(spec, path, precision=precision, image_size=setup.image_size)
            write_spec(scratch / files[-1], spec)
            replace_all(scratch, folder, files)
    except (OSError, RuntimeError) as exc:
        raise OutputError(f"cannot write to {folder}: {reason_of(exc)}") from exc
    return [folder / name for name in files]


def found_to_dict(found: Found, trained: Sequence[Trained]) -> dict[str, Any]:
    """Return all figures as plain JSON values, as docs/search.md lists them."""
    plan, model = found.plan, found.latency
    return {
        "latency_ms": plan.latency_ms,
        **asdict(plan.setup),
        "spaces": list(plan.spaces),
        "seed": plan.seed,
        "machine": asdict(found.machine),
        "pick": _measured(found.pick) | {"verified": asdict(found.verified)},
        "runners_up": [_measured(one) for one in found.runners_up],
        "front": [_measured(one) for one in found.front],
        "published": [_rival(one) for one in found.rivals],
        "measured": [_measured(one) for one in found.measured],
        "drawn": found.drawn,
        "trusted": found.trusted,
        "latency_model": {
            "median_error": model.median_error,
            "spread": model.spread,
            "networks": model.measured,
            "chosen": found.ahead,
            "chosen_median_error": found.ahead_error,
            "ms_per_unit": model.parts,
        },
        "accuracy_model": {"leave_one_out": asdict(found.accuracy)},
        "reference_ms": list(found.drift),
        "other_work": found.other_work,
        "trained": [
            _measured(one.measured) | {"error": one.record.error, "record": one.record.key}
            for one in trained
        ],
    }


def _measured(one: Measured) -> dict[str, Any]:
    network = one.network
    named = {"name": one.name, "published_error": one.published_error} if one.name else {}
    return named | {
        "spec": spec_to_dict(network.spec),
        **asdict(network.cost),
        "ms": one.ms,
        "predicted_ms": one.predicted_ms,
        "predicted_error": network.error,
        "extrapolated": network.extrapolated,
    }


def _rival(rival: Rival) -> dict[str, Any]:
    better = rival.better and _measured(rival.better)
    return _measured(rival.published) | {
        "better": better if rival.sought else None,
        "beaten": rival.beaten if rival.sought else None,
    }
