"""Dialogues as tensors: which clips are the turns around a clip, and who speaks them."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from torch import Tensor

from pipeline.models.batch import History


def number_turns(table: pl.DataFrame) -> Tensor:
    """(N, 3) int64: a number for the dialogue (of one corpus and split), the turn in it, and a number for its speaker.

    Dialogue and turn are -1 where either is unknown, the speaker where he is.
    """
    named = pl.concat_str("corpus", pl.col("split").fill_null(""), "dialogue", separator="\0", ignore_nulls=False)
    both = pl.col("dialogue").is_not_null() & pl.col("turn").is_not_null()
    found = table.select(
        dialogue=pl.when(both).then(named.rank("dense")),
        turn=pl.when(both).then("turn"),
        speaker=pl.col("speaker").rank("dense"),
    )
    return torch.from_numpy(found.select(pl.all().cast(pl.Int64).fill_null(-1)).to_numpy().copy())


def find_turns(numbers: Tensor, roles: Tensor, order: Tensor, rows: Tensor, turns: tuple[int, int]) -> History:
    """The turns around the clips at `rows` (R,), with positions in the whole table.

    Only clips of the same role: what is held out is nobody's history but its own. Turns without a role, which are nobody's
    target, are everybody's history. A turn that is lost is skipped: the one before it stands in its column.

    Args:
        numbers: (N, 3), see `number_turns`. roles: (N,), see `number_roles`. order: (N,), see `sort_turns`.
        turns: how many before the clip, and after it; K is their sum and one.
    """
    before, after = turns
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    wanted = rank[rows, None] + torch.arange(-before, after + 1, device=rows.device)  # (R, K)
    found = order[wanted.clamp(0, len(order) - 1)]
    dialogue = numbers[:, 0]
    same = (wanted >= 0) & (wanted < len(order)) & (dialogue[rows] >= 0)[:, None] & (dialogue[found] == dialogue[rows, None])
    same &= (roles[found] == 0) | (roles[found] == roles[rows, None])
    places = torch.where(same, found, -1)
    places[:, before] = rows
    speaker = torch.where(places >= 0, numbers[places, 2], -1)
    return History(places, number_voices(speaker, before), before)


def gather_turns(found: History) -> tuple[Tensor, History]:
    """The clips that a batch needs, each once, and the turns with positions among them."""
    rows, places = found.places.unique(return_inverse=True)
    # The first of the sorted rows is -1 where any turn is lacking.
    lacking = int(rows[0] < 0)
    return rows[lacking:], found._replace(places=places - lacking)


def number_roles(roles: np.ndarray) -> Tensor:
    """(N,) names → (N,) a number for each, 0 = none."""
    return torch.from_numpy(np.unique(["", *roles], return_inverse=True)[1][1:])


def sort_turns(numbers: Tensor) -> Tensor:
    """(N,) clips by dialogue, then turn; those of one number as they stand."""
    by_turn = numbers[:, 1].argsort(stable=True)
    return by_turn[numbers[by_turn, 0].argsort(stable=True)]


def number_voices(speaker: Tensor, at: int) -> Tensor:
    """Speakers (R, K) as seen from column `at`, see `History.voices`.

    >>> number_voices(torch.tensor([[7, 4, 9, 4, 7, 5]]), 4).tolist()
    [[0, 1, 2, 1, 0, 3]]
    """
    count = speaker.shape[1]
    columns = torch.tensor([*range(at, -1, -1), *range(at + 1, count)], device=speaker.device)  # from the turn back, then on
    seen = speaker[:, columns]
    same = seen[:, :, None] == seen[:, None, :]
    first = same.int().argmax(2)  # (R, K) where each speaker is met first
    new = (first == torch.arange(count, device=speaker.device)) & (seen >= 0)
    new[:, 0] = True  # the number 0 is the speaker's own, also when nobody knows who it is
    number = (new.cumsum(1) - 1).gather(1, first)
    return torch.empty_like(number).scatter_(1, columns.expand_as(number), torch.where(seen >= 0, number, -1))
