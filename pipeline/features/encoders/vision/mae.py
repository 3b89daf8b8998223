"""ViT-MAE frame by frame; on face crops, FaceMAE (He et al. 2022, arXiv:2111.06377).

No patch is masked. Reads folders of transformers and single files of the MAE repository.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import weights
from pipeline.errors import WeightsError, one_of
from pipeline.features.encoders import outputs, pooling, transfer
from pipeline.features.encoders.extractor import Extractor
from pipeline.features.encoders.family import Family
from pipeline.params import Stream

from . import framewise, images

TYPES = ("vit_mae",)
DROPPED = ("decoder.",)
READOUTS = ("cls", "mean", "tokens")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: What the library's ViT processor does where a file leaves a key out.
PROCESSOR = {"size": 224, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
STATISTICS = {"unit": ((0.0,) * 3, (1.0,) * 3), "imagenet": IMAGENET}


def preprocessing(stream: Stream, path: Path | None, statistics: str | None) -> images.Preprocessing:
    """From the checkpoint's folder; of a single file, from `options.statistics`. See `said`."""
    mean, std = said(stream, path, statistics) or STATISTICS["unit"]
    if path is not None and path.is_dir():
        return images.of_transformers(path, square=True, defaults=PROCESSOR)
    size = int(stream.architecture.get("image_size", 224))
    return images.Preprocessing((size, size), None, "bicubic", mean=mean, std=std)


def said(stream: Stream, path: Path | None, statistics: str | None) -> tuple | None:
    """Mean and deviation that `options.statistics` names; None when it names none and need not.

    Raises:
        ParamsError: a name that is not known.
        WeightsError: a single weight file says nothing of its images, and neither does the stream.
    """
    if statistics is not None and statistics not in STATISTICS:
        raise one_of(f"statistics of {stream.encoder}", statistics, STATISTICS)
    if statistics is None and path is not None and path.is_file():
        raise WeightsError(
            f"{stream.weights} does not say how images are prepared; set options.statistics to unit "
            "(no mean and deviation, as face-trained MAE) or imagenet."
        )
    return STATISTICS[statistics] if statistics else None


def network(stream: Stream) -> Any:
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


def load(stream: Stream, readout: str, spec: images.Preprocessing, device: str = "cpu") -> Callable:
    """The encoder on `device` → forward."""
    import torch

    model = transfer.place_tower(network(stream), device)
    patches = model.embeddings.patch_embeddings.num_patches

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        # The model shuffles patches by this noise even when it masks none; in order, tokens stay where they are.
        noise = torch.arange(patches, device=pixels.device, dtype=torch.float32).expand(len(pixels), -1)
        output = model(pixel_values=pixels.to(model.dtype), noise=noise, output_hidden_states=stream.layer != -1)
        tokens = outputs.selected(output, stream.layer)
        return {"cls": tokens[:, 0], "mean": tokens[:, 1:].mean(1), "tokens": tokens}[readout].float()

    return framewise.Forward(encode, stream, spec, device)


def build(stream: Stream) -> Extractor:
    """The extractor of one stream.

    Raises:
        WeightsError: absent weights, another architecture, no word on preprocessing.
        ParamsError: unknown readout, statistics or decoder.
    """
    options = FAMILY.options | stream.options
    if options["readout"] not in READOUTS:
        raise one_of("readout of mae", str(options["readout"]), READOUTS)
    source = weights.parse(stream.weights)
    path = None if source.random else weights.locate(source)
    spec = preprocessing(stream, path, options["statistics"]).by(options["decoder"])
    identity = {
        "family": FAMILY.name,
        "version": 1,
        "dtype": stream.dtype,
        **pooling.settings(stream),
        "weights": weights.identity(source, architecture=stream.architecture, path=path),
        "preprocessing": spec.identity(),
        "readout": options["readout"],
    }
    return Extractor(identity, framewise.Prepare(spec), partial(load, stream, options["readout"], spec), budget=64.0)


FAMILY = Family(
    name="mae",
    title="ViT-MAE (FaceMAE on face crops)",
    modalities=("face", "video"),
    sources=("hf", "local", "package", "random"),
    build=build,
    #: readout: cls | mean | tokens; statistics of a single file: unit | imagenet; decoder: pillow | nvjpeg (on the GPU).
    options={"readout": "cls", "statistics": None, "decoder": "pillow"},
)
