"""VideoMAE: a transformer over space-time tubelets of 16 frames (Tong et al. 2022, arXiv:2203.12602).

Frames that a clip gives to the model:

`uniform`   16 frames, each from the middle of its sixteenth of the clip
`segments`  2 consecutive frames from the middle of each of 8 segments (16 = 8 × 2)

A clip with fewer than 16 frames is stretched by holding frames in order; steps that only repeat the
step before them are left out of `steps`, so that no row stands for time that was not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline import weights
from pipeline.errors import ParamsError
from pipeline.features.encoders import outputs, pooling, transfer
from pipeline.features.encoders.encoder import Layered
from pipeline.features.encoders.extractor import Axis, Clip, Extractor, Prepared
from pipeline.features.encoders.family import Family
from pipeline.params import Stream
from pipeline.params.base import Group
from pipeline.params.features import Layer

from . import framewise, images
from .statistics import STATISTICS, Named, choose_statistics

if TYPE_CHECKING:
    import torch

TYPES = ("videomae",)
HEADS = ("decoder.", "mask_token", "encoder_to_decoder.", "fc_norm.", "classifier.")
Sampling = Literal["uniform", "segments"]
Output = Literal["utterance", "steps", "tokens"]
#: What the library's processor does where a file leaves a key out.
PROCESSOR = {
    "size": 224,
    "crop_size": 224,
    "do_center_crop": True,
    "resample": 2,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}


def sample(count: int, frames: int = 16, *, sampling: Sampling = "uniform", tubelet: int = 2) -> np.ndarray:
    """(frames,) indices into `count` frames, never decreasing."""
    if sampling == "uniform" or count < frames:
        return ((np.arange(frames) + 0.5) * count / frames).astype(np.int64)
    middle = (np.arange(frames // tubelet) + 0.5) * count / (frames // tubelet)
    first = np.clip(np.ceil(middle - tubelet / 2), 0, count - tubelet).astype(np.int64)
    return (first[:, None] + np.arange(tubelet)).ravel()


@dataclass(frozen=True)
class Prepare:
    """Clip → `pixels` (F, H, W, 3) uint8 and `kept` (S,) bool, the steps that are not mere repeats."""

    images: images.Preprocessing
    frames: int
    tubelet: int
    sampling: Sampling
    output: Output

    def __call__(self, clip: Clip) -> Prepared:
        jpegs, times = framewise.frames(clip)
        chosen = sample(len(jpegs), self.frames, sampling=self.sampling, tubelet=self.tubelet)
        distinct, position = np.unique(chosen, return_inverse=True)
        pixels = self.images.pixels([jpegs[i] for i in distinct])[position]
        steps = chosen.reshape(-1, self.tubelet)
        kept = np.concatenate([[True], (steps[1:] != steps[:-1]).any(1)])
        when = np.stack([times[steps[:, 0], 0], times[steps[:, -1], 1]], 1)
        if self.output != "steps":
            when, kept = np.array([[times[0, 0], times[-1, 1]]], dtype=np.float32), np.array([True])
        return Prepared({"pixels": pixels, "kept": kept}, when[kept].astype(np.float32), cost=1.0)


def load_network(stream: Stream) -> Any:
    """The encoder with its weights."""
    from transformers import VideoMAEConfig, VideoMAEModel

    from pipeline.weights import mae_checkpoints, pretrained

    source = weights.parse(stream.weights)
    path = None if source.random else weights.locate(source)
    if path is not None and path.is_file():
        state = mae_checkpoints.encoder(weights.state(path), video=True, origin=source)
        tubelet = state["embeddings.patch_embeddings.projection.weight"].shape[2]
        read = mae_checkpoints.shape(state) | {"tubelet_size": tubelet, "use_mean_pooling": "layernorm.weight" not in state}
        settings = pretrained.configuration(VideoMAEConfig, {"image_size": 224} | read | stream.architecture)
        settings._attn_implementation = "sdpa"
        return pretrained.assemble(VideoMAEModel(settings), state, source, dtype=stream.dtype)
    return pretrained.load(
        VideoMAEModel, source, architecture=stream.architecture, types=TYPES, dropped=HEADS, dtype=stream.dtype
    )


class VideoEncoder(Layered):
    """VideoMAE over `prepare.frames` frames of each clip."""

    def __init__(self, network: Any, prepare: Prepare, layers: tuple[Layer, ...], device: str) -> None:
        self.network, self.layers, self.device = network, layers, device
        self.images, self.output, self.steps = prepare.images, prepare.output, prepare.frames // prepare.tubelet

    def encode_layers(self, batch: Sequence[Prepared]) -> list[list[torch.Tensor]]:
        """Per layer (1, D), (steps, D) or (1, tokens, D) of each clip."""
        pixels = self.images.normalise(transfer.to_device(np.stack([item.inputs["pixels"] for item in batch]), self.device))
        hidden = outputs.needs_hidden(self.layers)
        output = self.network(pixel_values=pixels.to(self.network.dtype), output_hidden_states=hidden)
        return [self._read(tokens.float(), batch) for tokens in outputs.select_layers(output, self.layers)]

    def _read(self, tokens: torch.Tensor, batch: Sequence[Prepared]) -> list[torch.Tensor]:
        import torch

        if self.output == "utterance":
            return list(tokens.mean(1, keepdim=True))
        if self.output == "tokens":
            return list(tokens[:, None])
        # Tokens run through space within a step, then to the next step.
        steps = tokens.unflatten(1, (self.steps, -1)).mean(2)
        return [rows[torch.from_numpy(item.inputs["kept"])] for rows, item in zip(steps, batch, strict=True)]


def load(stream: Stream, prepare: Prepare, device: str = "cpu", layers: tuple[Layer, ...] | None = None) -> VideoEncoder:
    """The encoder on `device`; see `Extractor.load`."""
    return VideoEncoder(load_network(stream).to(device), prepare, layers or (stream.layer,), device)


def read_preprocessing(stream: Stream, path: Path | None, statistics: Named | None) -> images.Preprocessing:
    """From the checkpoint's folder; of a single file, from `options.statistics`. See `choose_statistics`."""
    mean, std = choose_statistics(stream, path, statistics) or STATISTICS["imagenet"]
    if path is not None and path.is_dir():
        return images.of_transformers(path, square=False, defaults=PROCESSOR)
    size = int(stream.architecture.get("image_size", 224))
    return images.Preprocessing((size,), (size, size), "bilinear", mean=mean, std=std)


