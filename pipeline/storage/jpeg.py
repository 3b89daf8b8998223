"""JPEG: from a decoded picture to the bytes that are kept, and back."""

from __future__ import annotations

import io

from PIL import Image, UnidentifiedImageError


def encode(image: Image.Image, quality: int) -> bytes:
    """Baseline JPEG; the same pixels give the same bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=False, progressive=False)
    return buffer.getvalue()


def decode(data: bytes) -> Image.Image:
    """RGB image from JPEG (or PNG) bytes.

    Raises:
        ValueError: the bytes are no whole image.

    >>> decode(encode(Image.new("RGB", (32, 16), "white"), 95)).getpixel((0, 0))
    (255, 255, 255)
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"a frame of {len(data)} bytes is no whole image ({error})") from error
