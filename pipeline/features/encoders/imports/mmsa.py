"""Feature packs as MMSA and MMSA-FET write them (CMU-MOSI, CMU-MOSEI, CH-SIMS): one pickle, a dict per split.

`{train, valid, test}` each hold `id` (`<video>$_$<clip>`), `raw_text`, labels, and arrays (N, T, D) `text`, `audio`,
`vision`, padded with zeros to one length; packs that are not aligned hold `<name>_lengths` beside them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.errors import ParamsError, WeightsError, one_of

SPLITS = ("train", "valid", "test")
MODALITIES = ("audio", "text", "vision")
#: Between the names of film and clip.
_BETWEEN = "$_$"


def is_pack(content: Any) -> bool:
    """Whether an object is such a pack: its splits have ids and arrays (N, T, D)."""
    parts = [content[split] for split in SPLITS if split in content] if isinstance(content, dict) else []
    return bool(parts) and all(isinstance(part, dict) and "id" in part and _modalities(part) for part in parts)


def _modalities(part: dict) -> list[str]:
    return [name for name in MODALITIES if isinstance(part.get(name), np.ndarray) and part[name].ndim == 3]


def features_of(content: dict[str, dict], key: str | None, path: object) -> dict[str, np.ndarray]:
    """`<video>/<clip>` → (T, D) of one modality, of all splits, without the padding.

    Args:
        key: `audio`, `vision`, `text`, or of one split `train/audio`.

    Raises:
        ParamsError: the key names no modality of the pack.
        WeightsError: ids and rows are not one to one, or an id stands twice.
    """
    *split, name = (key or "").split("/")
    splits = split or [one for one in SPLITS if one in content]
    known = sorted({one for part in splits for one in _modalities(content.get(part, {}))})
    if name not in known:
        if not name:
            raise ParamsError(f"{path} is a pack of several modalities; choose one in options.key: {', '.join(known)}.")
        raise one_of(f"key of {path}", name, known)
    found: dict[str, np.ndarray] = {}
    for one in splits:
        part = content[one]
        if name not in part:
            raise WeightsError(f"{path}: {one} has no {name}.")
        ids, rows = [str(clip) for clip in part["id"]], np.asarray(part[name])
        lengths = part.get(f"{name}_lengths")
        if len(ids) != len(rows) or (lengths is not None and len(lengths) != len(rows)):
            raise WeightsError(f"{path}: {one} has {len(ids)} ids and {len(rows)} rows of {name}; there must be one each.")
        for at, clip in enumerate(ids):
            clip = clip.replace(_BETWEEN, "/")
            if clip in found:
                raise WeightsError(f"{path} names clip {clip!r} twice; keep one.")
            found[clip] = _unpadded(rows[at], None if lengths is None else int(np.ravel(lengths[at])[0]))
    return found


def _unpadded(values: np.ndarray, length: int | None) -> np.ndarray:
    """(T, D) without padding: as long as the pack says, else without the rows of nothing at both ends."""
    if length:
        return values[:length]
    told = np.flatnonzero(values.any(1))
    # Nothing at all is what import calls a missing clip: a row without a number.
    return values[told[0] : told[-1] + 1] if len(told) else np.full_like(values[:1], np.nan, np.float32)
