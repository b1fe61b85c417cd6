"""Which sources are videos: by name alone, so that nothing is opened to tell."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from regnet.system.errors import MissingExtraError

VIDEO_SUFFIXES: Final = frozenset(
    (".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".ivf", ".m2ts", ".m4v")
) | frozenset(
    (".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogv")
) | {".ts", ".vob", ".webm", ".wmv", ".y4m"}  # fmt: skip

_CAMERA: Final = re.compile(r"camera:(.+)", re.DOTALL)
_DEVICE: Final = re.compile(r"/dev/video\d+")
_STREAM: Final = re.compile(r"rtsps?://.", re.IGNORECASE)


def is_video(source: str | Path) -> bool:
    """Tell whether a source is a video by its name: a file, a pattern, a camera or an address."""
    name = str(source)
    return is_live(name) or ("://" not in name and Path(name).suffix.lower() in VIDEO_SUFFIXES)


def is_live(name: str) -> bool:
    """Tell a camera (`camera:0`, `/dev/video0`) or an address (rtsp, rtsps) from other names."""
    return any(pattern.match(name) for pattern in (_CAMERA, _STREAM)) or is_device(name)


def is_stream(name: str) -> bool:
    """Tell whether a name is the address of a stream."""
    return bool(_STREAM.match(name))


def is_device(name: str) -> bool:
    """Tell whether a name is that of a camera's file."""
    return bool(_DEVICE.fullmatch(name))


def camera(name: str) -> tuple[str, str]:
    """Return the system's input format and its name of a camera.

    `camera:0` counts cameras, on Windows it takes their names.
    """
    named = _CAMERA.fullmatch(name)
    which = named[1] if named else name
    if sys.platform == "darwin":
        return "avfoundation", f"{which}:none"
    if sys.platform == "win32":
        return "dshow", f"video={which}"
    return "video4linux2", f"/dev/video{which}" if which.isdecimal() else which


def require_extra() -> None:
    """Raise `MissingExtraError` where what reads videos is not installed; imports nothing."""
    if find_spec("av") is None:
        raise MissingExtraError("classifying videos", "video")
