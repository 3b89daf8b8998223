"""emotion2vec frame features from its own checkpoint (Ma et al. 2023, arXiv:2312.15185): 50 rows per second.

Ready-made features are imported instead (`encoder: import`, stream `emotion2vec`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial

import numpy as np

from pipeline import weights
from pipeline.errors import ParamsError, WeightsError, one_of
from pipeline.features.encoders import outputs, pooling, transfer
from pipeline.features.encoders.extractor import Extractor, Prepared
from pipeline.features.encoders.family import Family
from pipeline.params import Stream

from . import hubert

#: Kernel → stride of the convolutional front end; weights do not tell strides.
STRIDES = {10: 5, 3: 2, 2: 2}


@dataclass(frozen=True)
class Shape:
    """Sizes of the network; those of emotion2vec base by default.

    Attributes:
        width: of the features. heads: of attention. inner: of a block's feed-forward layer.
        blocks: those a checkpoint calls its context encoder and the others.
        front: channels of the convolutional front end. kernels: of it.
        positions: convolutions that add the place. position_kernel, position_groups: of them.
        extra: tokens before the frames. scales: of the slopes of attention; 1, or one per block.
    """

    width: int = 768
    heads: int = 12
    inner: int = 3072
    blocks: int = 12
    front: int = 512
    kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    positions: int = 5
    position_kernel: int = 19
    position_groups: int = 16
    extra: int = 10
    scales: int = 1

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(STRIDES[kernel] for kernel in self.kernels)


def of_stand_in(architecture: dict) -> Shape:
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


def load(stream: Stream, device: str = "cpu") -> Callable:
    """The network on `device` → forward."""
    import torch
    from torch.nn.functional import layer_norm

    from pipeline.weights import pretrained

    from . import emotion2vec_network as networks

    source = weights.parse(stream.weights)
    if source.random:
        with weights.seeded(source.seed or 0):
            model = networks.Network(of_stand_in(stream.architecture))
        model = model.to(getattr(torch, stream.dtype)).eval().requires_grad_(False)
    else:
        state = networks.renamed(weights.state(weights.locate(source)))
        size = networks.shape(state, source)
        if size.kernels != Shape.kernels:
            raise WeightsError(
                f"{source} has a front end of kernels {size.kernels}, emotion2vec has {Shape.kernels}; "
                "choose the family that fits it."
            )
        model = networks.Network(size)
        model = pretrained.assemble(model, state, source, dtype=stream.dtype)
    model = model.to(device)
    dtype = getattr(torch, stream.dtype)

    @torch.inference_mode()
    def forward(batch: Sequence[Prepared]) -> list[tuple[np.ndarray, np.ndarray]]:
        waves = [torch.from_numpy(item.inputs["waveform"]) for item in batch]
        # As the model was trained: each clip at zero mean and unit variance.
        waves = [layer_norm(wave, wave.shape) for wave in waves]
        lengths = [hubert.frames(len(wave), model.size.kernels, model.size.strides) for wave in waves]
        padded = transfer.to_device(torch.nn.utils.rnn.pad_sequence(waves, batch_first=True), device).to(dtype)
        chosen = pooling.cut(pooling.select(model(padded, lengths), stream.layer), lengths)
        return [outputs.pooled(values, item, stream) for values, item in zip(chosen, batch, strict=True)]

    return forward


def build(stream: Stream) -> Extractor:
    """The extractor of one stream.

    Raises:
        WeightsError: absent weights.
        ParamsError: a layer that is not there, sizes of a stand-in that do not fit.
    """
    source = weights.parse(stream.weights)
    size = of_stand_in(stream.architecture) if source.random else Shape()
    pooling.check_layer(stream.layer, size.blocks)
    prepare = hubert.Prepare(False, size.kernels, size.strides)
    identity = {
        "family": FAMILY.name,
        "version": 1,
        "dtype": stream.dtype,
        **pooling.settings(stream),
        "weights": weights.identity(source, architecture=stream.architecture, libraries=("torch",)),
        "preprocessing": {"rate": hubert.RATE, "normalise": True},
    }
    return Extractor(identity, prepare, partial(load, stream), budget=60.0)


FAMILY = Family(
    name="emotion2vec",
    title="emotion2vec from its own checkpoint",
    modalities=("audio",),
    sources=("local", "hf", "package", "random"),
    build=build,
    options={},
)
