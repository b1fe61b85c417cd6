"""What a search leaves: its figures as JSON, the pick as a spec and as a model to measure."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from regnet.network.spec import spec_to_dict
from regnet.network.spec_file import write_spec
from regnet.space.measured import Measured, Rival
from regnet.space.random_ir import write_random_ir
from regnet.space.search import Found
from regnet.space.search_training import Trained
from regnet.system.errors import OutputError
from regnet.system.files import new_folder_beside, replace_all

NAME: Final = "pick"


def found_to_dict(found: Found, trained: list[Trained]) -> dict[str, Any]:
    """Return all figures as plain JSON values, as docs/search.md lists them."""
    plan = found.plan
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
            "median_error": found.latency.median_error,
            "spread": found.latency.spread,
            "networks": found.latency.measured,
            "chosen": found.ahead,
            "chosen_median_error": found.ahead_error,
            "ms_per_unit": found.latency.parts,
        },
        "accuracy_model": {"leave_one_out": asdict(found.accuracy)},
        "reference_ms": list(found.drift),
        "other_work": found.other_work,
        "trained": [_trained(one) for one in trained],
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


def _trained(one: Trained) -> dict[str, Any]:
    return _measured(one.measured) | {"error": one.record.error, "record": one.record.key}


def export_pick(found: Found, pick: Measured, folder: Path) -> list[Path]:
    """Write a network's spec, and IRs of it with random weights, into a folder; return the files.

    `pick.xml` is in floating point; for a search in INT8 there is `pick-int8.xml` too. They are as
    fast as ones that have learnt, so `regnet benchmark` verifies the latency. Raises `OutputError`.
    """
    setup, spec = found.plan.setup, pick.network.spec
    names = [NAME, f"{NAME}-int8"] if setup.precision == "int8" else [NAME]
    files = [f"{name}{suffix}" for name in names for suffix in (".bin", ".xml")]
    try:
        with new_folder_beside(folder / NAME) as scratch:
            for name in names:
                write_random_ir(
                    spec,
                    scratch / f"{name}.xml",
                    precision="int8" if name.endswith("int8") else "f32",
                    image_size=setup.image_size,
                )
            write_spec(scratch / f"{NAME}.json", spec)
            replace_all(scratch, folder, [*files, f"{NAME}.json"])
    except (OSError, RuntimeError) as exc:
        raise OutputError(f"cannot write to {folder}: {exc}") from exc
    return [folder / name for name in (*files, f"{NAME}.json")]
