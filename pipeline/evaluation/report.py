"""Stage `report`: one self-contained page, `reports/index.html`, and beside it that of the clips (see `clips`); the same files
give the same bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from pathlib import Path

import polars as pl
from markupsafe import Markup
from ruamel.yaml import YAML

from pipeline.params import Params
from pipeline.runs.folders import FUSED
from pipeline.storage import atomic

from . import by_fold, curves, datacard, over_time, panels, plots, provenance, results, sentences, transductive, trust_panels
from .clips import write_clips
from .nothing import find_scores
from .page import TEMPLATES, make_environment
from .submission import read_scale

#: The page's sections: file in `templates/sections/` and heading.
SECTIONS = (
    ("results", "Results"),
    ("classes", "Classes"),
    ("speakers", "Speakers"),
    ("calibration", "Calibration"),
    ("traces", "Valence and arousal"),
    ("missing", "Missing modalities"),
    ("worth", "Worth of each stream"),
    ("robustness", "Noise and blur"),
    ("difficulty", "Difficulty"),
    ("learning", "Learning curves"),
    ("data", "Data"),
    ("quarantine", "Quarantine"),
    ("streams", "Streams"),
    ("parameters", "Parameters"),
)

#: What the page of clips says at its top, as this one does.
HEADING = ("recipe", "corpus", "summary", "random", "transductive")

#: Rows of the speaker table.
SPEAKERS = 40


def write_report(
    params: Params,
    data: str | Path = Path("data"),
    reports: str | Path = Path("reports"),
    features: str | Path = Path("features"),
    *,
    embed: int = 0,
) -> Path:
    """Write the pages from what the stages before left in `data`, `features` and `reports`.

    What a run does not have (classes, speakers, annotations over time) is said in its section.

    Args:
        embed: see `write_clips`.

    Raises:
        StoreError: a file is there but cannot be read.
    """
    reports = Path(reports)
    values = gather(params, Path(data), find_scores(params, reports), Path(features))
    atomic.write_text(reports / "index.html", render(values))
    write_clips(params, Path(data), reports, embed=embed, heading={name: values[name] for name in HEADING})
    return reports / "index.html"


def render_page(params: Params, data: Path, reports: Path, features: Path) -> str:
    """The page as text."""
    return render(gather(params, data, reports, features))


def render(values: dict[str, object]) -> str:
    """The page of these values."""
    unit = values["record"].get("transductive") if isinstance(values["record"], dict) else None
    return transductive.mark(make_environment().get_template("report.html").render(values), unit)


def gather(params: Params, data: Path, reports: Path, features: Path) -> dict[str, object]:
    """What the page shows."""
    predictions = results.read_parquet(reports / "predictions.parquet")
    found = results.read_scores(reports)
    main = next(iter(found), FUSED)
    names = sorted(params.streams)
    scores = {results.name_variant(variant, names): values for variant, values in found.items()}
    floors = read_floors(reports)
    record = provenance.read_record(reports)
    unit = record.get("transductive")
    streams = provenance.describe_streams(params, features)
    card = datacard.read_card(data, Path(params.corpus.root).name)
    bins = results.fill_bins(predictions)
    ece = found[main].get("ece") if found else None
    traced = results.choose_traces(reports)
    classes = [c[2:] for c in predictions.columns if c.startswith("p_")] if predictions is not None else []
    speakers, speaker_metrics = panels.show_speakers(results.read_parquet(reports / "per_speaker.parquet"))
    differences = provenance.read_json(reports / "comparisons.json")
    compared = panels.show_comparisons(differences)
    confusion = results.read_confusion(reports, classes)
    return {
        "style": Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        "sections": SECTIONS,
        "recipe": params.recipe,
        "fusion": params.fusion.name,
        "names": names,
        "model": "fused model" if len(names) > 1 else f"model of {names[0]} alone",
        "corpus": card.name if card else params.corpus.name,
        "summary": summarise_run(params, predictions, card),
        "record": record,
        "sure": provenance.tell_intervals(record),
        "figures_before": provenance.compare_figures(record, found.get(main, {})),
        "floors": floors,
        "random": provenance.name_stand_ins(params, streams),
        "leaks": card.leaks if card else [],
        "tiles": panels.show_tiles(scores, params),
        "scores": scores,
        "metrics": list(dict.fromkeys(m for values in scores.values() for m in values)),
        "panels": panels.show_variants(scores, floors),
        "worth": panels.judge_network(compared),
        "ensemble": sentences.tell_ensemble(record, params.training.rotate),
        "ensemble_worth": sentences.judge_ensemble(differences),
        "comparisons": compared,
        "folds": by_fold.show_folds(provenance.read_json(reports / "per_fold.json"), main, found.get(main, {})),
        "confusion": confusion,
        "mistakes": panels.show_mistakes(confusion),
        "per_class": panels.show_classes(provenance.read_json(reports / "per_class.json"), main),
        "speakers": speakers[:SPEAKERS],
        "speakers_more": max(0, len(speakers) - SPEAKERS),
        "speaker_metrics": speaker_metrics,
        "bins": bins,
        "ece": ece,
        "reliability": plots.draw_reliability(bins, ece.mean if ece else math.nan, panels.pick_floors(floors, "accuracy"))
        if bins
        else "",
        "trust": show_trust(reports, Path(data), predictions, floors),
        "transductive": transductive.tell(unit) if unit else "",
        "scatters": panels.show_scatters(predictions, params),
        "traces": panels.show_traces(traced[0], scale := read_scale(data / "card.json")) if traced else [],
        "scale": scale if traced else None,
        "over_time": over_time.show_figures(reports, main, params.task.dimensions),
        "paths": over_time.show_paths(reports, traced[0]) if traced else [],
        "traces_total": traced[1] if traced else 0,
        "trace_keys": panels.TRACE_KEYS,
        "missing": panels.show_missing(results.read_csv(reports / "plots" / "missing.csv", ("kept", "mean")), floors),
        "lacking": list_lacking(streams),
        "curves": curves.show_learning(
            results.read_csv(reports / "plots" / "history.csv", ("variant", "seed", "epoch")), floors, names
        ),
        "card": card,
        "histogram": plots.draw_bars(
            card.classes,
            card.histogram,
            "Clips per class and split: "
            + "; ".join(
                f"{s} " + ", ".join(f"{c} {n}" for c, n in zip(card.classes, h, strict=True)) for s, h in card.histogram.items()
            ),
        )
        if card and card.classes
        else "",
        "checked": ", ".join(params.protocol.leakage) or "nothing was checked",
        "protocol": describe_protocol(params),
        "quarantine": provenance.read_quarantine(data, streams),
        "streams": streams,
        "parameters": dump_params(params),
    }


def show_trust(reports: Path, data: Path, predictions: pl.DataFrame | None, floors: panels.Floors) -> dict[str, object]:
    """What the page shows of how far the figures can be trusted."""
    found = provenance.read_json(reports / "trust.json")
    found = found if isinstance(found, dict) else {}
    scaled = trust_panels.show_scaled(predictions)
    scores = next(iter(results.read_scores(reports).values()), {})
    ece = scores.get("ece_scaled")
    if scaled:
        scaled["ece"] = ece
        scaled["svg"] = plots.draw_reliability(
            scaled["bins"], ece.mean if ece else math.nan, panels.pick_floors(floors, "accuracy")
        )
    buckets = results.read_csv(reports / "plots" / "difficulty.csv", ("difficulty", "uar", "fitted"))
    return {
        "scaled": scaled,
        "selective": trust_panels.show_selective(results.read_csv(reports / "plots" / "selective.csv", ("coverage", "mean"))),
        "worth": trust_panels.show_worth(found.get("shapley")),
        "shares": trust_panels.show_shares(predictions),
        "worst": trust_panels.show_worst(predictions, data),
        "difficulty": trust_panels.show_difficulty(buckets, found.get("difficulty")),
        "probe": trust_panels.tell_probe(provenance.read_json(reports / "probe.json")),
        "robustness": trust_panels.show_robustness(reports),
    }


def summarise_run(params: Params, predictions: pl.DataFrame | None, card: datacard.Card | None) -> str:
    """One sentence under the heading: how much data, how many runs."""
    parts = [f"{value} {name.lower()}" for name, value in (card.facts if card else ()) if name in ("Clips", "Speakers")]
    table = results.select_fused(predictions)
    if table is not None:
        tested, folds = (table[name].n_unique() for name in ("id", "fold"))
        seeds = sorted(table["seed"].unique())
        parts += [_plural(tested, "held-out clip"), f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"]
        parts += [f"{folds} folds"] if folds > 1 else []
    return " · ".join([*parts, describe_protocol(params)])


def read_floors(reports: Path) -> dict[str, dict[str, float]]:
    """Baseline → metric → value; empty when there are none."""
    found = provenance.read_json(reports / "baselines.json")
    return {name: values for name, values in (found if isinstance(found, dict) else {}).items() if values}


def describe_protocol(params: Params) -> str:
    """The protocol in words."""
    spec = params.protocol
    return {
        "official": "official split",
        "split": f"one split grouped by {spec.group}",
        "kfold": f"{spec.folds} folds grouped by {spec.group}",
        "leave_one_out": f"leave one {spec.group} out",
        "cross": f"trained on {spec.source or 'each corpus in turn'}, tested on the others",
        "file": f"folds of {Path(spec.file or '').name}",
        "none": "features only, nothing is trained",
    }[spec.kind]


def list_lacking(streams: Iterable[provenance.StreamFacts]) -> str:
    """How many clips lack which stream in this corpus."""
    short = [f"{s.name} {s.missing + s.failed} of {s.ok + s.missing + s.failed}" for s in streams if s.missing + s.failed]
    return (
        f"Clips without a stream in this corpus: {', '.join(short)}." if short else "In this corpus every clip has every stream."
    )


def dump_params(params: Params) -> str:
    """The parameters as YAML, without `run`."""
    text = io.StringIO()
    writer = YAML()
    writer.default_flow_style = False
    writer.width = 110
    writer.dump(params.model_dump(mode="json", exclude={"run"}), text)
    return text.getvalue()


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
