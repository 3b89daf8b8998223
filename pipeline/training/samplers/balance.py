"""Equal shares of several groups in every batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def draw_evenly(group: Tensor, share: int, order: torch.Generator) -> Iterator[Tensor]:
    """Batches with `share` clips of every group, until the largest has been through once.

    The others begin anew in another order as often as needed. Groups stand in another order in each batch. What is left at
    the end is a smaller batch, or part of the one before when it would be a single clip of each.

    Args:
        group: (n,) number of each clip's group.
    """
    places = [torch.nonzero(group == one).squeeze(1) for one in group.unique()]
    longest = max(map(len, places))
    decks = [_recycle(members, longest, order) for members in places]
    edges = list(range(0, longest, share))
    if len(edges) > 1 and longest - edges[-1] == 1:
        edges.pop()
    for start, end in zip(edges, [*edges[1:], longest], strict=True):
        yield torch.cat([decks[g][start:end] for g in torch.randperm(len(decks), generator=order).tolist()])


def _recycle(members: Tensor, length: int, order: torch.Generator) -> Tensor:
    """`length` of them, all in a new order again and again."""
    rounds = -(-length // len(members))
    return torch.cat([members[torch.randperm(len(members), generator=order)] for _ in range(rounds)])[:length]
