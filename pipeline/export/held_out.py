"""What fewer bits cost on the held-out clips: the same features through both graphs, compared in pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
import polars as pl
import torch

from pipeline.errors import StoreError
from pipeline.evaluation.results import name_metric
from pipeline.evaluation.robustness import score
from pipeline.runs.pretrained.model import AffectoryModel
from pipeline.storage import tables
from pipeline.storage.feature_store import Entry, Status, Store

from .graphs import open_session, run_session
from .heads import Head

#: A store of features, or a dict like one.
Entries: TypeAlias = Store | dict[str, Entry]
#: What is said of a clip, by the name of the output.
Ask: TypeAlias = Callable[[str], dict[str, np.ndarray]]
#: What the table calls the smaller graph.
KIND, LEVEL = "int8", 8.0


def list_clips(model: AffectoryModel, fold: int, features: Path, data: Path) -> list[str]:
    """Ids of the fold's held-out clips, sorted.

    Raises:
        StoreError: there are none, or a table or the features of a stream are not there.
    """
    needed = [data / "folds.parquet", data / "truth.parquet", data / "manifest.parquet"]
    needed += [features / f"{name}.h5" for name in model.config.streams]
    if lacking := [str(path) for path in needed if not path.is_file()]:
        raise StoreError(f"{lacking[0]} is not there; run `dvc repro` (or `dvc pull`).")
    roles = tables.read(data / "folds.parquet")
    ids = roles.filter((pl.col("fold") == fold) & (pl.col("role") == "test"))["id"].sort().to_list()
    if not ids:
        raise StoreError(f"fold {fold} has no test clip.")
    return ids


def ask_graph(model: AffectoryModel, path: Path, stores: Mapping[str, Entries]) -> Ask:
    """What a graph of the networks says of a clip in these stores."""
    head, session = Head(model), open_session(path)
    return lambda clip: run_session(session, dict(zip(head.inputs, read_clip(head, stores, clip), strict=True)))


def measure(model: AffectoryModel, plain: Ask, smaller: Ask, ids: Sequence[str], fold: int, data: Path) -> str:
    """A sentence: UAR (else CCC) of both, and the paired interval of the difference.

    Raises:
        StoreError: none of the clips has a label.
    """
    rows: list[dict[str, object]] = []
    for ask, kind in ((plain, None), (smaller, KIND)):
        for clip in ids:
            found = ask(clip)
            rows.append({"variant": "exported", "kind": kind, "level": kind and LEVEL, "fold": fold, "seed": 0, "id": clip})
            rows[-1] |= name_columns(model, found)
    table = pl.DataFrame(rows, schema_overrides={"kind": pl.String, "level": pl.Float64}, infer_schema_length=None)
    metric, scores = score(table, data / "truth.parquet", data / "truth_annotations.parquet", data / "manifest.parquet")
    before, after = scores
    gap = after["difference"]
    assert isinstance(gap, dict)
    unit = name_metric(metric)
    told = f"On {len(ids)} held-out clips {unit} is {before['mean']:.3f} before and {after['mean']:.3f} after: {gap['mean']:+.3f}"
    if gap["low"] is None:
        return f"{told}; there are too few speakers for an interval."
    return f"{told} (95 % interval of the paired difference {gap['low']:+.3f} to {gap['high']:+.3f})."


def read_clip(head: Head, stores: Mapping[str, Entries], clip: str) -> list[torch.Tensor]:
    """Inputs of one clip from the stores; a longer one is cut where the networks would shorten it."""
    given: list[torch.Tensor] = []
    for name, shape in head.model.config.streams.items():
        entry = stores[name][clip] if clip in stores[name] else None
        there = entry is not None and entry.status == Status.OK and len(entry.values) > 0
        values = np.asarray(entry.values, np.float32)[: head.limit] if entry and there else np.zeros((1, *shape), np.float32)
        times = np.asarray(entry.times, np.float32)[: head.limit] if entry and there else np.zeros((1, 2), np.float32)
        mask = np.full((1, len(values)), there)
        given += [torch.from_numpy(values)[None], torch.from_numpy(mask), torch.from_numpy(times)[None]]
    return given


def name_columns(model: AffectoryModel, found: dict[str, np.ndarray]) -> dict[str, object]:
    """One clip's outputs as columns of a table of predictions."""
    columns: dict[str, object] = {}
    if "probabilities" in found:
        labels = cast(dict[int, str], model.config.id2label)
        names = [labels[i] for i in range(found["probabilities"].shape[1])]
        columns |= {f"p_{name}": float(p) for name, p in zip(names, found["probabilities"][0], strict=True)}
        columns["predicted"] = names[int(found["probabilities"][0].argmax())]
    if "dimensions" in found:
        columns |= {name: float(x) for name, x in zip(model.config.dimensions, found["dimensions"][0], strict=True)}
    return columns
