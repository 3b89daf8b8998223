"""The data in numbers, for the report: `data/card.json`, completed from the manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pipeline.storage import tables

from .provenance import read_json

#: In the order people read them.
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Card:
    """The data in numbers.

    Attributes:
        name: the corpus' own.
        facts: name and value, ready to show.
        splits: rows of (split, clips, hours, speakers).
        histogram: split → class → count; classes in order of frequency.
        notes, leaks: sentences.
        checked: the splits were compared; without it no leaks means nothing.
        crops: faces of clips as JPEGs in base64, when `faces.crops` asks for them.
    """

    name: str
    facts: list[tuple[str, str]]
    splits: list[dict]
    classes: list[str]
    histogram: dict[str, list[int]]
    notes: list[str]
    leaks: list[str]
    checked: bool
    crops: list[str]


def read_card(data: Path, folder: str = "") -> Card | None:
    """The data card, from `card.json` and the manifest; None when neither is there.

    Args:
        folder: name of the corpus' folder, for a corpus that has no name of its own.
    """
    written = read_json(data / "card.json")
    written = written if isinstance(written, dict) else {}
    path = data / "manifest.parquet"
    table = tables.read(path) if path.is_file() else tables.frame([])
    if not written and table.is_empty():
        return None
    name = name_corpus(written, table, folder)
    facts = [("Corpus", name)] + [
        (title, str(written[key]))
        for key, title in (("title", "Read as"), ("licence", "Licence"), ("homepage", "Home page"))
        if isinstance(written.get(key), str) and written[key] not in ("", name)
    ]
    faces = read_json(data / "faces.json")
    faces = faces if isinstance(faces, dict) and faces.get("frames") else {}
    facts += _counts(table, read_heard(data))
    if faces:
        facts.append(("Frames with a face", f"{faces['with_face'] / faces['frames'] * 100:.1f} %"))
    histogram = count_classes(written, table)
    names = sorted(
        {name for split in histogram.values() for name in split},
        key=lambda name: (-sum(split.get(name, 0) for split in histogram.values()), name),
    )
    return Card(
        name=name,
        facts=facts,
        splits=_splits(table, data),
        classes=names,
        histogram={split: [counts.get(name, 0) for name in names] for split, counts in histogram.items()},
        notes=list_sentences(written.get("notes")) + _similar(written.get("similar_text")) + _faces(faces),
        leaks=list_leaks(written.get("leaks")),
        checked="leaks" in written,
        crops=faces.get("crops", []),
    )


def name_corpus(written: dict, table: pl.DataFrame, folder: str) -> str:
    """The corpus' own name: the title of a known corpus, else what its clips are named after, else its folder's name."""
    reader = str(written.get("corpus") or "")
    own = sorted(set(table["corpus"].drop_nulls()) - {reader})
    if own:
        return ", ".join(own)
    if reader == "generic" and folder:
        return folder
    return str(written.get("title") or reader or folder)


def read_heard(data: Path) -> set[str]:
    """Clips whose text was recognised."""
    path = data / "transcripts.parquet"
    table = tables.read(path) if path.is_file() else None
    if table is None or not {"id", "text"} <= set(table.columns):
        return set()
    return set(table.filter(pl.col("text").cast(pl.String).str.strip_chars().fill_null("") != "")["id"])


def _counts(table: pl.DataFrame, heard: set[str]) -> list[tuple[str, str]]:
    is_target = pl.col("target").fill_null(True) if "target" in table.columns else pl.lit(True)
    context, table = len(table.filter(~is_target)), table.filter(is_target)
    if table.is_empty():
        return []
    hours = (table["duration"].sum() or 0) / 3600
    facts = [("Clips", f"{len(table):,}"), ("Length", f"{hours:.2f} h" if hours >= 1 else f"{hours * 60:.1f} min")]
    for column, title in (
        ("speaker", "Speakers"),
        ("session", "Sessions"),
        ("dialogue", "Dialogues"),
        ("language", "Languages"),
    ):
        if distinct := table[column].drop_nulls().n_unique():
            facts.append((title, f"{distinct:,}"))
    for column, title in (("video", "With video"), ("audio", "With sound"), ("text", "With text")):
        facts.append((title, _percent(table[column].drop_nulls().len() / len(table))))
    lacking = set(table.filter(pl.col("text").is_null())["id"])
    if lacking & heard:
        facts.append(("With recognised text", _percent(len(lacking & heard) / len(table))))
        if len(lacking) == len(table):
            facts.remove(("With text", _percent(0)))
    if context:
        facts.append(("Turns beside them, without a label", f"{context:,}"))
    return facts


def _percent(share: float) -> str:
    return f"{share * 100:.{0 if share in (0, 1) else 1}f} %"


def _splits(table: pl.DataFrame, data: Path) -> list[dict]:
    folds = data / "folds.parquet"
    known = table.select("id", "duration", "speaker")
    if folds.is_file() and not table.is_empty():
        joined = pl.read_parquet(folds).select("id", "fold", name="role").join(known, on="id", how="inner")
    else:
        joined = known.with_columns(table["split"].alias("name"), pl.lit(0).alias("fold"))
    joined = joined.drop_nulls("name")
    names = sorted(joined["name"].unique())
    return [_split(name, joined.filter(pl.col("name") == name)) for name, _ in sorted(((n, 0) for n in names), key=_rank)]


def _rank(item: tuple[str, object]) -> tuple[int, str]:
    return (SPLITS.index(item[0]) if item[0] in SPLITS else len(SPLITS), item[0])


def _split(name: str, part: pl.DataFrame) -> dict:
    """One row of the table of splits; over several folds each number is a range."""
    folds = part.group_by("fold").agg(
        pl.len().alias("clips"), pl.col("duration").sum() / 60, pl.col("speaker").drop_nulls().n_unique()
    )
    return {
        "name": name if len(folds) == 1 else f"{name}, each of {len(folds)} folds",
        "clips": _range(folds["clips"], 0),
        "minutes": _range(folds["duration"], 1),
        "speakers": _range(folds["speaker"], 0),
    }


def _range(values: pl.Series, digits: int) -> str:
    numbers = values.cast(pl.Float64).drop_nulls().to_list()
    low, high = f"{min(numbers, default=0):,.{digits}f}", f"{max(numbers, default=0):,.{digits}f}"
    return low if low == high else f"{low} – {high}"


def count_classes(written: dict, table: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Split → class → clips, as the card counted them before held-out labels were taken away.

    Over several folds a clip has several roles: the clips of all of them are counted, each once.
    """
    whole = written.get("emotions")
    if isinstance(written.get("folds"), int) and written["folds"] > 1 and isinstance(whole, dict) and whole:
        return {f"all {written['folds']} folds": whole}
    roles = written.get("roles")
    found = {role: part.get("emotions") for role, part in roles.items()} if isinstance(roles, dict) else {}
    found = {role: counts for role, counts in sorted(found.items(), key=_rank) if counts}
    if found:
        return found
    counted = table["emotion"].drop_nulls().value_counts(sort=True).rows()
    return {"labelled": dict(counted)} if counted else {}


