"""JPEG → pixels on the GPU (nvJPEG through torchvision), for `decoder: nvjpeg`.

Worker processes then only hand bytes on: worth it where a fast tower waits for its readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import DeviceError

from .images import Preprocessing, target

if TYPE_CHECKING:
    import torch


def pack(jpegs: Sequence[bytes]) -> dict[str, np.ndarray]:
    """Inputs of one clip: `jpegs` (bytes) uint8, one after the other, and `lengths` (T,) int64."""
    return {"jpegs": np.frombuffer(b"".join(jpegs), np.uint8), "lengths": np.array([len(j) for j in jpegs], np.int64)}


def unpack(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Inverse of `pack`, without copies."""
    return np.split(inputs["jpegs"], np.cumsum(inputs["lengths"])[:-1])


def require(device: str) -> None:
    """Raise unless `device` decodes.

    Raises:
        DeviceError: it is no GPU of NVIDIA's.
    """
    if not device.startswith("cuda"):
        raise DeviceError(f"options.decoder nvjpeg decodes on a GPU and this run is on {device}; set it to pillow.")


def pixels(spec: Preprocessing, jpegs: Sequence[np.ndarray], device: str) -> torch.Tensor:
    """(N, H, W, 3) uint8 on `device`, resized and cropped as `spec` says.

    Raises:
        RuntimeError: the bytes are no whole JPEG.
    """
    import torch
    from torchvision import io
    from torchvision.transforms.v2 import functional

    # The decoder takes the bytes from main memory and leaves the pixels on the device.
    images = io.decode_jpeg([torch.from_numpy(data.copy()) for data in jpegs], mode=io.ImageReadMode.RGB, device=device)
    done = []
    for image in images:
        height, width = image.shape[-2:]
        if spec.resize is not None:
            width, height = target((width, height), spec.resize)
            image = functional.resize(image, [height, width], functional.InterpolationMode(spec.interpolation), antialias=True)
        if spec.crop is not None:
            half = round if spec.rounding == "round" else int
            top, left = half((height - spec.crop[0]) / 2), half((width - spec.crop[1]) / 2)
            image = functional.crop(image, top, left, *spec.crop)  # beyond its edges: black
        done.append(image)
    return torch.stack(done).movedim(1, -1)
