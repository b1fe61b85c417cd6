"""Where regnet keeps what it downloaded and converted."""

import os
from pathlib import Path

from regnet.system.errors import RegNetError


def cache_dir(chosen: str | Path | None = None) -> Path:
    """Return the cache folder: the one chosen, else $REGNET_CACHE, else the platform's default.

    The folder is not created. Inside it: `weights/` downloads, `converted/` IRs by content,
    `compiled/` OpenVINO's compiled models, `embeddings/` of searched folders. Raises `RegNetError`
    for the home of nobody.
    """
    if configured := chosen or os.environ.get("REGNET_CACHE"):
        try:
            return Path(configured).expanduser()
        except RuntimeError as exc:
            raise RegNetError(f"no cache folder {configured}: {exc}") from exc
    from platformdirs import user_cache_path

    return user_cache_path("regnet", appauthor=False)
