"""The linear model that every network is held against: one matrix on each clip's pooled tokens.

On frozen features of a thousand clips it is hard to beat: see docs/results.md. It is fitted by `pipeline.training.linear`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .batch import History, Inputs, Outputs
from .contexts.base import list_alone
from .model import Model
from .pooled import Standardise
from .spec import ModelSpec


class LinearModel(Model):
    """Each stream's row → standardised, scaled by stream → one linear layer per output.

    What a clip lacks is where the mean over the training clips is: it moves no output. Dimensions end at -1 and 1.
    With `spec.earlier` the rows of earlier turns, times their weights, stand beside the clip's own, each followed by a number
    that is 1 where nothing is known of such a turn.

    Attributes:
        standardise: by stream, fitted on the training clips.

    >>> from pipeline.models.spec import StreamSpec
    >>> streams = {"audio": StreamSpec(width=3, pooling="statistics")}
    >>> LinearModel(ModelSpec(streams=streams, classes=("joy", "sadness"), linear=True)).width
    6
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        row = sum(stream.reads for stream in spec.streams.values())
        self.width = row + len(spec.earlier) * (row + 1)
        self.standardise = nn.ModuleDict({name: Standardise(stream.reads) for name, stream in spec.streams.items()})
        sizes = {"emotion": len(spec.classes), "dimensions": len(spec.dimensions)}
        self.heads = nn.ModuleDict({name: nn.Linear(self.width, size) for name, size in sizes.items() if size})

    def embed(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """What R clips are predicted from.

        Returns:
            (R, W) standardised and scaled rows, zero where a stream is absent, with those of earlier turns; and (R, M) which
            streams are present.
        """
        parts = [self.standardise[name](inputs.streams[name]).values[:, 0] for name in self.spec.streams]
        vectors = torch.cat(parts, 1)  # (B, ·)
        present = torch.stack([inputs.streams[name].present for name in self.spec.streams], 1)
        history = inputs.history or list_alone(present)
        columns = [vectors[history.rows]]
        for turn, weight in self.spec.earlier:
            place = find_earlier(turn, history)
            known = ((place >= 0) & present.any(1)[place])[:, None]
            columns += [weight * vectors[place] * known, (~known).to(vectors.dtype)]
        return torch.cat(columns, 1), present[history.rows]

    def forward(self, inputs: Inputs) -> Outputs:
        """The outputs of the spec, and `embedding`, `present`; of later turns nothing is read."""
        vector, present = self.embed(inputs)
        found = {name: head(vector) for name, head in self.heads.items()}
        if "dimensions" in found:
            found["dimensions"] = found["dimensions"].clamp(-1, 1)
        return self.adjust({"embedding": vector, "present": present} | found)


def find_earlier(turn: str, history: History) -> Tensor:
    """(R,) positions of one turn before each predicted clip, -1 none.

    Args:
        turn: `previous`, the one `before` it, or the last that is the clip's `own` speaker's.

    >>> history = History(torch.tensor([[4, 5, 6, 7]]), torch.tensor([[0, 0, 1, 0]]), 3)
    >>> [find_earlier(turn, history).item() for turn in ("previous", "before", "own")]
    [6, 5, 5]
    """
    places, at = history.places, history.at
    if turn != "own":
        column = at - {"previous": 1, "before": 2}[turn]
        return places[:, column] if column >= 0 else torch.full_like(history.rows, -1)
    steps = torch.arange(at, device=places.device)
    mine = (history.voices[:, :at] == 0) & (places[:, :at] >= 0)
    last = torch.where(mine, steps, -1).amax(1) if at else torch.full_like(history.rows, -1)
    return torch.where(last >= 0, places.gather(1, last.clamp(min=0)[:, None])[:, 0], -1)
