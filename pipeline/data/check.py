"""`corpus check`: what is wrong with a corpus folder, before anything is built from it."""

from __future__ import annotations

from pipeline.errors import CorpusError, ParamsError
from pipeline.params import Params

from . import leakage, split
from .build import check_media
from .card import histogram


def check_corpus(params: Params, *, strict: bool = False) -> dict:
    """Integrity, labels and leakage of `params.corpus` as JSON values; writes nothing.

    Args:
        strict: one damaged clip or line is not `ok`.

    Returns:
        corpus, licence, clips, failed, rate, allowed, ok, quarantine (reason → count), problems (rows),
        emotions (class → count), sentiments, length (seconds: least, mean, most), leaks and similar_text (sentences), notes.

    Raises:
        CorpusError: the folder or a table is not what the adapter expects.
    """
    found = check_media(params)
    table = found.table
    length = table["duration"].drop_nulls()
    leaks, similar = [], []
    try:
        folds = split.make_folds(table, params.protocol)
        overlaps = leakage.find_leaks(table, folds, params.protocol.leakage)
        leaks = [str(leak) for leak in leakage.keep_worst(overlaps)]
        similar = [leak.sentence() for leak in leakage.keep_worst(leakage.find_similar_texts(table, folds))]
    except (CorpusError, ParamsError) as error:
        leaks = [f"not checked: {error}"]
        overlaps = []
    allowed = 0.0 if strict else params.quarantine.max_rate
    stops = bool(overlaps) and params.protocol.on_leak == "stop"
    return {
        "corpus": found.adapter.name,
        "licence": found.adapter.licence,
        "clips": table.height,
        "failed": len(found.failures),
        "rate": found.rate,
        "allowed": allowed,
        "ok": found.rate <= allowed and not stops,
        "quarantine": histogram(found.quarantine, "reason"),
        "problems": found.quarantine.to_dicts(),
        "emotions": histogram(table, "emotion"),
        "sentiments": histogram(table, "sentiment"),
        "length": {"least": length.min(), "mean": length.mean(), "most": length.max()} if len(length) else None,
        "leaks": leaks,
        "similar_text": similar,
        "notes": found.notes,
    }
