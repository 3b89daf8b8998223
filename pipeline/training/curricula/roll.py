"""The training clips as a curriculum is shown them."""

from __future__ import annotations

import hashlib

import polars as pl
import torch
from torch import Tensor

from pipeline.errors import ParamsError
from pipeline.params import Params
from pipeline.training.data.dataset import Dataset

from .base import AFFECT, Roll, read_curriculum


def call_roll(data: Dataset, rows: Tensor, batch: int, seed: int) -> Roll:
    """The clips at `rows`. What frame-level annotations say of a dimension stands in for what the manifest lacks."""
    table = data.table[rows.cpu().numpy()]
    affect = {}
    for name in AFFECT:
        values = torch.from_numpy(table[name].cast(pl.Float64).fill_null(float("nan")).to_numpy().copy()).to(rows.device)
        if name in data.dimension_names:
            values = values.where(values.isfinite(), data.dimensions[rows, data.dimension_names.index(name)].double())
        affect[name] = values
    return Roll(table, data.classes, data.emotion[rows], affect, batch, seed)


def fingerprint(params: Params, data: Dataset) -> str | None:
    """Hash of what the curriculum may read beside the targets: training rows of the manifest, and its files.

    Raises:
        ParamsError: a file is not there.
    """
    curriculum = read_curriculum(params.training.curriculum)
    if curriculum is None:
        return None
    rows = data.table[data.rows("train", "val").cpu().numpy()]
    total = hashlib.sha256(rows.write_json().encode())
    for path in curriculum.files:
        if not path.is_file():
            raise ParamsError(f"training.curriculum.options: {path} is not there.")
        total.update(path.read_bytes())
    return total.hexdigest()
