"""Stage `manifest`: a corpus folder becomes tables that can be trusted."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pipeline.errors import CorpusError, QuarantineError
from pipeline.params import Params
from pipeline.reasons import BENIGN
from pipeline.storage import tables as manifest
from pipeline.storage.atomic import write_json

from . import corpora, hashing, leakage, split
from .card import make_card
from .corpora.adapter import Adapter
from .corpora.folder import locate, out_of_place, problem
from .examine import examine_media
from .integrity import judge, precheck, unique_media

_QUARANTINE_ORDER = ("id", "media", "reason", "detail")


@dataclass(frozen=True)
class Checked:
    """A corpus after the media check, before any split.

    Attributes:
        adapter: whose corpus it is.
        table: clips that passed, with `content` and `duration`, sorted by id.
        annotations: frame-level truth of those clips.
        quarantine: rows of `manifest.QUARANTINE`, sorted.
        failures: the rows of it that tell of a clip or line lost (not of surplus files or masked modalities).
        notes: the adapter's facts, and what the check adds.
    """

    adapter: Adapter
    table: pl.DataFrame
    annotations: pl.DataFrame
    quarantine: pl.DataFrame
    failures: list[dict]
    notes: dict[str, object]

    @property
    def rate(self) -> float:
        """Lost as a share of all that was annotated."""
        return len(self.failures) / max(1, len(self.failures) + self.table.height)

    def summary(self) -> str:
        """What was lost and why, in one line."""
        reasons = ", ".join(
            f"{count} {reason}"
            for reason, count in sorted(Counter(f["reason"] for f in self.failures).items(), key=lambda r: (-r[1], r[0]))
        )
        total = len(self.failures) + self.table.height
        first = self.failures[0] if self.failures else None
        example = f"; e.g. {first['id'] or first['media']}: {first['detail']}" if first else ""
        return f"{len(self.failures)} of {total} clips ({self.rate:.1%}) failed: {reasons}{example}"


def build_manifest(params: Params, out: Path = Path("data"), *, strict: bool = False) -> None:
    """Write the tables of `params.corpus` to `out`.

    manifest.parquet (labels of the test clips taken out, when the protocol makes one split), truth.parquet
    (id and labels of the test clips; of all clips when it makes folds), annotations.parquet and
    truth_annotations.parquet likewise, folds.parquet, quarantine.parquet, card.json.

    Args:
        strict: one damaged clip or line stops the run.

    Raises:
        CorpusError, ParamsError: the corpus or the protocol is not what it should be.
        QuarantineError: too many clips failed; quarantine.parquet is written first.
        LeakageError: two splits share what they must not.
    """
    out = Path(out)
    found = check_media(params)
    manifest.write(found.quarantine, out / "quarantine.parquet", sort=_QUARANTINE_ORDER)
    limit = 0.0 if strict else params.quarantine.max_rate
    if found.rate > limit:
        raise QuarantineError(
            f"{found.summary()}. At most {limit:.1%} may fail (quarantine.max_rate); see {out / 'quarantine.parquet'}."
        )
    table = found.table
    folds = split.make_folds(table, params.protocol)
    leaks = leakage.find_leaks(table, folds, params.protocol.leakage)
    leakage.enforce(leaks, params.protocol)
    near = leakage.find_similar_texts(table, folds) if "text" not in params.protocol.leakage else []
    write_json(
        out / "card.json",
        make_card(
            found.adapter, table, folds, found.quarantine, leakage.keep_worst(leaks), leakage.keep_worst(near), found.notes
        ),
    )
    held_out = _select_held_out(table, folds, params)
    single = split.is_single(params.protocol)
    if single:
        table = table.drop("split").join(folds.select("id", pl.col("role").alias("split")), on="id")
    else:
        table = table.with_columns(split=pl.lit(None, pl.String))
    truth = table.join(held_out, on="id", how="semi").select("id", *manifest.LABELS)
    is_hidden = pl.col("id").is_in(held_out["id"].implode()) if single else pl.lit(False)
    public = table.with_columns(
        pl.when(is_hidden).then(None).otherwise(pl.col(name)).alias(name) for name in manifest.LABELS
    ).select(*manifest.SCHEMA)
    hidden = found.annotations.join(held_out, on="id", how="semi")
    shown = found.annotations.join(held_out, on="id", how="anti") if single else found.annotations
    manifest.write(public, out / "manifest.parquet")
    manifest.write(truth, out / "truth.parquet")
    manifest.write(shown, out / "annotations.parquet", sort=("id", "time"))
    manifest.write(hidden, out / "truth_annotations.parquet", sort=("id", "time"))
    manifest.write(folds, out / "folds.parquet", sort=("fold", "id"))


def _select_held_out(table: pl.DataFrame, folds: pl.DataFrame, params: Params) -> pl.DataFrame:
    """Ids of the clips whose truth is evaluated."""
    if split.is_single(params.protocol):
        return folds.filter(pl.col("role") == "test").select("id")
    return table.select("id")


def check_media(params: Params) -> Checked:
    """Read the corpus, hash and examine its media, and put aside what is damaged.

    Raises:
        CorpusError: unknown corpus, absent folder, table that cannot be read, no clip at all.
    """
    adapter = corpora.open_corpus(params.corpus)
    tables = adapter.read()
    root = Path(params.corpus.root)
    rows, doubled = _drop_repeated_ids(tables.clips)
    rows, absent = _drop_absent(rows, root)
    rows, broken, masked = _judge_media(rows, root, params)
    places = {m: os.path.join(root, m) for m in unique_media(rows)}
    hashes = hashing.hash_media(list(places.values()), max(2, params.run.workers))
    hashes = {m: hashes[place] for m, place in places.items()}
    rows, unread = _drop_unread(rows, hashes)
    rows, twins = _drop_twins([row | _identify(row, hashes) for row in rows])
    failures = [p for p in tables.problems if p["reason"] not in BENIGN] + doubled + absent + broken + unread + twins
    problems = [p for p in tables.problems if p["reason"] in BENIGN] + masked + failures
    table = manifest.frame(rows).sort("id")
    if not table.height and not problems:
        raise CorpusError(f"{root} holds no clips of {adapter.title}. Expected {adapter.layout}.")
    annotations = manifest.frame(tables.annotations, manifest.ANNOTATIONS).join(table, on="id", how="semi")
    notes = dict(tables.notes)
    kept = set(table["id"])
    given = {m: sum(c.get(m) is not None for c in tables.clips if c["id"] in kept) for m in ("video", "audio")}
    for modality in ("video", "audio"):
        if gone := given[modality] - int(table[modality].is_not_null().sum()):
            notes[f"clips without the {modality} they were listed with"] = gone
    quarantine = manifest.frame(problems, manifest.QUARANTINE).sort(*_QUARANTINE_ORDER, nulls_last=True)
    return Checked(adapter, table, annotations, quarantine, failures, notes)


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


def _drop_absent(rows: list[dict], root: Path) -> tuple[list[dict], list[dict]]:
    kept: list[dict] = []
    lost: list[dict] = []
    for row in rows:
        row |= {m: locate(root, row[m]) for m in ("video", "audio") if row.get(m)}
        bad = out_of_place(row, root) or precheck(row, root)
        (lost if bad else kept).append(bad | {"detail": bad["detail"] + _where(row)} if bad else row)
    return kept, lost


def _where(row: dict) -> str:
    """Table and line of a clip, where its adapter told them."""
    return f" ({row['where']})" if row.get("where") else ""


def _judge_media(rows: list[dict], root: Path, params: Params) -> tuple[list[dict], list[dict], list[dict]]:
    """(clips kept, rows of those lost, rows of modalities lost)."""
    places = {path: os.path.join(root, path) for path in unique_media(rows)}
    absolute = examine_media(list(places.values()), params) if places else {}
    known = {path: absolute[place] for path, place in places.items()}
    kept: list[dict] = []
    broken: list[dict] = []
    masked: list[dict] = []
    for row in rows:
        row, listed, keep = judge(row, known, params.integrity)
        (masked if keep else broken).extend(listed)
        if keep:
            kept.append(row)
    return kept, broken, masked


def _drop_unread(rows: list[dict], hashes: dict[str, str | None]) -> tuple[list[dict], list[dict]]:
    """Put aside the clips of media whose bytes could not be read to the end: they have no identity."""
    kept: list[dict] = []
    unread: list[dict] = []
    for row in rows:
        media = next((row[m] for m in ("video", "audio") if row.get(m) and hashes[row[m]] is None), None)
        if media is None:
            kept.append(row)
        else:
            unread.append(problem(row["id"], media, "access", f"the file vanished or could not be read to its end{_where(row)}"))
    return kept, unread


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
