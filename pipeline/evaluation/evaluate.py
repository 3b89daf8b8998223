"""Stage `evaluate`: every trained run on the held-out clips of its fold; the only stage that reads the truth.

Writes below `out`: `predictions.parquet`, `traces.parquet`, `metrics.json`, `per_class.json`, `per_speaker.parquet`,
`comparisons.json`, `baselines.json` (chance, majority), `run.json` (where the figures come from), `summary.json` (the few
figures `dvc exp show` lists), `trust.json` and `probe.json` (see `trust`), and for DVC and the report
`plots/{confusion,variants,missing,calibration,selective,difficulty,history}.csv`.
"""

from __future__ import annotations

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

from . import intervals, probe, summary
from .baselines import find_baselines
from .calibration import find_temperature
from .intervals import Draws, Interval
from .missing import measure_missing
from .predictions import predict_rows, subsets, trace_rows, truth_table
from .record import describe_run
from .sums import Groups, clip_parts, indices, probabilities
from .transductive import find_transductive
from .trust import write_trust

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
        The content of `metrics.json`: variant → metric → mean over seeds, low and high (95 %, drawing speakers and
        seeds anew, see `intervals`); with too few speakers, least and most of single speakers and runs instead.

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
        predictions, traces, kept, probed = _predict(params, loaded, index, manifest, folds, frames)
    predictions = _with_truth(predictions, known, tables.read(manifest), classes, names)
    if not predictions.filter(pl.any_horizontal(pl.col("truth", *(f"truth_{n}" for n in names)).is_not_null())).height:
        raise StoreError(f"{truth} has no label of any test clip. Run `dvc repro manifest`.")
    seeds = {
        variant: predictions.filter(pl.col("variant") == variant).partition_by("seed", maintain_order=True)
        for variant in predictions["variant"].unique(maintain_order=True)
    }
    groups = Groups.of(predictions)
    intervals_of = {
        variant: summary.summarise(parts, _held(traces, variant, parts), groups, classes, names, number)
        for number, (variant, parts) in enumerate(seeds.items())
    }
    result = {variant: {name: one.rounded() for name, one in found.items()} for variant, found in intervals_of.items()}
    tables.write(predictions, out / "predictions.parquet", sort=(*KEYS, "id"))
    tables.write(_mean_trace(traces, names), out / "traces.parquet", sort=("id", "time"))
    atomic.write_json(out / "metrics.json", result)
    select = params.training.select if params.training.select != "loss" else ("uar" if classes else "ccc")
    headlines = summary.pick_headlines(result, select, FUSED)
    if unit := find_transductive(run.config for run in loaded):
        headlines["transductive"] = unit
    atomic.write_json(out / "summary.json", headlines)
    main = seeds.get(FUSED) or next(iter(seeds.values()))
    floor = find_baselines(main[0], tables.read(manifest), tables.read(folds), classes, names)
    atomic.write_json(out / "baselines.json", floor)
    _details(out, seeds, groups, result, select, classes, names)
    kept = _with_truth(kept, known, tables.read(manifest), classes, names) if kept.height else kept
    missing = measure_missing(kept, groups, classes, names)
    _plots(out, pl.concat(main), result | _lines(floor), missing, classes)
    labels = tables.read(truth), tables.read(manifest), tables.read(folds)
    write_trust(out, main, kept, probed, groups, classes, labels)
    atomic.write_json(out / "run.json", describe_run(params, predictions, groups, headlines, out / "last.json"))
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
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, dict[str, object]]:
    """Predictions of all runs, traces of all runs, the fused runs with streams left out, and what `probe.Probes` says."""
    rows, traces, kept = [], [], []
    speakers = probe.Probes()
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
            if traced := trace_rows(run, data, test, frames):
                traces.append(_frame(keys, pl.DataFrame(traced)))
            if keys["variant"] == FUSED:
                speakers.ask(run, data)
                for keep in subsets(run.streams):
                    drop = frozenset(run.streams) - keep
                    part = _frame(keys, predict_rows(run, data, test, drop)) if drop else found
                    kept.append(part.with_columns(pl.lit("+".join(sorted(keep))).alias("kept")))
    # A fusion may have shares where single streams have none.
    tables_of = [pl.concat(found, how="diagonal") if found else pl.DataFrame() for found in (rows, traces, kept)]
    return tables_of[0], tables_of[1], tables_of[2], speakers.summarise()


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


