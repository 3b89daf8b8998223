"""What of a decoded picture is kept, and in which size."""

from __future__ import annotations

from PIL import Image


def take_half(image: Image.Image, half: str | None) -> Image.Image:
    """The `left` or `right` half, for films that show two people side by side; None takes all. An odd column is the right's.

    Raises:
        ValueError: another name.
    """
    if half is None:
        return image
    width, height = image.size
    middle = width // 2
    try:
        box = {"left": (0, 0, max(1, middle), height), "right": (middle, 0, width, height)}[half]
    except KeyError:
        raise ValueError(f"half must be left, right or None, not {half!r}") from None
    return image.crop(box)


def shrink(image: Image.Image, size: int | None) -> Image.Image:
    """Reduce the shorter side to `size` pixels, antialiased; a smaller picture is left as it is.

    Enlarging would add nothing: each encoder resizes to what it needs.
    """
    width, height = image.size
    if size is None or min(width, height) <= size:
        return image
    scale = size / min(width, height)
    return image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BICUBIC)
