"""Several corpora as one: clips side by side, labels by their common names (`harmony`), people kept apart."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.errors import ParamsError, one_of
from pipeline.storage.tables import LABELS

from . import harmony
from .corpora.adapter import Tables
from .corpora.folder import problem
from .turns import without_labels


@dataclass(frozen=True)
class Member:
    """One corpus to be joined.

    Attributes:
        folder: its root below the common one, with `/`.
        tables: what its adapter read; media relative to `folder`.
    """

    folder: str
    tables: Tables


def join_corpora(members: Mapping[str, Member], classes: Collection[str] = ()) -> Tables:
    """The tables of several corpora as one.

    Ids begin with the name of their corpus, and so do speakers, sessions and dialogues: people of different corpora
    are different people, whatever their numbers. Media are relative to the common root. An emotion goes by its common
    name; the corpus' own stays in `labels`. A clip whose emotion has no common name (or is not of `classes`) loses it;
    when no other label is left it is listed as `surplus`, and the notes count both.

    Args:
        members: name → corpus.
        classes: common names to keep; empty keeps all.

    Raises:
        ParamsError: a class is no common name.
    """
    if unknown := sorted(set(classes) - set(harmony.COMMON)):
        raise one_of("class of corpus.options.classes", unknown[0], harmony.COMMON, ParamsError)
    kept = set(classes) or set(harmony.COMMON)
    result = Tables(clips=[])
    names: dict[str, dict[str, str]] = {}
    lost: dict[str, dict[str, int]] = {}
    for name, member in members.items():
        named, unmatched = {}, Counter[str]()
        for clip in member.tables.clips:
            clip, label = _move(clip, name, member.folder), clip.get("emotion")
            if label is not None:
                common = harmony.emotion(label)
                clip |= {"emotion": common if common in kept else None, "labels": _with_label(clip.get("labels"), label)}
                if clip["emotion"] is None:
                    unmatched[label] += 1
                    if all(clip.get(other) is None for other in LABELS if other != "labels"):
                        why = "has no common name" if common is None else f"is {common}, not among corpus.options.classes"
                        media = clip.get("video") or clip.get("audio")
                        result.problems.append(problem(clip["id"], media, "surplus", f"{label} {why}; no other label is left"))
                        if clip.get("dialogue") is not None and clip.get("turn") is not None:
                            result.clips.append(without_labels(clip))
                        continue
                else:
                    named[label] = clip["emotion"]
            result.clips.append(clip)
        names[name], lost[name] = dict(sorted(named.items())), dict(sorted(unmatched.items()))
        result.annotations += [row | {"id": _own(row["id"], name)} for row in member.tables.annotations]
        result.problems += [_move_problem(row, name, member.folder) for row in member.tables.problems]
    result.notes = {
        "clips per corpus": dict(sorted(Counter(clip["corpus"] for clip in result.clips).items())),
        "emotions by their common names": names,
        "clips that lost an emotion without a counterpart": {name: counts for name, counts in lost.items() if counts},
        **{name: member.tables.notes for name, member in members.items() if member.tables.notes},
    }
    return result


def _own(value: str, name: str) -> str:
    """`value` beginning with the name of its corpus."""
    return value if value.startswith(f"{name}/") else f"{name}/{value}"


def _move(clip: dict, name: str, folder: str) -> dict:
    moved = clip | {"id": _own(clip["id"], name), "corpus": name}
    for column in ("speaker", "session", "dialogue"):
        if clip.get(column) is not None:
            moved[column] = f"{name}/{clip[column]}"
    for column in ("video", "audio"):
        if clip.get(column) is not None:
            moved[column] = str(PurePosixPath(folder, clip[column]))
    if clip.get("where"):
        moved["where"] = f"{name}: {clip['where']}"
    return moved


def _move_problem(row: dict, name: str, folder: str) -> dict:
    moved = {"id": row["id"] and _own(row["id"], name), "media": row["media"] and str(PurePosixPath(folder, row["media"]))}
    return row | moved


def _with_label(labels: str | None, emotion: str) -> str:
    """The manifest's `labels` with the corpus' own name of the emotion."""
    return json.dumps({**json.loads(labels or "{}"), "emotion": emotion}, sort_keys=True, ensure_ascii=False)
