"""What attention looks at, on request: training and prediction do without the weights."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from .batch import Inputs
from .blocks import Attention
from .model import Model


@torch.inference_mode()
def read_attention(model: Model, inputs: Inputs) -> dict[str, Tensor]:
    """The weights of every attention of a model, while it looks at a batch.

    Returns:
        By the place in the model, `fusion.layers.0.audio.attention`: (B, heads, Q, K), each row summing to one, or zero where
        there was nothing to look at. In cross attention queries are the tokens of that stream, keys the tokens of all others, in
        the model's order; between streams and between turns they are those. Where a part works on a clip and again on
        instants, it is the clip's.

    >>> from pipeline.models.batch import Tokens
    >>> from pipeline.models.model import EmotionModel
    >>> from pipeline.models.spec import ModelSpec, PartSpec, StreamSpec
    >>> streams = {"audio": StreamSpec(width=8), "text": StreamSpec(width=8)}
    >>> spec = ModelSpec(streams=streams, width=16, layers=0, fusion=PartSpec(name="multihead"))
    >>> tokens = Tokens(torch.ones(2, 3, 8), torch.ones(2, 3).bool(), torch.zeros(2, 3, 2))
    >>> {
    ...     name: tuple(one.shape)
    ...     for name, one in read_attention(EmotionModel(spec), Inputs(dict.fromkeys(streams, tokens))).items()
    ... }
    {'fusion.attention': (2, 4, 2, 2)}
    """
    found: dict[str, Tensor] = {}

    def note(name: str, module: nn.Module, given: tuple[Tensor, Tensor, Tensor]) -> None:
        assert isinstance(module, Attention)
        if name not in found:
            found[name] = module.weigh(*given)

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if isinstance(module, Attention):
                hooks.enter_context(module.register_forward_pre_hook(partial(note, name)))
        model.eval()(inputs)
    return found
