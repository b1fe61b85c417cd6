"""The command that a run was started with: kept in its checkpoints, so that it can be resumed."""

import shlex
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from regnet.network.labels import Label, Labels
from regnet.training.photos import MEMORY

if TYPE_CHECKING:
    from regnet.training.devices import Devices


@dataclass(frozen=True, kw_only=True)
class Command:
    """The options of a run that neither its recipe nor its network holds; None: not given.

    `labels` are the classes where they are not the folders', `truth` is a file of the photos'
    labels, `entry` the network in checkpoint files that hold several. `memory` is in bytes.
    """

    dataset: str | Path
    val: str | Path | None = None
    labels: Labels | None = None
    truth: str | Path | None = None
    name: str | None = None
    accumulate: int = 1
    compile: bool | None = None
    memory: int = MEMORY
    checkpoint_seconds: float = 600.0
    entry: str | None = None
    devices: "Devices"

    def changed(self, **given: Any) -> Self:
        """Return the command with the options that are given instead; None is not given."""
        options = {name: value for name, value in given.items() if value is not None}
        if devices := options.get("devices"):
            options["devices"] = devices.completed(self.devices)
        return replace(self, **options)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, with the paths absolute."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {
            "dataset": absolute(self.dataset),
            "val": self.val and absolute(self.val),
            "truth": self.truth and absolute(self.truth),
            "labels": self.labels and [[label.wnid, label.name] for label in self.labels],
            "devices": asdict(self.devices) | {"precision": self.devices.computed_in},
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return what `to_dict` wrote. Raises `LookupError`, `TypeError` for other values."""
        from regnet.training.devices import Devices

        labels = values["labels"]
        known = {
            "labels": labels and tuple(Label(wnid, name) for wnid, name in labels),
            "devices": Devices(**values["devices"]),
        }
        return cls(**values | known)


def absolute(path: str | Path) -> str:
    """Return a path or pattern that means the same in every folder; an address stays."""
    return str(path) if "://" in str(path) else str(Path(path).expanduser().absolute())


def resuming(folder: Path, *options: str) -> str:
    """Return the command that resumes the run in a folder, with other options than before."""
    return shlex.join(["regnet", "train", "-o", str(folder), "--resume", *options])
