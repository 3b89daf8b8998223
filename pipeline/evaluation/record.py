"""What made the figures: commit, versions, seeds, and what differs from the run before."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import polars as pl

from pipeline.params import Params
from pipeline.params.base import flatten

from .last import compare_with_last, exchange
from .sums import Groups

#: Libraries whose arithmetic is in the figures.
LIBRARIES = ("torch", "numpy", "scipy", "polars", "transformers")

ROOT = Path(__file__).parents[2]


def describe_run(
    params: Params, predictions: pl.DataFrame, groups: Groups, headlines: dict[str, float | str | None], last: Path
) -> dict[str, object]:
    """The content of `run.json`.

    Args:
        last: see `last.exchange`.
    """
    flat = flatten(params.model_dump(mode="json", exclude={"run"}))
    made = {"commit": find_commit(), "python": platform.python_version(), "versions": _list_versions()}
    before = exchange({"params": flat, "summary": headlines, **made}, predictions, last)
    return {
        **made,
        "seeds": sorted(predictions["seed"].unique().to_list()),
        "folds": sorted(predictions["fold"].unique().to_list()),
        "unit": groups.unit,
        "groups": len(groups.names) - groups.alone,
        "alone": groups.alone,
        "transductive": headlines.get("transductive"),
        "before": before
        and {
            "summary": before["summary"],
            "changed": differences(before["params"], flat),
            "made": differences(_tell_made(before), _tell_made(made)) if before.get("versions") else [],
            **compare_with_last(predictions, params.training.select, last),
        },
    }


def _list_versions() -> dict[str, str]:
    return {name: found for name in LIBRARIES if (found := _version(name))}


def _tell_made(run: Mapping[str, object]) -> dict[str, object]:
    """Commit and versions on one level; nothing of a run that did not keep them."""
    versions = run.get("versions")
    told = {"commit of the code": run.get("commit"), "python": run.get("python")}
    return (told | versions) if isinstance(versions, dict) else {}


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
