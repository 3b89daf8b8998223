"""The mosaic of HLM12ERC: five equidistant frames under one another, as one picture, through a timm model.

The source system crops its mosaic and so loses two thirds of it; here the picture is seen whole. With `place` it is of face
crops, each where the face was in its frame, and all else is black.
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
from pipeline.features.encoders.extractor import Clip, Extractor, Missing, Prepared
from pipeline.features.encoders.family import Family
from pipeline.params import Stream
from pipeline.params.base import Count, Flag, Group, Whole

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
        return _paste(image, self.lay(image.width / image.height), self.cell)

    def lay(self, aspect: float) -> tuple[int, int, int, int]:
        """Left, top, right and bottom, in pixels of the cell, of a picture that is `aspect` times as wide as high."""
        height, width = self.cell
        high = min(height, width / aspect)
        size = max(1, round(high * aspect)), max(1, round(high))
        left, top = (width - size[0]) // 2, (height - size[1]) // 2
        return left, top, left + size[0], top + size[1]


@dataclass(frozen=True)
class PrepareFaces(Prepare):
    """Clip of face crops → `pixels` as of `Prepare`: at each moment the face where it was in the frame, all else black.

    The moments are those of the clip, from its start to its end; at one that shows no face the cell is black.
    """

    def __call__(self, clip: Clip) -> Prepared:
        jpegs, times = framewise.frames(clip)
        if clip.places is None:
            raise ParamsError(
                "mosaic.options.place wants face crops that say where they were; set source to data/faces.h5, and run "
                "`dvc repro faces` where it is from before they did."
            )
        places = clip.places[[len(data) > 0 for data in clip.frames or ()]]
        end = clip.duration or float(times[-1, 1])
        chosen = choose_covering(times, np.linspace(0, end, self.count))
        if not any(i is not None for i in chosen):
            raise Missing(f"no face at any of {self.count} moments")
        black = np.zeros((*self.cell, 3), np.uint8)
        cells = [black if i is None else self.put(images.decode(jpegs[i]), places[i]) for i in chosen]
        return Prepared({"pixels": np.concatenate(cells)}, np.array([[0, end]], np.float32))

    def put(self, crop: Image.Image, place: np.ndarray) -> np.ndarray:
        """(height, width, 3): the crop at its place in a frame that fills the cell."""
        left, top, right, bottom = (float(x) for x in place)
        # A crop is square: its sides in shares of the frame's width and height tell how wide the frame is.
        x0, y0, x1, y1 = self.lay((bottom - top) / (right - left))
        corners = (x0 + left * (x1 - x0), y0 + top * (y1 - y0), x0 + right * (x1 - x0), y0 + bottom * (y1 - y0))
        return _paste(crop, corners, self.cell)


def choose_covering(times: np.ndarray, moments: np.ndarray) -> list[int | None]:
    """Of (T, 2) seconds those at each moment; None where there is none, or none half its own length away."""
    away = np.maximum(times[None, :, 0] - moments[:, None], moments[:, None] - times[None, :, 1]).clip(0)
    nearest = away.argmin(1)
    near = away[np.arange(len(moments)), nearest] <= (times[nearest, 1] - times[nearest, 0]) / 2 + 1e-3
    return [int(i) if there else None for i, there in zip(nearest, near, strict=True)]


def _paste(image: Image.Image, corners: Sequence[float], cell: tuple[int, int]) -> np.ndarray:
    """(height, width, 3): the image between these corners (left, top, right, bottom), black around it."""
    left, top, right, bottom = (round(x) for x in corners)
    picture = Image.new("RGB", (cell[1], cell[0]))
    picture.paste(image.resize((max(1, right - left), max(1, bottom - top)), Image.Resampling.BICUBIC), (left, top))
    return np.asarray(picture)


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
        """Of a stream: `count` frames in cells of `height` × `width` pixels; `place` for faces alone, see the module."""

        #: As in the timm family.
        model: str | None = None
        count: Count = 5
        height: Side = 144
        width: Side = 256
        statistics: Literal["checkpoint", "meld"] = "checkpoint"
        place: Flag = False

    @classmethod
    def build(cls, stream: Stream, options: Options) -> Extractor:
        """The extractor of one stream: one row per clip.

        Raises:
            WeightsError: absent weights, or a folder that does not say which model it holds.
            ParamsError: a layer other than the last, or `place` without faces.
        """
        if options.place and stream.modality != "face":
            raise ParamsError("mosaic.options.place is of face crops; set modality: face and source: data/faces.h5.")
        if stream.layer != -1:
            raise ParamsError("encoder mosaic reads the last layer only; set layer to -1.")
        path, name, _, data = timm_family.resolve(stream, options.model)
        mean, std = MELD
        if options.statistics == "checkpoint":
            mean, std = images.statistics(stream.weights, data.get("mean"), data.get("std"))
        cell = (options.height, options.width)
        kind = PrepareFaces if options.place else Prepare
        prepare = kind(images.Preprocessing(None, mean=mean, std=std), options.count, cell)
        identity = {
            "model": name,
            "weights": weights.identity(
                stream.weights, architecture=stream.architecture, path=path, libraries=timm_family.LIBRARIES
            ),
            "preprocessing": prepare.images.identity(),
            "count": options.count,
            "cell": list(cell),
            "place": options.place,
        }
        return Extractor(identity, prepare, partial(load, stream, options.model, prepare), budget=8.0)
