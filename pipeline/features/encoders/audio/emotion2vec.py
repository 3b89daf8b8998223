"""emotion2vec frame features from its own checkpoint (Ma et al. 2023, arXiv:2312.15185): 50 rows per second.

Ready-made features are imported instead (`encoder: import`, stream `emotion2vec`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline import weights
from pipeline.errors import ParamsError, WeightsError, one_of
from pipeline.features.encoders import pooling, transfer
from pipeline.features.encoders.encoder import Layered
from pipeline.features.encoders.extractor import Extractor, Prepared
from pipeline.features.encoders.family import Family
from pipeline.params import Stream
from pipeline.params.features import Layer

from .emotion2vec_shape import Shape
from .waveforms import RATE, Prepare, count_frames

if TYPE_CHECKING:
    import torch


def size_stand_in(architecture: dict) -> Shape:
    """The sizes of seeded weights.

    Raises:
        ParamsError: an unknown key, or sizes that do not fit one another.
    """
    known = [item.name for item in fields(Shape) if item.name != "kernels"]
    for key, value in architecture.items():
        if key not in known:
            raise one_of("size of emotion2vec", key, known)
        if not isinstance(value, int) or value < 1:
            raise ParamsError(f"architecture: {key} {value!r} is no positive whole number.")
    size = Shape(**architecture)
    if size.width % size.heads or size.width % size.position_groups or size.scales not in (1, size.blocks):
        raise ParamsError("architecture: heads and position_groups must divide width, and scales be 1 or blocks.")
    return size


class Emotion2vecEncoder(Layered):
    """emotion2vec's network over whole clips."""

    def __init__(self, network: Any, layers: tuple[Layer, ...], dtype: torch.dtype, device: str) -> None:
        self.network, self.layers, self.dtype, self.device = network, layers, dtype, device

    def encode_layers(self, batch: Sequence[Prepared]) -> list[list[torch.Tensor]]:
        """Per layer (T, D) or (T, L, D) of each clip."""
        import torch
        from torch.nn.functional import layer_norm

        waves = [torch.from_numpy(item.inputs["waveform"]) for item in batch]
        # As the model was trained: each clip at zero mean and unit variance.
        waves = [layer_norm(wave, wave.shape) for wave in waves]
        size = self.network.size
        lengths = [count_frames(len(wave), size.kernels, size.strides) for wave in waves]
        padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
        states = self.network(transfer.to_device(padded, self.device).to(self.dtype), lengths)
        return [pooling.cut(pooling.select(states, layer), lengths) for layer in self.layers]


def load(stream: Stream, device: str = "cpu", layers: tuple[Layer, ...] | None = None) -> Emotion2vecEncoder:
    """The network on `device`; see `Extractor.load`."""
    import torch

    from pipeline.weights import pretrained

    from . import emotion2vec_network as networks

    source, dtype = weights.parse(stream.weights), getattr(torch, stream.dtype)
    if source.random:
        with weights.seeded(source.seed or 0):
            network = networks.Network(size_stand_in(stream.architecture))
        network = network.to(dtype).eval().requires_grad_(False)
    else:
        state = networks.rename_keys(weights.state(weights.locate(source)))
        size = networks.shape(state, source)
        if size.kernels != Shape.kernels:
            raise WeightsError(
                f"{source} has a front end of kernels {size.kernels}, emotion2vec has {Shape.kernels}; "
                "choose the family that fits it."
            )
        network = pretrained.assemble(networks.Network(size), state, source, dtype=stream.dtype)
    return Emotion2vecEncoder(network.to(device), layers or (stream.layer,), dtype, device)


class Emotion2vec(Family):
    """emotion2vec; see the module."""

    title = "emotion2vec from its own checkpoint"
    modalities = ("audio",)
    sources = ("local", "hf", "package", "random")
    layered = True

    @classmethod
    def build(cls, stream: Stream, options: Family.Options) -> Extractor:
        """The extractor of one stream.

        Raises:
            WeightsError: absent weights.
            ParamsError: a layer that is not there, sizes of a stand-in that do not fit.
        """
        source = weights.parse(stream.weights)
        size = size_stand_in(stream.architecture) if source.random else Shape()
        pooling.check_layer(stream.layer, size.blocks)
        identity = {
            "weights": weights.identity(source, architecture=stream.architecture, libraries=("torch",)),
            "preprocessing": {"rate": RATE, "normalise": True},
        }
        return Extractor(identity, Prepare(False, size.kernels, size.strides), partial(load, stream), budget=60.0)