class Videomae(Family):
    """VideoMAE; see the module."""

    title = "VideoMAE"
    modalities = ("video", "face")
    sources = ("hf", "local", "package", "random")
    layered = True

    class Options(Group):
        """Of a stream."""

        sampling: Sampling = "uniform"
        output: Output = "utterance"
        #: Of a single file, which does not say them.
        statistics: Named | None = None

    @classmethod
    def build(cls, stream: Stream, options: Options) -> Extractor:
        """The extractor of one stream.

        Rows: `utterance` (D) one per clip, `steps` (D) up to 8 per clip, `tokens` (1568, D) one per clip.

        Raises:
            WeightsError: absent weights, another architecture, no word on preprocessing.
            ParamsError: several layers to be kept.
        """
        if pooling.keeps_several(stream.layer):
            raise ParamsError("encoder videomae keeps one layer; set layer to an index, last4 or a sum.")
        source = weights.parse(stream.weights)
        path = None if source.random else weights.locate(source)
        config = weights.config(path) if path is not None and path.is_dir() else dict(stream.architecture)
        frames, tubelet = int(config.get("num_frames", 16)), int(config.get("tubelet_size", 2))
        spec = read_preprocessing(stream, path, options.statistics)
        prepare = Prepare(spec, frames, tubelet, options.sampling, options.output)
        identity = {
            "weights": weights.identity(source, architecture=stream.architecture, path=path),
            "preprocessing": spec.identity(),
            "frames": frames,
            "tubelet": tubelet,
            "sampling": options.sampling,
            "output": options.output,
        }
        # Patches of all steps: where they are in the picture, and when, is in no order that a model of clips is to know.
        axis: Axis | None = "space" if options.output == "tokens" else None
        return Extractor(identity, prepare, partial(load, stream, prepare), budget=4.0, axis=axis)
