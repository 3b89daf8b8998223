"""The manifest: one row per clip, joined by `id` for ever after (docs/architecture.md)."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pipeline.errors import StoreError

from .atomic import atomic_file

#: Columns of `data/manifest.parquet`. A corpus adapter fills what it knows; the rest is null.
SCHEMA: dict[str, pl.DataType] = {
    "id": pl.String(),  # unique over the corpus, e.g. meld/test/dia3_utt7
    "corpus": pl.String(),
    "split": pl.String(),  # train | val | test, or null when a protocol makes the folds
    "video": pl.String(),  # media file or folder of frame images, relative to the corpus root
    "audio": pl.String(),  # media file, may be the same one as `video`
    "channel": pl.String(),  # left | right | null (mix down)
    "half": pl.String(),  # left | right half of the picture, of films with two people side by side; null = all of it
    "start": pl.Float64(),  # seconds into the media; null = from the beginning
    "end": pl.Float64(),  # seconds; null = to the end
    "duration": pl.Float64(),  # seconds of the clip as decoded or probed
    "text": pl.String(),
    "language": pl.String(),
    "speaker": pl.String(),
    "dialogue": pl.String(),
    "turn": pl.Int64(),  # order inside the dialogue, from 0
    "target": pl.Boolean(),  # false: a turn that others are understood by, in no fold, never trained or scored on
    "session": pl.String(),
    "emotion": pl.String(),  # by name, never by position
    "sentiment": pl.String(),
    "valence": pl.Float64(),  # [-1, 1]
    "arousal": pl.Float64(),  # [-1, 1]
    "dominance": pl.Float64(),  # [-1, 1]
    "labels": pl.String(),  # corpus-specific extra labels as JSON, or null
    "content": pl.String(),  # hash of the media bytes and the cut, the clip's identity in caches
    "video_hash": pl.String(),  # of the medium's bytes alone, by which a file put in its place later is known
    "audio_hash": pl.String(),
}

#: What a model is asked to predict. Held-out rows have these nulled; `truth.parquet` keeps them.
LABELS = ("emotion", "sentiment", "valence", "arousal", "dominance", "labels")

#: Columns of `data/annotations.parquet`: frame-level truth of clips that may be trained on.
ANNOTATIONS: dict[str, pl.DataType] = {
    "id": pl.String(),
    "time": pl.Float64(),  # seconds from clip start
    "frame": pl.String(),  # number of the frame as the corpus writes it, or null
    "valence": pl.Float64(),
    "arousal": pl.Float64(),
}

#: Columns of `data/quarantine.parquet`.
QUARANTINE: dict[str, pl.DataType] = {
    "id": pl.String(),
    "media": pl.String(),
    "stage": pl.String(),  # manifest | frames | audio | extract@<stream>
    "reason": pl.String(),  # one of pipeline.reasons.REASONS
    "detail": pl.String(),
}


def frame(rows: list[dict], schema: dict[str, pl.DataType] = SCHEMA) -> pl.DataFrame:
    """A table with exactly the columns of `schema`; keys a row lacks become null.

    >>> frame([{"id": "a", "valence": 0.5}]).select("id", "valence", "emotion").row(0)
    ('a', 0.5, None)
    """
    return pl.DataFrame({name: [row.get(name) for row in rows] for name in schema}, schema=schema)


def write(table: pl.DataFrame, path: str | Path, sort: tuple[str, ...] = ("id",)) -> None:
    """Write a table as parquet, sorted, so that the same rows give the same bytes.

    >>> write(frame([{"id": "b"}, {"id": "a"}]), "a.parquet")
    >>> read("a.parquet")["id"].to_list()
    ['a', 'b']
    """
    with atomic_file(path) as temporary:
        table.sort(*sort, nulls_last=True).write_parquet(temporary, compression="zstd", statistics=False)


def read(path: str | Path) -> pl.DataFrame:
    """Read a table written by `write`.

    Raises:
        StoreError: the file is not there.
    """
    if not Path(path).is_file():
        raise StoreError(f"{path} is not there. Run `dvc repro` (or `make repro`) to make it.")
    return pl.read_parquet(path)
