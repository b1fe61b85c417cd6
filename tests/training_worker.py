"""One process of a run that several share; test_training_distributed.py starts it.

    python training_worker.py FOLDER LAUNCH SCENARIO...

LAUNCH is how Fabric is to start the others: `torchrun` (they are there) or a number of processes,
with `:fsdp` behind it for a sharded network.
"""

import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import nn
from training_runs import Recorder, items, job, recipe, resume, trainer

from regnet.system.errors import RegNetError
from regnet.training.batch_norm import synchronise_batch_norm
from regnet.training.devices import layout
from regnet.training.history import History
from regnet.training.recipe import Recipe
from regnet.training.state import Job

MIXED = {"mixup": 0.2, "cutmix": 1.0, "trivial_augment": True}


def jobs(folder: Path) -> dict[str, Job]:
    """Return the jobs that processes do together, by name; of each step they share a batch."""
    whole = {"schedule": {"batch": 64, "epochs": 2}, "averages": {"ema": 0.9, "precise_bn": 64}}
    parts = {"schedule": {"batch": 128, "epochs": 2}, "optimizer": {"clip_norm": 1.0}}
    adam = {"optimizer": {"kind": "adamw", "lr": 0.002}, "transfer": {"freeze": 1}}
    return {
        "mixed": job(folder / "mixed", recipe(**whole, augmentation=MIXED), photos=items(128)),
        "parts": job(folder / "parts", recipe(**parts), photos=items(256), accumulate=2),
        "uneven": job(folder / "uneven", recipe(**adam), photos=items(49, broken=(3, 5, 8))),
    }


def endless() -> Recipe:
    """Return a recipe that takes longer than anybody waits."""
    return recipe(schedule={"epochs": 10_000})


def main(folder: Path, launch: str, scenarios: list[str]) -> None:
    torch.set_num_threads(1)
    number, _, strategy = launch.partition(":")
    devices = 1 if number == "torchrun" else int(number)
    placed = layout(devices, 1, strategy or "auto", on_cpu=True)
    fabric = Fabric(accelerator="cpu", precision="32-true", **placed)
    fabric.launch()
    for name in scenarios:
        result = SCENARIOS.get(name, _train)(folder, name, fabric)
        torch.save(result, folder / f"{name}-{fabric.global_rank}.pt")


def _train(folder: Path, name: str, fabric: Fabric) -> dict[str, Any]:
    watcher = Recorder()
    made = trainer(jobs(folder)[name], fabric)
    made.run(_history(made.job, fabric), watcher)
    return {
        "losses": [record.loss for record in watcher.records],
        "skipped": [record.skipped for record in watcher.records],
        "val_losses": [record.val_loss for record in watcher.records],
        "weights": made.weights,
    }


def _history(job: Job, fabric: Fabric) -> History:
    return History(job.folder, tensorboard=False, on_disk=fabric.is_global_zero)


def _batch_norm(folder: Path, name: str, fabric: Fabric) -> dict[str, Any]:
    """Normalise a part each of a batch, and go back."""
    whole, gradient = (torch.load(folder / f"{each}.pt") for each in ("images", "gradient"))
    own = slice(0, 3) if fabric.global_rank == 0 else slice(3, None)
    norm = nn.Sequential(nn.BatchNorm2d(whole.shape[1]))
    norm.load_state_dict(torch.load(folder / "norm.pt"))
    synchronise_batch_norm(norm, fabric.device)
    images = whole[own].clone().requires_grad_()
    normalised = norm(images)
    normalised.backward(gradient[own])
    for parameter in norm.parameters():
        dist.all_reduce(parameter.grad)
    return {
        "normalised": normalised.detach(),
        "gradient": images.grad,
        "parameters": [parameter.grad for parameter in norm.parameters()],
        "state": norm.state_dict(),
    }


def _stopped(folder: Path, name: str, fabric: Fabric) -> dict[str, Any]:
    """Stop because one process, not the first, was asked to; checkpoints are due at every step."""
    values = jobs(folder)["mixed"]
    made = trainer(
        job(folder / name, values.recipe, photos=items(128), checkpoint_seconds=0.0), fabric
    )
    made.run(_history(made.job, fabric), Recorder(stop_after=3 if fabric.global_rank else None))
    return {"position": vars(made.state.position), "loss": made.state.to_dict()["sums"]["loss"]}


def _resumed(folder: Path, name: str, fabric: Fabric) -> dict[str, Any]:
    """Go on with what one process left."""
    made = trainer(jobs(folder)["mixed"], fabric)
    watcher = Recorder()
    made.run(resume(made, folder / "begun", on_disk=fabric.is_global_zero), watcher)
    return {"losses": [record.loss for record in watcher.records], "weights": made.weights}


def _endless(folder: Path, name: str, fabric: Fabric) -> dict[str, Any]:
    """Train until this process is killed, or another one."""

    class Slow(Recorder):
        def stop(self) -> bool:
            time.sleep(0.02)
            return False

    made = trainer(job(folder, endless(), checkpoint_seconds=0.0), fabric)
    try:
        made.run(_history(made.job, fabric), Slow())
    except RegNetError as exc:
        sys.exit(f"{type(exc).__name__}: {exc}")
    return {}


SCENARIOS = {
    "batch_norm": _batch_norm,
    "stopped": _stopped,
    "resumed": _resumed,
    "endless": _endless,
}

if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
