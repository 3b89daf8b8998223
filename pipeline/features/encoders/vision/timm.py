"""Any image model of timm: ResNet, EfficientNet, ConvNeXt, DINOv2, EVA-02 and some thousand others.

Preprocessing is the `pretrained_cfg` saved with the weights; timm's own entry for the tag is used
only where the folder holds bare weights and `options.model` names the tag.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline import weights
from pipeline.errors import ParamsError, WeightsError, one_of
from pipeline.features.encoders import transfer
from pipeline.features.encoders.extractor import Axis, Extractor
from pipeline.features.encoders.family import Family
from pipeline.params import Stream
from pipeline.params.base import Group
from pipeline.storage import memo

from . import framewise, images, lean

if TYPE_CHECKING:
    import torch

Readout = Literal["pooled", "logits", "cls", "mean", "tokens"]
LIBRARIES = ("torch", "timm")
#: What is read of timm's entry for a tag.
ENTRY = ("hf_hub_id", "input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std")


def resolve(stream: Stream, named: str | None) -> tuple[Path | None, str, dict[str, Any], dict[str, Any]]:
    """(folder or None, architecture, its keywords, data configuration) of a stream.

    Args:
        named: the model or tag, for weights that do not say it.

    Raises:
        WeightsError: the weights are not there, or do not say which model they are of.
        ParamsError: unknown model.
    """
    source = weights.parse(stream.weights)
    if source.random:
        keywords = dict(stream.architecture)
        name = keywords.pop("model", named)
        return None, expect_known(name), keywords, configure_data(name, keywords)
    if source.scheme == "timm":
        hub = read_entry(expect_known(source.rest)).get("hf_hub_id")
        if not hub:
            raise WeightsError(f"{source} has no weights at the hub; name a tag that `timm.list_pretrained()` shows.")
        path = weights.locate(f"hf:{hub + source.rest if hub.endswith('/') else hub}")
    else:
        path = weights.locate(source)
    config = weights.config(path) if path.is_dir() and (path / "config.json").is_file() else {}
    if not config:
        if not named:
            raise WeightsError(f"{source} does not say which timm model it is; set options.model to the model's name.")
        return path, expect_known(named), {}, configure_data(named, {})
    if "architecture" not in config or "pretrained_cfg" not in config:
        raise WeightsError(
            f"{source}: config.json is not timm's (no architecture and pretrained_cfg); choose the family that fits it."
        )
    keywords = dict(config.get("model_args") or {})
    for key in ("num_classes", "global_pool"):
        if config.get(key) is not None:
            keywords.setdefault(key, config[key])
    return path, expect_known(config["architecture"]), keywords, config["pretrained_cfg"]


def expect_known(name: object) -> str:
    """The name, when timm has such a model.

    Raises:
        ParamsError: it has not.
    """

    def ask() -> str:
        timm = lean.import_timm()
        if not isinstance(name, str) or not timm.is_model(name.partition(".")[0]):
            raise one_of("timm model", str(name), timm.list_models())
        return name

    return memo.ask_library("timm model", ask, libraries=("timm",), about=name)


def read_entry(name: str) -> dict[str, Any]:
    """timm's own entry for a model or tag: where its weights are and how images are prepared; {} when it has none."""

    def ask() -> dict[str, Any]:
        found = lean.import_timm().get_pretrained_cfg(name)
        return {key: getattr(found, key) for key in ENTRY} if found is not None else {}

    return memo.ask_library("timm entry", ask, libraries=("timm",), about=name)


def configure_data(name: str, keywords: dict[str, Any]) -> dict[str, Any]:
    """timm's own entry for a model or tag, at the stand-in's size."""
    config = read_entry(name)
    if size := keywords.get("img_size"):
        config |= {"input_size": (3, size, size), "crop_pct": 1.0}
    return config


