"""Tables of ready-made features: csv, tsv and parquet, one or several rows per clip."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.errors import ParamsError, WeightsError, one_of

from .file_layout import IDS, Features, Layout, Rows


def read(path: Path) -> pl.DataFrame:
    """The table; text stays text, so that an id such as 007 does not become the number 7."""
    if path.suffix.lower() == ".parquet":
        return pl.read_parquet(path)
    table = pl.read_csv(path, separator="\t" if path.suffix.lower() == ".tsv" else ",", infer_schema=False)
    return table.rename({name: name.strip() for name in table.columns})


def of_clip(path: Path, layout: Layout) -> Rows:
    """All rows of a table that is one clip's own."""
    table = read(path)
    return _matrix(path, table, _numeric(path, table, layout, None)), _times(path, table, layout)


def by_clip(path: Path, layout: Layout) -> Features:
    """The rows of a table, gathered by its id column.

    Raises:
        ParamsError: a column that is not there or holds no numbers.
        WeightsError: no column holds numbers.
    """
    table = read(path)
    column = layout.id_column or next((name for name in IDS if name in table.columns), table.columns[0])
    if column not in table.columns:
        raise one_of(f"column of {path.name}", column, table.columns)
    names = _numeric(path, table, layout, column)
    values, times = _matrix(path, table, names), _times(path, table, layout)
    places: dict[str, list[int]] = {}
    for position, clip in enumerate(table[column].cast(pl.String).to_list()):
        if clip is not None:
            places.setdefault(clip.strip(), []).append(position)

    def rows(at: list[int]) -> Rows:
        return values[at], None if times is None else times[at]

    return Features({clip: partial(rows, at) for clip, at in places.items()}, names)


def _numeric(path: Path, table: pl.DataFrame, layout: Layout, ids: str | None) -> list[str]:
    apart = {ids, layout.start_column, layout.end_column}
    names = list(layout.columns or [name for name in table.columns if name not in apart])
    if unknown := [name for name in names if name not in table.columns]:
        raise one_of(f"column of {path.name}", unknown[0], table.columns)
    lists = [name for name in names if table[name].dtype in (pl.List, pl.Array)]
    if len(lists) > 1 or (lists and layout.columns and len(names) > 1):
        raise ParamsError(f"{path} has list columns {', '.join(lists)}; name one of them alone in options.columns.")
    if lists:
        return lists
    fit = [name for name in names if _is_numeric(table[name])]
    if layout.columns and len(fit) < len(names):
        raise ParamsError(f"{path}: column {next(n for n in names if n not in fit)!r} does not hold numbers.")
    if not fit:
        raise WeightsError(f"{path} has no column of numbers beside {ids!r}.")
    return fit


def _is_numeric(column: pl.Series) -> bool:
    if column.dtype != pl.String:
        return column.dtype.is_numeric()
    given = column.replace("", None)
    return given.cast(pl.Float64, strict=False).null_count() == given.null_count() < len(given)


def _matrix(path: Path, table: pl.DataFrame, names: list[str]) -> np.ndarray:
    if table[names[0]].dtype in (pl.List, pl.Array):
        vectors = table[names[0]].to_list()
        widths = {len(vector) for vector in vectors if vector is not None}
        if len(widths) != 1:
            raise WeightsError(f"{path}: the vectors of column {names[0]!r} differ in length ({sorted(widths)[:4]}).")
        none = [np.nan] * widths.pop()
        return np.array([none if vector is None else vector for vector in vectors], np.float32)
    return table.select(pl.col(names).cast(pl.Float32, strict=False)).fill_null(float("nan")).to_numpy()


def _times(path: Path, table: pl.DataFrame, layout: Layout) -> np.ndarray | None:
    start, end = layout.start_column, layout.end_column
    for name in (start, end):
        if name and name not in table.columns:
            raise one_of(f"column of {path.name}", name, table.columns)
    if not start:
        return None
    first = table[start].cast(pl.Float64).to_numpy()
    return np.stack([first, table[end].cast(pl.Float64).to_numpy() if end else first], 1)
