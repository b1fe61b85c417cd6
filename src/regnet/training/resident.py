"""Photos that live on the device: all of them as bytes, crops of a whole batch at once."""

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regnet.data.labelled import Unreadable
from regnet.pixels.protocol import Interpolation
from regnet.training.devices import on_device
from regnet.training.photos import LabelledPhotos

_PIECE: Final = 256 << 20  # bytes copied to the device at a time
_PIXELS: Final = 1 << 26  # pixels of photos that are resized at a time
SUPPORT: Final = {"bicubic": 2.0, "bilinear": 1.0, "opencv-linear": 1.0}
"""The filters that a device can crop by, and their reach in source pixels."""

PLACE_BYTES: Final = 5 * 8
"""Of a photo's number and its box, from which the device makes a crop."""


class ResidentPhotos:
    """All photos of a run in a device's memory, one behind the other; `sizes` (N, 2) on the host.

    An unreadable photo has the size (0, 0).
    """

    def __init__(self, photos: LabelledPhotos, device: torch.device) -> None:
        held = [photos.pixels(number) for number in range(len(photos))]
        shapes = [(0, 0) if isinstance(each, Unreadable) else each.shape[1::-1] for each in held]
        self.sizes = np.array(shapes, np.int64).reshape(-1, 2)
        counts = self.sizes.prod(1)
        self._starts = np.cumsum(counts) - counts
        self._pixels = torch.empty((int(counts.sum()), 3), dtype=torch.uint8, device=device)
        piece: list[NDArray[Any]] = []
        start, waiting = 0, 0
        for number, each in enumerate(held):
            if not isinstance(each, Unreadable):
                piece.append(each.reshape(-1, 3))
                waiting += each.nbytes
            if piece and (waiting >= _PIECE or number == len(held) - 1):
                rows = torch.from_numpy(np.concatenate(piece))
                self._pixels[start : start + len(rows)] = rows.to(device)
                start, waiting, piece = start + len(rows), 0, []

    def crops(
        self,
        places: NDArray[np.int64],
        *,
        side: int,
        interpolation: Interpolation,
    ) -> Tensor:
        """Return boxes of photos, resized: (N, side, side, 3).

        `places` (N, 5) are a photo's number and its box's left, top, right and bottom each. Result:
        float32, 0..255: for "bilinear" and "bicubic" Pillow's 8-bit results, but for a level here
        and there, and where Pillow goes down first and colours are clipped.
        """
        numbers, boxes = places[:, 0], places[:, 1:]
        largest = int(np.prod((boxes[:, 2:] - boxes[:, :2]).max(0)))
        count = max(_PIXELS // max(largest, 1), 1)
        parts = [
            self._resized(numbers[at : at + count], boxes[at : at + count], side, interpolation)
            for at in range(0, len(numbers), count)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _resized(
        self,
        numbers: NDArray[np.int64],
        boxes: NDArray[np.int64],
        side: int,
        interpolation: Interpolation,
    ) -> Tensor:
        """Resize by two products with matrices of weights, across and then down, as Pillow does."""
        device = self._pixels.device
        left, top, right, bottom = boxes.T
        widths, heights = right - left, bottom - top
        origins = self._starts[numbers] + top * self.sizes[numbers, 0] + left
        table = np.stack([origins, self.sizes[numbers, 0], widths, heights])
        origin, stride, width, height = on_device(table, device)[:, :, None]
        columns = torch.arange(int(widths.max()), device=device)
        rows = torch.arange(int(heights.max()), device=device)
        across = torch.minimum(columns, width - 1)
        down = torch.minimum(rows, height - 1)
        places = (origin + down * stride)[:, :, None] + across[:, None, :]
        pixels = self._pixels[places].permute(0, 3, 1, 2).float()
        rounds = interpolation != "opencv-linear"
        wide = pixels @ _weights(columns, width, side, interpolation).mT[:, None]
        wide = wide.round_().clamp_(0, 255) if rounds else wide
        done = _weights(rows, height, side, interpolation)[:, None] @ wide
        done = done.round_().clamp_(0, 255) if rounds else done
        return done.permute(0, 2, 3, 1).contiguous()


def _weights(places: Tensor, length: Tensor, side: int, interpolation: Interpolation) -> Tensor:
    """Return the weight of each source pixel in each of `side` target pixels: (N, side, places).

    `length` (N, 1) is the number of source pixels; weights behind them are 0.
    """
    scale = length[:, :, None].float() / side
    centres = (torch.arange(side, device=places.device)[None, :, None] + 0.5) * scale
    width = torch.ones_like(scale) if interpolation == "opencv-linear" else scale.clamp(min=1)
    away = ((places + 0.5 - centres) / width).abs()
    if interpolation == "bicubic":  # a = -0.5
        near = ((1.5 * away - 2.5) * away) * away + 1
        far = (((away - 5) * away + 8) * away - 4) * -0.5
        weights = torch.where(away < 1, near, far)
    else:
        weights = 1 - away
    used = (away < SUPPORT[interpolation]) & (places < length[:, :, None])
    weights = torch.where(used, weights, 0)
    return weights / weights.sum(2, keepdim=True)
