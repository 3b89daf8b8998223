"""Where the numbers come from, for the report: data card, quarantine, streams."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import h5py
import polars as pl

from ..data import manifest
from ..errors import StoreError
from ..features.store import Status
from ..params import Params

#: In the order people read them.
SPLITS = ("train", "val", "test")

#: Rows of the quarantine shown on the page; the tables hold the rest.
SHOWN = 100


def json_file(path: Path) -> dict | list | None:
    """The JSON value of a file, None when the file is absent.

    Raises:
        StoreError: the file is not JSON.
    """
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise StoreError(f"{path} is not valid JSON ({error}). Delete it and run `dvc repro`.") from error


@dataclass(frozen=True)
class Quarantined:
    """Clips left out: the rows shown (at most `SHOWN`), how many there are, how many per reason."""

    rows: list[dict]
    total: int
    reasons: list[tuple[str, int]]


def quarantine(data: Path, features: Path) -> Quarantined:
    """All `*quarantine.parquet` tables of both folders, in the order of stage, reason and clip."""
    order = {"manifest": 0, "frames": 1, "audio": 2, "faces": 3}
    rows: list[dict] = []
    for folder in (data, features):
        for path in sorted(folder.glob("*quarantine.parquet")):
            rows += manifest.read(path).select([name for name in manifest.QUARANTINE]).to_dicts()
    rows = [{name: value or "" for name, value in row.items()} for row in rows]
    rows.sort(key=lambda row: (order.get(row["stage"], 9), row["stage"], row["reason"], row["id"], row["media"]))
    counted = Counter(row["reason"] for row in rows)
    return Quarantined(rows[:SHOWN], len(rows), sorted(counted.items(), key=lambda item: (-item[1], item[0])))


@dataclass(frozen=True)
class StreamFacts:
    """One stream as it was used.

    Attributes:
        width: numbers per row, e.g. `512` or `4 × 384`.
        random: the weights were drawn at random, not learned by anyone.
        trouble: why the store could not be read, empty when it could.
    """

    name: str
    modality: str
    encoder: str
    weights: str
    random: bool
    sha256: str = ""
    width: str = ""
    rows: int = 0
    ok: int = 0
    missing: int = 0
    failed: int = 0
    float16_error: float | None = None
    trouble: str = ""


def streams(params: Params, features: Path) -> list[StreamFacts]:
    """The streams of the run, by name; a store that is not there says so."""
    return [_stream(name, params, features / f"{name}.h5") for name in sorted(params.streams)]


def _stream(name: str, params: Params, path: Path) -> StreamFacts:
    spec = params.streams[name]
    facts = {"name": name, "modality": spec.modality, "encoder": spec.encoder, "weights": spec.weights,
             "random": spec.weights.startswith("random:")}
    if not path.is_file():
        return StreamFacts(**facts, trouble=f"{path.name} is not there")
    try:
        # The store's reader would load times and, when compressed, all values; a page needs neither.
        with h5py.File(path, "r", locking=False) as file:
            identity = file.attrs.get("identity", "{}")
            identity = json.loads(identity if isinstance(identity, str) else identity.decode())
            source, digest = weights_of(identity, file.attrs.get("weights_sha256", ""))
            status = file["status"][:]
            values = file["values"].shape
            error = file.attrs.get("float16_error") if file["values"].dtype == "float16" else None
    except (OSError, KeyError, ValueError) as problem:
        return StreamFacts(**facts, trouble=f"{path.name} cannot be read ({problem})")
    facts["weights"] = source or spec.weights
    facts["random"] = facts["weights"].startswith("random:")
    count = Counter(status.tolist())
    return StreamFacts(
        **facts, sha256=digest, width=" × ".join(str(n) for n in values[1:]), rows=values[0],
        ok=count[Status.OK], missing=count[Status.MISSING], failed=count[Status.FAILED],
        float16_error=None if error is None else float(error))


def weights_of(identity: dict, fallback: object = "") -> tuple[str, str]:
    """Source and sha256 of the weights as an extractor's identity states them."""
    weights = identity.get("weights")
    if isinstance(weights, dict):
        return str(weights.get("source") or ""), str(weights.get("sha256") or fallback or "")
    return str(weights or ""), str(identity.get("sha256") or identity.get("weights_sha256") or fallback or "")


@dataclass(frozen=True)
class Card:
    """The data in numbers.

    Attributes:
        facts: name and value, ready to show.
        splits: rows of (split, clips, hours, speakers).
        histogram: split → class → count; classes in order of frequency.
        notes: sentences, among them the leaks found.
    """

    facts: list[tuple[str, str]]
    splits: list[dict]
    classes: list[str]
    histogram: dict[str, list[int]]
    notes: list[str]
    leaks: list[str]