def list_sentences(value: object) -> list[str]:
    """Notes of any JSON shape as short lines."""
    if value in (None, "", [], {}):
        return []
    if isinstance(value, dict):
        return [f"{key}: {_flat(inner)}" for key, inner in sorted(value.items()) if inner not in (None, "", [], {})]
    if isinstance(value, list):
        return [_flat(inner) for inner in value]
    return [str(value)]


def _similar(value: object) -> list[str]:
    """Sentences that splits have in common: a fact of the corpus, no leak."""
    found = value if isinstance(value, list) else []
    return [f"Texts: {item['said']}." for item in found if isinstance(item, dict) and isinstance(item.get("said"), str)]


def _faces(told: dict) -> list[str]:
    """How many clips show their face in few frames, and in how many it was chosen by its voice."""
    lines = []
    if told.get("few"):
        share = f"{told['min_share'] * 100:.0f} %"
        lines.append(f"Faces: {told['few']} of {told['clips']} clips show theirs in less than {share} of the frames.")
    if told.get("choice") == "speaking":
        lines.append(f"Faces: in {told['heard']} of {told['clips']} clips chosen by the mouth that moves with the sound.")
    return lines


def list_leaks(value: object) -> list[str]:
    """Leaks as `pipeline.data.leakage.Leak.plain` writes them, one sentence each."""
    found = value if isinstance(value, list) else []
    lines = []
    for leak in found:
        if isinstance(leak, dict) and {"column", "splits", "values"} <= set(leak):
            text = f"{' and '.join(leak['splits'])} share {leak['values']} values of {leak['column']}"
            examples = ", ".join(str(e) for e in leak.get("examples") or ())
            lines.append(
                text
                + (f" ({examples})" if examples else "")
                + (f"; {leak['clips']} clips are affected" if "clips" in leak else "")
                + (f" ({leak['share']:.1%} of {leak['splits'][-1]})" if isinstance(leak.get("share"), float) else "")
            )
        else:
            lines += list_sentences([leak])
    return lines


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(inner)}" for key, inner in sorted(value.items()))
    if isinstance(value, list):
        return ", ".join(_flat(inner) for inner in value)
    return str(value)
