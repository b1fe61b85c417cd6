"""Options of commands that can spread their work with Ray, and the addresses of clusters."""

import re
from typing import Final

from regnet.system.option import Options, option

LOCAL: Final = "local"
HOST: Final = re.compile(r"(ray://)?(\[[0-9a-fA-F:.]+\]|[\w.-]+):([1-9]\d{0,4})", re.ASCII)


class Ray(Options):
    """Where work is spread; None: not at all."""

    ray: str | None = option(
        None,
        "Spread the work over this machine's cores, or over the cluster at auto (which runs here), "
        "host:port or ray://host:port",
        "[ADDRESS]",
    )


class Spread(Ray):
    """How a classification is spread; `price` is what the cluster costs an hour."""

    partition_images: int = option(10_000, "Images per Parquet file", min=1)
    cpus_per_worker: int = option(1, "CPUs per worker", min=1)
    workers: int | None = option(None, "Workers [as many as have CPUs]", min=1)
    price: float | None = option(
        None, "Cost of the cluster per hour, to print that of a million images", min=0
    )


def is_address(word: str) -> bool:
    """Tell whether a word names a Ray: local, auto, host:port or ray://host:port."""
    return word in (LOCAL, "auto") or HOST.fullmatch(word) is not None
