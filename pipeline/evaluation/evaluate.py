"""Stage `evaluate`: every trained run on the held-out clips of its fold; the only stage that reads the truth.

Writes below `out`: `predictions.parquet`, `traces.parquet`, `metrics.json`, `per_class.json`, `per_speaker.parquet`,
`comparisons.json`, `summary.json` (the few figures `dvc exp show` lists), and for DVC and the report
`plots/{confusion,variants,missing,calibration,history}.csv`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from pipeline import metrics
from pipeline.errors import StoreError
from pipeline.params import Params
from pipeline.runs.folders import FUSED, list_runs
from pipeline.runs.run import TrainedModel, load_run, to_finite
from pipeline.storage import atomic, tables
from pipeline.threads import computing
from pipeline.training.data.dataset import Dataset

from . import intervals, summary
from .predictions import predict_rows, subsets, trace_rows, truth_table

KEYS = ("variant", "fold", "seed")


def evaluate(
    params: Params,
    index: str | Path = "data/index.h5",
    *,
    truth: str | Path = "data/truth.parquet",
    truth_annotations: str | Path = "data/truth_annotations.parquet",
    manifest: str | Path = "data/manifest.parquet",
    folds: str | Path = "data/folds.parquet",
    runs: str | Path = "models/runs",
    out: str | Path = "reports",
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Predict, compare with the truth, summarise.

    Returns:
        The content of `metrics.json`: variant → metric → mean, low, high (95 % over seeds; with a
        single seed, over speakers).

    Raises:
        StoreError: no trained run, a fold without test clips, or truth that misses all of them.
    """
    folders = list(list_runs(runs).values())
    if not folders:
        raise StoreError(f"{runs} holds no trained model. Run `dvc repro train`.")
    out = Path(out)
    loaded = [load_run(folder) for folder in folders]
    spec = loaded[0].model.spec
    classes, names = spec.classes, spec.dimensions
    known, frames = truth_table(truth, truth_annotations, names)
    with computing(params.training.threads):  # else the last digits would be the machine's
        predictions, traces, kept = _predict(params, loaded, index, manifest, folds, frames)
    predictions = _with_truth(predictions, known, tables.read(manifest), classes, names)
    if not predictions.filter(pl.any_horizontal(pl.col("truth", *(f"truth_{n}" for n in names)).is_not_null())).height:
        raise StoreError(f"{truth} has no label of any test clip. Run `dvc repro manifest`.")
    seeds = {
        variant: [
            predictions.filter((pl.col("variant") == variant) & (pl.col("seed") == seed))
            for seed in sorted(predictions.filter(pl.col("variant") == variant)["seed"].unique())
        ]
        for variant in predictions["variant"].unique(maintain_order=True)
    }
    result = {variant: _summary(variant, parts, traces, classes, names) for variant, parts in seeds.items()}
    tables.write(predictions, out / "predictions.parquet", sort=(*KEYS, "id"))
    tables.write(_mean_trace(traces, names), out / "traces.parquet", sort=("id", "time"))
    atomic.write_json(out / "metrics.json", result)
    select = params.training.select if params.training.select != "loss" else ("uar" if classes else "ccc")
    atomic.write_json(out / "summary.json", summary.pick_headlines(result, select, FUSED))
    _details(out, seeds, result, select, classes, names)
    _plots(out, seeds, result, kept, known, classes, names)
    history = Path(runs) / "history.csv"
    if history.is_file():
        atomic.write_text(out / "plots" / "history.csv", history.read_text(encoding="utf-8"))
    return result


