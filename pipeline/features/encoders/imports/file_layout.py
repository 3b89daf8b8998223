"""How somebody else's file of features is laid out, and its rows by clip."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

#: (values (T, ...), times (T, 2) in seconds or None)
Rows = tuple[np.ndarray, np.ndarray | None]
IDS = ("id", "ids", "clip", "name", "names", "file", "filename", "video_id")
VALUES = ("values", "features", "feats", "x", "X", "data")
TABLES = (".csv", ".tsv", ".arff", ".parquet")
SUFFIXES = (*TABLES, ".npy", ".npz", ".h5", ".hdf5", ".pkl", ".pickle", ".pt", ".pth")
#: Endings that are no part of a clip's name.
_MEDIA = (".wav", ".flac", ".mp3", ".m4a", ".ogg", ".mp4", ".avi", ".mov", ".mkv", ".webm", ".jpg", ".png", ".txt")
ENDINGS = (*SUFFIXES, *_MEDIA)


@dataclass(frozen=True)
class Layout:
    """Where ids, values and times stand in the file; null where the file says it by itself.

    Attributes:
        id_column: of a table.
        columns: of a table, also as patterns (`AU*`); null = every numeric one but id, times and what `toolkits` names.
        start_column, end_column: of a table, seconds. One alone is the middle or start of a row.
        key: path of the part to read inside `.h5`, `.npz` or a pickle, e.g. `train/audio`.
        ids: file with the ids of an `.npy` array, one a line or a JSON list.
    """

    id_column: str | None = None
    columns: tuple[str, ...] | None = None
    start_column: str | None = None
    end_column: str | None = None
    key: str | None = None
    ids: str | None = None


class Features(Mapping[str, Rows]):
    """Rows by the file's own clip id, read when asked for. Of a table, `columns` are read and `left` are no features."""

    def __init__(self, rows: dict[str, Callable[[], Rows]], columns: list[str] | None = None, left: Sequence[str] = ()) -> None:
        self._rows, self.columns, self.left = rows, columns, list(left)

    def __getitem__(self, clip: str) -> Rows:
        values, times = self._rows[clip]()
        values = np.asarray(values)
        if values.dtype.kind not in "fiub":
            raise ValueError(f"features of {clip} are not numbers but {values.dtype}")
        return np.atleast_2d(values.astype(np.float32)), times

    def __contains__(self, clip: object) -> bool:
        return clip in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)
