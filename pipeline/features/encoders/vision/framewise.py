"""What encoders of single images share: pixels of every frame, one row per frame, time from the frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.features.encoders.encoder import Encoder, Layered
from pipeline.features.encoders.extractor import Clip, Missing, Prepared
from pipeline.features.encoders.transfer import to_device
from pipeline.params.features import Layer

from . import gpu_images
from .images import Preprocessing
from .peak import find_peak

if TYPE_CHECKING:
    import torch

#: Frames of a clip that are read.
Which = Literal["all", "first", "middle", "peak"]


@dataclass(frozen=True)
class Prepare:
    """Clip → array `pixels` (T, H, W, 3) uint8, one row per frame; the JPEGs themselves for `decoder: nvjpeg`."""

    images: Preprocessing
    which: Which = "all"

    def __call__(self, clip: Clip) -> Prepared:
        jpegs, times = choose(*frames(clip), self.which)
        inputs = {"pixels": self.images.pixels(jpegs)} if self.images.decoder == "pillow" else gpu_images.pack(jpegs)
        return Prepared(inputs, times, cost=float(len(jpegs)))


def frames(clip: Clip) -> tuple[list[bytes], np.ndarray]:
    """JPEGs and (T, 2) float32 seconds of the frames a clip has; an empty frame (no face in it) is left out.

    Raises:
        Missing: it has none.
        ValueError: frames and times differ in number.
    """
    jpegs = list(clip.frames or ())
    if not jpegs or clip.frame_times is None:
        raise Missing("the clip has no frames")
    times = np.asarray(clip.frame_times, dtype=np.float32)
    if times.shape != (len(jpegs), 2):
        raise ValueError(f"clip {clip.id}: {len(jpegs)} frames with times of shape {times.shape}")
    kept = [i for i, data in enumerate(jpegs) if len(data)]
    if not kept:
        raise Missing("no frame shows a face")
    return [jpegs[i] for i in kept], times[kept]


def choose(jpegs: list[bytes], times: np.ndarray, which: Which) -> tuple[list[bytes], np.ndarray]:
    """`all` frames, or the `first`, `middle` or `peak` one.

    The peak is the one of the strongest expression; see `peak.find_peak`.
    """
    if which == "all":
        return jpegs, times
    position = {"first": 0, "middle": len(jpegs) // 2}.get(which)
    if position is None:
        position = find_peak(jpegs)
    return [jpegs[position]], times[position : position + 1]


class FrameEncoder(Encoder):
    """A network over single images; frames of all clips go through together, at most `chunk` at a time.

    On a processor 16 are as fast as 64 and hold a quarter of the memory.

    Args:
        read: (N, 3, H, W) float32 pixels on `device` → (N, ...) rows of `network`.
        images: how pixels were prepared.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        read: Callable[[torch.Tensor], Any],
        images: Preprocessing,
        device: str,
        chunk: int | None = None,
    ) -> None:
        if images.decoder == "nvjpeg":
            gpu_images.require(device)
        self.network, self.read, self.images, self.device = network, read, images, device
        self.chunk = chunk or (16 if device == "cpu" else 64)

    def encode(self, batch: Sequence[Prepared]) -> list[torch.Tensor]:
        """(T, ...) rows of each clip, one per frame."""
        import torch

        parts = [self.read(self.images.normalise(part)) for part in self._pixels(batch)]
        return list(torch.split(torch.cat(parts), [len(item.times) for item in batch]))

    def _pixels(self, batch: Sequence[Prepared]) -> Iterator[torch.Tensor]:
        """(N, H, W, 3) uint8 on the device, N at most `chunk`."""
        if self.images.decoder == "pillow":
            pixels = np.concatenate([item.inputs["pixels"] for item in batch])
            for part in np.split(pixels, range(self.chunk, len(pixels), self.chunk)):
                yield to_device(part, self.device)
            return
        jpegs = [data for item in batch for data in gpu_images.unpack(item.inputs)]
        for low in range(0, len(jpegs), self.chunk):
            yield gpu_images.pixels(self.images, jpegs[low : low + self.chunk], self.device)

    def compile(self) -> bool:
        """Fuse the network's kernels at the first batches. A network that cannot be compiled runs as it is."""
        import torch

        torch._dynamo.config.suppress_errors = True
        self.read = torch.compile(self.read)
        return True


class LayeredFrameEncoder(Layered, FrameEncoder):
    """A network over single images of which several layers are read.

    Args:
        read: (N, 3, H, W) float32 pixels on `device` → per layer (N, ...) rows.
        layers: as in `Stream.layer`.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        read: Callable[[torch.Tensor], list[torch.Tensor]],
        images: Preprocessing,
        device: str,
        layers: tuple[Layer, ...],
    ) -> None:
        super().__init__(network, read, images, device)
        self.layers = layers

    def encode_layers(self, batch: Sequence[Prepared]) -> list[list[torch.Tensor]]:
        """Per layer (T, ...) rows of each clip, one per frame."""
        import torch

        parts = [self.read(self.images.normalise(part)) for part in self._pixels(batch)]
        lengths = [len(item.times) for item in batch]
        return [list(torch.split(torch.cat(rows), lengths)) for rows in zip(*parts, strict=True)]
