"""Where regnet keeps what it downloaded and converted."""

import os
from pathlib import Path


def cache_dir(chosen: str | Path | None = None) -> Path:
    """Return the cache folder: the one chosen, else $REGNET_CACHE, else the platform's default.

    The folder is not created. Inside it: `weights/` downloads, `converted/` IRs by content,
    `compiled/` OpenVINO's compiled models.
    """
    if chosen is not None:
        return Path(chosen).expanduser()
    if configured := os.environ.get("REGNET_CACHE"):
        return Path(configured).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("regnet", appauthor=False)
