"""The size in which a decoded picture is kept."""

from __future__ import annotations

from PIL import Image


def shrink(image: Image.Image, size: int | None) -> Image.Image:
    """Reduce the shorter side to `size` pixels, antialiased; a smaller picture is left as it is.

    Enlarging would add nothing: each encoder resizes to what it needs.
    """
    width, height = image.size
    if size is None or min(width, height) <= size:
        return image
    scale = size / min(width, height)
    return image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BICUBIC)
