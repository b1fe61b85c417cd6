"""The best networks of a search trained for real, and ranked by what they learnt."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regnet.network.spec import spec_to_dict
from regnet.space.measured import Measured
from regnet.space.records import RunRecord
from regnet.space.search import Found
from regnet.system.errors import MissingExtraError
from regnet.system.files import temporary_folder
from regnet.system.json_text import json_text

if TYPE_CHECKING:
    from regnet.space.sweep import SweepWatcher
    from regnet.training.job import Watcher

SPACE: Final = "search"
"""The name of the space in the records."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network of a search with the record of its training."""

    measured: Measured
    record: RunRecord


def require_training(dataset: str | Path, val: str | Path | None) -> None:
    """Raise what `train_best` would of missing extras and photos, before a long search."""
    from regnet.training.photo_sets import open_photo_sets

    if find_spec("torch") is None or find_spec("lightning_fabric") is None:
        raise MissingExtraError("training", "train")
    open_photo_sets(dataset, val, None, seed=0)


def train_best(
    found: Found,
    dataset: str | Path,
    output: Path,
    *,
    val: str | Path | None = None,
    top: int = 3,
    epochs: int = 10,
    cpus: int = 1,
    watcher: "SweepWatcher | None" = None,
    runs: "Watcher | None" = None,
    say: Callable[[str], None] = lambda message: None,
) -> list[Trained]:
    """Return the `top` networks within the budget, trained, those of the least error first.

    Each is trained as `regnet space sweep` does, on images of the search's size; its record is
    added to `output`, and one that is there is not trained again. Failed ones come last. Raises
    what `sweep` does.
    """
    from regnet.space.sweep import Budget, Population, sweep

    best = [found.pick, *found.runners_up][:top]
    with temporary_folder() as folder:
        specs = folder / f"{SPACE}.jsonl"
        lines = [json_text(spec_to_dict(one.network.spec)) + "\n" for one in best]
        specs.write_text("".join(lines), "utf-8")
        swept = sweep(
            Population(source=specs, space=SPACE, seed=found.plan.seed),
            Budget(epochs=epochs, resolution=found.plan.setup.image_size, cpus=cpus),
            dataset,
            output,
            val=val,
            watcher=watcher,
            runs=runs,
            say=say,
        )
    trained = [Trained(measured=m, record=r) for m, r in zip(best, swept.records, strict=True)]
    return sorted(trained, key=_rank)


def _rank(one: Trained) -> float:
    return float("inf") if one.record.error is None else one.record.error
