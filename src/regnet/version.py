"""The version of this package, as converted models record it."""

from importlib.metadata import PackageNotFoundError, version


def _installed_version() -> str:
    try:
        return version("regnet-vision")
    except PackageNotFoundError:
        return "unknown"


TOOL_VERSION = _installed_version()
