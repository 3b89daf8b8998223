"""The mosaic of HLM12ERC: five equidistant frames under one another, as one picture, through a timm model.

The source system crops its mosaic and so loses two thirds of it; here the picture is seen whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from pipeline import weights
from pipeline.errors import ParamsError, one_of
from pipeline.features.encoders import pooling, transfer
from pipeline.features.encoders.extractor import Clip, Extractor, Prepared
from pipeline.features.encoders.family import Family
from pipeline.params import Stream

from . import framewise, images
from . import timm as timm_family

#: Statistics that HLM12ERC measured on its MELD mosaics.
MELD = ((0.2706, 0.2010, 0.1914), (0.1857, 0.1608, 0.1667))
STATISTICS = ("checkpoint", "meld")


def equidistant(times: np.ndarray, count: int) -> np.ndarray:
    """Indices of the frames nearest to `count` moments from the first to the last, both included."""
    middles = times.mean(1)
    moments = np.linspace(middles[0], middles[-1], count)
    return np.abs(middles[None] - moments[:, None]).argmin(1)


@dataclass(frozen=True)
class Prepare:
    """Clip → `pixels` (count · height, width, 3) uint8: the frames of the clip from top to bottom.

    Every frame is scaled to the same cell without losing any of it: black bars fill what its aspect leaves.
    """

    images: images.Preprocessing
    count: int
    cell: tuple[int, int]

    def __call__(self, clip: Clip) -> Prepared:
        jpegs, times = framewise.frames(clip)
        chosen = equidistant(times, self.count)
        picture = np.concatenate([self.fit(images.decode(jpegs[i])) for i in chosen])
        return Prepared({"pixels": picture}, np.array([[times[0, 0], times[-1, 1]]], dtype=np.float32))

    def fit(self, image: Image.Image) -> np.ndarray:
        """(height, width, 3): the whole image in the cell."""
        height, width = self.cell
        share = min(height / image.height, width / image.width)
        size = max(1, round(image.width * share)), max(1, round(image.height * share))
        cell = Image.new("RGB", (width, height))
        cell.paste(image.resize(size, Image.Resampling.BICUBIC), ((width - size[0]) // 2, (height - size[1]) // 2))
        return np.asarray(cell)


def load(stream: Stream, prepare: Prepare, device: str = "cpu") -> Callable:
    """The network on `device` → forward."""
    import torch

    model = transfer.place_tower(timm_family.network(stream), device)
    dtype = next(model.parameters()).dtype

    @torch.inference_mode()
    def forward(batch: Sequence[Prepared]) -> list[tuple[np.ndarray, np.ndarray]]:
        pixels = prepare.images.normalise(transfer.to_device(np.stack([i.inputs["pixels"] for i in batch]), device))
        rows = timm_family.read(model, pixels.to(dtype), "pooled").float().cpu()
        return [pooling.reduce(row[None], item.times) for row, item in zip(rows, batch, strict=True)]

    return forward


def build(stream: Stream) -> Extractor:
    """The extractor of one stream: one row per clip.

    Raises:
        WeightsError: absent weights, or a folder that does not say which model it holds.
        ParamsError: unknown statistics, a count or cell that is no size, a layer other than the last.
    """
    options: dict[str, Any] = FAMILY.options | stream.options
    if options["statistics"] not in STATISTICS:
        raise one_of("statistics of mosaic", str(options["statistics"]), STATISTICS)
    if stream.layer != -1:
        raise ParamsError("encoder mosaic reads the last layer only; set layer to -1.")
    count, height, width = (int(options[key]) for key in ("count", "height", "width"))
    if count < 1 or min(height, width) < 16:
        raise ParamsError(f"mosaic of {count} cells of {height} x {width} px: take at least one cell of 16 px.")
    path, name, _, data = timm_family.resolve(stream)
    mean, std = MELD
    if options["statistics"] == "checkpoint":
        mean, std = images.statistics(stream.weights, data.get("mean"), data.get("std"))
    prepare = Prepare(images.Preprocessing(None, mean=mean, std=std), count, (height, width))
    identity = {
        "family": FAMILY.name,
        "version": 1,
        "model": name,
        "dtype": stream.dtype,
        "weights": weights.identity(stream.weights, architecture=stream.architecture, path=path, libraries=timm_family.LIBRARIES),
        "preprocessing": prepare.images.identity(),
        "count": count,
        "cell": [height, width],
    }
    return Extractor(identity, prepare, partial(load, stream, prepare), budget=8.0)


FAMILY = Family(
    name="mosaic",
    title="Mosaic of equidistant frames (HLM12ERC), timm model",
    modalities=("video", "face"),
    sources=("timm", "hf", "local", "package", "random"),
    build=build,
    #: model as in timm; count frames in cells of height × width px; statistics: checkpoint | meld.
    options={"model": None, "count": 5, "height": 144, "width": 256, "statistics": "checkpoint"},
)
