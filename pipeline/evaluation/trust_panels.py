"""What the page shows of how far its figures can be trusted: rows and drawings from what `trust` and `robustness` left."""

from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl
from markupsafe import Markup

from pipeline import metrics

from . import results, trust_plots
from .plots import Bin
from .provenance import read_json
from .svg import format_number

#: Rows of the table of mistakes, and letters of what was said in them.
WORST, EXCERPT = 12, 90

COMMAND = "<code>python -m pipeline robustness</code>"
KINDS = {
    "noise": ("White noise on the sound", "dB of signal over noise"),
    "blur": ("Blurred pictures", "deviation of the blur, of the shorter side"),
    "block": ("Pictures partly covered", "share of the picture under a grey block"),
}


def show_scaled(predictions: pl.DataFrame | None) -> dict | None:
    """Bins after temperature scaling, and the temperatures: least, median and greatest over runs; None where none was fitted."""
    table = results.select_fused(predictions)
    if table is None or "temperature" not in table.columns or table["temperature"].null_count() or "truth" not in table.columns:
        return None
    classes = [name[2:] for name in table.columns if name.startswith("p_")]
    place = {name: i for i, name in enumerate(classes)}
    truth = [place.get(name, -1) for name in table["truth"].to_list()]
    if max(truth, default=-1) < 0:
        return None
    scaled = metrics.temper(table.select(f"p_{name}" for name in classes).to_numpy(), table["temperature"].to_numpy())
    bins = [Bin(b["confidence"], b["accuracy"], int(b["count"])) for b in metrics.calibration(truth, scaled)[1]]
    found = table.unique(["fold", "seed"])["temperature"]
    return {"bins": bins, "least": found.min(), "median": found.median(), "most": found.max(), "runs": len(found)}


def show_selective(table: pl.DataFrame | None) -> list[dict]:
    """A drawing per metric: how right the model is on the clips it is surest of."""
    if table is None:
        return []
    result = []
    for metric in table["metric"].unique(maintain_order=True):
        rows = table.filter(pl.col("metric") == metric).to_dicts()
        found = [(row["coverage"], value) for row in rows if (value := results.read_interval(row)) is not None]
        title = results.name_metric(metric)
        if found:
            xs, values = zip(*found, strict=True)
            result.append(
                {"title": title, "svg": trust_plots.draw_band(xs, values, "share of clips answered, surest first", title)}
            )
    return result


def show_worth(found: object) -> dict:
    """Shapley values as rows of a table: a row per stream, UAR first, then a column per class; or `reason`."""
    if not isinstance(found, dict):
        return {"reason": "Not measured in this run: reports/trust.json is not there."}
    if "reason" in found:
        return found
    rows = []
    for name in found["streams"]:
        values = [results.read_interval(value) for value in found["recall"][name].values()]
        rows.append({"name": name, "uar": results.read_interval(found["uar"][name]), "recall": values})
    most = max((abs(v.mean) for row in rows for v in [row["uar"], *row["recall"]] if v), default=0) or 1
    ends = {name: results.read_interval(found[name]) for name in ("none", "full")}
    return {"rows": rows, "classes": list(next(iter(found["recall"].values()), {})), "most": most, **ends}


def show_shares(predictions: pl.DataFrame | None) -> dict | None:
    """How much the fusion lets each stream count: (all clips, then by true class) × stream; None where it has no shares."""
    table = results.select_fused(predictions)
    names = [name for name in (table.columns if table is not None else ()) if name.startswith("share_")]
    if table is None or not names or all(table[name].null_count() == len(table) for name in names):
        return None
    rows = [{"name": "all clips", "shares": [table[name].mean() for name in names]}]
    if "truth" in table.columns:
        known = table.drop_nulls("truth").group_by("truth").agg(pl.col(names).mean()).sort("truth")
        rows += [{"name": row["truth"], "shares": [row[name] for name in names]} for row in known.to_dicts()]
    return {"streams": [name.removeprefix("share_") for name in names], "rows": rows}


def show_worst(predictions: pl.DataFrame | None, data: Path) -> list[dict]:
    """The clips whose true class has the least probability, mean over seeds, of those decided wrongly."""
    table = results.select_fused(predictions)
    classes = [name[2:] for name in (table.columns if table is not None else ()) if name.startswith("p_")]
    if table is None or not classes or "truth" not in table.columns:
        return []
    means = (
        table.filter(pl.col("truth").is_in(classes))
        .group_by("id", "truth")
        .agg(pl.col(f"p_{name}").mean() for name in classes)
        .sort("id")
    )
    rows = []
    for row in means.to_dicts():
        chances = {name: row[f"p_{name}"] for name in classes}
        predicted = max(classes, key=chances.__getitem__)
        if predicted != row["truth"]:
            rows.append({**{k: row[k] for k in ("id", "truth")}, "predicted": predicted, "sure": chances[predicted]})
            rows[-1]["true"] = chances[row["truth"]]
    rows = sorted(rows, key=lambda row: (row["true"], row["id"]))[:WORST]
    said = _read_texts(data, [row["id"] for row in rows])
    return [{**row, "said": said.get(row["id"], "")} for row in rows]


