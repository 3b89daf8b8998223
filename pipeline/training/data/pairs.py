"""Two windows of each clip."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.batch import Inputs, Targets, Tokens
from pipeline.params import Pairs


def pair_windows(inputs: Inputs, targets: Targets, base: str, pairs: Pairs, draw: torch.Generator) -> tuple[Inputs, Targets]:
    """Each clip as two windows of `pairs.length` tokens of the stream `base`, one after the other.

    The first begins anywhere, the other at most `pairs.apart` tokens before or after it, and elsewhere where the clip has
    room. Other streams are cut to the same seconds; time begins anew in each. A clip that is shorter, or lacks the stream, is
    there twice as it is.

    Args:
        inputs: B clips without history. draw: the source of chance.

    Returns:
        2 B rows, of which two and two are of one clip.
    """
    tokens = inputs.streams[base]
    length = tokens.mask.sum(1)
    start = _draw_starts((length - pairs.length).clamp(min=0).cpu(), pairs.apart, draw).to(length.device)  # (2 B,)
    tokens, length = _twice(tokens), length.repeat_interleave(2)
    end = torch.minimum(start + pairs.length, length)
    first, last = (tokens.times.gather(1, at.clamp(min=0)[:, None, None].expand(-1, 1, 2))[:, 0] for at in (start, end - 1))
    here = length > 0
    begin, over = torch.where(here, first[:, 0], 0.0), torch.where(here, last[:, 1], torch.inf)
    places = torch.arange(tokens.mask.shape[1], device=length.device)
    within = (places >= start[:, None]) & (places < end[:, None])
    streams = {name: _cut(stream, within if name == base else None, begin, over) for name, stream in inputs.streams.items()}
    frames = None
    if targets.frames is not None:
        truth = targets.frames.repeat_interleave(2, 0)
        truth = F.pad(truth, (0, 0, 0, pairs.length), value=torch.nan)  # a window that runs over the end
        at = start[:, None] + torch.arange(pairs.length, device=start.device)
        frames = truth.gather(1, at[..., None].expand(-1, -1, truth.shape[2])).masked_fill(
            (at >= end[:, None])[..., None], torch.nan
        )
    rows = torch.arange(len(length), device=length.device) // 2
    domain = {name: codes[rows] for name, codes in targets.domain.items()}
    cut = Targets(targets.emotion[rows], targets.dimensions[rows], frames, domain, targets.weight[rows], targets.owner[rows])
    return Inputs(streams), cut


def join_targets(parts: Sequence[Targets]) -> Targets:
    """The truth of several batches of windows as that of one."""
    frames = [part.frames for part in parts if part.frames is not None]
    return Targets(
        torch.cat([part.emotion for part in parts]),
        torch.cat([part.dimensions for part in parts]),
        torch.cat(frames) if frames else None,
        {name: torch.cat([part.domain[name] for part in parts]) for name in parts[0].domain},
        torch.cat([part.weight for part in parts]),
        torch.cat([part.owner for part in parts]),
    )


def _draw_starts(room: Tensor, apart: int, draw: torch.Generator) -> Tensor:
    """(B,) last place a window may begin → (2 B,) where two do."""
    first, other = torch.rand(2, len(room), generator=draw)
    first = (first * (room + 1)).long()
    low, high = (first - apart).clamp(min=0), torch.minimum(first + apart, room)
    # Of the places from low to high all but the first's.
    other = low + (other * (high - low)).long()
    other = torch.where(high > low, other + (other >= first), first)
    return torch.stack([first, other], 1).flatten()


def _twice(tokens: Tokens) -> Tokens:
    return Tokens(*(part.repeat_interleave(2, 0) for part in tokens))


def _cut(stream: Tokens, within: Tensor | None, begin: Tensor, over: Tensor) -> Tokens:
    """The tokens within, or those that overlap the seconds from `begin` to `over`, moved to the front."""
    stream = _twice(stream)
    if within is None:
        within = (stream.times[..., 1] > begin[:, None]) & (stream.times[..., 0] < over[:, None])
    mask = stream.mask & within
    order = (~mask).long().argsort(dim=1, stable=True)[:, : max(1, int(mask.sum(1).max()))]
    mask = mask.gather(1, order)

    def take(part: Tensor) -> Tensor:
        shape = (*order.shape, *[1] * (part.ndim - 2))
        return part.gather(1, order.reshape(shape).expand(*order.shape, *part.shape[2:])) * mask.reshape(shape)

    times = stream.times - begin[:, None, None]
    return Tokens(take(stream.values), mask, take(times))
