"""What made the figures: commit, versions, seeds, and what differs from the run before."""

from __future__ import annotations

import json
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import polars as pl

from pipeline.params import Params
from pipeline.params.base import flatten
from pipeline.storage import atomic

from .sums import Groups

#: Libraries whose arithmetic is in the figures.
LIBRARIES = ("torch", "numpy", "scipy", "polars", "transformers")

ROOT = Path(__file__).parents[2]


def describe_run(
    params: Params, predictions: pl.DataFrame, groups: Groups, headlines: dict[str, float | str | None], last: Path
) -> dict[str, object]:
    """The content of `run.json`.

    Args:
        last: file that outlives runs. It holds this run and the latest one with other parameters or figures, so that
            evaluating the same again compares with the same run before.
    """
    flat = flatten(params.model_dump(mode="json", exclude={"run"}))
    now = {"params": flat, "summary": headlines}
    kept = _read(last)
    before = _entry(kept.get("before" if kept.get("now") == now else "now"))
    atomic.write_json(last, {"now": now, "before": before})
    return {
        "commit": find_commit(),
        "python": platform.python_version(),
        "versions": {name: found for name in LIBRARIES if (found := _version(name))},
        "seeds": sorted(predictions["seed"].unique().to_list()),
        "folds": sorted(predictions["fold"].unique().to_list()),
        "unit": groups.unit,
        "groups": len(groups.names) - groups.alone,
        "alone": groups.alone,
        "transductive": headlines.get("transductive"),
        "before": before and {"summary": before["summary"], "changed": differences(before["params"], flat)},
    }


def differences(before: dict[str, object], after: dict[str, object]) -> list[list[object]]:
    """[key, before, after] of each parameter that differs; None where it was not there.

    >>> differences({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4})
    [['b', 2, 3], ['c', None, 4]]
    """
    names = sorted({*before, *after})
    return [[name, before.get(name), after.get(name)] for name in names if before.get(name) != after.get(name)]


def find_commit(folder: Path = ROOT) -> str | None:
    """Commit of the code, with `, changed` when files of the package differ from it; None outside git."""
    found = _git(folder, "rev-parse", "HEAD")
    if found is None or _git(folder, "ls-files", "--error-unmatch", "pipeline/__init__.py") is None:
        return None
    return found[:12] + (", changed" if _git(folder, "status", "--porcelain", "--", "pipeline") else "")


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _read(path: Path) -> dict:
    """What was kept; nothing when there is none or when it is damaged: it only says what to compare with."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _entry(value: object) -> dict | None:
    return value if isinstance(value, dict) and all(isinstance(value.get(k), dict) for k in ("params", "summary")) else None
