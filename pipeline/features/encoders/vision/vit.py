"""Vision transformers of transformers, frame by frame: ViT, DeiT, DINOv2 (Dosovitskiy et al. 2021, arXiv:2010.11929).

Reads what `save_pretrained` wrote, with a classification head or without: a classifier of facial expressions gives the
features below its head.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pipeline import weights
from pipeline.errors import WeightsError
from pipeline.features.encoders import outputs, pooling, transfer
from pipeline.features.encoders.extractor import Axis, Extractor
from pipeline.features.encoders.family import Family
from pipeline.params import Stream
from pipeline.params.base import Group
from pipeline.params.features import Layer
from pipeline.storage import memo

from . import framewise, images

if TYPE_CHECKING:
    import torch

#: `model_type` of a configuration → names of the transformers model and configuration classes.
MODELS = {
    "vit": ("ViTModel", "ViTConfig"),
    "deit": ("DeiTModel", "DeiTConfig"),
    "dinov2": ("Dinov2Model", "Dinov2Config"),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig"),
}
#: Beside an encoder that was saved bare, and parts that no readout meets.
HEADS = ("classifier.", "cls_classifier.", "distillation_classifier.", "pooler.", "decoder.", "embeddings.mask_token")
Readout = Literal["cls", "mean", "tokens"]
_HALF: dict = {"size": 224, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
_IMAGENET: dict = {
    "size": 256,
    "crop_size": 224,
    "do_center_crop": True,
    "resample": 3,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
#: What the library's processors do where a file leaves a key out.
PROCESSORS = {"vit": _HALF, "deit": _IMAGENET, "dinov2": _IMAGENET, "dinov2_with_registers": _IMAGENET}


def read_kind(source: weights.Source, stream: Stream) -> str:
    """`model_type` of a stream's weights.

    Raises:
        WeightsError: it is none of `MODELS`.
    """
    says = stream.architecture if source.random else weights.config(weights.locate(source))
    kind = str(says.get("model_type", "vit" if source.random else None))
    if kind not in MODELS:
        raise WeightsError(
            f"{source} is a {kind!r} model, this family reads {', '.join(MODELS)}; choose the family that fits it."
        )
    return kind


def read_preprocessing(source: weights.Source, stream: Stream, kind: str) -> images.Preprocessing:
    """From the checkpoint; for a stand-in, ViT's own at the stand-in's size."""
    if not source.random:
        square = kind in ("vit", "deit")
        return images.of_transformers(weights.locate(source), square=square, defaults=PROCESSORS[kind])
    size = int(stream.architecture.get("image_size", 224))
    return images.Preprocessing((size, size), None, "bilinear", mean=(0.5,) * 3, std=(0.5,) * 3)


def count_layers(source: weights.Source, stream: Stream, kind: str) -> int:
    """Layers, as config.json says or, where it does not, as the library has them."""
    says = _sizes(stream) if source.random else weights.config(weights.locate(source))
    if "num_hidden_layers" in says:
        return int(says["num_hidden_layers"])

    def ask() -> int:
        import transformers

        return getattr(transformers, MODELS[kind][1])().num_hidden_layers

    return memo.ask_library("vit configuration", ask, libraries=("transformers",), about=kind)


def _sizes(stream: Stream) -> dict[str, Any]:
    return {key: value for key, value in stream.architecture.items() if key != "model_type"}


def load(
    stream: Stream,
    kind: str,
    readout: Readout,
    spec: images.Preprocessing,
    device: str = "cpu",
    layers: tuple[Layer, ...] | None = None,
) -> framewise.FrameEncoder:
    """The encoder on `device`; see `Extractor.load`."""
    import transformers

    from pipeline.weights import pretrained

    model_class, config_class = (getattr(transformers, name) for name in MODELS[kind])
    model = transfer.place_tower(
        pretrained.load(
            model_class,
            stream.weights,
            architecture=_sizes(stream),
            config_class=config_class,
            dropped=HEADS,
            types=(kind,),
            dtype=stream.dtype,
            optional=("pooler.", "embeddings.mask_token"),
        ),
        device,
    )
    # The class token, and what stands beside it: DeiT's teacher token, registers.
    before = 1 + (kind == "deit") + getattr(model.config, "num_register_tokens", 0)

    chosen = layers or (stream.layer,)

    def read(pixels: torch.Tensor) -> list[torch.Tensor]:
        output = model(pixel_values=pixels.to(model.dtype), output_hidden_states=outputs.needs_hidden(chosen))
        return [
            {"cls": tokens[:, 0], "mean": tokens[:, before:].mean(1), "tokens": tokens}[readout].float()
            for tokens in outputs.select_layers(output, chosen)
        ]

    return framewise.LayeredFrameEncoder(model, read, spec, device, chosen)


class Vit(Family):
    """Vision transformers; see the module."""

    title = "Vision transformer (ViT, DeiT, DINOv2)"
    modalities = ("video", "face")
    sources = ("hf", "local", "package", "random")
    layered = True

    class Options(Group):
        """Of a stream."""

        readout: Readout = "cls"
        decoder: images.Decoder = "pillow"

    @classmethod
    def build(cls, stream: Stream, options: Options) -> Extractor:
        """The extractor of one stream.

        Raises:
            WeightsError: absent weights, another architecture, no word on preprocessing.
            ParamsError: a layer that is not there, a decoder that has not the checkpoint's filter.
        """
        source = weights.parse(stream.weights)
        kind = read_kind(source, stream)
        pooling.check_layer(stream.layer, count_layers(source, stream, kind))
        spec = read_preprocessing(source, stream, kind).with_decoder(options.decoder)
        identity = {
            "model": kind,
            "weights": weights.identity(source, architecture=stream.architecture),
            "preprocessing": spec.identity(),
            "readout": options.readout,
        }
        axis: Axis | None = "space" if options.readout == "tokens" else None
        return Extractor(
            identity, framewise.Prepare(spec), partial(load, stream, kind, options.readout, spec), budget=64.0, axis=axis
        )
