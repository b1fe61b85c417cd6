"""What is worth saying but is no error: warnings of our own, which the command line shows."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_lock: Final = threading.Lock()


class RegNetWarning(UserWarning):
    """Anything regnet warns of; the command line prints each text once, on a line of its own."""


class SkippedFilesWarning(RegNetWarning):
    """Files beside the photos were skipped."""


class DarkPhotoWarning(RegNetWarning):
    """A photo of 16 bits has values of 12 bits or fewer, so it is nearly black."""


def give(warning: RegNetWarning) -> None:
    """Warn from any thread, also while another keeps Pillow's warnings back."""
    with _lock:
        warnings.warn(warning, stacklevel=3)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep all warnings from the user, such as Pillow's: its errors are all that counts.

    Filters are global to the process, so one thread at a time: do little in here.
    """
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
