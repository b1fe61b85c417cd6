"""A decoded frame to RGB pixels, as it is to be shown: its colours, shape and orientation."""

from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation

from regnet.pixels.decode import Pixels
from regnet.system.errors import ImageError

MAX_FRAME_PIXELS: Final = 8192 * 4352
"""Larger frames are refused: no level of H.264, HEVC or AV1 allows more."""

# Without these swscale rounds down, and repeats chroma of 4:2:0 instead of interpolating it: the
# probabilities of photos made into 4:2:0 then move twice as far.
_EXACT: Final = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_UNSPECIFIED: Final = 2  # AVCOL_SPC_UNSPECIFIED


Matrix = tuple[int, int, int, int]
"""Where the right and the lower neighbour of a stored pixel are shown: x, y and x, y."""

UPRIGHT: Final[Matrix] = (1, 0, 0, 1)


def rgb(
    frame: av.VideoFrame, pixel_aspect: Fraction = Fraction(1), matrix: Matrix = UPRIGHT
) -> Pixels:
    """Return a frame's pixels upright: uint8 (H, W, 3), RGB.

    Colours are by the matrix and range that the frame names. Where it names no matrix it is BT.709
    in high definition, else BT.601, as players have it. Pixels that are not square
    (`pixel_aspect` is width / height) are made so, and the frame is turned and mirrored by right
    angles. Threads may call it at once, but never with
    the same frame, which it changes for a moment. Raises `ImageError`.
    """
    width, height = square_size(frame.width, frame.height, pixel_aspect)
    try:
        pixels: Pixels = frame.reformat(
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=_matrix(frame),
            interpolation=int(_EXACT),
            threads=1,
        ).to_ndarray()  # type: ignore[assignment]
    except (av.FFmpegError, ValueError) as exc:
        raise ImageError(f"its frames cannot be made RGB ({exc})") from exc
    return _upright(pixels, matrix)


def square_size(width: int, height: int, pixel_aspect: Fraction) -> tuple[int, int]:
    """Return the size in square pixels, none of the frame lost; raises `ImageError` over limits."""
    if pixel_aspect > 1:
        width = round(width * pixel_aspect)
    elif pixel_aspect > 0:
        height = round(height / pixel_aspect)
    if width * height > MAX_FRAME_PIXELS:
        raise ImageError(
            f"frames of {width} x {height} are over the limit of {MAX_FRAME_PIXELS:,} pixels"
        )
    return width, height


def _matrix(frame: av.VideoFrame) -> Colorspace | None:
    """Return the matrix of a frame that does not name it, None for the one it names."""
    if frame.colorspace != _UNSPECIFIED:
        return None
    return Colorspace.ITU709 if frame.width >= 1280 or frame.height > 576 else Colorspace.ITU601


def display_matrix(frame: av.VideoFrame) -> Matrix:
    """Return how a frame is to be turned and mirrored.

    Not for every frame: one that was asked is freed only when Python looks for circles.
    """
    side_data: Any = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return UPRIGHT
    a, b, _, c, d = np.frombuffer(side_data, np.int32)[:5].tolist()
    return a, b, c, d


def _upright(pixels: Pixels, matrix: Matrix) -> Pixels:
    a, b, c, d = matrix
    if abs(b) > abs(a):  # stored columns are shown as rows
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
