"""What a sweep and a search are asked for: values in Python, options on the command line."""

from pathlib import Path
from typing import Final

from regnet.cluster.address import Ray
from regnet.space.sampling import SPACES, Space, Window, space_by_name
from regnet.system.errors import SpaceError, UnknownModelError
from regnet.system.option import Options, argument, option
from regnet.training.recipe import Recipe

RECIPE: Final = "sweep"
"""The paper's low-budget setting."""

SEARCHED: Final = ("regnetx", "regnety")
"""The spaces whose networks have a predictable accuracy."""

FIRST: Final = 12
"""Networks that a search measures at least."""


class Population(Options):
    """The networks of a sweep: the first `count` of a space or of a file of specs.

    `seed` is that of the sample and of all runs. `space` names the networks of a file.
    """

    source: str | Path = argument("The networks, see above", "SPACE|FILE")
    space: str | None = option(None, "Name of the space in the records [FILE's stem]", "NAME")
    count: int | None = option(
        None, "Number of networks [100, or all of FILE]", "-n", min=1, max=1_000_000
    )
    seed: int = option(0, "Random seed of the sample and of each run", min=0, max=2**63 - 1)
    small_stem: bool = option(False, "Use the stem for images of 32 to 64 pixels")
    window: Window = Window()

    def open(self) -> Space | Path:
        """Return the space, or the file of specs; raises `UnknownModelError`."""
        if str(self.source).lower() in SPACES:
            return space_by_name(str(self.source))
        if not (path := Path(self.source)).is_file():
            raise UnknownModelError(
                f"{self.source}: is neither a file of specs nor a design space; known are "
                f"{', '.join(SPACES)}"
            )
        return path

    @property
    def name(self) -> str:
        """The name of the space in the records; raises `UnknownModelError`."""
        source = self.open()
        return self.space or (source.stem if isinstance(source, Path) else source.name)


class NetworkTraining(Options):
    """How each network of a sweep is trained: a recipe and changes to it."""

    epochs: int = option(..., "Epochs per network", min=1, max=100_000)
    recipe: str | Path | Recipe = option(RECIPE, "sweep, paper, modern or a TOML file", "RECIPE")
    resolution: int | None = option(None, "Crop size [the recipe's, 48]", "PIXELS", min=8, max=4096)
    batch: int | None = option(None, "Global batch size; 0 = automatic [the recipe's]", min=0)
    lr: float | None = option(None, "Learning rate per 128 images [the recipe's]", "LR")


class Workers(Ray):
    """What a run of a sweep is given: `cpus` threads and a share `gpus` of the GPUs.

    With the address of a Ray cluster, runs are tasks there; one that loses its worker is restarted
    up to `retries` times.
    """

    cpus: int = option(1, "Threads per run", "--cpus-per-run", min=1)
    gpus: float = option(0.0, "GPUs per run, or a share of one", "--gpus-per-run", min=0)
    retries: int = option(2, "Restarts of a run that lost its worker", min=0)


class PhotoMemory(Options):
    """The bytes that decoded photos may take."""

    memory: int = option(4 << 30, "Memory for photos", "GiB", unit=2**30, min=0.01)


class Budget(NetworkTraining, Workers, PhotoMemory):
    """What each network of a sweep may cost."""


class SearchExtent(Options):
    """What a search draws and measures.

    `candidates` networks are drawn from each space and at most `measure` of them measured.
    Raises `SpaceError` for a space that cannot be searched.
    """

    spaces: tuple[str, ...] = option(
        SEARCHED, "regnetx or regnety; repeatable [both]", "--space", "SPACE"
    )
    candidates: int = option(20_000, "Networks drawn per space", min=1, max=1_000_000)
    measure: int = option(48, "Maximum number of networks measured", min=FIRST)
    seed: int = option(0, "Random seed", min=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spaces", require_spaces(self.spaces))


class TrainBest(Options):
    """Which of a search's networks are trained, and on what; none without `train`."""

    train: str | None = option(None, "Train the best on these photos", "DATASET")
    val: str | None = option(None, "Photos to validate on", "PATH")
    top: int = option(3, "Number of networks to train", min=1)
    epochs: int = option(10, "Epochs per network", min=1)
    records: Path = option(Path("search.jsonl"), "Records of the trained networks")


def require_spaces(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names in lower case; raises `SpaceError` for a space that cannot be searched."""
    spaces = tuple(dict.fromkeys(name.strip().lower() for name in names))
    if not spaces or any(name not in SEARCHED for name in spaces):
        raise SpaceError(
            f"{', '.join(names) or 'none'}: spaces that can be searched are {', '.join(SEARCHED)}, "
            "for of others no accuracy is known"
        )
    return spaces
