"""What all trained runs say of the held-out clips of their folds, as `train` kept it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from pipeline.errors import StoreError
from pipeline.runs.answers import PATHS, read_answers
from pipeline.runs.folders import FUSED

from . import probe
from .predictions import tell_traces

#: Columns that say whose answer a row is.
KEYS = ("variant", "fold", "seed")


class Said(NamedTuple):
    """Tables whose first columns are `KEYS`.

    Attributes:
        rows: predictions of clips. traces: predictions at annotated instants.
        kept: of some variants, predictions with streams left out.
        looks: a table per seed of the fused runs, see `Answers.looks`; without `KEYS`.
        paths: of the first seed of them, see `Answers.paths`; without `KEYS`.
        probed: what `probe.Probes` says.
    """

    rows: pl.DataFrame
    traces: pl.DataFrame
    kept: pl.DataFrame
    looks: list[pl.DataFrame]
    paths: pl.DataFrame
    probed: dict[str, object]


def gather_answers(runs: Sequence[tuple[Path, dict]], frames: Mapping[str, np.ndarray], thinned: set[str]) -> Said:
    """What every run says of the held-out clips of its fold.

    Args:
        runs: folder and `config.json` of each. frames: annotations of held-out clips.
        thinned: variants of which predictions with streams left out are wanted.

    Raises:
        StoreError: a fold has no test clip, or a run has no answers.
    """
    rows, traces, kept, paths = [], [], [], [pl.DataFrame(schema=PATHS)]
    looks: dict[int, list[pl.DataFrame]] = {}
    speakers = probe.Probes()
    first = min((config["seed"] for _, config in runs if config["variant"] == FUSED), default=None)
    for folder, config in sorted(runs, key=lambda one: one[1]["fold"]):
        keys = {name: config[name] for name in KEYS}
        said = read_answers(folder)
        if not said.clips.height:
            raise StoreError(f"fold {keys['fold']} has no test clip; see `protocol` in params.yaml.")
        rows.append(_frame(keys, said.whole.with_columns(pl.lit(said.temperature, pl.Float64()).alias("temperature"))))
        if (course := tell_traces(said, frames, tuple(config["model"]["dimensions"]))) is not None:
            traces.append(_frame(keys, course))
        if keys["variant"] == FUSED:
            speakers.add(keys["fold"], keys["seed"], said.speakers)
            looks.setdefault(keys["seed"], []).append(said.looks)
            paths += [said.paths] if keys["seed"] == first else []
        if keys["variant"] in thinned:
            kept.append(_frame(keys, said.clips))
    # A fusion may have shares where single streams have none.
    told, traced, thin = (pl.concat(found, how="diagonal") if found else pl.DataFrame() for found in (rows, traces, kept))
    return Said(told, traced, thin, [pl.concat(parts) for parts in looks.values()], pl.concat(paths), speakers.summarise())


def _frame(keys: dict, table: pl.DataFrame) -> pl.DataFrame:
    return table.select(*(pl.lit(value).alias(name) for name, value in keys.items()), pl.all())
