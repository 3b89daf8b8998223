"""The data card: what a manifest holds, in numbers a person can check."""

from __future__ import annotations

import polars as pl

from pipeline.storage.tables import LABELS

from .corpora.adapter import Adapter
from .leakage import Leak


def make_card(
    adapter: Adapter,
    table: pl.DataFrame,
    folds: pl.DataFrame,
    quarantine: pl.DataFrame,
    leaks: list[Leak],
    similar: list[Leak],
    notes: dict[str, object],
) -> dict:
    """Counts, hours, class histograms per role, speakers, leaks, quarantine and notes as JSON values.

    Args:
        table: every clip with its labels, before the held-out ones are taken out; turns that are no targets are only counted.
        folds: table of `split.FOLDS`; the histograms are of fold 0.
        similar: near-identical texts between splits.
    """
    context = int((~table["target"]).sum())
    table = table.filter("target")
    first = folds.filter(pl.col("fold") == 0).select("id", "role")
    roles = table.join(first, on="id")
    return {
        "corpus": adapter.name,
        "title": adapter.title,
        "licence": adapter.licence,
        "homepage": adapter.homepage,
        "scale": list(adapter.scale),
        "clips": table.height,
        "context": context,
        "hours": _hours(table),
        "folds": int(folds["fold"].n_unique()),
        "modalities": {name: int(table[name].is_not_null().sum()) for name in ("video", "audio", "text")},
        "speakers": int(table["speaker"].drop_nulls().n_unique()),
        "dialogues": int(table["dialogue"].drop_nulls().n_unique()),
        "sessions": int(table["session"].drop_nulls().n_unique()),
        "languages": sorted(table["language"].drop_nulls().unique().to_list()),
        "emotions": histogram(table, "emotion"),
        "sentiments": histogram(table, "sentiment"),
        "roles": {role: _part(roles.filter(pl.col("role") == role)) for role in ("train", "val", "test")},
        "labelled": {name: int(table[name].is_not_null().sum()) for name in LABELS},
        "leaks": [leak.plain() for leak in leaks],
        "similar_text": [leak.plain() | {"said": leak.sentence()} for leak in similar],
        "quarantine": histogram(quarantine, "reason"),
        "notes": notes,
    }


def histogram(table: pl.DataFrame, column: str) -> dict[str, int]:
    """How often each value occurs, sorted by value; nulls are left out."""
    return dict(table[column].drop_nulls().value_counts().sort(column).iter_rows())


def _hours(table: pl.DataFrame) -> float:
    return round(float(table["duration"].fill_null(0.0).sum()) / 3600, 4)


def _part(table: pl.DataFrame) -> dict:
    means = {name: _mean(table[name]) for name in ("valence", "arousal", "dominance")}
    return {
        "clips": table.height,
        "hours": _hours(table),
        "speakers": int(table["speaker"].drop_nulls().n_unique()),
        "emotions": histogram(table, "emotion"),
        "sentiments": histogram(table, "sentiment"),
        "dimensions": {name: value for name, value in means.items() if value is not None},
    }


def _mean(values: pl.Series) -> dict[str, float] | None:
    values = values.drop_nulls()
    if not len(values):
        return None
    # A population of one has a spread of nought, not none.
    array = values.to_numpy()
    return {"mean": round(float(array.mean()), 6), "std": round(float(array.std()), 6)}
