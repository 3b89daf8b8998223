"""Stage `report`: one self-contained page, `reports/index.html`; the same files give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import jinja2
import polars as pl
from markupsafe import Markup
from ruamel.yaml import YAML

from pipeline.params import Params
from pipeline.storage import atomic

from . import datacard, panels, plots, provenance, results
from .svg import number

TEMPLATES = Path(__file__).parent / "templates"

#: The page's sections: file in `templates/sections/` and heading.
SECTIONS = (
    ("results", "Results"),
    ("classes", "Classes"),
    ("speakers", "Speakers"),
    ("calibration", "Calibration"),
    ("traces", "Valence and arousal"),
    ("missing", "Missing modalities"),
    ("learning", "Learning curves"),
    ("data", "Data"),
    ("quarantine", "Quarantine"),
    ("streams", "Streams"),
    ("parameters", "Parameters"),
)

#: Rows of the speaker table.
SPEAKERS = 40


def render(
    params: Params,
    data: str | Path = Path("data"),
    reports: str | Path = Path("reports"),
    features: str | Path = Path("features"),
) -> Path:
    """Write the page from what the stages before left in `data`, `features` and `reports`.

    What a run does not have (classes, speakers, annotations over time) is said in its section.

    Raises:
        StoreError: a file is there but cannot be read.
    """
    reports = Path(reports)
    page = html(params, Path(data), reports, Path(features))
    atomic.write_text(reports / "index.html", page)
    return reports / "index.html"


def html(params: Params, data: Path, reports: Path, features: Path) -> str:
    """The page as text."""
    predictions = results.parquet(reports / "predictions.parquet")
    scores = results.scores(reports)
    streams = provenance.streams(params, features)
    card = datacard.card(data)
    calibration = results.calibration(predictions)
    traced = results.traces(reports)
    classes = [c[2:] for c in predictions.columns if c.startswith("p_")] if predictions is not None else []
    speakers, speaker_metrics = panels.speakers(results.parquet(reports / "per_speaker.parquet"))
    confusion = results.confusion(reports, classes)
    main = next(iter(scores), results.FUSED)
    values = {
        "style": Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        "sections": SECTIONS,
        "recipe": params.recipe,
        "fusion": params.fusion.name,
        "names": sorted(params.streams),
        "corpus": next((v for k, v in card.facts if k == "Corpus"), params.corpus.name) if card else params.corpus.name,
        "summary": summary(params, predictions, card),
        "random": [stream.name for stream in streams if stream.random],
        "leaks": card.leaks if card else [],
        "tiles": panels.tiles(scores, params),
        "scores": scores,
        "metrics": list(dict.fromkeys(m for values in scores.values() for m in values)),
        "panels": panels.variants(scores),
        "comparisons": panels.comparisons(provenance.json_file(reports / "comparisons.json")),
        "confusion": confusion,
        "mistakes": panels.mistakes(confusion),
        "per_class": panels.per_class(provenance.json_file(reports / "per_class.json"), main),
        "speakers": speakers[:SPEAKERS],
        "speakers_more": max(0, len(speakers) - SPEAKERS),
        "speaker_metrics": speaker_metrics,
        "calibration": calibration,
        "reliability": plots.reliability(calibration.bins, calibration.ece) if calibration else "",
        "scatters": panels.scatters(predictions, params),
        "traces": panels.traces(traced[0]) if traced else [],
        "traces_total": traced[1] if traced else 0,
        "trace_keys": panels.TRACE_KEYS,
        "missing": panels.missing(results.csv(reports / "plots" / "missing.csv", ("kept", "mean"))),
        "lacking": lacking(streams),
        "curves": panels.learning(results.csv(reports / "plots" / "history.csv", ("variant", "seed", "epoch"))),
        "card": card,
        "histogram": plots.bars(
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
        "protocol": protocol(params),
        "quarantine": provenance.quarantine(data, streams),
        "streams": streams,
        "parameters": dump(params),
    }
    return _environment().get_template("report.html").render(values)


def summary(params: Params, predictions: pl.DataFrame | None, card: datacard.Card | None) -> str:
    """One sentence under the heading: how much data, how many runs."""
    parts = [f"{value} {name.lower()}" for name, value in (card.facts if card else ()) if name in ("Clips", "Speakers")]
    table = results.fused(predictions)
    if table is not None:
        tested, seeds, folds = (table[name].n_unique() for name in ("id", "seed", "fold"))
        parts += [_plural(tested, "held-out clip"), _plural(seeds, "seed")] + ([f"{folds} folds"] if folds > 1 else [])
    return " · ".join([*parts, protocol(params)])


def protocol(params: Params) -> str:
    """The protocol in words."""
    spec = params.protocol
    return {
        "official": "official split",
        "split": f"one split grouped by {spec.group}",
        "kfold": f"{spec.folds} folds grouped by {spec.group}",
        "leave_one_out": f"leave one {spec.group} out",
    }[spec.kind]


def lacking(streams: Iterable[provenance.StreamFacts]) -> str:
    """How many clips lack which stream in this corpus."""
    short = [f"{s.name} {s.missing + s.failed} of {s.ok + s.missing + s.failed}" for s in streams if s.missing + s.failed]
    return (
        f"Clips without a stream in this corpus: {', '.join(short)}." if short else "In this corpus every clip has every stream."
    )


def dump(params: Params) -> str:
    """The parameters as YAML, without `run`."""
    text = io.StringIO()
    writer = YAML()
    writer.default_flow_style = False
    writer.width = 110
    writer.dump(params.model_dump(mode="json", exclude={"run"}), text)
    return text.getvalue()


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters |= {
        "num": number,
        "title_of": results.title,
        "less": results.less_is_better,
        "signed": lambda value, digits=3: "–" if value is None else ("+" if value > 0 else "") + number(value, digits),
    }
    return made
