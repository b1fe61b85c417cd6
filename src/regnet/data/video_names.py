"""Which sources are videos: by name alone, so that nothing is opened to tell."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from regnet.system.errors import MissingExtraError

VIDEO_SUFFIXES: Final = frozenset(
    (".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".ivf", ".m2ts", ".m4v")
) | frozenset(
    (".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogv")
) | {".ts", ".vob", ".webm", ".wmv", ".y4m"}  # fmt: skip

_CAMERA: Final = re.compile(r"camera:.|/dev/video\d+\Z", re.DOTALL)
_STREAM: Final = re.compile(r"rtsps?://.", re.IGNORECASE)


def is_video(source: str | Path) -> bool:
    """Tell whether a source is a video by its name: a file, a pattern, a camera or an address."""
    name = str(source)
    return is_live(name) or ("://" not in name and Path(name).suffix.lower() in VIDEO_SUFFIXES)


def is_live(name: str) -> bool:
    """Tell a camera (`camera:0`, `/dev/video0`) or the address of a stream from other names."""
    return is_stream(name) or bool(_CAMERA.match(name))


def is_stream(name: str) -> bool:
    """Tell whether a name is the address of a stream (rtsp, rtsps)."""
    return bool(_STREAM.match(name))


def require_extra() -> None:
    """Raise `MissingExtraError` if PyAV is not installed; imports nothing."""
    if find_spec("av") is None:
        raise MissingExtraError("classifying videos", "video")
