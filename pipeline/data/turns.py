"""Turns that nobody is trained or scored on: dialogues are understood by them all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import polars as pl

from pipeline.errors import CorpusError
from pipeline.storage.tables import LABELS

#: Said of a line that is no clip, where a turn is left of it.
STAYS = "; the turn stays as context"
#: What is left of a clip whose media cannot be used.
_KEPT = ("id", "corpus", "split", "text", "language", "speaker", "dialogue", "turn", "session")


def left_of(clips: Iterable[dict]) -> list[dict]:
    """What was said in clips that were lost, where it was said in a dialogue: rows without media and labels."""
    return [
        {name: clip.get(name) for name in _KEPT} | {"target": False}
        for clip in clips
        if clip.get("dialogue") is not None and clip.get("turn") is not None and clip.get("text")
    ]


def read_left(read: Callable[[dict], dict], line: dict, *blanks: dict) -> dict | None:
    """What is left of a line that `read` makes no clip of, as a turn that is no target; None where nothing is.

    Args:
        blanks: columns to read otherwise, least loss first: the labels alone, then what says where the media are.

    >>> def read(line):
    ...     return {"dialogue": "d", "turn": 1, "text": line["said"], "valence": float(line["valence"] or "nan")}
    >>> read_left(read, {"said": "No!", "valence": "four"}, {"valence": ""})["text"]
    'No!'
    """
    for blank in blanks:
        try:
            clip = read(line | blank)
        except (ValueError, LookupError, CorpusError):
            continue
        readable = any(clip.get(name) for name in ("text", "video", "audio"))
        if readable and clip.get("dialogue") is not None and clip.get("turn") is not None:
            return without_labels(clip)
    return None


def count(table: pl.DataFrame, lost: int) -> dict[str, int]:
    """How many turns are no targets, for the notes; nothing where there are none.

    Args:
        lost: of them, turns of clips in quarantine.
    """
    context = int((~table["target"]).sum())
    of_lost = {"turns of clips in quarantine, kept for what was said": lost} if lost else {}
    others = {"turns without a label, kept as context": context - lost} if context > lost else {}
    return of_lost | others


def share_split(table: pl.DataFrame, folds: pl.DataFrame) -> pl.DataFrame:
    """The manifest with the roles of one fold as `split`; a turn that has none goes with its dialogue.

    Where a corpus has splits of its own, `folds` follow them, and so does the turn. Else it is seen by the next target of its
    dialogue, the last ones by the target before.
    """
    roles = folds.select("id", role="role")
    joined = table.join(roles, on="id", how="left", maintain_order="left")
    within = ["corpus", "split", "dialogue"]
    by_turn = joined.filter(pl.col("dialogue").is_not_null()).sort(*within, "turn", "id", nulls_last=True)
    near = by_turn.select("id", near=pl.col("role").backward_fill().forward_fill().over(within))
    return (
        joined.join(near, on="id", how="left", maintain_order="left")
        .with_columns(split=pl.coalesce("role", "near"))
        .drop("role", "near")
        .select(table.columns)
    )


def without_labels(clip: dict) -> dict:
    """A clip as a turn that is no target."""
    return clip | dict.fromkeys(LABELS) | {"target": False}
