"""A photograph with one face, and pictures without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image


@pytest.fixture(scope="session")
def astronaut() -> Image.Image:
    """NASA's portrait of Eileen Collins, 512 × 512, from scikit-image; her face is about (170, 70) to (270, 190)."""
    return Image.open(Path(skimage.__path__[0]) / "data" / "astronaut.png").convert("RGB")


@pytest.fixture(scope="session")
def wall() -> Image.Image:
    """Nothing but a gradient."""
    return Image.fromarray(np.tile(np.linspace(90, 160, 256, dtype=np.uint8)[None, :, None], (256, 1, 3)))