def _predict(
    params: Params,
    loaded: list[TrainedModel],
    index: str | Path,
    manifest: str | Path,
    folds: str | Path,
    frames: dict[str, np.ndarray],
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Predictions of all runs, traces of all runs, and the fused runs with streams left out."""
    rows, traces, kept = [], [], []
    for fold in sorted({run.config["fold"] for run in loaded}):
        data = Dataset.load(index, manifest, folds, params, fold)
        test = data.rows("test")
        if not len(test):
            raise StoreError(f"fold {fold} has no test clip; see `protocol` in params.yaml.")
        for run in loaded:
            keys = {name: run.config[name] for name in KEYS}
            if run.config["fold"] != fold:
                continue
            rows.append(_frame(keys, predict_rows(run, data, test)))
            if traced := trace_rows(run, data, test, frames):
                traces.append(_frame(keys, pl.DataFrame(traced)))
            if keys["variant"] == FUSED:
                for keep in subsets(run.streams):
                    part = predict_rows(run, data, test, frozenset(run.streams) - keep)
                    kept.append(_frame(keys, part).with_columns(pl.lit("+".join(sorted(keep))).alias("kept")))
    return pl.concat(rows), pl.concat(traces) if traces else pl.DataFrame(), pl.concat(kept) if kept else pl.DataFrame()


def _frame(keys: dict, columns: dict | pl.DataFrame) -> pl.DataFrame:
    table = pl.DataFrame(columns)
    return table.select(*(pl.lit(value).alias(name) for name, value in keys.items()), pl.all())


def _with_truth(
    table: pl.DataFrame, known: pl.DataFrame, manifest: pl.DataFrame, classes: tuple[str, ...], names: tuple[str, ...]
) -> pl.DataFrame:
    renamed = known.rename({"emotion": "truth", **{n: f"truth_{n}" for n in names}})
    facts = manifest.select("id", *(c for c in ("speaker", "dialogue", "session") if c in manifest.columns))
    table = table.join(facts, on="id", how="left").join(renamed, on="id", how="left")
    first = [*KEYS, "id", *facts.columns[1:], "truth", *(["predicted"] if classes else [])]
    return table.select(*first, pl.exclude(first)).sort(*KEYS, "id")


def _summary(
    variant: str, parts: list[pl.DataFrame], traces: pl.DataFrame, classes: tuple[str, ...], names: tuple[str, ...]
) -> dict[str, dict[str, float | None]]:
    per_seed = [summary.scalars(part, classes, names) for part in parts]
    if traces.height:
        held = [traces.filter((pl.col("variant") == variant) & (pl.col("seed") == part["seed"][0])) for part in parts]
        per_seed = [{**values, **summary.trace_scalars(trace, names)} for values, trace in zip(per_seed, held, strict=True)]
    if len(parts) > 1:
        return {name: interval.rounded() for name, interval in summary.over_seeds(per_seed).items()}
    # One run says nothing about seeds; how much the test speakers matter can still be said.
    table, result = parts[0], {}
    speakers = table["speaker"].fill_null("?").to_list()
    drawn: dict[bytes, dict[str, float]] = {}  # every metric meets the same resamples

    def resampled(rows: np.ndarray, name: str) -> float:
        if (key := rows.tobytes()) not in drawn:
            drawn[key] = summary.scalars(table[rows.tolist()], classes, names)
        return drawn[key][name]

    for name, value in per_seed[0].items():
        interval = intervals.Interval(value, float("nan"), float("nan"))
        if not name.startswith("frame_"):
            interval = intervals.over_groups(partial(resampled, name=name), speakers, resamples=200)
        result[name] = interval.rounded()
    return result


def _mean_trace(traces: pl.DataFrame, names: tuple[str, ...]) -> pl.DataFrame:
    """The fused runs' traces, mean over seeds; an empty table when there are no frames."""
    columns = [f"{side}_{name}" for name in names for side in ("truth", "pred")]
    if not traces.height:
        return pl.DataFrame(schema={"id": pl.String(), "time": pl.Float64(), **dict.fromkeys(columns, pl.Float64())})
    fused = traces.filter(pl.col("variant") == FUSED)
    return fused.group_by("id", "time", maintain_order=True).agg(pl.col(columns).mean())


def _details(
    out: Path, seeds: dict[str, list[pl.DataFrame]], result: dict, metric: str, classes: tuple[str, ...], names: tuple[str, ...]
) -> None:
    """Per class, per speaker, and fused against each other variant."""
    atomic.write_json(
        out / "per_class.json", {v: summary.per_class(parts, classes) for v, parts in seeds.items()} if classes else {}
    )
    speakers = [{"variant": v, **row} for v, parts in seeds.items() for row in summary.per_speaker(parts, classes, names)]
    tables.write(
        pl.DataFrame(speakers) if speakers else pl.DataFrame(schema={"variant": pl.String(), "speaker": pl.String()}),
        out / "per_speaker.parquet",
        sort=("variant", "speaker"),
    )
    compared = {}
    for variant in seeds:
        if FUSED not in seeds or variant == FUSED:
            continue
        mine, others = (summary.clip_scores(seeds[v], classes, names) for v in (FUSED, variant))
        clips = intervals.paired(mine, others)
        ours, other = result[FUSED][metric], result[variant][metric]
        apart = None not in (ours["low"], other["high"]) and ours["low"] > other["high"]
        compared[variant] = {
            "metric": metric,
            "fused": ours,
            "other": other,
            "intervals_apart": apart,
            "score": "accuracy" if classes else "minus absolute error",
            "difference": to_finite(round(clips.difference, 6)),
            "p": to_finite(round(clips.p, 6)),
        }
    atomic.write_json(out / "comparisons.json", compared)


def _plots(
    out: Path,
    seeds: dict[str, list[pl.DataFrame]],
    result: dict,
    kept: pl.DataFrame,
    known: pl.DataFrame,
    classes: tuple[str, ...],
    names: tuple[str, ...],
) -> None:
    """Tables DVC and the report draw. Confusion: the decisions of all seeds of the fused model."""
    shown = pl.concat(seeds.get(FUSED) or next(iter(seeds.values())))
    pairs = shown.filter(pl.col("truth").is_in(list(classes))) if classes else shown.clear()
    _csv(
        out / "plots" / "confusion.csv",
        pairs.select(pl.col("truth").alias("actual"), "predicted")
        if classes
        else pl.DataFrame(schema={"actual": pl.String(), "predicted": pl.String()}),
    )
    rows = [{"variant": v, "metric": m, **bounds} for v, values in result.items() for m, bounds in values.items()]
    _csv(out / "plots" / "variants.csv", pl.DataFrame(rows, infer_schema_length=None))
    bins = (
        metrics.calibration(summary.indices(shown["truth"], classes), summary.probabilities(shown, classes))[1] if classes else []
    )
    _csv(
        out / "plots" / "calibration.csv",
        pl.DataFrame(bins, schema={"confidence": pl.Float64(), "accuracy": pl.Float64(), "count": pl.Int64()}),
    )
    missing = []
    metric = "uar" if classes else "ccc"
    if kept.height:
        kept = kept.join(known.rename({"emotion": "truth", **{n: f"truth_{n}" for n in names}}), on="id", how="left")
    for (label,), part in kept.group_by("kept", maintain_order=True) if kept.height else ():
        values = [summary.scalars(table, classes, names)[metric] for _, table in part.group_by("seed")]
        missing.append(
            {"kept": label, "streams": label.count("+") + 1, "metric": metric, **intervals.over_seeds(values).rounded()}
        )
    _csv(
        out / "plots" / "missing.csv",
        pl.DataFrame(missing, infer_schema_length=None) if missing else pl.DataFrame(schema={"kept": pl.String()}),
    )


def _csv(path: Path, table: pl.DataFrame) -> None:
    atomic.write_text(path, table.write_csv())
