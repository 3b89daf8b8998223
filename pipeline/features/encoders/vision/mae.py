"""ViT-MAE frame by frame; on face crops, FaceMAE (He et al. 2022, arXiv:2111.06377).

No patch is masked. Reads folders of transformers and single files of the MAE repository.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

from pipeline import weights
from pipeline.features.encoders import outputs, transfer
from pipeline.features.encoders.extractor import Axis, Extractor
from pipeline.features.encoders.family import Family
from pipeline.params import Stream
from pipeline.params.base import Group
from pipeline.params.features import Layer

from . import framewise, images
from .statistics import STATISTICS, Named, choose_statistics

TYPES = ("vit_mae",)
DROPPED = ("decoder.",)
Readout = Literal["cls", "mean", "tokens"]
#: What the library's ViT processor does where a file leaves a key out.
PROCESSOR = {"size": 224, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def read_preprocessing(stream: Stream, path: Path | None, statistics: Named | None) -> images.Preprocessing:
    """From the checkpoint's folder; of a single file, from `options.statistics`. See `choose_statistics`."""
    mean, std = choose_statistics(stream, path, statistics) or STATISTICS["unit"]
    if path is not None and path.is_dir():
        return images.of_transformers(path, square=True, defaults=PROCESSOR)
    size = int(stream.architecture.get("image_size", 224))
    return images.Preprocessing((size, size), None, "bicubic", mean=mean, std=std)


def load_network(stream: Stream) -> Any:
    """The encoder with its weights, masking nothing."""
    from transformers import ViTMAEConfig, ViTMAEModel

    from pipeline.weights import mae_checkpoints, pretrained

    source = weights.parse(stream.weights)
    path = None if source.random else weights.locate(source)
    if path is not None and path.is_file():
        state = mae_checkpoints.encoder(weights.state(path), video=False, origin=source)
        architecture = {"image_size": 224} | mae_checkpoints.shape(state) | stream.architecture
        settings = pretrained.configuration(ViTMAEConfig, architecture)
        settings._attn_implementation = "sdpa"
        model = pretrained.assemble(ViTMAEModel(settings), state, source, dtype=stream.dtype)
    else:
        model = pretrained.load(
            ViTMAEModel, source, architecture=stream.architecture, types=TYPES, dropped=DROPPED, dtype=stream.dtype
        )
    model.config.mask_ratio = 0.0
    return model


def load(
    stream: Stream,
    readout: Readout,
    spec: images.Preprocessing,
    device: str = "cpu",
    layers: tuple[Layer, ...] | None = None,
) -> framewise.FrameEncoder:
    """The encoder on `device`; see `Extractor.load`."""
    import torch

    model = transfer.place_tower(load_network(stream), device)
    patches = model.embeddings.patch_embeddings.num_patches

    chosen = layers or (stream.layer,)

    def read(pixels: torch.Tensor) -> list[torch.Tensor]:
        # The model shuffles patches by this noise even when it masks none; in order, tokens stay where they are.
        noise = torch.arange(patches, device=pixels.device, dtype=torch.float32).expand(len(pixels), -1)
        hidden = outputs.needs_hidden(chosen)
        output = model(pixel_values=pixels.to(model.dtype), noise=noise, output_hidden_states=hidden)
        return [
            {"cls": tokens[:, 0], "mean": tokens[:, 1:].mean(1), "tokens": tokens}[readout].float()
            for tokens in outputs.select_layers(output, chosen)
        ]

    return framewise.LayeredFrameEncoder(model, read, spec, device, chosen)


class Mae(Family):
    """ViT-MAE; see the module."""

    title = "ViT-MAE (FaceMAE on face crops)"
    modalities = ("face", "video")
    sources = ("hf", "local", "package", "random")
    layered = True

    class Options(Group):
        """Of a stream."""

        readout: Readout = "cls"
        #: Of a single file, which does not say them.
        statistics: Named | None = None
        decoder: images.Decoder = "pillow"

    @classmethod
    def build(cls, stream: Stream, options: Options) -> Extractor:
        """The extractor of one stream.

        Raises:
            WeightsError: absent weights, another architecture, no word on preprocessing.
            ParamsError: a decoder that has not the checkpoint's filter.
        """
        source = weights.parse(stream.weights)
        path = None if source.random else weights.locate(source)
        spec = read_preprocessing(stream, path, options.statistics).with_decoder(options.decoder)
        identity = {
            "weights": weights.identity(source, architecture=stream.architecture, path=path),
            "preprocessing": spec.identity(),
            "readout": options.readout,
        }
        axis: Axis | None = "space" if options.readout == "tokens" else None
        return Extractor(identity, framewise.Prepare(spec), partial(load, stream, options.readout, spec), budget=64.0, axis=axis)
