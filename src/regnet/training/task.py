"""A run as it was asked for, and its result: values."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from regnet.conversion.store import Library
from regnet.data.labelled import Unreadable
from regnet.inference.result import readable_rows
from regnet.network.labels import Label, Labels
from regnet.network.spec import Spec
from regnet.pages.notebook import page_frame
from regnet.system.errors import TrainingError
from regnet.system.json_text import plain_fields
from regnet.system.option import Options, option
from regnet.system.parallel import Watch
from regnet.system.text import percent
from regnet.training.history import EpochRecord, Watcher
from regnet.training.recipe import Changes, Recipe

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from regnet.inference.classify import Classifier

SHOWN: Final = 50
"""Unreadable photos that the JSON values name."""

_MIN_BF16_STEM: Final = 16  # channels


class Devices(Options):
    """Devices to train on, in Lightning Fabric's terms; torchrun's numbers override these.

    "auto" uses what is available, but one process on CPUs; the strategy "fsdp" shards the network.
    """

    accelerator: str = option("auto", "cpu, cuda ... (Lightning Fabric's names)", "NAME")
    devices: int | str = option("auto", "Number of devices, or a list", "N|LIST")
    nodes: int = option(1, "Number of machines", min=1)
    strategy: str = option("auto", "ddp, fsdp ...", "NAME")
    precision: str = option(
        "auto", "32-true, bf16-mixed, 16-mixed ...; auto: bf16 where it is fast", "TYPE"
    )

    def fabric(self) -> "Fabric":
        """Return Fabric on these devices. Raises `TrainingError` if they are not available."""
        from lightning_fabric import Fabric

        from regnet.training.devices import layout

        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it logs its settings

        precision: Any = self.computed_in
        count = self.devices
        if isinstance(count, str) and count.lstrip("-").isdecimal():
            count = int(count)
        try:
            return Fabric(
                accelerator=self.accelerator,
                precision=precision,
                **layout(count, self.nodes, self.strategy, on_cpu=self._on_cpu),
            )
        except (ValueError, TypeError, RuntimeError) as exc:
            raise TrainingError(
                f"cannot use these devices: {exc}. --accelerator, --devices, --strategy and "
                "--precision take Lightning Fabric's values; `auto` uses what is available"
            ) from exc

    def require_sound(self, spec: Spec) -> None:
        """Raise `TrainingError` for a network that torch 2.13 cannot train in bf16 on a CPU.

        Gradients of a first convolution with fewer than 16 outputs are written outside their
        memory: wrong weights, or a crash.
        """
        bf16 = self.computed_in.startswith("bf16")
        if self._on_cpu and bf16 and spec.stem_width < _MIN_BF16_STEM:
            raise TrainingError(
                f"a stem of {spec.stem_width} channels cannot be trained in bf16 on a CPU: torch's "
                f"gradients are wrong. Use --precision 32-true, or {_MIN_BF16_STEM} channels"
            )

    @property
    def _on_cpu(self) -> bool:
        import torch

        return self.accelerator == "cpu" or not torch.cuda.is_available()

    @property
    def described(self) -> str:
        """The machine in words."""
        import torch

        from regnet.system.machine import this_machine

        machine = this_machine()
        device = machine.cpu if self._on_cpu else torch.cuda.get_device_name()
        return f"{device}, {machine.cores} cores"

    def completed(self, before: "Devices") -> "Devices":
        """Return these devices, with the values of `before` where these are the defaults."""
        default = vars(Devices())
        return replace(before, **{k: v for k, v in vars(self).items() if v != default[k]})

    @property
    def computed_in(self) -> str:
        """The precision; "auto" is the fastest. Fabric scales gradients in 16-mixed."""
        import torch

        from regnet.system.machine import this_machine

        if self.precision != "auto":
            return self.precision
        if self._on_cpu:
            return "bf16-mixed" if this_machine().has_bf16 else "32-true"
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if bf16 else "16-mixed"


@dataclass(frozen=True, kw_only=True)
class Command:
    """The options of a run beside its recipe and network, kept in its checkpoints to resume it.

    `labels` are the classes if they are not the folders', `truth` is a label file for the photos,
    `entry` the network in checkpoint files that hold several. `memory` and `memory_device` are in
    bytes, None the default; checkpoints keep the bytes that the photos take on the device.
    """

    dataset: str | Path
    val: str | Path | None = None
    labels: Labels | None = None
    truth: str | Path | None = None
    name: str | None = None
    accumulate: int = 1
    compile: bool | None = None
    memory: int | None = None
    memory_device: int | None = None
    checkpoint_seconds: float = 600.0
    entry: str | None = None
    devices: Devices = Devices()  # noqa: RUF009 (frozen)

    def changed(self, **given: Any) -> Self:
        """Return the command with the options that are given, those not None."""
        options = {name: value for name, value in given.items() if value is not None}
        if devices := options.get("devices"):
            options["devices"] = devices.completed(self.devices)
        return replace(self, **options)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, with absolute paths."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {
            "dataset": absolute(self.dataset),
            "val": self.val and absolute(self.val),
            "truth": self.truth and absolute(self.truth),
            "labels": self.labels and [[label.wnid, label.name] for label in self.labels],
            "devices": asdict(self.devices) | {"precision": self.devices.computed_in},
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the command of `to_dict`. Raises `LookupError`, `TypeError` for other values."""
        labels = values["labels"] and tuple(Label(*pair) for pair in values["labels"])
        return cls(**values | {"labels": labels, "devices": Devices(**values["devices"])})


