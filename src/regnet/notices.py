"""What is worth saying but is no error: warnings of our own, which the command line shows."""

import warnings


class RegNetWarning(UserWarning):
    """Anything regnet warns of; the command line prints each text once, on a line of its own."""


class SkippedFilesWarning(RegNetWarning):
    """Files beside the photos were skipped."""


class DarkPhotoWarning(RegNetWarning):
    """A photo of 16 bits has values of 12 bits or fewer, so it is nearly black."""


def give(warning: RegNetWarning) -> None:
    """Warn where the caller's caller is."""
    warnings.warn(warning, stacklevel=3)
