"""In which order clips are trained on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def shuffle_clips(rows: Tensor, size: int, order: torch.Generator) -> Iterator[Tensor]:
    """Places (≤ size,) in `rows`, each once."""
    yield from torch.randperm(len(rows), generator=order).to(rows.device).split(size)


def shuffle_dialogues(rows: Tensor, dialogue: Tensor, size: int, order: torch.Generator) -> Iterator[Tensor]:
    """Places in `rows`, each once, whole dialogues together: none is split, a batch ends with the one that fills it.

    Args:
        dialogue: (n,) number of the dialogue of each row; -1 is a dialogue of its own.
    """
    number = dialogue.cpu().clone()
    alone = number < 0
    number[alone] = number.max().clamp(min=0) + 1 + torch.arange(int(alone.sum()))
    batch: list[Tensor] = []
    _, groups, counts = number.unique(return_inverse=True, return_counts=True)
    members = groups.argsort(stable=True).split(counts.tolist())
    for at in torch.randperm(len(members), generator=order).tolist():
        batch.append(members[at])
        if sum(map(len, batch)) >= size:
            yield torch.cat(batch).to(rows.device)
            batch = []
    if batch:
        yield torch.cat(batch).to(rows.device)
