"""Windows of resident clips: a random one in training, all of them in prediction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import ParamsError
from pipeline.models.batch import Tokens
from pipeline.models.spec import ModelSpec, WindowSpec
from pipeline.models.windows import list_starts, locate, thin
from pipeline.params import Params

from .resident import Resident


def choose_window(params: Params) -> WindowSpec | None:
    """How networks read long clips: None where they read them whole, thinned to `temporal.max_tokens`.

    Over time clips are never thinned: without a window of one's own it is as long as `max_tokens`. With a context clips are
    turns, and read whole.

    Raises:
        ParamsError: a window and a context.
    """
    temporal, over_time = params.temporal, params.task.level == "frame" and bool(params.task.dimensions)
    if params.context is not None:
        if temporal.window is not None:
            raise ParamsError("temporal.window and a context: turns of a dialogue are read whole; take context none.")
        return None
    if temporal.window is None and not over_time:
        return None
    tokens = temporal.window.tokens if temporal.window is not None else temporal.max_tokens
    stride = temporal.window.stride if temporal.window is not None else None
    return WindowSpec(tokens=tokens, stride=stride or max(1, tokens // 2), most=temporal.max_tokens)


def choose_limit(params: Params) -> int | None:
    """Tokens that clips are thinned to before anything reads them; None where networks read them in windows."""
    return params.temporal.max_tokens if choose_window(params) is None else None


@dataclass(frozen=True)
class Cut:
    """Which part of each of R clips is read.

    Attributes:
        lead: (R,) place of the leading stream among `names`; see `pipeline.models.windows`.
        length: (R,) its tokens. first: (R,) where the window begins among them.
        span: (R, 2) seconds of the window.
    """

    window: WindowSpec
    names: tuple[str, ...]
    lead: Tensor
    length: Tensor
    first: Tensor
    span: Tensor

    @property
    def whole(self) -> Tensor:
        """(R,) bool: the clip is no longer than a window, and is read as it is."""
        return self.length <= self.window.tokens

    def choose(self, name: str, stream: Resident, rows: Tensor, plain: Tensor | bool = True) -> tuple[Tensor, Tensor] | None:
        """First token and number of tokens of the clips at `rows` of a stream's offsets; None: all of all.

        Args:
            plain: of these rows, those of clips as they are; what leads is counted in their tokens.
        """
        if bool(self.whole.all()):
            return None
        length = stream.offsets[rows + 1] - stream.offsets[rows]
        leads = (self.lead == self.names.index(name)) & plain
        low, count = self.first, torch.full_like(self.first, self.window.tokens)
        if not bool((leads | self.whole).all()):
            where, mask = stream.gather(rows)
            near, found = locate(stream.times[where], mask, self.span)
            low, count = torch.where(leads, low, near), torch.where(leads, count, found)
        return torch.where(self.whole, 0, low), torch.where(self.whole, length, count)

    def read(self, name: str, stream: Resident, rows: Tensor, plain: Tensor | bool = True) -> Tokens:
        """The tokens of the window, in seconds from where it begins; of a whole clip, from where the clip does."""
        tokens = stream.tokens(rows, self.choose(name, stream, rows, plain))
        begin = torch.where(self.whole, 0.0, self.span[:, 0])
        times = torch.where(tokens.mask[..., None], tokens.times - begin[:, None, None], 0.0)
        return thin(tokens._replace(times=times), self.window.most)


def cut_clips(
    streams: Mapping[str, Resident],
    spec: ModelSpec,
    rows: Tensor,
    first: Tensor | None = None,
    draw: torch.Generator | None = None,
) -> Cut:
    """Where the windows of the clips at `rows` (R,) are.

    Args:
        first: (R,) their first tokens. draw: draws them; one of the two.
    """
    assert spec.window is not None
    names = tuple(spec.streams)
    lead, length = find_leads({name: streams[name] for name in names}, spec.base, rows)
    room = (length - spec.window.tokens).clamp(min=0)
    if first is None:
        first = torch.zeros_like(room)
        if draw is not None and bool(room.any()):  # chance is asked only where there is a choice
            share = torch.rand(len(rows), generator=draw).to(rows.device)
            first = torch.minimum((share * (room + 1)).long(), room)
    last = first + torch.minimum(length, first.new_tensor(spec.window.tokens)) - 1
    span = torch.zeros(len(rows), 2, device=rows.device)
    for place, name in enumerate(names):
        mine, stream = lead == place, streams[name]
        for side, at in enumerate((first, last)):
            here = (stream.offsets[rows] + at).clamp(0, len(stream.times) - 1)
            span[:, side] = torch.where(mine, stream.times[here, side], span[:, side])
    return Cut(spec.window, names, lead, length, first, span)


def find_leads(streams: Mapping[str, Resident], base: str | None, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Of the clips at `rows` (R,) the leading stream and its tokens: (R,), (R,)."""
    lengths = torch.stack([stream.lengths[rows] for stream in streams.values()], 1)  # (R, M)
    lead = lengths.argmax(1)
    if base is not None:
        place = list(streams).index(base)
        lead = torch.where(lengths[:, place] > 0, place, lead)
    return lead, lengths.gather(1, lead[:, None])[:, 0]


def walk_windows(
    streams: Mapping[str, Resident], spec: ModelSpec, rows: Tensor, size: int
) -> Iterator[tuple[Tensor, Tensor, Cut]]:
    """All windows of the clips at `rows`, `size` at a time: which of these clips (W,), first tokens (W,), the cut."""
    assert spec.window is not None
    lengths = find_leads({name: streams[name] for name in spec.streams}, spec.base, rows)[1].tolist()
    starts = [(place, first) for place, length in enumerate(lengths) for first in list_starts(length, spec.window)]
    for part in torch.tensor(starts, device=rows.device).split(size):
        owner, first = part.unbind(1)
        yield owner, first, cut_clips(streams, spec, rows[owner], first)
