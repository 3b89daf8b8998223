"""Stage `evaluate`: every trained run on the held-out clips of its fold; the only stage that reads the truth.

Writes below `out`: `predictions.parquet`, `traces.parquet`, `metrics.json`, `per_class.json`, `per_fold.json`,
`per_speaker.parquet`, `comparisons.json`, `baselines.json` (chance, majority), `run.json` (where the figures come from),
`summary.json` (the few figures `dvc exp show` lists), `trust.json` and `probe.json` (see `trust`), and for DVC and the report
`plots/{confusion,variants,missing,calibration,selective,difficulty,history}.csv`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from pipeline import metrics
from pipeline.errors import StoreError
from pipeline.params import Params
from pipeline.runs.folders import ENSEMBLE, FUSED, list_runs
from pipeline.runs.run import TrainedModel, load_run
from pipeline.storage import atomic, tables
from pipeline.threads import computing
from pipeline.training.data.dataset import Dataset

from . import by_fold, probe, summary
from .baselines import find_baselines
from .calibration import find_temperature
from .comparisons import compare_variants
from .ensemble import add_ensemble, count_members, weigh_members
from .intervals import Interval
from .missing import measure_missing
from .predictions import mean_trace, predict_rows, subsets, trace_rows, truth_table
from .record import describe_run
from .sums import Groups, indices, is_scored, probabilities
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
        StoreError: no trained run, a fold without test clips, truth that misses all of them, or a member of the ensemble that
            was not trained.
    """
    folders = list(list_runs(runs).values())
    if not folders:
        raise StoreError(f"{runs} holds no trained model. Run `dvc repro train`.")
    out = Path(out)
    loaded = [load_run(folder) for folder in folders]
    spec = loaded[0].model.spec
    classes, names = spec.classes, spec.dimensions
    known, frames = truth_table(truth, truth_annotations, names)
    members = weigh_members(runs)
    with computing(params.training.threads):  # else the last digits would be the machine's
        *found, probed = _predict(params, loaded, index, manifest, folds, frames, {FUSED, *(name.variant for name in members)})
    predictions, traces, kept = (add_ensemble(table, members, classes) for table in found)
    clips, roles = tables.read(manifest), tables.read(folds)
    predictions = _with_truth(predictions, known, clips, classes, names)
    if not predictions.filter(is_scored(classes, names)).height:
        raise StoreError(
            f"{truth} has no label of any test clip that the model predicts; see `protocol` and `task` in params.yaml."
        )
    seeds = {
        variant: predictions.filter(pl.col("variant") == variant).partition_by("seed", maintain_order=True)
        # Last, so that the draws of the others are what they are without it.
        for variant in sorted(predictions["variant"].unique(), key=lambda name: (name == ENSEMBLE, name))
    }
    groups = Groups.of(predictions)
    intervals_of = {
        variant: summary.summarise(parts, _held(traces, variant, parts), groups, classes, names, number)
        for number, (variant, parts) in enumerate(seeds.items())
    }
    per_fold = by_fold.score_folds(seeds, roles, clips, classes, names)
    result = {
        variant: {name: one.rounded() for name, one in found.items()} | by_fold.over_folds(per_fold[variant])
        for variant, found in intervals_of.items()
    }
    tables.write(predictions, out / "predictions.parquet", sort=(*KEYS, "id"))
    tables.write(mean_trace(traces, names), out / "traces.parquet", sort=("id", "time"))
    atomic.write_json(out / "metrics.json", result)
    select = params.training.select if params.training.select not in ("loss", "last") else ("uar" if classes else "ccc")
    atomic.write_json(out / "per_fold.json", per_fold)
    headlines = summary.pick_headlines(result, select, FUSED)
    main = seeds.get(FUSED) or next(iter(seeds.values()))
    headlines |= by_fold.pick_headlines(per_fold.get(FUSED) or next(iter(per_fold.values())), select)
    if unit := find_transductive(run.config for run in loaded):
        headlines["transductive"] = unit
    atomic.write_json(out / "summary.json", headlines)
    floor = find_baselines(main[0], clips, roles, classes, names)
    atomic.write_json(out / "baselines.json", floor)
    _details(out, seeds, groups, result, select, classes, names)
    kept = _with_truth(kept, known, clips, classes, names) if kept.height else kept
    missing = measure_missing(kept, groups, classes, names)
    _plots(out, pl.concat(main), result | _lines(floor), missing, classes)
    fused = kept.filter(pl.col("variant") == FUSED) if kept.height else kept
    write_trust(out, main, fused, probed, groups, classes, (tables.read(truth), clips, roles))
    record = describe_run(params, predictions, groups, headlines, out / "last.json")
    atomic.write_json(out / "run.json", record | {"ensemble": count_members(members)})
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
    thinned: set[str],
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, dict[str, object]]:
    """Predictions of all runs, traces of all runs, the runs of the variants `thinned` with streams left out, and what
    `probe.Probes` says."""
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
            if keys["variant"] in thinned:
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


def _details(
    out: Path,
    seeds: dict[str, list[pl.DataFrame]],
    groups: Groups,
    result: dict,
    metric: str,
    classes: tuple[str, ...],
    names: tuple[str, ...],
) -> None:
    """Per class, per speaker, and one variant against another."""
    atomic.write_json(
        out / "per_class.json", {v: summary.per_class(parts, groups, classes) for v, parts in seeds.items()} if classes else {}
    )
    speakers = [{"variant": v, **row} for v, parts in seeds.items() for row in summary.per_speaker(parts, classes, names)]
    tables.write(
        pl.DataFrame(speakers) if speakers else pl.DataFrame(schema={"variant": pl.String(), "speaker": pl.String()}),
        out / "per_speaker.parquet",
        sort=("variant", "speaker"),
    )
    compared = compare_variants(seeds, groups, result, metric, classes, names)
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