def _held(traces: pl.DataFrame, variant: str, parts: list[pl.DataFrame]) -> list[pl.DataFrame]:
    """Traces of one variant, a table per seed; none when there are no frames."""
    if not traces.height:
        return []
    mine = traces.filter(pl.col("variant") == variant)
    return [mine.filter(pl.col("seed") == part["seed"][0]) for part in parts] if mine.height else []


def _mean_trace(traces: pl.DataFrame, names: tuple[str, ...]) -> pl.DataFrame:
    """The fused runs' traces, mean over seeds; an empty table when there are no frames."""
    columns = [f"{side}_{name}" for name in names for side in ("truth", "pred")]
    if not traces.height:
        return pl.DataFrame(schema={"id": pl.String(), "time": pl.Float64(), **dict.fromkeys(columns, pl.Float64())})
    fused = traces.filter(pl.col("variant") == FUSED)
    return fused.group_by("id", "time", maintain_order=True).agg(pl.col(columns).mean())


def _details(
    out: Path,
    seeds: dict[str, list[pl.DataFrame]],
    groups: Groups,
    result: dict,
    metric: str,
    classes: tuple[str, ...],
    names: tuple[str, ...],
) -> None:
    """Per class, per speaker, and fused against each other variant."""
    atomic.write_json(
        out / "per_class.json", {v: summary.per_class(parts, groups, classes) for v, parts in seeds.items()} if classes else {}
    )
    speakers = [{"variant": v, **row} for v, parts in seeds.items() for row in summary.per_speaker(parts, classes, names)]
    tables.write(
        pl.DataFrame(speakers) if speakers else pl.DataFrame(schema={"variant": pl.String(), "speaker": pl.String()}),
        out / "per_speaker.parquet",
        sort=("variant", "speaker"),
    )
    sides = {
        variant: (part, Draws.of(len(groups.names), len(parts), variant=number))
        for number, (variant, parts) in enumerate(seeds.items())
        for part in clip_parts(parts, groups, classes, names)
        if metric in part.figures(part.sums.sum(1))
    }
    compared = {}
    for variant in seeds:
        if FUSED not in seeds or variant == FUSED:
            continue
        found = intervals.compare(sides[FUSED], sides[variant], metric)
        bounds = found.difference.rounded()
        compared[variant] = {
            "metric": metric,
            "fused": result[FUSED][metric],
            "other": result[variant][metric],
            "difference": bounds.pop("mean"),
            **{f"difference_{name}": value for name, value in bounds.items()},
            "p": to_finite(round(found.p, 6)),
        }
    atomic.write_json(out / "comparisons.json", compared)


def _lines(floor: dict[str, dict[str, float]]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Baselines as variants that never vary."""
    return {name: {m: Interval(value).rounded() for m, value in values.items()} for name, values in floor.items()}


def _plots(out: Path, shown: pl.DataFrame, result: dict, missing: pl.DataFrame, classes: tuple[str, ...]) -> None:
    """Tables DVC and the report draw. Confusion: the decisions of all seeds of the fused model."""
    pairs = shown.filter(pl.col("truth").is_in(list(classes))) if classes else shown.clear()
    _csv(
        out / "plots" / "confusion.csv",
        pairs.select(pl.col("truth").alias("actual"), "predicted")
        if classes
        else pl.DataFrame(schema={"actual": pl.String(), "predicted": pl.String()}),
    )
    rows = [{"variant": v, "metric": m, **bounds} for v, values in result.items() for m, bounds in values.items()]
    _csv(out / "plots" / "variants.csv", pl.DataFrame(rows, infer_schema_length=None))
    bins = metrics.calibration(indices(shown["truth"], classes), probabilities(shown, classes))[1] if classes else []
    _csv(
        out / "plots" / "calibration.csv",
        pl.DataFrame(bins, schema={"confidence": pl.Float64(), "accuracy": pl.Float64(), "count": pl.Int64()}),
    )
    _csv(out / "plots" / "missing.csv", missing)


def _csv(path: Path, table: pl.DataFrame) -> None:
    atomic.write_text(path, table.write_csv())
