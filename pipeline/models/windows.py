"""Long clips in windows: where they begin, which tokens stand in them, and one prediction from those of all of them.

Tokens are counted in the stream that leads: the time base, or where a clip lacks it the stream with the most tokens. The other
streams give what lies in the seconds of these tokens. Every token of the leading stream is in a window, the last ones too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .batch import Inputs, Outputs, Tokens, is_over_time, name_variance
from .mixture import TINY
from .spec import WindowSpec

#: Times are float32 seconds: what overlaps by less touches.
TOUCH = 1e-6


def list_starts(length: int, window: WindowSpec) -> list[int]:
    """First tokens of the windows of a clip; the last window ends with the clip.

    >>> list_starts(11, WindowSpec(tokens=4, stride=3, most=4)), list_starts(3, WindowSpec(tokens=4, stride=3, most=4))
    ([0, 3, 6, 7], [0])
    """
    last = max(0, length - window.tokens)
    return [*range(0, last, window.stride), last]


def locate(times: Tensor, mask: Tensor, span: Tensor) -> tuple[Tensor, Tensor]:
    """First token within a span and how many there are up to the last one: (R,), (R,); those that overlap it or lie in it.

    Args:
        times: (R, T, 2), or (1, T, 2) for one clip in many spans. mask: the same without the end. span: (R, 2) seconds.
    """
    start, end = span[:, None, 0], span[:, None, 1]
    shared = torch.minimum(times[..., 1], end) - torch.maximum(times[..., 0], start)
    centre = times.mean(-1)
    inside = mask & ((shared > TOUCH) | ((centre >= start) & (centre < end)))
    first = inside.int().argmax(1)
    after = inside.shape[1] - inside.flip(1).int().argmax(1)
    return first, torch.where(inside.any(1), after - first, 0)


def thin(tokens: Tokens, limit: int) -> Tokens:
    """At most `limit` tokens of each clip, as `shorten` of one: adjacent ones are averaged, their times joined.

    >>> clip = Tokens(torch.tensor([[[1.0], [3.0], [5.0]]]), torch.ones(1, 3).bool(), torch.tensor([[[0, 1], [1, 2], [2, 3]]]))
    >>> thin(clip, 2).values.flatten().tolist(), thin(clip, 2).times.tolist()
    ([1.0, 4.0], [[[0, 1], [1, 3]]])
    """
    values, mask, times = tokens
    if mask.shape[1] <= limit:
        return tokens
    length = mask.sum(1, keepdim=True)
    step = torch.arange(limit + 1, device=mask.device)
    share = (step * (length.double() / limit)).floor().long()
    edges = torch.where(length > limit, torch.where(step == limit, length, share), torch.minimum(step, length))  # (B, limit + 1)
    place = torch.arange(mask.shape[1], device=mask.device).expand_as(mask).contiguous()
    bins = torch.searchsorted(edges[:, 1:].contiguous(), place, right=True).clamp(max=limit - 1)
    bins = bins + limit * torch.arange(len(mask), device=mask.device)[:, None]
    flat = values.new_zeros(len(mask) * limit, *values.shape[2:]).index_add_(0, bins[mask], values[mask])
    count = edges.diff()
    means = flat.unflatten(0, (len(mask), limit)) / count.clamp(min=1).reshape(*count.shape, *[1] * (values.dim() - 2))
    here = count > 0
    ends = [edges[:, :-1].clamp(max=mask.shape[1] - 1), (edges[:, 1:] - 1).clamp(min=0)]
    spans = torch.stack([times[..., k].gather(1, at) for k, at in enumerate(ends)], -1) * here[..., None]
    return Tokens(means, here, spans)


def cut_clip(streams: dict[str, Tokens], base: str | None, window: WindowSpec) -> tuple[Inputs, Tensor, int] | None:
    """One clip, a batch of one, as a batch of its windows; None where it is no longer than a window.

    Returns:
        The windows, their first tokens (W,), and how many tokens of the base stream there are.
    """
    lengths = {name: int(one.mask.sum()) for name, one in streams.items()}
    lead = base if base is not None and lengths[base] else max(lengths, key=lambda name: lengths[name])
    if lengths[lead] <= window.tokens:
        return None
    first = torch.tensor(list_starts(lengths[lead], window))
    times = streams[lead].times[0]
    span = torch.stack([times[first, 0], times[first + window.tokens - 1, 1]], 1)  # (W, 2)
    result = {}
    for name, one in streams.items():
        low, count = (first, torch.full_like(first, window.tokens)) if name == lead else locate(one.times, one.mask, span)
        step = torch.arange(max(1, int(count.max())))
        mask = step < count[:, None]
        where = torch.where(mask, low[:, None] + step, 0)
        values = one.values[0, where] * mask.reshape(*mask.shape, *[1] * (one.values.dim() - 2))
        part = Tokens(values, mask, (one.times[0, where] - span[:, None, :1]) * mask[..., None])
        result[name] = thin(part, window.most)
    return Inputs(result), first, lengths[base] if base is not None else 0


def join_windows(outputs: Outputs, owner: Tensor, first: Tensor, length: Tensor, window: WindowSpec) -> Outputs:
    """One prediction of each of R clips from those of its windows.

    What goes over time is at each token the mean of the windows it is in; classes have the mean probability, all else the mean.
    Where dimensions say how sure they are, the mean is that of a mixture, see `mix_values`.

    Args:
        outputs: of W windows. owner: (W,) which clip it is of. first: (W,) its first token.
        length: (R,) tokens of the base stream, 0 where the clip lacks it.
    """
    result: Outputs = {}
    for name, values in outputs.items():
        whole = name.partition("@")[0]
        if whole.endswith(".log_variance"):
            continue
        said = outputs.get(name_variance(name))
        parts = [values.double()] if said is None else [values.double(), said.double().exp() + values.double().square()]
        if whole == "emotion":
            chance = _average(values.double().softmax(-1), owner, len(length)).clamp(min=1e-30).log().to(values.dtype)
            alone = torch.bincount(owner, minlength=len(length)) == 1  # logits of one window stay what they are
            result[name] = torch.where(alone[:, None], _average(values, owner, len(length)), chance)
            continue
        if whole == "present":
            result[name] = _average(values.double(), owner, len(length)) > 0
            continue
        if is_over_time(name):
            means = [_lay(part, owner, first, length, window.tokens) for part in parts]
        else:
            means = [_average(part, owner, len(length)) for part in parts]
        result[name] = means[0].to(values.dtype)
        if said is not None:
            result[name_variance(name)] = (means[1] - means[0].square()).clamp(min=TINY).log().to(values.dtype)
    return result


def _average(values: Tensor, owner: Tensor, clips: int) -> Tensor:
    """(W, …) → (R, …), the mean over a clip's windows."""
    total = values.new_zeros(clips, *values.shape[1:]).index_add_(0, owner, values)
    return total / torch.bincount(owner, minlength=clips).clamp(min=1).reshape(-1, *[1] * (values.dim() - 1))


def _lay(values: Tensor, owner: Tensor, first: Tensor, length: Tensor, tokens: int) -> Tensor:
    """(W, T, K) → (R, longest, K), the mean of the windows that a token is in; zero behind the end of a clip."""
    step = torch.arange(values.shape[1], device=values.device)
    place = first[:, None] + step
    there = (step < tokens) & (place < length[owner][:, None])
    longest = max(1, int(length.max()))
    flat = (owner[:, None] * longest + place)[there]
    total = values.new_zeros(len(length) * longest, values.shape[2]).index_add_(0, flat, values[there])
    count = torch.bincount(flat, minlength=len(total)).clamp(min=1)
    return (total / count[:, None]).unflatten(0, (len(length), longest))
