"""The linear model that every network is held against: one matrix on each clip's pooled tokens.

On frozen features of a thousand clips it is hard to beat: see docs/results.md. It is fitted by `pipeline.training.linear`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .batch import Inputs, Outputs, Tokens
from .model import Model, ModelSpec


class LinearModel(Model):
    """Mean (and deviation) of each stream's tokens → standardised, scaled by stream → one linear layer per output.

    What a clip lacks is where the mean over the training clips is: it moves no output. Dimensions end at -1 and 1.

    Attributes:
        centre, scale: (W,) of the pooled vector, learned from the training clips.

    >>> from pipeline.models.model import StreamSpec
    >>> spec = ModelSpec(streams={"audio": StreamSpec(width=3)}, classes=("joy", "sadness"), linear=("audio",))
    >>> LinearModel(spec).width
    6
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.width = sum(self.measure().values())
        self.register_buffer("centre", torch.zeros(self.width))
        self.register_buffer("scale", torch.ones(self.width))
        sizes = {"emotion": len(spec.classes), "dimensions": len(spec.dimensions)}
        self.heads = nn.ModuleDict({name: nn.Linear(self.width, size) for name, size in sizes.items() if size})

    def measure(self) -> dict[str, int]:
        """How many numbers of each stream are read."""
        read = self.spec.linear or ()
        return {name: one.width * max(1, one.levels) * (1 + (name in read)) for name, one in self.spec.streams.items()}

    def pool(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """(B, W) statistics as they are, zero where a stream is absent; and (B, M) which are present."""
        parts = [pool_tokens(inputs.streams[name], name in (self.spec.linear or ())) for name in self.spec.streams]
        return torch.cat(parts, 1), torch.stack([inputs.streams[name].present for name in self.spec.streams], 1)

    def embed(self, pooled: Tensor, present: Tensor) -> Tensor:
        """(B, W) → (B, W) standardised and scaled; zero where a stream is absent."""
        counts = torch.tensor(list(self.measure().values()), device=present.device)
        return (pooled - self.centre) * self.scale * present.repeat_interleave(counts, 1)

    def forward(self, inputs: Inputs) -> Outputs:
        """The outputs of the spec, and `embedding`, `present`; every clip from itself alone, whatever came before."""
        pooled, present = self.pool(inputs)
        if inputs.history is not None:
            pooled, present = pooled[inputs.history.rows], present[inputs.history.rows]
        vector = self.embed(pooled, present)
        found = {name: head(vector) for name, head in self.heads.items()}
        if "dimensions" in found:
            found["dimensions"] = found["dimensions"].clamp(-1, 1)
        return {"embedding": vector, "present": present} | found


def pool_tokens(tokens: Tokens, deviation: bool) -> Tensor:
    """(B, T, D) or (B, T, L, D) → (B, D) or (B, L · D): the mean over the tokens, and with `deviation` the deviation after it.

    >>> tokens = Tokens(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]]), torch.zeros(1, 3, 2))
    >>> pool_tokens(tokens, True).tolist()
    [[2.0, 1.0]]
    """
    values, mask = tokens.values.flatten(2), tokens.mask[..., None]
    count = mask.sum(1).clamp(min=1)
    mean = (values * mask).sum(1) / count
    if not deviation:
        return mean
    spread = (((values - mean[:, None]) * mask) ** 2).sum(1) / count
    return torch.cat([mean, spread.sqrt()], 1)
