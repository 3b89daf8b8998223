"""What all trained runs say of the held-out clips of their folds."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from pipeline.errors import StoreError
from pipeline.params import Params
from pipeline.runs.folders import FUSED
from pipeline.runs.run import TrainedModel
from pipeline.training.data.dataset import Dataset

from . import embeddings, probe
from .calibration import find_temperature
from .predictions import predict_rows, subsets, trace_rows

#: Columns that say whose answer a row is.
KEYS = ("variant", "fold", "seed")


class Answers(NamedTuple):
    """Tables whose first columns are `KEYS`.

    Attributes:
        rows: predictions of clips. traces: predictions at annotated instants.
        kept: of some variants, predictions with streams left out.
        looks: a table per seed of the fused runs, see `embeddings.look_over_time`; without `KEYS`.
        paths: of the first seed of them, see `embeddings.reduce_paths`; without `KEYS`.
        probed: what `probe.Probes` says.
    """

    rows: pl.DataFrame
    traces: pl.DataFrame
    kept: pl.DataFrame
    looks: list[pl.DataFrame]
    paths: pl.DataFrame
    probed: dict[str, object]


def ask_runs(
    params: Params,
    loaded: list[TrainedModel],
    index: str | Path,
    manifest: str | Path,
    folds: str | Path,
    frames: dict[str, np.ndarray],
    thinned: set[str],
) -> Answers:
    """Ask every run of the held-out clips of its fold.

    Args:
        frames: annotations of held-out clips. thinned: variants that are also asked with streams left out.

    Raises:
        StoreError: a fold has no test clip.
    """
    rows, traces, kept, paths = [], [], [], [embeddings.reduce_paths([])]
    looks: dict[int, list[pl.DataFrame]] = {}
    speakers = probe.Probes()
    first = min((run.config["seed"] for run in loaded if run.config["variant"] == FUSED), default=None)
    for fold in sorted({run.config["fold"] for run in loaded}):
        data = Dataset.load(index, manifest, folds, params, fold)
        test = data.rows("test")
        if not len(test):
            raise StoreError(f"fold {fold} has no test clip; see `protocol` in params.yaml.")
        for run in loaded:
            keys = {name: run.config[name] for name in KEYS}
            if run.config["fold"] != fold:
                continue
            found = _frame(keys, predict_rows(run, data, test))
            rows.append(found.with_columns(pl.lit(find_temperature(run, data), pl.Float64()).alias("temperature")))
            if course := trace_rows(run, data, test, frames):
                traces.append(_frame(keys, pl.DataFrame(course)))
            if keys["variant"] == FUSED:
                speakers.ask(run, data)
                seen, moved = embeddings.look_over_time(run, data, test)
                looks.setdefault(keys["seed"], []).append(seen)
                paths += [embeddings.reduce_paths(moved)] if keys["seed"] == first else []
            if keys["variant"] in thinned:
                for keep in subsets(run.streams):
                    drop = frozenset(run.streams) - keep
                    part = _frame(keys, predict_rows(run, data, test, drop)) if drop else found
                    kept.append(part.with_columns(pl.lit("+".join(sorted(keep))).alias("kept")))
    # A fusion may have shares where single streams have none.
    said, traced, thin = (pl.concat(found, how="diagonal") if found else pl.DataFrame() for found in (rows, traces, kept))
    return Answers(said, traced, thin, [pl.concat(parts) for parts in looks.values()], pl.concat(paths), speakers.summarise())


def _frame(keys: dict, columns: dict | pl.DataFrame) -> pl.DataFrame:
    table = pl.DataFrame(columns)
    return table.select(*(pl.lit(value).alias(name) for name, value in keys.items()), pl.all())
