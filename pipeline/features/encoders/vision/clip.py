"""CLIP image tower of transformers, frame by frame (Radford et al. 2021, arXiv:2103.00020)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pipeline import weights
from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders import pooling, transfer
from pipeline.features.encoders.extractor import Axis, Extractor
from pipeline.features.encoders.family import Family
from pipeline.params import Stream
from pipeline.params.base import Flag, Group
from pipeline.params.features import Layer
from pipeline.parts import read_options

from . import framewise, images, open_clip

if TYPE_CHECKING:
    import torch

TYPES = ("clip", "clip_vision_model")
#: The half of a CLIP checkpoint that an image never meets.
TEXT_TOWER = ("text_model.", "text_projection.", "logit_scale", "text_embeds")
#: What the library's CLIP processor does where a file leaves a key out.
PROCESSOR = {
    "size": 224,
    "crop_size": 224,
    "do_center_crop": True,
    "resample": 3,
    "image_mean": list(images.CLIP_MEAN),
    "image_std": list(images.CLIP_STD),
}
Readout = Literal["projection", "cls", "mean", "tokens"]


def read_preprocessing(stream: Stream) -> images.Preprocessing:
    """From the checkpoint; for a stand-in, CLIP's own at the stand-in's size."""
    source = weights.parse(stream.weights)
    if not source.random:
        return images.of_transformers(weights.locate(source), square=False, defaults=PROCESSOR)
    size = int(stream.architecture.get("image_size", 224))
    return images.Preprocessing((size,), (size, size), mean=images.CLIP_MEAN, std=images.CLIP_STD)


def load(
    stream: Stream,
    readout: Readout,
    normalise: bool,
    spec: images.Preprocessing,
    device: str = "cpu",
    layers: tuple[Layer, ...] | None = None,
) -> framewise.FrameEncoder:
    """The image tower on `device`; see `Extractor.load`."""
    import torch
    from transformers import CLIPVisionModelWithProjection

    from pipeline.weights import pretrained

    model = transfer.place_tower(
        pretrained.load(
            CLIPVisionModelWithProjection,
            stream.weights,
            architecture=stream.architecture,
            dropped=TEXT_TOWER,
            types=TYPES,
            dtype=stream.dtype,
            optional=() if readout == "projection" else ("visual_projection.",),
        ),
        device,
    )

    chosen = layers or (stream.layer,)

    def read(pixels: torch.Tensor) -> list[torch.Tensor]:
        output = model(pixel_values=pixels.to(model.dtype), output_hidden_states=readout != "projection")
        each = [read_layer(output, layer).float() for layer in chosen]
        return [torch.nn.functional.normalize(rows, dim=-1, eps=1e-6) for rows in each] if normalise else each

    def read_layer(output: Any, layer: Layer) -> torch.Tensor:
        if readout == "projection":
            return output.image_embeds
        tokens = pooling.select(output.hidden_states, layer)
        if readout == "cls" and layer == -1:
            return model.vision_model.post_layernorm(tokens[:, 0])
        return {"cls": tokens[:, 0], "mean": tokens[:, 1:].mean(1), "tokens": tokens}[readout]

    return framewise.LayeredFrameEncoder(model, read, spec, device, chosen)


def _of_open_clip(stream: Stream, backend: str) -> bool:
    """Whether open_clip loads these weights: `auto` says so of a folder with open_clip_config.json alone."""
    source = weights.parse(stream.weights)
    if backend == "open_clip" or source.scheme == "open_clip":
        return True
    return not source.random and (weights.locate(source) / open_clip.CONFIG).is_file()


def _expect_projection(stream: Stream) -> None:
    source = weights.parse(stream.weights)
    if source.random:
        return
    says = weights.config(weights.locate(source))
    if says.get("model_type") == "clip_vision_model" and says.get("architectures") == ["CLIPVisionModel"]:
        raise WeightsError(f"{source} was saved without its projection; set options.readout to cls or mean.")


class Clip(Family):
    """CLIP image towers; see the module."""

    title = "CLIP image tower (transformers)"
    modalities = ("video", "face")
    sources = ("hf", "open_clip", "local", "package", "random")
    layered = True

    class Options(Group):
        """Of a stream."""

        readout: Readout = "projection"
        #: Every frame to length 1.
        normalise: Flag = False
        backend: Literal["auto", "hf", "open_clip"] = "auto"
        decoder: images.Decoder = "pillow"

    @classmethod
    def build(cls, stream: Stream, options: Options) -> Extractor:
        """The extractor of one stream.

        Raises:
            WeightsError: absent weights, another architecture, no preprocessing beside them.
            ParamsError: a projection of a layer that is not the last, a decoder that has not the checkpoint's filter.
        """
        if options.backend != "hf" and _of_open_clip(stream, options.backend):
            if left := set(stream.options) - {"backend", *open_clip.OpenClip.Options.model_fields}:
                raise ParamsError(
                    f"option {min(left)} is not known to open_clip checkpoints; remove it or set options.backend to hf."
                )
            kept = {key: value for key, value in stream.options.items() if key != "backend"}
            return open_clip.OpenClip.build(stream, read_options(open_clip.OpenClip.Options, kept, "clip.options"))
        if options.readout == "projection" and stream.layer != -1:
            raise ParamsError(f"clip projects its last layer only; with layer {stream.layer} set options.readout to cls or mean.")
        if options.readout == "projection":
            _expect_projection(stream)
        spec = read_preprocessing(stream).with_decoder(options.decoder)
        identity = {
            "weights": weights.identity(stream.weights, architecture=stream.architecture),
            "preprocessing": spec.identity(),
            "readout": options.readout,
            "normalise": options.normalise,
        }
        load_tower = partial(load, stream, options.readout, options.normalise, spec)
        axis: Axis | None = "space" if options.readout == "tokens" else None
        return Extractor(identity, framewise.Prepare(spec), load_tower, budget=64.0, axis=axis)
