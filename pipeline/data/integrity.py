"""Integrity: is every medium there, readable, and as long as the annotation says?"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.params import Integrity

from .corpora.folder import fault, inside, problem
from .fact import Fact

#: How a pointer of git-lfs begins; it is shorter than any medium.
_STUB, _STUB_BYTES = b"version https://git-lfs", 1024


def precheck(row: dict, root: Path) -> tuple[dict, list[dict]]:
    """(row with the media that are in place, quarantine rows of those that are absent, empty or no files).

    Each medium is judged by itself: a film that is a pointer of git-lfs costs the film, not the sound beside it.
    """
    start, end = row.get("start") or 0.0, row.get("end")
    media = [m for m in ("video", "audio") if row.get(m)]
    if end is not None and not end > start:
        cut = problem(row["id"], row[media[0]] if media else None, "empty", f"the cut {start}..{end} s is empty")
        return row | dict.fromkeys(media), [cut]
    row = dict(row)
    lost: dict[str, dict] = {}
    for modality in media:
        relative = row[modality]
        if bad := _misplaced(root, relative, modality):
            lost.setdefault(relative, problem(row["id"], relative, *bad))
            row[modality] = None
    return row, list(lost.values())


def _misplaced(root: Path, relative: str, modality: str) -> tuple[str, str] | None:
    if not inside(root, relative):
        return "escape", f"{modality} path leads out of the corpus root"
    path = os.path.join(root, relative)
    if bad := fault(path):
        return bad[0], f"{modality} file is not there" if bad[1] == "is not there" else f"{modality}: {bad[1]}"
    if not os.access(path, os.R_OK | (os.X_OK if os.path.isdir(path) else 0)):
        return "access", f"{modality}: may not be read; mend its permissions"
    if os.path.isdir(path):
        return None
    size = os.path.getsize(path)
    if size == 0:
        return "empty", f"{modality} file has no bytes"
    if size < _STUB_BYTES and Path(path).read_bytes().startswith(_STUB):
        return "stub", f"{modality}: fetch the files themselves with `git lfs pull`"
    return None


def judge(row: dict, facts: dict[str, Fact], limits: Integrity, lost: Sequence[dict] = ()) -> tuple[dict, list[dict], bool]:
    """(row with duration and the modalities that are really there, quarantine rows, keep it?).

    A film without sound, a silent track, a broken one of two files or one that is too long costs that modality; the
    clip is lost only when no annotated modality is left. Its first row is then the one that counts.

    Args:
        lost: what `precheck` found.
    """
    row, lost = dict(row), list(lost)
    had = bool(lost) or any(row.get(m) for m in ("video", "audio"))
    for modality in ("video", "audio"):
        path = row.get(modality)
        if path is None:
            continue
        fact = facts[path]
        reason, detail = fact.reason, fact.detail
        if not reason and modality in fact.lost:
            reason, detail = fact.lost[modality]
        if not reason and not getattr(fact, modality):
            reason, detail = "no_modality", f"the file has no {modality}"
        if not reason and modality == "audio" and fact.level is not None and fact.level < limits.silence:
            reason, detail = "silent", f"{fact.level:.0f} dBFS in its loudest second"
        if reason:
            lost.append(problem(row["id"], path, reason, f"{modality}: {detail}"))
            row[modality] = None
    lengths: list[float] = []
    refused: list[float] = []
    for path in dict.fromkeys(row[m] for m in ("video", "audio") if row.get(m)):
        length = _length(row, facts[path])
        if bad := _bad_length(row, length, limits):
            tracks = [m for m in ("video", "audio") if row.get(m) == path]
            lost.append(problem(row["id"], path, bad[0], f"{' and '.join(tracks)}: {bad[1]}"))
            row |= dict.fromkeys(tracks)
            refused += [] if length is None else [length]
        elif length is not None:
            lengths.append(length)
    if had:
        row["duration"] = max(lengths or refused, default=None)
    if had and not any(row.get(m) for m in ("video", "audio")):
        return row, _first_cause(lost), False
    # A missing track is a fact of the recording; a silent or broken one is listed, the clip stays.
    return row, [p | {"detail": f"{p['detail']}; the clip stays without it"} for p in lost if p["reason"] != "no_modality"], True


def _first_cause(lost: list[dict]) -> list[dict]:
    """One row per medium, the cause to mend first; a soundless film is only interesting when it is alone."""
    first: dict[str, dict] = {}
    for item in sorted(lost, key=lambda item: item["reason"] == "no_modality"):
        first.setdefault(item["media"], item)
    return list(first.values())


def _length(row: dict, fact: Fact) -> float | None:
    if math.isnan(fact.duration):
        # Frame folders: the annotation says how long they last.
        return row.get("expected")
    start, end = row.get("start") or 0.0, row.get("end")
    return max(0.0, (fact.duration if end is None else min(end, fact.duration)) - start)


def _bad_length(row: dict, length: float | None, limits: Integrity) -> tuple[str, str] | None:
    if length is None:
        return None
    expected = row.get("expected")
    if expected is None and row.get("end") is not None:
        expected = row["end"] - (row.get("start") or 0.0)
    if length < limits.min_duration:
        return "too_short", f"{length:.3f} s, least is {limits.min_duration} s"
    if length > limits.max_duration:
        return "too_long", f"{length:.3f} s, most is {limits.max_duration} s"
    if expected is not None and abs(length - expected) > limits.max_drift:
        return "drift", f"{length:.3f} s, annotated {expected:.3f} s, allowed difference {limits.max_drift} s"
    return None


def unique_media(rows: Sequence[dict]) -> list[str]:
    """Media paths of the rows, once each, sorted."""
    return sorted({row[m] for row in rows for m in ("video", "audio") if row.get(m)})