def create_model(name: str, keywords: dict[str, Any]) -> Any:
    """The network without weights.

    Raises:
        ParamsError: the keywords do not fit the model.
    """
    timm = lean.import_timm()
    try:
        # Without the tag: it would only choose weights, and none are fetched here.
        return timm.create_model(name.partition(".")[0], pretrained=False, **keywords)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ParamsError(f"timm model {name}: {' '.join(str(error).split())[:160]}.") from error


def load_network(stream: Stream, named: str | None) -> Any:
    """The network with its weights, strictly loaded; of a stand-in, seeded."""
    import torch

    from pipeline.weights import efficientnet, pretrained

    path, name, keywords, _ = resolve(stream, named)
    source = weights.parse(stream.weights)
    if path is None:
        with weights.seeded(source.seed or 0):
            model = create_model(name, keywords)
        return model.to(getattr(torch, stream.dtype)).eval().requires_grad_(False)
    model, state = create_model(name, keywords), weights.state(path)
    if efficientnet.is_numbered_through(state):
        state = efficientnet.rename(state, [len(stage) for stage in getattr(model, "blocks", ())])
    return pretrained.assemble(model, state, source, dtype=stream.dtype)


def read_rows(model: Any, pixels: torch.Tensor, readout: Readout) -> torch.Tensor:
    """(N, ...) rows of one batch of pixels."""
    if readout == "logits":
        return model(pixels)
    features = model.forward_features(pixels)
    if readout == "pooled":
        return model.forward_head(features, pre_logits=True)
    if features.ndim == 4:
        # (N, C, H, W) of convolutions; (N, H, W, C) of Swin and the like.
        channels_first = features.shape[1] == model.num_features
        features = features.flatten(2).transpose(1, 2) if channels_first else features.flatten(1, 2)
    prefix = getattr(model, "num_prefix_tokens", 0)
    if readout == "cls":
        if not prefix:
            raise ParamsError("this timm model has no class token; set options.readout to pooled or mean.")
        return features[:, 0]
    return features[:, prefix:].mean(1) if readout == "mean" else features


def load(
    stream: Stream, named: str | None, readout: Readout, spec: images.Preprocessing, device: str = "cpu"
) -> framewise.FrameEncoder:
    """The network on `device`."""
    model = transfer.place_tower(load_network(stream, named), device)
    dtype = next(model.parameters()).dtype

    def read(pixels: torch.Tensor) -> torch.Tensor:
        return read_rows(model, pixels.to(dtype), readout).float()

    return framewise.FrameEncoder(model, read, spec, device)


class Timm(Family):
    """Image models of timm; see the module."""

    title = "Image models of timm"
    modalities = ("video", "face")
    sources = ("timm", "hf", "local", "package", "random")

    class Options(Group):
        """Of a stream."""

        #: Name or tag, for weights that do not say it.
        model: str | None = None
        readout: Readout = "pooled"
        frames: framewise.Which = "all"
        decoder: images.Decoder = "pillow"

    @classmethod
    def build(cls, stream: Stream, options: Options) -> Extractor:
        """The extractor of one stream.

        Raises:
            WeightsError: absent weights, or a folder that does not say which model it holds.
            ParamsError: unknown model, a decoder that has not the checkpoint's filter, or a layer other than the last.
        """
        if stream.layer != -1:
            raise ParamsError("encoder timm reads the last layer only; set layer to -1.")
        path, name, _, data = resolve(stream, options.model)
        spec = images.of_config(stream.weights, data).with_decoder(options.decoder)
        identity = {
            "model": name,
            "weights": weights.identity(stream.weights, architecture=stream.architecture, path=path, libraries=LIBRARIES),
            "preprocessing": spec.identity(),
            "readout": options.readout,
            "frames": options.frames,
        }
        load_model = partial(load, stream, options.model, options.readout, spec)
        axis: Axis | None = "space" if options.readout == "tokens" else None
        return Extractor(identity, framewise.Prepare(spec, options.frames), load_model, budget=64.0, axis=axis)
