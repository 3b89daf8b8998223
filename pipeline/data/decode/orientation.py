"""How a player turns and mirrors the stored frames: the display matrix of a film."""

from __future__ import annotations

from typing import NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import SideData
from PIL import Image

_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
#: (axes exchanged, x turned over, y turned over) → (degrees counter-clockwise, then mirrored left to right).
_CASES = {
    (False, False, False): (0, False),
    (False, True, True): (180, False),
    (True, False, True): (90, False),
    (True, True, False): (270, False),
    (False, True, False): (0, True),
    (False, False, True): (180, True),
    (True, True, True): (90, True),
    (True, False, False): (270, True),
}


class Orientation(NamedTuple):
    """Turn by `rotation` degrees counter-clockwise (0, 90, 180, 270), then mirror left to right when `mirrored`."""

    rotation: int = 0
    mirrored: bool = False

    def apply(self, image: Image.Image) -> Image.Image:
        """The picture as a player shows it."""
        if self.rotation:
            image = image.transpose(_TURNS[self.rotation])
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.mirrored else image


def read_orientation(frame: av.VideoFrame) -> Orientation:
    """From the display matrix a decoded frame carries; without one, it is shown as stored.

    The angle alone does not tell a mirrored picture from a turned one: the signs of the matrix do. Turns that are no right
    angle go to the nearest one.
    """
    found = frame.side_data.get("DISPLAYMATRIX")
    return orient(np.frombuffer(bytes(found), np.int32)) if isinstance(found, SideData) else Orientation()


def orient(matrix: np.ndarray) -> Orientation:
    """(9,) int32 a b u c d v x y w (ISO 14496-12, 8.2.2): a stored place (x, y) is shown at (a x + c y, b x + d y).

    >>> orient(np.array([-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30], np.int32))
    Orientation(rotation=0, mirrored=True)
    """
    a, b, c, d = (int(matrix[i]) for i in (0, 1, 3, 4))
    exchanged = abs(b) + abs(c) > abs(a) + abs(d)
    x, y = (c, b) if exchanged else (a, d)
    return Orientation(*_CASES[exchanged, x < 0, y < 0])
