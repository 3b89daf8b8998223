"""`corpus check`: what is wrong with a corpus folder, before anything is built from it."""

from __future__ import annotations

import polars as pl

from pipeline.errors import CorpusError, ParamsError
from pipeline.params import Params

from . import coverage, leakage, split
from .card import histogram
from .checked import Checked, check_media


def check_corpus(params: Params, *, strict: bool = False) -> dict:
    """Integrity, labels and leakage of `params.corpus` as JSON values; writes nothing.

    Args:
        strict: one damaged clip or line is not `ok`.

    Returns:
        corpus, licence, clips, context (turns that are no targets), failed, rate, allowed, ok, wrong (why it will not train, in
        sentences), quarantine (reason → count),
        problems (rows), modalities (clips with it, clips that lost it, whether a stream reads it), emotions (class → count),
        sentiments, length (seconds: least, mean, most), leaks and similar_text (sentences), notes.

    Raises:
        CorpusError: the folder or a table is not what the adapter expects.
    """
    found = check_media(params)
    table = found.table
    length = table["duration"].drop_nulls()
    leaks, similar, wrong = [], [], []
    try:
        folds = split.make_folds(table, params.protocol)
        coverage.check_labels(table, folds)
        overlaps = leakage.find_leaks(table, folds, params.protocol.leakage)
        leaks = [str(leak) for leak in leakage.keep_worst(overlaps)]
        similar = [leak.sentence() for leak in leakage.keep_worst(leakage.find_similar_texts(table, folds))]
    except (CorpusError, ParamsError) as error:
        leaks = [f"not checked: {error}"]
        overlaps = []
        wrong.append(str(error))
    in_use = {"video" if stream.modality == "face" else stream.modality for stream in params.streams.values()}
    allowed = 0.0 if strict else params.quarantine.max_rate
    if found.rate > allowed:
        wrong.append(f"{found.summary()}, at most {allowed:.1%} may (quarantine.max_rate)")
    if overlaps and params.protocol.on_leak == "stop":
        wrong.append(leaks[0])
    if params.protocol.kind != "none":
        wrong += _find_unlearnable(params, table)
    return {
        "corpus": found.adapter.name,
        "licence": found.adapter.licence,
        "clips": found.passed,
        "context": int((~table["target"]).sum()),
        "failed": len(found.failures),
        "rate": found.rate,
        "allowed": allowed,
        "ok": not wrong,
        "wrong": wrong,
        "quarantine": histogram(found.quarantine, "reason"),
        "problems": found.quarantine.to_dicts(),
        "modalities": {name: _modality(name, found, name in in_use) for name in ("video", "audio", "text")},
        "emotions": histogram(table, "emotion"),
        "sentiments": histogram(table, "sentiment"),
        "length": {"least": length.min(), "mean": length.mean(), "most": length.max()} if len(length) else None,
        "leaks": leaks,
        "similar_text": similar,
        "notes": found.notes,
    }


def _find_unlearnable(params: Params, table: pl.DataFrame) -> list[str]:
    """Why there is nothing to learn."""
    targets = table.filter("target")
    classes = set(params.task.classes) or set(targets["emotion"].drop_nulls())
    known = classes & set(targets["emotion"].drop_nulls())
    rated = [name for name in params.task.dimensions if targets[name].count()]
    if rated or (params.task.emotion and len(known) > 1):
        return []
    if not params.task.emotion:
        return [f"no clip has {' or '.join(params.task.dimensions)}; choose another task, or protocol=none for features only"]
    what = f"one class alone ({known.pop()})" if known else "no clip has a label"
    return [f"{what}: nothing can be learned; protocol=none gives features only"]


def _modality(name: str, found: Checked, in_use: bool) -> dict[str, int | bool]:
    there = int(found.table.filter("target")[name].is_not_null().sum())
    return {"clips": there, "lost": found.without.get(name, 0), "in_use": in_use}
