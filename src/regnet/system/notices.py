"""What is worth saying but is no error: warnings of our own, which the command line shows."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from regnet.system.cache import cache_dir
from regnet.system.errors import RegNetError
from regnet.system.in_flight import one_photo

_source: Final = ContextVar("source", default="")


class RegNetWarning(UserWarning):
    """Anything regnet warns of; the command line prints each key once, on a line of its own."""

    @property
    def key(self) -> object:
        """What tells it from other warnings: its text."""
        return str(self)


class SkippedFilesWarning(RegNetWarning):
    """Files beside the photos were skipped: `counts` says how many of each kind."""

    def __init__(self, text: str, counts: Mapping[str, int]) -> None:
        super().__init__(text)
        self.counts = dict(counts)


class DarkPhotoWarning(RegNetWarning):
    """A photo of 16 bits has values of 12 bits or fewer, so it is nearly black."""


def give(kind: type[RegNetWarning], text: str) -> None:
    """Warn where the caller's caller is; the text begins with what the block is `about`."""
    source = _source.get()
    warnings.warn(f"{source}: {text}" if source else text, kind, stacklevel=3)


def first_time(name: str) -> bool:
    """Tell whether this installation gives a notice for the first time; the cache remembers it."""
    from regnet.system.installation import installation_key

    try:
        path = cache_dir() / "notices" / f"{name}-{installation_key()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    except (OSError, RegNetError):
        pass  # better said again than never
    return True


@contextmanager
def about(source: str) -> Iterator[None]:
    """Let warnings of this thread name a photo, which is in memory in the block alone."""
    token = _source.set(source)
    try:
        with one_photo():
            yield
    finally:
        _source.reset(token)
