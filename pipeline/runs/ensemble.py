"""The ensemble: a variant without runs of its own, the mean of what other runs predict.

Which variants speak in it and what each is worth stands beside the runs in `ensemble.json`, so that evaluation and prediction
average alike. Networks that start from other seeds and select on other clips err differently, and their mean errs less than
they do (Lakshminarayanan, Pritzel and Blundell 2017).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.storage.atomic import write_json

from .folders import ENSEMBLE, FUSED, LINEAR, find_seeds, list_runs

SHARES = "ensemble.json"


def choose_shares(linear: bool) -> dict[str, float]:
    """Variant → its share of the mean: all to the networks, or half to them and half to the linear model."""
    return {FUSED: 0.5, LINEAR: 0.5} if linear else {FUSED: 1.0}


def write_shares(root: str | Path, shares: Mapping[str, float] | None) -> None:
    """Put the shares beside the runs below `root`; None = there is no ensemble."""
    path = Path(root) / SHARES
    if shares is None:
        path.unlink(missing_ok=True)
    else:
        write_json(path, dict(shares))


def read_shares(root: str | Path) -> dict[str, float] | None:
    """Variant → its share, None where there is no ensemble."""
    path = Path(root) / SHARES
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def find_members(root: str | Path, variant: str = FUSED, fold: int = 0) -> dict[Path, float]:
    """The run folders of a variant and fold, and what each is worth; together 1. Seeds of one variant are worth the same.

    Raises:
        StoreError: nothing was trained, no such variant or fold, or no ensemble was asked for.
    """
    shares: Mapping[str, float] | None = {variant: 1.0}
    if variant == ENSEMBLE:
        shares = read_shares(root)
        if shares is None and list_runs(root):
            raise StoreError(f"{root} was trained without an ensemble; set training.ensemble and run `dvc repro train`.")
    found: dict[Path, float] = {}
    for member, share in (shares or {FUSED: 1.0}).items():
        folders = find_seeds(root, member, fold)
        found |= {folder: share / len(folders) for folder in folders}
    return found
