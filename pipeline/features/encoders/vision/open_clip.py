"""Image towers of open_clip, among them ConvNeXt-B-W of LAION (640 wide at 256 px).

Only the image tower is built; the text half of a checkpoint is named as dropped, everything else
must fit. Preprocessing is the checkpoint's `preprocess_cfg`.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import weights
from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders import transfer
from pipeline.features.encoders.extractor import Extractor
from pipeline.features.encoders.family import Family
from pipeline.params import Stream
from pipeline.params.base import Flag, Group
from pipeline.storage import memo

from . import framewise, images

if TYPE_CHECKING:
    import torch

CONFIG = "open_clip_config.json"
#: Preferred: repositories that also hold the weights in timm's or transformers' form have both.
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
TEXT_TOWER = (
    "transformer.",
    "token_embedding.",
    "positional_embedding",
    "ln_final.",
    "text_projection",
    "text.",
    "logit_scale",
    "logit_bias",
    "attn_mask",
)
LIBRARIES = ("torch", "open_clip_torch", "timm")


def locate_folder(stream: Stream) -> Path | None:
    """Where the weights are; None for a stand-in.

    Raises:
        WeightsError: an `open_clip:ARCH/TAG` that is not known or is on no hub, or files not there.
    """
    source = weights.parse(stream.weights)
    if source.random:
        return None
    if source.scheme != "open_clip":
        return weights.locate(source)
    name, _, tag = source.rest.partition("/")

    def ask() -> str | None:
        import open_clip

        return ((open_clip.get_pretrained_cfg(name, tag) if tag else None) or {}).get("hf_hub")

    hub = memo.ask_library("open_clip tag", ask, libraries=("open_clip_torch",), about=[name, tag])
    if not hub:
        raise WeightsError(
            f"{source} is no pretrained tag that the hub holds; write open_clip:ARCH/TAG as `open_clip.list_pretrained()` shows."
        )
    # `owner/name/` or `owner/name/file`
    return weights.locate("hf:" + "/".join(hub.split("/")[:2]))


def read_configuration(stream: Stream, path: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """(model, preprocessing) parts of the configuration.

    Raises:
        WeightsError: no open_clip_config.json, or one without an image tower.
    """
    if path is None:
        return dict(stream.architecture), {}
    config = weights.config(path, CONFIG)
    model = config.get("model_cfg")
    if not isinstance(model, dict) or "vision_cfg" not in model or "embed_dim" not in model:
        raise WeightsError(f"{stream.weights} has no {CONFIG} with an image tower; choose the family that fits it.")
    return model, config.get("preprocess_cfg") or {}


def read_preprocessing(origin: str, model: dict[str, Any], config: dict[str, Any]) -> images.Preprocessing:
    """From `preprocess_cfg`, with the library's defaults for what it leaves out.

    Raises:
        WeightsError: a field is not what it should be, or images are to be padded.
    """

    def ask() -> dict[str, Any]:
        from open_clip.transform import PreprocessCfg

        return dataclasses.asdict(PreprocessCfg())

    defaults = memo.ask_library("open_clip preprocessing", ask, libraries=("open_clip_torch",), about=None)
    config = defaults | {"size": model["vision_cfg"].get("image_size", 224)} | config
    size, mode = config["size"], config["resize_mode"]
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    mean, std = images.statistics(origin, config["mean"], config["std"])
    if mode not in ("shortest", "squash") or config["interpolation"] not in ("bicubic", "bilinear"):
        raise WeightsError(
            f"{origin}: resize_mode {mode!r} with {config['interpolation']!r} is not known here; "
            "shortest and squash, bicubic and bilinear are."
        )
    if mode == "shortest" and height == width:
        resize: tuple[int, ...] = (height,)
    else:
        resize = (height, width)
    return images.Preprocessing(resize, (height, width), config["interpolation"], "round", 1 / 255, mean, std)


def load_tower(stream: Stream) -> Any:
    """The image tower with its weights, strictly loaded; of a stand-in, seeded.

    Raises:
        WeightsError: the checkpoint does not cover it.
        ParamsError: an architecture the library refuses.
    """
    import torch
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    from pipeline.weights import pretrained

    path, source = locate_folder(stream), weights.parse(stream.weights)
    model, _ = read_configuration(stream, path)
    try:
        with weights.seeded(source.seed or 0):
            visual = _build_vision_tower(
                model["embed_dim"], CLIPVisionCfg(**model["vision_cfg"]), bool(model.get("quick_gelu", False))
            )
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        raise ParamsError(f"open_clip image tower: {' '.join(str(error).split())[:160]}.") from error
    if path is None:
        return visual.to(getattr(torch, stream.dtype)).eval().requires_grad_(False)
    holder = torch.nn.Module()
    holder.visual = visual
    state = weights.state(path, FILES)
    return pretrained.assemble(holder, state, source, dropped=TEXT_TOWER, dtype=stream.dtype).visual


def load(stream: Stream, normalise: bool, spec: images.Preprocessing, device: str = "cpu") -> framewise.FrameEncoder:
    """The image tower on `device`."""
    import torch

    visual = transfer.place_tower(load_tower(stream), device)
    dtype = next(visual.parameters()).dtype

    def read(pixels: torch.Tensor) -> torch.Tensor:
        rows = visual(pixels.to(dtype)).float()
        return torch.nn.functional.normalize(rows, dim=-1, eps=1e-6) if normalise else rows

    return framewise.FrameEncoder(visual, read, spec, device)


class OpenClip(Family):
    """Image towers of open_clip; see the module."""

    title = "Image towers of open_clip"
    modalities = ("video", "face")
    sources = ("open_clip", "hf", "local", "package", "random")

    class Options(Group):
        """Of a stream."""

        #: Every frame to length 1.
        normalise: Flag = False
        decoder: images.Decoder = "pillow"

    @classmethod
    def build(cls, stream: Stream, options: Options) -> Extractor:
        """The extractor of one stream: the projected image feature of every frame.

        Raises:
            WeightsError: absent weights, another architecture, preprocessing that is not known.
            ParamsError: a layer other than the last, a decoder that has not the checkpoint's filter.
        """
        if stream.layer != -1:
            raise ParamsError("encoder open_clip projects its last layer only; set layer to -1.")
        path = locate_folder(stream)
        model, config = read_configuration(stream, path)
        if not isinstance(model.get("vision_cfg"), dict):
            raise ParamsError("open_clip stand-in: architecture needs embed_dim and vision_cfg.")
        spec = read_preprocessing(stream.weights, model, config).with_decoder(options.decoder)
        identity = {
            "weights": weights.identity(
                stream.weights, architecture=stream.architecture, path=path, libraries=LIBRARIES, first=FILES
            ),
            "preprocessing": spec.identity(),
            "normalise": options.normalise,
        }
        return Extractor(identity, framewise.Prepare(spec), partial(load, stream, options.normalise, spec), budget=64.0)
