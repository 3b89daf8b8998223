"""A corpus whose media were looked at: what is there, what was lost, and why."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pipeline.errors import CorpusError
from pipeline.params import Params
from pipeline.reasons import BENIGN
from pipeline.storage import tables as manifest

from . import corpora, hashing, turns
from .corpora.adapter import Adapter
from .corpora.folder import locate, problem
from .examine import examine_media
from .integrity import judge, precheck, unique_media

#: How rows of quarantine are sorted.
ORDER = ("id", "media", "reason", "detail")


@dataclass(frozen=True)
class Checked:
    """A corpus after the media check, before any split.

    Attributes:
        adapter: whose corpus it is.
        table: clips that passed, with `content` and `duration`, and what is left of the others as turns; sorted by id.
        annotations: frame-level truth of the clips that passed.
        quarantine: rows of `manifest.QUARANTINE`, sorted.
        failures: the rows of it that tell of a clip or line lost (not of surplus files or masked modalities).
        passed: how many clips passed.
        without: `video`, `audio` → clips that passed without the one they were listed with.
        notes: the adapter's facts, and what the check adds.
    """

    adapter: Adapter
    table: pl.DataFrame
    annotations: pl.DataFrame
    quarantine: pl.DataFrame
    failures: list[dict]
    passed: int
    without: dict[str, int]
    notes: dict[str, object]

    @property
    def rate(self) -> float:
        """Lost as a share of all that was annotated."""
        return len(self.failures) / max(1, len(self.failures) + self.passed)

    def summary(self) -> str:
        """What was lost and why, in one line."""
        reasons = ", ".join(
            f"{count} {reason}"
            for reason, count in sorted(Counter(f["reason"] for f in self.failures).items(), key=lambda r: (-r[1], r[0]))
        )
        total = len(self.failures) + self.passed
        first = self.failures[0] if self.failures else None
        example = f"; e.g. {first['id'] or first['media']}: {first['detail']}" if first else ""
        return f"{len(self.failures)} of {total} clips ({self.rate:.1%}) failed: {reasons}{example}"


def check_media(params: Params) -> Checked:
    """Read the corpus, hash and examine its media, and put aside what is damaged.

    Raises:
        CorpusError: unknown corpus, absent folder, table that cannot be read, no clip at all.
    """
    adapter = corpora.open_corpus(params.corpus)
    tables = adapter.read()
    root = Path(params.corpus.root)
    listed, doubled = _drop_repeated_ids(tables.clips)
    rows, broken, masked = _judge_media(listed, root, params)
    places = {m: os.path.join(root, m) for m in unique_media(rows)}
    found = hashing.hash_media(list(places.values()), max(2, params.run.workers))
    hashes = {m: found[place] for m, place in places.items()}
    rows, unread, lapsed = _drop_unread(rows, hashes)
    rows, twins = _drop_twins([row | _identify(row, hashes) for row in rows])
    lines, surplus = _lost_lines(tables.problems, rows, broken + masked)
    failures = lines + doubled + broken + unread + twins
    problems = surplus + masked + lapsed + failures
    kept = {row["id"] for row in rows}
    silent = [turn | _identify(turn, {}) for turn in turns.left_of(clip for clip in listed if clip["id"] not in kept)]
    table = manifest.frame(rows + silent).with_columns(pl.col("target").fill_null(True)).sort("id")
    if not table.height and not problems:
        raise CorpusError(f"{root} holds no clips of {adapter.title}. Expected {adapter.layout}.")
    passed = table.filter(pl.col("id").is_in(list(kept)))
    annotations = manifest.frame(tables.annotations, manifest.ANNOTATIONS).join(passed, on="id", how="semi")
    without = {}
    for modality in ("video", "audio"):
        given = sum(clip.get(modality) is not None for clip in listed if clip["id"] in kept)
        if gone := given - int(passed[modality].is_not_null().sum()):
            without[modality] = gone
    notes = tables.notes | {f"clips without the {modality} they were listed with": gone for modality, gone in without.items()}
    notes |= turns.count(table, len(silent))
    quarantine = manifest.frame(problems, manifest.QUARANTINE).sort(*ORDER, nulls_last=True)
    return Checked(adapter, table, annotations, quarantine, failures, len(rows), without, notes)


def _lost_lines(problems: list[dict], rows: list[dict], told: list[dict]) -> tuple[list[dict], list[dict]]:
    """(the adapter's rows that each tell of a clip lost, the others).

    None is lost by surplus, by one of a clip's files while the clip stays, or by a file that the check tells of again.
    """
    kept = {row["id"] for row in rows if row.get("target") is not False}
    media = {row["media"] for row in told}
    lost = [p["reason"] not in BENIGN and p["id"] not in kept and (p["id"] or p["media"] not in media) for p in problems]
    return [p for p, is_lost in zip(problems, lost, strict=True) if is_lost], [
        p for p, is_lost in zip(problems, lost, strict=True) if not is_lost
    ]


def _drop_repeated_ids(clips: list[dict]) -> tuple[list[dict], list[dict]]:
    seen = Counter(clip["id"] for clip in clips)
    rows, doubled, taken = [], [], set()
    for clip in clips:
        if clip["id"] in taken:
            doubled.append(
                problem(
                    clip["id"],
                    clip.get("video") or clip.get("audio"),
                    "duplicate",
                    f"the id occurs {seen[clip['id']]} times; the first is kept{_where(clip)}",
                )
            )
        else:
            taken.add(clip["id"])
            rows.append(clip)
    return rows, doubled


def _where(row: dict) -> str:
    """Table and line of a clip, where its adapter told them."""
    return f" ({row['where']})" if row.get("where") else ""


def _judge_media(clips: list[dict], root: Path, params: Params) -> tuple[list[dict], list[dict], list[dict]]:
    """(clips kept, a row of each clip lost, the other rows: of modalities lost)."""
    placed = []
    for clip in clips:
        row = clip | {m: locate(root, clip[m]) for m in ("video", "audio") if clip.get(m)}
        placed.append(precheck(row, root))
    places = {path: os.path.join(root, path) for path in unique_media([row for row, _ in placed])}
    absolute = examine_media(list(places.values()), params) if places else {}
    known = {path: absolute[place] for path, place in places.items()}
    kept: list[dict] = []
    broken: list[dict] = []
    masked: list[dict] = []
    for row, lost in placed:
        row, listed, keep = judge(row, known, params.integrity, lost)
        listed = [item | {"detail": item["detail"] + _where(row)} for item in listed]
        if keep:
            kept.append(row)
        if keep or row.get("target") is False:  # a turn that is no target is no clip lost: what was said stays
            masked += listed
        else:
            broken.append(listed[0])
            masked += listed[1:]
    return kept, broken, masked


def _drop_unread(rows: list[dict], hashes: dict[str, str | None]) -> tuple[list[dict], list[dict], list[dict]]:
    """Put aside media whose bytes could not be read to the end, which have no identity: (clips kept, lost, without a medium)."""
    kept: list[dict] = []
    unread: list[dict] = []
    lapsed: list[dict] = []
    for row in rows:
        gone = [m for m in ("video", "audio") if row.get(m) and hashes[row[m]] is None]
        if gone:
            detail = f"{' and '.join(gone)}: the file vanished or could not be read to its end{_where(row)}"
            listed = problem(row["id"], row[gone[0]], "access", detail)
            row = row | dict.fromkeys(gone)
            (lapsed if any(row.get(m) for m in ("video", "audio")) else unread).append(listed)
        if not gone or any(row.get(m) for m in ("video", "audio")):
            kept.append(row)
    return kept, unread, lapsed


def _identify(row: dict, hashes: dict[str, str | None]) -> dict:
    """The columns that say which bytes the clip is made of."""
    own = {f"{m}_hash": hashes[row[m]] if row.get(m) else None for m in ("video", "audio")}
    return {"content": hashing.identify_clip(row, hashes), **own}


def _drop_twins(rows: list[dict]) -> tuple[list[dict], list[dict]]:
    """Drop repeated media inside a split; between splits they are leakage and stay to be found."""
    first: dict[tuple, str] = {}
    kept, twins = [], []
    for row in sorted(rows, key=lambda item: item["id"]):
        media = row.get("video") or row.get("audio")
        if media is None:
            kept.append(row)
            continue
        key = (row["content"], row.get("split"))
        if key in first:
            twins.append(problem(row["id"], media, "duplicate", f"same media and cut as {first[key]}"))
        else:
            first[key] = row["id"]
            kept.append(row)
    return kept, twins