def absolute(path: str | Path) -> str:
    """Return a path or pattern that means the same in every folder; a URL stays."""
    return str(path) if "://" in str(path) else str(Path(path).expanduser().absolute())


@dataclass(frozen=True, kw_only=True)
class Task:
    """A run as it was asked for, its options as those of `train`.

    `recalled`: model and weights are not given, so a run to resume goes on with its own network.
    """

    command: Command
    model: str | Path | Spec | None
    weights: str | Path | None
    from_scratch: bool
    small_stem: bool
    recalled: bool
    recipe: Recipe
    folder: str | Path | None
    resume: bool
    changes: Changes
    library: Library
    watcher: Watcher
    watch: Watch
    say: Callable[[str], None]

    @property
    def keeps_start(self) -> bool:
        """Whether the run to resume has its own network: no weights are read again."""
        return self.recalled and not (self.from_scratch or self.small_stem)


@dataclass(frozen=True, kw_only=True, repr=False)
class Training:
    """A run that ended or, if it is not `finished`, was stopped.

    `model` is the converted model (.xml), `weights` the file it was converted from, of `epoch`,
    counted from 1; both are None before the end, the model also if OpenVINO is not installed.
    `top1` and `top5` in [0, 1] are the model's own on the `val_read` readable ones of the
    `val_photos` validation photos, None without any. `calibrated`: whether its probabilities are.
    `report` is an HTML page, `unreadable` the photos left out. `figures` has the evaluation's and
    the calibration's. `rank` is this process, if there are several.
    """

    folder: Path
    finished: bool
    recipe: Recipe
    records: tuple[EpochRecord, ...]
    train_photos: int
    val_photos: int
    val_read: int = 0
    epoch: int = 0
    weights: Path | None = None
    model: Path | None = None
    report: Path | None = None
    top1: float | None = None
    top5: float | None = None
    calibrated: bool = False
    unreadable: tuple[Unreadable, ...] = ()
    remarks: tuple[str, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)
    rank: int = 0
    assumed: tuple[str, ...] = ()

    def __repr__(self) -> str:
        epochs = f"{len(self.records):,} of {self.recipe.schedule.epochs:,} epochs"
        top1 = "" if self.top1 is None else f", validation top-1 {percent(self.top1)}"
        return f"<Training in {self.folder}: {epochs}{top1}>"

    def _repr_html_(self) -> str | None:
        """Return the report for a notebook; None if it was not written."""
        known = self.report is not None and self.report.is_file()
        return page_frame(self.report.read_text("utf-8")) if self.report and known else None

    def classifier(self, **options: Any) -> "Classifier":
        """Return the model as `regnet.load` does; raises `TrainingError` before the run's end."""
        if self.weights and self.model is None:
            raise TrainingError(
                f"{self.weights} is not converted yet: regnet convert {self.weights}"
            )
        if self.model is None:
            raise TrainingError(
                f"the run in {self.folder} is not over, so it has no model yet: go on with it "
                "(resume=True)"
            )
        from regnet.inference.load import load

        return load(self.model, **options)

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain JSON values, as docs/train.md lists them."""
        values = plain_fields(self)
        del values["rank"], values["figures"]
        shown = readable_rows(self.unreadable[:SHOWN])
        counts = {"unreadable": len(self.unreadable), "unreadable_images": shown}
        return values | counts | self.figures
