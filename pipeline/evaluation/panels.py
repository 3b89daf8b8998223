"""What the sections of the report show, from the tables of `results.py`: rows and drawings, ready to place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from pipeline.params import Params
from pipeline.runs.folders import ENSEMBLE, FUSED, LINEAR, WHOLE

from . import plots, results
from .intervals import Interval
from .plots import Line
from .provenance import tell_p
from .svg import format_number

#: Baseline → metric → value.
Floors = Mapping[str, Mapping[str, float]]

TRACE_KEYS = ({"style": "truth", "name": "truth"}, {"style": "s0", "name": "prediction"})


def show_tiles(scores: dict[str, dict[str, Interval]], params: Params) -> list[dict[str, str]]:
    """The numbers at the top: the selecting metric; it of ensemble, linear model and best stream alone; then the rest."""
    if not scores:
        return []
    main = next(iter(scores))
    found = scores[main]
    first = results.choose_headline(found, params.training.select)
    result = [_tile(main, first, found[first])]
    for name in (ENSEMBLE, LINEAR):
        if name in scores and first in scores[name]:
            result.append(_tile(name, first, scores[name][first]))
    others = [(v[first].mean, name) for name, v in scores.items() if name not in (main, *WHOLE) and first in v]
    if others:
        best = (min if results.less_is_better(first) else max)(others)[1]
        result.append(_tile(f"best alone: {best}", first, scores[best][first]))
    wanted = [m for m in ("uar", "valence_ccc", "arousal_ccc", "dominance_ccc", "weighted_f1", "ece") if m in found]
    result += [_tile(main, m, found[m]) for m in wanted if m != first]
    return result[:4]


def _tile(variant: str, metric: str, value: Interval) -> dict[str, str]:
    under = "no interval"
    if value.bounded:
        under = f"95 % CI {format_number(value.low)} – {format_number(value.high)}"
    elif value.ranged:
        under = f"no interval; single ones from {format_number(value.least)} to {format_number(value.most)}"
    return {"name": f"{results.name_metric(metric)} · {variant}", "value": format_number(value.mean), "under": under}


def show_variants(scores: dict[str, dict[str, Interval]], floors: Floors) -> list[dict]:
    """One drawing per leading metric: every variant with its interval, and chance and majority as lines."""
    wanted = ("uar", "weighted_f1", "valence_ccc", "arousal_ccc", "dominance_ccc", "frame_ccc")
    known = {m for values in scores.values() for m in values}
    chosen = [m for m in wanted if m in known] or sorted(known)[:2]
    result = []
    for metric in chosen:
        rows = {variant: values[metric] for variant, values in scores.items() if metric in values}
        title = results.name_metric(metric)
        lines = pick_floors(floors, metric)
        result.append({"title": title, "svg": plots.draw_intervals(rows, title, main=list(scores)[:1], floors=lines)})
    return result


def pick_floors(floors: Floors, metric: str) -> dict[str, float]:
    """Chance and majority of one metric, in one name where they are the same."""
    found = {name: values[metric] for name, values in floors.items() if metric in values}
    if len(found) > 1 and len({round(value, 3) for value in found.values()}) == 1:
        return {" = ".join(found): next(iter(found.values()))}
    return found


def show_comparisons(found: object) -> list[dict]:
    """Rows of the table of differences, from `comparisons.json`: variant → metric, fused, other, difference and its bounds, p.

    A difference is called shown when both the interval, which draws speakers and seeds, and the test agree.
    """
    rows = []
    for name, one in sorted(found.items()) if isinstance(found, dict) else ():
        p = one.get("p")
        apart = results.read_interval({k.removeprefix("difference_").replace("difference", "mean"): v for k, v in one.items()})
        shown = apart is not None and p is not None and p < 0.05 and (apart.low > 0 or apart.high < 0)
        better = apart is not None and (apart.mean > 0) != results.less_is_better(one["metric"])
        rows.append(
            {
                "name": name,
                "metric": results.name_metric(one["metric"]),
                "fused": results.read_interval(one.get("fused")),
                "other": results.read_interval(one.get("other")),
                "difference": apart,
                "says": ("fused is better" if better else f"{name} is better") if shown else "no",
                "p": tell_p(p),
            }
        )
    return rows


def judge_network(rows: Sequence[dict]) -> str:
    """One sentence: is the network worth its trouble beside the linear model? Empty when that was not fitted."""
    row = next((one for one in rows if one["name"] == LINEAR), None)
    if row is None or row["difference"] is None:
        return ""
    gap = row["difference"]
    told = f"{row['metric']} differs by {format_number(abs(gap.mean))}"
    if not gap.bounded:
        return f"Is the network worth it? {told}; with so few groups that cannot be told from chance."
    if row["says"] == "no":
        return f"Is the network worth it? Not shown: {told}, which other speakers and seeds may undo; the linear model would do."
    if row["says"] == "fused is better":
        return f"Is the network worth it? Yes: {told} in its favour."
    return f"Is the network worth it? No: {told} in favour of the linear model; take that, or better features."


def show_classes(found: object, variant: str) -> list[dict]:
    """Rows of the class table of one variant, best F1 first."""
    chosen = found.get(variant, {}) if isinstance(found, dict) else {}
    rows = [
        {
            "name": name,
            "support": values.get("support", "–"),
            **{key: results.read_interval(values.get(key)) for key in ("precision", "recall", "f1")},
        }
        for name, values in chosen.items()
    ]
    return sorted(rows, key=lambda row: (-(row["f1"].mean if row["f1"] else -1), row["name"]))


def show_mistakes(confusion: results.Confusion | None, count: int = 8) -> list[dict]:
    """The most frequent confusions, as shares of the true class."""
    if confusion is None:
        return []
    names = range(len(confusion.classes))
    pairs = sorted(
        (-confusion.shares[i][j], -confusion.counts[i][j], confusion.classes[i], confusion.classes[j])
        for i in names
        for j in names
        if i != j and confusion.counts[i][j]
    )
    return [
        {"truth": truth, "predicted": predicted, "share": -share, "count": -number}
        for share, number, truth, predicted in pairs[:count]
    ]


def show_speakers(table: pl.DataFrame | None) -> tuple[list[dict], list[str]]:
    """(rows of the fused variant, hardest first; metrics shown): sorted by what a speaker may reach at most, `at_most`."""
    table = results.select_fused(table)
    if table is None or table.is_empty():
        return [], []
    metrics = [c for c in table.columns if c not in ("variant", "speaker", "clips", "at_most")]
    if not metrics:
        return [], []
    table = table.with_columns(pl.col(metrics).cast(pl.Float64).fill_nan(None))
    order = [name for name in ("at_most", metrics[0], "speaker") if name in table.columns]
    return table.sort(*order, nulls_last=True).to_dicts(), metrics


def show_scatters(predictions: pl.DataFrame | None, params: Params) -> list[dict]:
    """Prediction against truth per clip, one drawing per dimension."""
    result = []
    for name in params.task.dimensions:
        if found := results.select_points(predictions, name):
            title = name.capitalize()
            result.append({"title": title, "svg": plots.draw_scatter(*found, title), "count": len(found[0])})
    return result


def show_traces(chosen: Sequence[results.Trace], scale: tuple[float, float] = (-1, 1)) -> list[dict]:
    """One drawing per clip and dimension, in the units of the labels.

    Args:
        scale: ends of the corpus' own scale, see `submission.read_scale`.
    """
    result = []
    low, high = scale
    half = (high - low) / 2

    def in_units(values: Sequence[float | None]) -> list[float | None]:
        return [None if value is None else low + (value + 1) * half for value in values]

    for trace in chosen:
        names = [n.removeprefix("truth_") for n in trace.values if n.startswith("truth_")]
        svgs = [
            plots.draw_lines(
                [
                    Line(trace.time, in_units(trace.values[f"truth_{n}"]), "truth"),
                    Line(trace.time, in_units(trace.values[f"pred_{n}"]), "s0"),
                ],
                "seconds from clip start" if n == names[-1] else "",
                n,
                f"{n} of {trace.id} over {len(trace.time)} instants, truth and prediction",
                y_range=scale,
                height=190 if n == names[-1] else 172,
                marks=((low + high) / 2,),
                spread=None if (spread := trace.values.get(f"sd_{n}")) is None else [s and s * half for s in spread],
            )
            for n in names
        ]
        band = any(n.startswith("sd_") for n in trace.values)
        result.append({"id": trace.id, "place": trace.place, "error": trace.error * half, "svgs": svgs, "band": band})
    return result


def show_missing(table: pl.DataFrame | None, floors: Floors) -> list[dict]:
    """The fused model, and the ensemble where there is one, by streams kept at test time: a drawing for each."""
    if table is None:
        return []
    if "variant" not in table.columns:
        table = table.with_columns(variant=pl.lit(FUSED))
    result = []
    for (variant,), part in table.group_by("variant", maintain_order=True):
        found = {row["kept"].replace("+", " + "): results.read_interval(row) for row in part.to_dicts()}
        rows = {name: interval for name, interval in found.items() if interval is not None}
        most = max((name.count("+") for name in rows), default=0)
        main = [name for name in rows if name.count("+") == most]
        metric = str(part["metric"][0]) if "metric" in part.columns else ""
        title = results.name_metric(metric) if metric else "score"
        if rows:
            svg = plots.draw_intervals(rows, title, main=main, floors=pick_floors(floors, metric))
            result.append({"title": title, "variant": variant, "svg": svg})
    return result
