"""Integrity: is every medium there, readable, and as long as the annotation says?"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.params import Integrity

from .corpora.folder import inside, problem
from .fact import Fact

#: How a pointer of git-lfs begins; it is shorter than any medium.
_STUB, _STUB_BYTES = b"version https://git-lfs", 1024


def precheck(row: dict, root: Path) -> dict | None:
    """The quarantine row of a clip whose media are out of place, absent or empty; None when they are fine."""
    for modality in ("video", "audio"):
        relative = row.get(modality)
        if relative is None:
            continue
        if not inside(root, relative):
            return problem(row["id"], relative, "escape", f"{modality} path leads out of the corpus root")
        path = os.path.join(root, relative)
        try:
            size = os.stat(path)
        except OSError:
            return problem(row["id"], relative, "missing", f"{modality} file is not there")
        if not os.path.isdir(path) and size.st_size == 0:
            return problem(row["id"], relative, "empty", f"{modality} file has no bytes")
        if size.st_size < _STUB_BYTES and os.path.isfile(path) and Path(path).read_bytes().startswith(_STUB):
            return problem(row["id"], relative, "stub", "fetch the files themselves with `git lfs pull`")
    start, end = row.get("start") or 0.0, row.get("end")
    if end is not None and not end > start:
        return problem(row["id"], row.get("video") or row.get("audio"), "empty", f"the cut {start}..{end} s is empty")
    return None


def judge(row: dict, facts: dict[str, Fact], limits: Integrity) -> tuple[dict, list[dict], bool]:
    """(row with duration and the modalities that are really there, quarantine rows, keep it?).

    A film without sound, a silent track or a broken one of two files costs the modality; the clip
    is lost only when no annotated modality is left, or when its length is wrong.
    """
    rows: list[dict] = []
    row = dict(row)
    fine: list[Fact] = []
    lost: list[dict] = []
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
        else:
            fine.append(fact)
    if lost and not fine:
        # The first cause is the one to mend; a soundless film is only interesting when it is alone.
        first = min(lost, key=lambda item: item["reason"] == "no_modality")
        return row, [first], False
    # A missing track is a fact of the recording; a silent or broken one is listed, the clip stays.
    rows += [
        item | {"detail": f"{item['detail']}; the clip stays without it"} for item in lost if item["reason"] != "no_modality"
    ]
    if fine:
        length = _length(row, fine)
        row["duration"] = length
        bad = _bad_length(row, length, limits)
        if bad:
            media = row.get("video") or row.get("audio")
            return row, [problem(row["id"], media, *bad)], False
    return row, rows, True


def _length(row: dict, facts: Iterable[Fact]) -> float | None:
    whole = max((fact.duration for fact in facts if not math.isnan(fact.duration)), default=math.nan)
    if math.isnan(whole):
        # Frame folders: the annotation says how long they last.
        return row.get("expected")
    start, end = row.get("start") or 0.0, row.get("end")
    return max(0.0, (whole if end is None else min(end, whole)) - start)


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
