"""MTCNN (Zhang et al. 2016): three small networks, each of which looks closer at what the one before let through.

The first runs over a pyramid of the picture and proposes windows; the second and third see each window at 24 and 48
pixels, move its borders, and the last one names the eyes. The weights are plain state dicts inside the wheel
`facenet-pytorch`. The package itself is not imported: its detector lets the pictures of a batch change one another's
last bits, and fails on those smaller than its windows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, pad
from torchvision.ops import nms, roi_align

from pipeline.params import Faces
from pipeline.threads import computing

from . import networks
from .detection import Detection, unique

#: Side of the smallest window, and how far apart those of one level are, pixels.
CELL, STRIDE = 12, 2
#: Each level of the pyramid is so much smaller than the one before.
FACTOR = 0.709
#: Scores that let a window through the first and the second network; `faces.min_score` is that of the last.
THRESHOLDS = (0.6, 0.7)
#: Pictures and windows a GPU takes at once: always as many, filled up with black, so that every batch is summed alike.
PICTURES, WINDOWS = 16, 256
#: Boxes and eyes are in steps of 1/16 pixel of the searched picture: the last bits of a sum end here.
GRID = 16


class Mtcnn:
    """The detector on one device.

    Args:
        files: the weights of the three networks.
        spec: `side`, `min_size` and `min_score` count.
        together: pictures and windows per batch; by default one picture with all its windows on a processor,
            `PICTURES` and `WINDOWS` on a GPU.

    Raises:
        WeightsError: the weights are other ones.
    """

    def __init__(self, files: Sequence[Path], spec: Faces, device: str = "cpu", together: tuple[int, int] | None = None) -> None:
        first, second, third = files
        self._device, self._spec = torch.device(device), spec
        self._proposer = networks.proposer(first).to(self._device)
        self._looks = ((networks.refiner(second).to(self._device), 24), (networks.finisher(third).to(self._device), 48))
        self._pictures, self._windows = together or ((1, 0) if device == "cpu" else (PICTURES, WINDOWS))

    def __call__(self, pictures: Sequence[Image.Image]) -> list[list[Detection]]:
        """The faces of each picture."""
        result: list[list[Detection]] = []
        with _repeatable(), torch.inference_mode():
            for _, alike in itertools.groupby(pictures, key=lambda picture: picture.size):
                same = list(alike)
                for i in range(0, len(same), self._pictures):
                    result += self._search(same[i : i + self._pictures])
        return result

    def _search(self, pictures: list[Image.Image]) -> list[list[Detection]]:
        """Faces of at most `together` pictures of one size."""
        width, height = pictures[0].size
        reduction = max(1.0, min(width, height) / self._spec.side)
        size = round(width / reduction), round(height / reduction)
        levels = np.stack([np.asarray(one.resize(size, Image.Resampling.BILINEAR).convert("RGB")) for one in pictures])
        stack = torch.from_numpy(levels).to(self._device).permute(0, 3, 1, 2).float()
        stack = pad(stack, (0, 0) * 3 + (0, self._pictures - len(pictures)))
        windows = [_square(boxes) for boxes in self._propose(stack)]
        (refiner, small), (finisher, large) = self._looks
        for i, (score, moves) in enumerate(self._look(stack, windows, refiner, small)):
            passed = score >= THRESHOLDS[1]
            boxes, moves, score = windows[i][passed], moves[passed], score[passed]
            kept = nms(boxes, score, 0.7)
            windows[i] = _square(_moved(boxes[kept], moves[kept]))
        least = self._spec.min_size * min(size)
        scale = np.array([width / size[0], height / size[1]])
        found = zip(windows, self._look(stack, windows, finisher, large), strict=True)
        return [self._faces(boxes, outputs, least, scale) for boxes, outputs in found][: len(pictures)]

    def _propose(self, stack: Tensor) -> list[Tensor]:
        """(K, 4) windows of each picture."""
        height, width = stack.shape[2:]
        # A window is as wide as a face with its hair.
        scale = CELL / max(CELL, self._spec.min_size * min(height, width))
        found: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in stack]
        while min(height, width) * scale >= CELL:
            rows, columns = math.ceil(height * scale), math.ceil(width * scale)
            score, moves = self._proposer(adaptive_avg_pool2d(stack, (rows, columns)))
            at = (score >= THRESHOLDS[0]).nonzero(as_tuple=True)
            score, moves = score[at].cpu(), moves.permute(0, 2, 3, 1)[at].cpu()
            number, row, column = (index.cpu() for index in at)
            corner = torch.stack([column, row, column, row], 1) * STRIDE + torch.tensor([0, 0, CELL, CELL])
            boxes = corner * torch.tensor([width / columns, height / rows] * 2)
            for i, parts in enumerate(found):
                own = number == i
                kept = nms(boxes[own], score[own], 0.5)
                parts.append((boxes[own][kept], score[own][kept], moves[own][kept]))
            scale *= FACTOR
        result = []
        for parts in found:
            if not parts:
                result.append(torch.empty(0, 4))
                continue
            boxes, score, moves = (torch.cat(part) for part in zip(*parts, strict=True))
            kept = nms(boxes, score, 0.7)
            result.append(_moved(boxes[kept], moves[kept]))
        return result

    def _look(self, stack: Tensor, windows: list[Tensor], network: networks.Network, side: int) -> list[tuple[Tensor, ...]]:
        """What a network says of the windows of each picture, seen at `side` pixels; what lies beyond a picture is black."""
        counts = [len(boxes) for boxes in windows]
        step = self._windows or max(1, *counts)
        number = torch.repeat_interleave(torch.arange(len(windows)), torch.tensor(counts))
        places = torch.cat([number[:, None], torch.cat(windows)], 1).to(self._device)
        # At least one batch, so that the outputs have their shapes when there is no window.
        places = pad(places, (0, 0, 0, max(step, math.ceil(len(places) / step) * step) - len(places)))
        parts = [network(roi_align(stack, batch, side, aligned=True)) for batch in places.split(step)]
        outputs = [torch.cat(part).cpu()[: sum(counts)] for part in zip(*parts, strict=True)]
        return list(zip(*(output.split(counts) for output in outputs), strict=True))

    def _faces(self, boxes: Tensor, outputs: tuple[Tensor, ...], least: float, scale: np.ndarray) -> list[Detection]:
        """Faces in pixels of the picture as it was given, `scale` times as large as the searched one."""
        score, moves, points = outputs
        passed = score >= self._spec.min_score
        boxes, score, moves, points = boxes[passed], score[passed], moves[passed], points[passed]
        corner, side = boxes[:, None, :2], (boxes[:, 2:] - boxes[:, :2])[:, None]
        places = torch.cat([_moved(boxes, moves).unflatten(1, (2, 2)), corner + side * points.unflatten(1, (2, 5)).mT[:, :2]], 1)
        found = []
        for share, place in zip(score.tolist(), (places * GRID).round().double().numpy() / GRID, strict=True):
            (left, top), (right, bottom), *eyes = (place * scale).tolist()
            if (place[1] - place[0]).min() >= least:
                (ax, ay), (bx, by) = sorted(eyes)
                found.append(Detection((left, top, right, bottom), round(share, 4), ((ax, ay), (bx, by))))
        return unique(found)


def _moved(boxes: Tensor, moves: Tensor) -> Tensor:
    """Borders shifted by shares of the box's own width and height."""
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return boxes + moves * sides


def _square(boxes: Tensor) -> Tensor:
    """The squares around boxes; those without an extent are left out."""
    centre, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    half = sides.amax(1, keepdim=True) / 2
    return torch.cat([centre - half, centre + half], 1)[sides.amin(1) >= 1]


@contextmanager
def _repeatable() -> Iterator[None]:
    """One thread and plain float32, whatever the process is set to: sums in one order give the same boxes."""
    with computing(1), torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