def _read_texts(data: Path, ids: list[str]) -> dict[str, str]:
    """What was said in these clips, as it was written down, else as it was recognised; shortened."""
    found: dict[str, str] = {}
    for name in ("transcripts.parquet", "manifest.parquet"):
        table = results.read_parquet(data / name)
        if table is not None and {"id", "text"} <= set(table.columns):
            found |= dict(table.filter(pl.col("id").is_in(ids)).select("id", "text").drop_nulls().iter_rows())
    lines = {clip: " ".join(text.split()) for clip, text in found.items()}
    return {clip: line if len(line) <= EXCERPT else line[: EXCERPT - 1] + "…" for clip, line in lines.items()}


def show_difficulty(table: pl.DataFrame | None, fit: object) -> dict:
    """The drawing of UAR by difficulty and what the line says; or `reason`."""
    if not isinstance(fit, dict):
        return {"reason": "Not measured in this run: reports/trust.json is not there."}
    if "reason" in fit or table is None:
        return {"reason": fit.get("reason", "plots/difficulty.csv is empty.")}
    says = "every bucket is as hard or fares as well as the next: no line"
    if fit["r"] is not None:
        p = "p < 0.001" if fit["p"] < 0.001 else f"p = {format_number(fit['p'])}"
        says = f"Pearson r = {format_number(fit['r'], 2)}, {p}, slope {format_number(fit['slope'], 2)}"
    x, y, fitted = (table[name].to_list() for name in ("difficulty", "uar", "fitted"))
    svg = trust_plots.draw_fit(x, y, fitted, "distance from the class' mean", "UAR", says)
    return {"svg": svg, "says": says, "buckets": len(table), "clips": fit["clips"], "dimensions": fit["dimensions"]}


def tell_probe(found: object) -> str:
    """One sentence: how much of the speaker is left in the vector that decides."""
    asked = "How much of the speaker is left in the vector that decides"
    if not isinstance(found, dict):
        return f"{asked} was not measured: reports/probe.json is not there."
    if "reason" in found:
        return f"{asked} was not measured. {found['reason']}"
    before, after = (_percent(results.read_interval(found[name])) for name in ("before", "after"))
    return (
        f"{asked}: a linear probe names the speaker of {after} of the clips from it, of {before} from the features that go in; "
        f"guessing names {100 * found['chance']:.1f} %. It learns from one half of the clips of {found['speakers']} training "
        "speakers and is asked of the other."
    )


def _percent(value: results.Interval | None) -> str:
    if value is None:
        return "–"
    bounds = f" ({100 * value.low:.1f} – {100 * value.high:.1f})" if value.bounded else ""
    return f"{100 * value.mean:.1f} %{bounds}"


def show_robustness(reports: Path) -> dict:
    """A drawing per kind of disturbance, and the rows of the table; or `reason`."""
    found, figures = read_json(reports / "robustness.json"), reports / "metrics.json"
    if not isinstance(found, dict):
        return {"reason": Markup(f"Not measured: {COMMAND} encodes disturbed clips and shows them here.")}
    if not figures.is_file() or found["evaluated"] != hashlib.sha256(figures.read_bytes()).hexdigest():
        return {"reason": Markup(f"Measured for other models than these: run {COMMAND} again.")}
    title, rows = results.name_metric(found["metric"]), found["figures"]
    for row in rows:
        row |= {"value": results.read_interval(row), "gap": results.read_interval(row.get("difference"))}
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    plain = {row["variant"]: row["value"] for row in rows if row["kind"] is None}
    panels = []
    reaches = {kind: found["reaches"][kind] for kind in KINDS if kind in found["reaches"]}
    for kind in reaches:
        levels = list(dict.fromkeys(row["level"] for row in rows if row["kind"] == kind))
        at = {(row["variant"], row["level"]): row["value"] for row in rows if row["kind"] == kind}
        curves = {name: [plain[name], *(at[name, level] for level in levels)] for name in variants}
        heading, axis = KINDS[kind]
        steps = ["as it is", *(name_level(kind, level) for level in levels)]
        panels.append({"title": heading, "svg": trust_plots.draw_steps(steps, curves, axis, title)})
    for row in rows:
        row["name"] = "as it is" if row["kind"] is None else f"{row['kind']}, {name_level(row['kind'], row['level'])}"
    keys = [{"style": f"s{rank}", "name": name} for rank, name in enumerate(variants)]
    about = {"clips": found["clips"], "seed": found["seed"], "reaches": reaches}
    return {"panels": panels, "rows": rows, "keys": keys, "title": title, **about}


def name_level(kind: str, level: float) -> str:
    """A level for people.

    >>> name_level("noise", 0.0), name_level("block", 0.25)
    ('0 dB', '25 %')
    """
    return f"{level:g} dB" if kind == "noise" else f"{100 * level:g} %"
