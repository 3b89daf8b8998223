"""Stage `manifest`: a corpus folder becomes tables that can be trusted."""

from __future__ import annotations

import logging
from pathlib import Path

import polars as pl

from pipeline.errors import QuarantineError
from pipeline.params import Params, Protocol
from pipeline.storage import tables as manifest
from pipeline.storage.atomic import write_json

from . import coverage, fold_file, leakage, split, turns
from .card import make_card
from .checked import ORDER, check_media
from .corpora.folder import problem

log = logging.getLogger(__name__)


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
    manifest.write(found.quarantine, out / "quarantine.parquet", sort=ORDER)
    limit = 0.0 if strict else params.quarantine.max_rate
    if found.rate > limit:
        raise QuarantineError(
            f"{found.summary()}. At most {limit:.1%} may fail (quarantine.max_rate); see {out / 'quarantine.parquet'}."
        )
    table = found.table
    for modality, lost in found.without.items():
        log.warning("%d of %d clips lost their %s; data/quarantine.parquet says why", lost, table.height, modality)
    folds = split.make_folds(table, params.protocol)
    coverage.check_labels(table, folds)
    quarantine = pl.concat([found.quarantine, _list_unplaced(table, folds)]).sort(*ORDER, nulls_last=True)
    manifest.write(quarantine, out / "quarantine.parquet", sort=ORDER)
    leaks = leakage.find_leaks(table, folds, params.protocol.leakage)
    leakage.enforce(leaks, params.protocol)
    near = leakage.find_similar_texts(table, folds) if "text" not in params.protocol.leakage else []
    told = _tell_folds(table, folds, params.protocol)
    write_json(
        out / "card.json",
        make_card(
            found.adapter, table, folds, quarantine, leakage.keep_worst(leaks), leakage.keep_worst(near), found.notes | told
        ),
    )
    held_out = _select_held_out(table, folds)
    single = split.is_single(folds)
    if single:
        table = turns.share_split(table, folds)
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


def _select_held_out(table: pl.DataFrame, folds: pl.DataFrame) -> pl.DataFrame:
    """Ids of the clips whose truth is evaluated."""
    if split.is_single(folds):
        return folds.filter(pl.col("role") == "test").select("id")
    return table.filter("target").select("id")


def _tell_folds(table: pl.DataFrame, folds: pl.DataFrame, protocol: Protocol) -> dict[str, object]:
    """What the card says of the folds: nothing where nothing is amiss."""
    table = table.filter("target")
    told: dict[str, object] = dict(coverage.find_untaught(table, folds))
    if protocol.kind in ("kfold", "leave_one_out", "split"):
        told |= coverage.find_groupless(table, protocol.group)
    if protocol.kind == "file":
        told |= fold_file.find_strangers(table, protocol)
    for what, value in told.items():
        log.warning("%s: %s", what, value)
    return told


def _list_unplaced(table: pl.DataFrame, folds: pl.DataFrame) -> pl.DataFrame:
    """Rows of quarantine of the clips that no fold has."""
    lone = table.filter("target").join(folds, on="id", how="anti")["id"]
    detail = "the protocol has no fold for it: neither trained nor scored on"
    return manifest.frame([problem(clip, None, "no_fold", detail) for clip in lone], manifest.QUARANTINE)
