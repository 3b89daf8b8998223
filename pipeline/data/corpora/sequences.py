"""Computational sequences of CMU's multimodal SDK: times and values per video, in HDF5 files that end in `.csd`."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from pipeline.errors import CorpusError
from pipeline.storage.hdf5 import refuse_foreign

from . import folder

#: Numbers or words of one video, at most: an hour of words is some ten thousand.
_MOST = 1_000_000
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)

#: Video → (seconds (N, 2), values (N, D)), numbers or bytes.
Sequence = dict[str, tuple[np.ndarray, np.ndarray]]


def read_sequence(path: Path, problems: list[dict]) -> Sequence:
    """All of a sequence.

    Args:
        problems: gets a row for each video whose entry is damaged.

    Raises:
        CorpusError: the file is not a sequence.
    """
    result: Sequence = {}
    try:
        with h5py.File(path, "r") as file:
            (name,) = file
            refuse_foreign(file, name)
            refuse_foreign(file[name], "data")
            data = file[name]["data"]
            for video in sorted(data):
                try:
                    refuse_foreign(data, video)
                    result[video] = _entry(data[video])
                except _DAMAGE as error:
                    problems.append(folder.problem(None, path.name, "row", f"video {video}: {error}"))
    except _DAMAGE as error:
        raise CorpusError(f"{path} is no computational sequence ({error}); fetch it again.") from error
    return result


def _entry(group: h5py.Group) -> tuple[np.ndarray, np.ndarray]:
    parts = []
    for name in ("intervals", "features"):
        refuse_foreign(group, name)
        if group[name].size > _MOST:
            raise ValueError(f"{name} holds {group[name].size} values")
        parts.append(group[name][()])
    times, values = parts
    if times.ndim != 2 or times.shape[1] != 2 or values.ndim != 2 or len(values) != len(times):
        raise ValueError(f"intervals {times.shape} and features {values.shape} do not belong together")
    return np.asarray(times, float), values


def words_between(sequence: Sequence, video: str, start: float, end: float) -> str | None:
    """What is said from `start` to `end`: words whose middle lies in it, without the marks of silence; None for nothing."""
    if video not in sequence:
        return None
    times, values = sequence[video]
    middle = times.mean(axis=1)
    chosen = values[(start <= middle) & (middle < end), 0]
    words = [word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word) for word in chosen]
    return " ".join(word for word in words if word not in ("sp", "")) or None
