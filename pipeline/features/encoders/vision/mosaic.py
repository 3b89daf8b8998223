"""The mosaic of HLM12ERC: five equidistant frames under one another, as one picture, through a timm model.

The source system crops its mosaic and so loses two thirds of it; here the picture is seen whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from pipeline import weights
from pipeline.errors import ParamsError
from pipeline.features.encoders import transfer
from pipeline.features.encoders.encoder import Encoder
from pipeline.features.encoders.extractor import Clip, Extractor, Prepared
from pipeline.features.encoders.family import Family
from pipeline.params import Stream
from pipeline.params.base import Count, Group, Whole

from . import framewise, images
from . import timm as timm_family

if TYPE_CHECKING:
    import torch

#: Sides of a cell, in pixels.
Side = Annotated[Whole, Field(ge=16)]
#: Statistics that HLM12ERC measured on its MELD mosaics.
MELD: tuple[tuple[float, ...], tuple[float, ...]] = ((0.2706, 0.2010, 0.1914), (0.1857, 0.1608, 0.1667))


def choose_equidistant(times: np.ndarray, count: int) -> np.ndarray:
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
        chosen = choose_equidistant(times, self.count)
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


class MosaicEncoder(Encoder):
    """A model of timm over one picture per clip."""

    def __init__(self, network: Any, spec: images.Preprocessing, device: str) -> None:
        self.network, self.images, self.device = network, spec, device
        self.dtype = next(network.parameters()).dtype

    def encode(self, batch: Sequence[Prepared]) -> list[torch.Tensor]:
        """(1, D) of each clip."""
        pixels = transfer.to_device(np.stack([item.inputs["pixels"] for item in batch]), self.device)
        rows = timm_family.read_rows(self.network, self.images.normalise(pixels).to(self.dtype), "pooled")
        return list(rows.float()[:, None])


def load(stream: Stream, named: str | None, prepare: Prepare, device: str = "cpu") -> MosaicEncoder:
    """The network on `device`."""
    return MosaicEncoder(transfer.place_tower(timm_family.load_network(stream, named), device), prepare.images, device)


class Mosaic(Family):
    """The mosaic of HLM12ERC; see the module."""

    title = "Mosaic of equidistant frames (HLM12ERC), timm model"
    modalities = ("video", "face")
    sources = ("timm", "hf", "local", "package", "random")

    class Options(Group):
        """Of a stream: `count` frames in cells of `height` × `width` pixels."""

        #: As in the timm family.
        model: str | None = None
        count: Count = 5
        height: Side = 144
        width: Side = 256
        statistics: Literal["checkpoint", "meld"] = "checkpoint"

    @classmethod
    def build(cls, stream: Stream, options: Options) -> Extractor:
        """The extractor of one stream: one row per clip.

        Raises:
            WeightsError: absent weights, or a folder that does not say which model it holds.
            ParamsError: a layer other than the last.
        """
        if stream.layer != -1:
            raise ParamsError("encoder mosaic reads the last layer only; set layer to -1.")
        path, name, _, data = timm_family.resolve(stream, options.model)
        mean, std = MELD
        if options.statistics == "checkpoint":
            mean, std = images.statistics(stream.weights, data.get("mean"), data.get("std"))
        cell = (options.height, options.width)
        prepare = Prepare(images.Preprocessing(None, mean=mean, std=std), options.count, cell)
        identity = {
            "model": name,
            "weights": weights.identity(
                stream.weights, architecture=stream.architecture, path=path, libraries=timm_family.LIBRARIES
            ),
            "preprocessing": prepare.images.identity(),
            "count": options.count,
            "cell": list(cell),
        }
        return Extractor(identity, prepare, partial(load, stream, options.model, prepare), budget=8.0)
