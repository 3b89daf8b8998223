"""The linear model that every network is held against: one matrix on each clip's pooled tokens.

On frozen features of a thousand clips it is hard to beat: see docs/results.md. It is fitted by `pipeline.training.linear`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .batch import Inputs, Outputs
from .model import Model
from .pooled import Standardise
from .spec import ModelSpec


class LinearModel(Model):
    """Each stream's row → standardised, scaled by stream → one linear layer per output.

    What a clip lacks is where the mean over the training clips is: it moves no output. Dimensions end at -1 and 1.

    Attributes:
        standardise: by stream, fitted on the training clips.

    >>> from pipeline.models.spec import StreamSpec
    >>> streams = {"audio": StreamSpec(width=3, pooling="statistics")}
    >>> LinearModel(ModelSpec(streams=streams, classes=("joy", "sadness"), linear=True)).width
    6
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.width = sum(stream.reads for stream in spec.streams.values())
        self.standardise = nn.ModuleDict({name: Standardise(stream.reads) for name, stream in spec.streams.items()})
        sizes = {"emotion": len(spec.classes), "dimensions": len(spec.dimensions)}
        self.heads = nn.ModuleDict({name: nn.Linear(self.width, size) for name, size in sizes.items() if size})

    def embed(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """(B, W) standardised and scaled rows, zero where a stream is absent; and (B, M) which are present."""
        parts = [self.standardise[name](inputs.streams[name]).values[:, 0] for name in self.spec.streams]
        return torch.cat(parts, 1), torch.stack([inputs.streams[name].present for name in self.spec.streams], 1)

    def forward(self, inputs: Inputs) -> Outputs:
        """The outputs of the spec, and `embedding`, `present`; every clip from itself alone, whatever came before."""
        vector, present = self.embed(inputs)
        if inputs.history is not None:
            vector, present = vector[inputs.history.rows], present[inputs.history.rows]
        found = {name: head(vector) for name, head in self.heads.items()}
        if "dimensions" in found:
            found["dimensions"] = found["dimensions"].clamp(-1, 1)
        return self.adjust({"embedding": vector, "present": present} | found)
