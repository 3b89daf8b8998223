"""One network of an exported model, and what it does to raw features before it reads them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.models.batch import History, Inputs, Outputs, Tokens
from pipeline.models.model import Model
from pipeline.models.pooled import pool_tokens
from pipeline.models.spec import StreamSpec
from pipeline.models.windows import thin
from pipeline.runs.predict import ask_model, join_outputs


class Member(nn.Module):
    """One network, and what it does to raw features before it reads them."""

    def __init__(self, model: Model, max_tokens: int | None) -> None:
        super().__init__()
        self.model, self.max_tokens = model, max_tokens
        self.normalisation = nn.ModuleDict({name: Normalise(spec) for name, spec in model.spec.streams.items()})

    def read(self, streams: Mapping[str, Tokens]) -> dict[str, Tokens]:
        """Raw rows as the network was trained on them, see `runs.inputs.read_tokens`."""
        return {name: self._read(name, streams[name]) for name in self.model.spec.streams}

    def _read(self, name: str, tokens: Tokens) -> Tokens:
        spec = self.model.spec.streams[name]
        if spec.pooling == "states":
            return tokens
        if spec.prompted:
            tokens = leave_out_prompt(tokens)
        tokens = self.normalisation[name](tokens)
        whole = spec.prompted or self.max_tokens is None
        return pool_tokens(tokens if whole else thin(tokens, int(self.max_tokens or 0)), spec.pooling, spec.axis)

    def forward(self, streams: Mapping[str, Tokens], history: History | None) -> Outputs:
        """Outputs of a batch; where long clips are read in windows, each clip by itself."""
        read = self.read(streams)
        if self.model.spec.window is None or history is not None:
            return self.model(Inputs(read, history=history))
        count = len(next(iter(read.values())).mask)
        alone = ({name: Tokens(*(x[i : i + 1] for x in one)) for name, one in read.items()} for i in range(count))
        return join_outputs([ask_model(self.model, Inputs(one)) for one in alone])


class Normalise(nn.Module):
    """Raw rows → zero mean and unit deviation over the training clips; padding is zero."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: StreamSpec) -> None:
        super().__init__()
        shape = find_shape(spec) if spec.axis == "layer" else (spec.width,)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def forward(self, tokens: Tokens) -> Tokens:
        """See the class."""
        values = (tokens.values - self.mean) / self.std
        return tokens._replace(values=values * tokens.mask.reshape(*tokens.mask.shape, *[1] * (values.dim() - 2)))


def leave_out_prompt(tokens: Tokens) -> Tokens:
    """Without the rows that last no time; what is left moves to the front, as `models.batch.leave_out_prompt` of one clip."""
    mask = tokens.mask & (tokens.times[..., 1] > tokens.times[..., 0])
    order = (~mask).int().argsort(dim=1, stable=True)
    parts = (one.gather(1, order.reshape(*order.shape, *[1] * (one.dim() - 2)).expand_as(one)) for one in tokens)
    values, _, times = parts
    return Tokens(values, mask.gather(1, order), times)


def find_shape(spec: StreamSpec) -> tuple[int, ...]:
    """Of a row: (D,), or (N, D)."""
    return (spec.levels, spec.width) if spec.levels else (spec.width,)
