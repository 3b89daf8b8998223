"""Stage `evaluate`: what every trained run says of the held-out clips of its fold; the only stage that reads the truth.

`train` has asked the runs (see `runs.answers`): nothing is predicted here, and no framework imported.

Writes below `out`: `predictions.parquet`, `traces.parquet`, `metrics.json`, `per_class.json`, `per_fold.json`,
`per_speaker.parquet`, `comparisons.json`, `baselines.json` (chance, majority), `run.json` (where the figures come from),
`summary.json` (the few figures `dvc exp show` lists), `submission.csv` and `trajectories.parquet` (of what is predicted over
time; else empty), `trust.json` and `probe.json` (see `trust`), and for DVC and the report
`plots/{confusion,variants,leading,missing,calibration,selective,difficulty,history,learning}.csv`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from pipeline import metrics
from pipeline.errors import StoreError
from pipeline.params import Params
from pipeline.runs.folders import ENSEMBLE, FUSED, STUDENT, list_runs, read_config
from pipeline.storage import atomic, tables
from pipeline.storage.index import Index

from . import by_fold, embeddings, summary
from .answers import KEYS, gather_answers
from .baselines import find_baselines
from .comparisons import compare_variants
from .ensemble import add_ensemble, count_members, weigh_members
from .intervals import Interval
from .missing import measure_missing
from .nothing import write_nothing
from .plot_files import write_plot_files
from .predictions import mean_trace, truth_table
from .record import describe_run
from .submission import read_scale, write_submission
from .sums import Groups, indices, is_scored, keep_frames, probabilities
from .transductive import find_transductive
from .trust import write_trust
from .undefined import tell_undefined

log = logging.getLogger(__name__)


def evaluate(
    params: Params,
    index: str | Path = "data/index.h5",
    *,
    truth: str | Path = "data/truth.parquet",
    truth_annotations: str | Path = "data/truth_annotations.parquet",
    manifest: str | Path = "data/manifest.parquet",
    folds: str | Path = "data/folds.parquet",
    card: str | Path = "data/card.json",
    runs: str | Path = "models/runs",
    out: str | Path = "reports",
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Compare predictions with the truth, summarise.

    Returns:
        The content of `metrics.json`: variant → metric → mean over seeds, low and high (95 %, drawing speakers and
        seeds anew, see `intervals`); with too few speakers, least and most of single speakers and runs instead. Figures of
        frames have `low_by_clip` and `high_by_clip` besides, for which clips are drawn instead of speakers.

    Raises:
        StoreError: no trained run, runs of other features than the index has or that were asked of other clips than are held
            out, a fold without test clips, truth that misses all of them, or a member of the ensemble that was not trained.
    """
    if params.protocol.kind == "none":
        log.info("protocol none: there is nothing to judge")
        write_nothing(Path(out))
        return {}
    folders = list(list_runs(runs).values())
    if not folders:
        raise StoreError(f"{runs} holds no trained model. Run `dvc repro train`.")
    out = Path(out)
    configs = [read_config(folder) for folder in folders]
    check_features(index, configs)
    classes, names = (tuple(configs[0]["model"][name]) for name in ("classes", "dimensions"))
    known, frames = truth_table(truth, truth_annotations, names)
    members = weigh_members(runs)
    thinned = {FUSED, *(name.variant for name in members)}
    found = gather_answers(list(zip(folders, configs, strict=True)), frames, thinned)
    predictions, traces, kept = (add_ensemble(table, members, classes) for table in (found.rows, found.traces, found.kept))
    clips, roles = tables.read(manifest), tables.read(folds)
    check_clips(found.rows, roles)
    predictions = keep_frames(_with_truth(predictions, known, clips, classes, names), traces, names)
    if not predictions.filter(is_scored(classes, names)).height:
        raise StoreError(
            f"{truth} has no label of any test clip that the model predicts; see `protocol` and `task` in params.yaml."
        )
    seeds = {
        variant: predictions.filter(pl.col("variant") == variant).partition_by("seed", maintain_order=True)
        # Last, so that the draws of the others are what they are without it.
        for variant in sorted(predictions["variant"].unique(), key=lambda name: (name == ENSEMBLE, name == STUDENT, name))
    }
    groups = Groups.of(predictions)
    intervals_of = {
        variant: summary.summarise(parts, _held(traces, variant, parts), groups, classes, names, number)
        for number, (variant, parts) in enumerate(seeds.items())
    }
    if FUSED in seeds:
        drawn = summary.draws_of(seeds[FUSED], groups, list(seeds).index(FUSED))
        intervals_of[FUSED] |= embeddings.estimate_looks(found.looks, groups, drawn)
    per_fold = by_fold.score_folds(seeds, roles, clips, classes, names)
    result = {
        variant: {name: one.rounded() for name, one in figures.items()} | by_fold.over_folds(per_fold[variant])
        for variant, figures in intervals_of.items()
    }
    for number, (variant, parts) in enumerate(seeds.items()):
        summary.add_bounds_by_clip(result[variant], _held(traces, variant, parts), names, number)
    tables.write(predictions, out / "predictions.parquet", sort=(*KEYS, "id"))
    trace = mean_trace(traces, names)
    tables.write(trace, out / "traces.parquet", sort=("id", "time"))
    write_submission(trace, truth_annotations, names, read_scale(card), out / "submission.csv")
    tables.write(found.paths, out / "trajectories.parquet", sort=("id", "time"))
    atomic.write_json(out / "metrics.json", result)
    select = params.training.select if params.training.select not in ("loss", "last") else ("uar" if classes else "ccc")
    atomic.write_json(out / "per_fold.json", per_fold)
    headlines = summary.pick_headlines(result, select, FUSED)
    main = seeds.get(FUSED) or next(iter(seeds.values()))
    headlines |= by_fold.pick_headlines(per_fold.get(FUSED) or next(iter(per_fold.values())), select)
    if unit := find_transductive(configs):
        headlines["transductive"] = unit
    atomic.write_json(out / "summary.json", headlines)
    floor = find_baselines(main[0], clips, roles, classes, names)
    atomic.write_json(out / "baselines.json", floor)
    _details(out, seeds, groups, result, select, classes, names)
    kept = _with_truth(kept, known, clips, classes, names) if kept.height else kept
    missing = measure_missing(kept, groups, classes, names)
    _plots(out, pl.concat(main), result | _lines(floor), missing, classes)
    fused = kept.filter(pl.col("variant") == FUSED) if kept.height else kept
    write_trust(out, main, fused, found.probed, groups, classes, (tables.read(truth), clips, roles))
    record = describe_run(params, predictions, groups, headlines, out / "last.json")
    undefined = tell_undefined(main[0], next(iter(_held(traces, main[0]["variant"][0], main)), pl.DataFrame()), names)
    for line in undefined:
        log.warning(line)
    atomic.write_json(out / "run.json", record | {"ensemble": count_members(members), "undefined": undefined})
    history = Path(runs) / "history.csv"
    if history.is_file():
        atomic.write_text(out / "plots" / "history.csv", history.read_text(encoding="utf-8"))
    write_plot_files(out / "plots", select)
    return result


def check_features(index: str | Path, configs: Iterable[dict]) -> None:
    """Raise unless the runs were trained on the features of the index.

    Raises:
        StoreError: they were not.
    """
    stored = Index(index)
    for config in configs:
        for name, facts in config["streams"].items():
            if stored.facts(name).get("digest") != facts["digest"]:
                raise StoreError(
                    f"{config['variant']} was trained on other features of {name} than {index} has. Run `dvc repro`."
                )


def check_clips(rows: pl.DataFrame, roles: pl.DataFrame) -> None:
    """Raise unless every run was asked of the clips that its fold holds out, no more and no fewer.

    Raises:
        StoreError: one was not; the folds were drawn anew since.
    """
    held = roles.filter(pl.col("role") == "test").select("fold", "id")
    wanted = {fold: set(part["id"]) for (fold,), part in held.partition_by("fold", as_dict=True).items()}
    for (variant, fold, seed), part in rows.partition_by("variant", "fold", "seed", as_dict=True).items():
        if odd := set(part["id"]) ^ wanted.get(fold, set()):
            raise StoreError(
                f"{variant}, fold {fold}, seed {seed} was asked of other clips than are held out now, for instance {min(odd)}. "
                "Run `dvc repro`."
            )


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
