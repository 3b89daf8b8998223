"""What is said in words: of the ensemble on the page, of the figures at the end in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.runs.folders import ENSEMBLE, FUSED, LINEAR, WHOLE

from . import panels, results
from .intervals import Interval
from .provenance import read_json
from .svg import format_number


def tell_ensemble(record: Mapping[str, object], rotated: bool) -> str:
    """What the ensemble is, in a sentence; empty where there is none."""
    members = record.get("ensemble")
    if not isinstance(members, dict):
        return ""
    count = members["networks"]
    who = "one network" if count == 1 else f"{count} networks"
    if rotated and count != 1:
        who += " that select on one validation part after the other"
    mean = f"half the mean of {who}, half the linear model" if members["linear"] else f"the mean of {who}"
    return f"The ensemble is {mean}: one prediction per clip, so its interval draws no seeds."


def judge_ensemble(found: object) -> str:
    """One sentence: what the ensemble has over the linear model, with its paired interval; empty when either is not there."""
    one = found.get(ENSEMBLE) if isinstance(found, dict) else None
    over = one.get("over_linear") if isinstance(one, dict) else None
    row = next(iter(panels.show_comparisons({LINEAR: {**one, **over}})), None) if isinstance(one, dict) and over else None
    if row is None or row["difference"] is None:
        return ""
    gap: Interval = row["difference"]
    told = f"Ensemble less linear model, {row['metric']}: {_sign(gap.mean)}"
    if not gap.bounded:
        return f"{told}; with so few groups that cannot be told from chance."
    told += f" (95 % CI {_sign(gap.low)} to {_sign(gap.high)}, p {row['p']})"
    verdict = {"no": "not shown", f"{FUSED} is better": "the ensemble is better"}.get(row["says"], "the linear model is better")
    return f"{told}: {verdict}."


def tell_headlines(reports: Path) -> list[str]:
    """The figures of `summary.json` in a few lines; none when nothing was evaluated."""
    found = read_json(reports / "summary.json")
    if not isinstance(found, dict):
        return []
    first = next((name.removesuffix("_low") for name in found if name.endswith("_low")), None)
    lines, told = [], {first}
    if first and first in found:
        low, high = found[f"{first}_low"], found[f"{first}_high"]
        bounds = "no interval" if low is None else f"95 % CI {format_number(low)} to {format_number(high)}"
        beside = {name: f"{first}_{name}" for name in (*WHOLE[1:], "best_alone") if f"{first}_{name}" in found}
        others = [f"{name.replace('_', ' ')} {format_number(found[key])}" for name, key in beside.items()]
        told |= {f"{first}_low", f"{first}_high", *beside.values()}
        lines.append("; ".join([f"{results.name_metric(first)} {format_number(found[first])} ({bounds})", *others]))
    rest = {name: value for name, value in found.items() if name not in told and isinstance(value, (int, float))}
    lines += ["; ".join(f"{results.name_metric(name)} {format_number(value)}" for name, value in rest.items())] if rest else []
    if unit := found.get("transductive"):
        lines.append(f"Transductive: features normalised per {unit} with unlabelled test clips.")
    return lines


def _sign(value: float) -> str:
    """With its sign, also when that is plus."""
    return ("+" if value > 0 else "") + format_number(value)