def card(data: Path) -> Card | None:
    """The data card, from `card.json` and the manifest; None when neither is there."""
    written = json_file(data / "card.json")
    written = written if isinstance(written, dict) else {}
    path = data / "manifest.parquet"
    table = manifest.read(path) if path.is_file() else manifest.frame([])
    if not written and table.is_empty():
        return None
    facts = [(title, str(written[key])) for key, title in
             (("title", "Corpus"), ("corpus", "Corpus"), ("licence", "Licence"), ("homepage", "Home page"))
             if isinstance(written.get(key), str) and written[key]]
    facts = list(dict(reversed(facts)).items())[::-1]
    facts += _counts(table)
    histogram = class_histogram(written, table)
    totals = Counter({name: n for split in histogram.values() for name, n in split.items()})
    for split in histogram.values():
        totals.update({name: 0 for name in split})
    names = sorted({name for split in histogram.values() for name in split},
                   key=lambda name: (-sum(split.get(name, 0) for split in histogram.values()), name))
    return Card(
        facts=facts,
        splits=_splits(written, table, data),
        classes=names,
        histogram={split: [counts.get(name, 0) for name in names] for split, counts in histogram.items()},
        notes=sentences(written.get("notes")),
        leaks=sentences(written.get("leaks")),
    )


def _counts(table: pl.DataFrame) -> list[tuple[str, str]]:
    if table.is_empty():
        return []
    hours = (table["duration"].sum() or 0) / 3600
    facts = [("Clips", f"{len(table):,}"), ("Length", f"{hours:.2f} h" if hours >= 1 else f"{hours * 60:.1f} min")]
    for column, title in (("speaker", "Speakers"), ("session", "Sessions"), ("dialogue", "Dialogues"), ("language", "Languages")):
        if distinct := table[column].drop_nulls().n_unique():
            facts.append((title, f"{distinct:,}"))
    for column, title in (("video", "With video"), ("audio", "With sound"), ("text", "With text")):
        share = table[column].drop_nulls().len() / len(table)
        facts.append((title, f"{share:.0%}" if share in (0, 1) else f"{share:.1%}"))
    return facts


def _splits(written: dict, table: pl.DataFrame, data: Path) -> list[dict]:
    folds = data / "folds.parquet"
    if folds.is_file() and not table.is_empty():
        joined = pl.read_parquet(folds).join(table.select("id", "duration", "speaker"), on="id", how="inner")
        return [_split(key, part) for key, part in _parts(joined)]
    if table["split"].drop_nulls().len():
        return [_split(key, part) for key, part in
                sorted(((k, table.filter(pl.col("split") == k)) for k in table["split"].drop_nulls().unique()), key=_rank)]
    return []


def _parts(joined: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    many = joined["fold"].n_unique() > 1
    parts = []
    for fold in sorted(joined["fold"].unique().to_list()):
        inside = joined.filter(pl.col("fold") == fold)
        named = [(role, inside.filter(pl.col("role") == role)) for role in inside["role"].drop_nulls().unique()]
        parts += [(f"fold {fold} · {role}" if many else role, part) for role, part in sorted(named, key=_rank)]
    return parts


def _rank(item: tuple[str, object]) -> tuple[int, str]:
    return (SPLITS.index(item[0]) if item[0] in SPLITS else len(SPLITS), item[0])


def _split(name: str, part: pl.DataFrame) -> dict:
    return {"name": name, "clips": len(part), "minutes": (part["duration"].sum() or 0) / 60,
            "speakers": part["speaker"].drop_nulls().n_unique()}


def class_histogram(written: dict, table: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Split → class → clips, as the card counted them before held-out labels were taken away."""
    for key in ("classes", "histogram", "class_histogram", "emotions", "emotion"):
        found = written.get(key)
        if isinstance(found, dict) and found:
            nested = found if all(isinstance(v, dict) for v in found.values()) else {"all": found}
            if all(isinstance(n, int) for counts in nested.values() for n in counts.values()):
                return dict(sorted(nested.items(), key=_rank))
    counted = table["emotion"].drop_nulls().value_counts(sort=True).rows()
    return {"labelled": dict(counted)} if counted else {}


def sentences(value: object) -> list[str]:
    """Notes of any JSON shape as short lines."""
    if value in (None, "", [], {}):
        return []
    if isinstance(value, dict):
        return [f"{key}: {_flat(inner)}" for key, inner in sorted(value.items()) if inner not in (None, "", [], {})]
    if isinstance(value, list):
        return [_flat(inner) for inner in value]
    return [str(value)]


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(inner)}" for key, inner in sorted(value.items()))
    if isinstance(value, list):
        return ", ".join(_flat(inner) for inner in value)
    return str(value)
