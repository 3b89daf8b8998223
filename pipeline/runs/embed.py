"""What a network makes of its inputs before its heads read it, and how its projections of them lie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from pipeline.models.batch import Fused, Inputs, Outputs, Tokens
from pipeline.models.model import EmotionModel, Model

#: The output that losses between clips read.
PROJECTION = "projection"


def embed_tokens(model: Model, batches: Iterable[Inputs]) -> Iterator[Tokens]:
    """Of each batch the fused tokens (B, T, W) that the heads read at the base stream's instants, which no output shows."""
    assert isinstance(model, EmotionModel)
    seen: list[Fused] = []
    last = model.fusion if model.context is None else model.context
    handle = last.register_forward_hook(lambda _, __, fused: seen.append(fused))
    try:
        for inputs in batches:
            with torch.inference_mode():
                model(inputs)
            tokens = seen.pop().tokens
            assert tokens is not None
            yield tokens
    finally:
        handle.remove()


@torch.inference_mode()
def compare_halves(model: Model, batches: Iterable[Inputs]) -> list[float | None]:
    """Contrastive accuracy, clip by clip: 1 where the projection of a clip's first half is nearer to that of its second half
    than to that of the first half of any other clip, else 0.

    None without a projection, or for a clip that is not there in both halves.
    """
    batches = list(batches)
    if PROJECTION not in model.spec.outputs:
        return [None] * sum(_count(inputs) for inputs in batches)
    halves = [[model(_halve(inputs, late)) for inputs in batches] for late in (False, True)]
    first, second = (nn.functional.normalize(_join(parts, PROJECTION).double(), dim=1) for parts in halves)
    one, two = (_join(parts, "present").any(1) for parts in halves)
    there = one & two
    own = (first * second).sum(1)
    others = (first @ first.T).masked_fill(
        ~there[None] | torch.eye(len(first), dtype=torch.bool, device=first.device), -torch.inf
    )
    right = own > others.max(1).values
    return [float(found) if known else None for found, known in zip(right.tolist(), there.tolist(), strict=True)]


def _count(inputs: Inputs) -> int:
    if inputs.history is not None:
        return len(inputs.history.places)
    return len(next(iter(inputs.streams.values())).mask)


def _join(parts: list[Outputs], name: str) -> Tensor:
    return torch.cat([part[name] for part in parts])


def _halve(inputs: Inputs, late: bool) -> Inputs:
    """The batch with only the first, or only the second, half of each stream's tokens; an odd one in the middle in neither.

    Each half begins at 0 s: halves of one place in time are not alike for it.
    """

    def cut(tokens: Tokens) -> Tokens:
        length = tokens.mask.sum(1, keepdim=True)  # (B, 1)
        place = tokens.mask.cumsum(1) - 1  # (B, T) among the tokens that are there
        mask = tokens.mask & (place >= (length + 1) // 2 if late else place < length // 2)
        begin = tokens.times[..., 0].masked_fill(~mask, torch.inf).min(1).values  # (B,)
        begin = begin.nan_to_num(posinf=0.0)[:, None, None]
        return tokens._replace(mask=mask, times=(tokens.times - begin) * mask[..., None])

    return inputs._replace(streams={name: cut(tokens) for name, tokens in inputs.streams.items()})
